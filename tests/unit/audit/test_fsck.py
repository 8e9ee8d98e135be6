"""A log's folder, file by file: what is whole is sound, what was changed is named, what harms nobody is a note.

The log has three bundles and a tile above them, an older partial of each, and older checkpoints.
"""

from __future__ import annotations

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from sfrl_secure.audit.fsck import check_log_folder
from sfrl_secure.audit.fsck_report import FsckReport
from sfrl_secure.audit.source import FolderLog
from sfrl_secure.audit.structure import check_structure
from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.ids import sha256
from sfrl_secure.storage.index import SqliteStatements
from sfrl_secure.storage.journal import FolderJournal
from sfrl_secure.storage.log_store import NOTHING_SIGNED
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.policy import TrustPolicy, parse_trust_policy
from sfrl_secure.translog.tiles import Bundle, Tile, encode_bundle, tile_of_tree
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.entries import parse_entry

from ..replay.builder import Writer, sha

SIZE = 530
VECTORS = Path(os.environ.get("SFRL_VECTORS", Path(__file__).parents[3] / ".." / "shared" / "vectors"))
TESSERA = b"""\
log example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx
quorum none
"""


def tree_of(entries: list[bytes]) -> MerkleTree:
    return MerkleTree(leaf_hash(entry) for entry in entries)


class Copy:
    """A copy of the log, with its journal, that a test may damage."""

    def __init__(self, writer: Writer, folder: Path) -> None:
        self.writer, self.log, self.journal = writer, folder / "log", folder / "journal"

    def check(self, *, journal: bool = False, policy: TrustPolicy | None = None) -> FsckReport:
        told: list[tuple[str, int, int]] = []
        report = check_log_folder(
            self.log,
            policy or self.writer.policy,
            lambda *stage: told.append(stage),
            journal_dir=self.journal if journal else None,
        )
        assert all(0 < done <= total for _, done, total in told)
        return report

    def flip(self, path: str, where: int = -1) -> None:
        raw = bytearray((self.log / path).read_bytes())
        raw[where] ^= 1
        (self.log / path).write_bytes(bytes(raw))

    def put(self, path: str, raw: bytes) -> None:
        (self.log / path).parent.mkdir(parents=True, exist_ok=True)
        (self.log / path).write_bytes(raw)


def with_history(writer: Writer, log: Path) -> None:
    """The partial files of size 300, and checkpoints of some sizes."""
    tree = tree_of(writer.entries)
    for tile in (Tile(0, 1, 44), Tile(1, 0, 1)):
        (log / tile.path).parent.mkdir(parents=True, exist_ok=True)
        (log / tile.path).write_bytes(tile_of_tree(tree, tile))
    bundle = Bundle(1, 44)
    (log / bundle.path).parent.mkdir(parents=True, exist_ok=True)
    (log / bundle.path).write_bytes(encode_bundle(writer.entries[256:300]))
    (log / "checkpoints").mkdir()
    for size in (1, 256, 300, SIZE):
        (log / "checkpoints" / str(size)).write_bytes(writer.checkpoint(size))


def with_journal(writer: Writer, journal: Path, *, first: int = 0, signed: int | None = None) -> None:
    """The journal of the last entries, the last signed note and the statement index."""
    journal.mkdir()
    batches = [writer.entries[at : at + 100] for at in range(0, len(writer.entries), 100)]
    FolderJournal.create(journal / "segments", batches, segment_bytes=10_000)
    opened = FolderJournal(journal / "segments", segment_bytes=10_000)
    opened.drop_before(first)
    opened.close()
    (journal / "signed").write_bytes(NOTHING_SIGNED if signed == 0 else writer.checkpoint(signed, witnesses=[]))
    index = SqliteStatements(journal / "statements.sqlite")
    for position, raw in enumerate(writer.entries):
        index.add(parse_entry(raw).envelope.digest, position)
    index.flush(len(writer.entries))
    index.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Writer, Path]:
    writer = Writer().begin()
    writer.run_round({"r1": {0: 5}, "r2": {0: 6}, "r3": {16: 1}})
    while len(writer.entries) < SIZE:
        writer.count()
    folder = tmp_path_factory.mktemp("whole")
    writer.write(folder)
    with_history(writer, folder / "log")
    with_journal(writer, folder / "journal", first=300)
    return writer, folder


@pytest.fixture
def copy(written: tuple[Writer, Path], tmp_path: Path) -> Copy:
    writer, folder = written
    shutil.copytree(folder, tmp_path / "copy")
    return Copy(writer, tmp_path / "copy")


def only(report: FsckReport) -> tuple[str, int | None]:
    assert (report.verdict, report.exit_code, len(report.problems)) == ("damaged", 1, 1), report.to_text()
    return report.problems[0].path, report.problems[0].index


def noted(report: FsckReport) -> dict[str, str]:
    assert report.verdict == "sound", report.to_text()
    return {each.path: each.what for each in report.notes}


def test_a_whole_folder_is_sound(copy: Copy) -> None:
    report = copy.check()
    assert (report.verdict, report.exit_code) == ("sound", 0), report.to_text()
    assert (report.problems, report.missing, report.notes) == ([], [], [])
    assert (report.size, report.root) == (SIZE, tree_of(copy.writer.entries).root().hex())
    assert (report.older, report.files, report.ahead) == (4, 15, 0)
    assert report.entries_read
    assert report.quorum_met


def test_the_report_is_json_and_text(copy: Copy) -> None:
    report = copy.check(journal=True)
    fields = json.loads(json.dumps(report.to_json()))
    assert (fields["verdict"], fields["older_checkpoints"], fields["journal"]["end_index"]) == ("sound", 4, SIZE)
    text = report.to_text()
    assert text.startswith(f"SOUND: {SIZE} entries")
    assert "quorum both met: w1 at 2025-" in text
    assert f"signed for {SIZE} entries; {SIZE} statements indexed" in text
    copy.flip("tile/0/001")
    assert copy.check().to_text().startswith("DAMAGED: 1 problem\n  tile/0/001: expected the hashes over entries 256")


def test_every_changed_file_is_named(copy: Copy) -> None:
    files = sorted(path for path in copy.log.rglob("*") if path.is_file())
    for path in files:
        whole = path.read_bytes()
        name = str(path.relative_to(copy.log))
        for where in (len(whole) // 2, -30):
            copy.flip(name, where)
            assert only(copy.check())[0] == name
            path.write_bytes(whole)
    assert copy.check().verdict == "sound"


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"\0", lambda raw: b""])
def test_every_file_of_another_length_is_named(copy: Copy, change: Callable[[bytes], bytes]) -> None:
    for path in sorted(path for path in copy.log.rglob("*") if path.is_file()):
        whole = path.read_bytes()
        path.write_bytes(change(whole))
        assert only(copy.check())[0] == str(path.relative_to(copy.log))
        path.write_bytes(whole)


def test_a_changed_entry_is_named_with_its_index(copy: Copy) -> None:
    copy.flip("tile/entries/001")
    assert only(copy.check()) == ("tile/entries/001", 511)


@pytest.mark.parametrize("path", ["checkpoint", "tile/0/000", "tile/0/002.p/18", "tile/1/000.p/2", "tile/entries/001"])
def test_a_file_that_is_needed_and_not_there_is_missing(copy: Copy, path: str) -> None:
    (copy.log / path).unlink()
    report = copy.check()
    assert (report.verdict, report.exit_code, report.problems) == ("missing", 2, [])
    assert [each.path for each in report.missing] == [path]
    headline = report.to_text().splitlines()[0]
    if path == "checkpoint":
        assert headline == "MISSING: without a checkpoint that this trust policy can judge, nothing was checked"
    else:
        assert headline == "MISSING: 1 file is not there or cannot be read; what could be read holds"
    assert "is not there" in report.missing[0].what


@pytest.mark.parametrize("path", ["checkpoint", "tile/1/000.p/2"])
def test_a_file_that_cannot_be_read_is_not_said_to_be_gone(copy: Copy, path: str) -> None:
    # A folder in its place: permissions do not stop root.
    (copy.log / path).unlink()
    (copy.log / path).mkdir()
    report = copy.check()
    assert (report.exit_code, report.missing[0].path) == (2, path)
    assert "cannot be read" in report.missing[0].what


def test_the_report_says_how_far_the_entries_were_read(copy: Copy) -> None:
    assert copy.check().to_json()["entries_checked"] == SIZE
    (copy.log / "tile/1/000.p/2").unlink()
    assert "entries     canonical and chained" in copy.check().to_text()
    (copy.log / "tile/entries/001").unlink()
    report = copy.check()
    assert report.entries_checked == 256
    assert f"entries     the first 256 of {SIZE} were read: canonical and chained" in report.to_text()


def test_one_older_checkpoint_is_one(copy: Copy) -> None:
    for size in (256, 300, SIZE):
        (copy.log / f"checkpoints/{size}").unlink()
    assert "; 1 older checkpoint, consistent" in copy.check().to_text()


def test_older_files_may_go(copy: Copy) -> None:
    shutil.rmtree(copy.log / "checkpoints")
    shutil.rmtree(copy.log / "tile/0/001.p")
    assert copy.check().verdict == "sound"


# The checkpoint and those before it


def test_a_checkpoint_without_the_quorum_is_a_problem(copy: Copy) -> None:
    copy.put("checkpoint", copy.writer.checkpoint(witnesses=["w1"]))
    report = copy.check()
    assert only(report) == ("checkpoint", None)
    assert "NOT met" in report.to_text()


def test_a_checkpoint_of_another_log_is_the_callers_mistake(copy: Copy) -> None:
    with pytest.raises(NotFoundError, match="lists no log of this origin"):
        copy.check(policy=Writer().policy)


def test_an_older_checkpoint_of_another_history_is_equivocation(copy: Copy) -> None:
    kept = copy.writer.entries
    copy.writer.entries = [*kept[:299], b"another"]
    copy.put("checkpoints/300", copy.writer.checkpoint(300))
    copy.writer.entries = kept
    report = copy.check()
    assert only(report) == ("checkpoints/300", None)
    assert "equivocation" in report.problems[0].what


def test_an_older_checkpoint_in_anothers_place_is_a_problem(copy: Copy) -> None:
    copy.put("checkpoints/299", copy.writer.checkpoint(300))
    assert only(copy.check()) == ("checkpoints/299", None)


def test_an_older_checkpoint_without_the_quorum_is_a_note(copy: Copy) -> None:
    copy.put("checkpoints/7", copy.writer.checkpoint(7, witnesses=[]))
    assert list(noted(copy.check())) == ["checkpoints/7"]


def test_an_older_checkpoint_under_keys_that_were_replaced_is_sound(copy: Copy) -> None:
    writer = copy.writer
    new = Writer()
    new.origin = writer.origin
    new._log_keys()
    both = TrustPolicy(
        (type(writer.trust)(writer.origin, (*writer.trust.keys, *new.trust.keys)),),
        writer.policy.witnesses,
        writer.policy.groups,
        writer.policy.quorum,
    )
    assert copy.check(policy=both).exit_code == 2
    new.entries, new.now, new.witnesses = writer.entries, writer.now, writer.witnesses
    copy.put("checkpoint", new.checkpoint())
    report = copy.check(policy=both)
    assert (report.verdict, report.older) == ("sound", 4)
    # Whoever steals them makes another past, and accuses nobody with it.
    writer.entries = [*new.entries[:6], b"another"]
    copy.put("checkpoints/7", writer.checkpoint(7, witnesses=[]))
    writer.entries = new.entries
    report = copy.check(policy=both)
    assert only(report) == ("checkpoints/7", None)
    assert "retired keys alone" in report.problems[0].what


def test_a_log_that_has_lost_entries_is_missing_them(copy: Copy) -> None:
    copy.put("checkpoint", copy.writer.checkpoint(512))
    report = copy.check()
    assert (report.exit_code, [each.path for each in report.missing]) == (2, [f"checkpoints/{SIZE}"])
    # What the folder has of them is looked at as far as it goes, and counted.
    assert report.ahead == 2


# Files that the checkpoint does not need


def test_what_lies_ahead_of_the_checkpoint_is_held_against_it_as_far_as_that_goes(copy: Copy) -> None:
    """A log writes full files before the witnesses have cosigned, and partial ones just before the checkpoint."""
    entries = copy.writer.entries
    shutil.rmtree(copy.log / "checkpoints")
    copy.put("checkpoint", copy.writer.checkpoint(300))
    report = copy.check()
    assert (report.verdict, report.ahead) == ("sound", 5), report.to_text()
    # Without its partial files the full ones stand for them.
    for path in ("tile/0/001.p", "tile/entries/001.p"):
        shutil.rmtree(copy.log / path)
    assert copy.check().verdict == "sound"
    others = [*entries[256:290], *entries[291:512], entries[290]]
    copy.put("tile/0/001", b"".join(leaf_hash(entry) for entry in others))
    copy.put("tile/entries/001", encode_bundle(others))
    assert copy.check().verdict == "damaged"


@pytest.mark.parametrize("path", ["tile/0/001", "tile/entries/001", "tile/0/001.p/50", "tile/entries/001.p/50"])
def test_a_file_ahead_that_begins_otherwise_is_a_problem(copy: Copy, path: str) -> None:
    shutil.rmtree(copy.log / "checkpoints")
    copy.put("checkpoint", copy.writer.checkpoint(300))
    entries = [b"other", *copy.writer.entries[257 : 306 if path.endswith("50") else 512]]
    copy.put(path, encode_bundle(entries) if "entries" in path else b"".join(map(leaf_hash, entries)))
    assert only(copy.check())[0] == path


def test_names_that_no_log_writes_are_noted_and_harm_nobody(copy: Copy) -> None:
    names = ["index.html", "tile/0/0", "tile/0/000.p/256", "tile/64/000", "tile/entries/x000/001", "checkpoints/01"]
    for name in names:
        copy.put(name, b"anything")
    copy.put(".checkpoint.1234567890abcdef.tmp", b"")
    notes = noted(copy.check())
    assert set(notes) == {*names, ".checkpoint.1234567890abcdef.tmp"}
    assert "interrupted" in notes[".checkpoint.1234567890abcdef.tmp"]


def test_what_is_no_plain_file_is_noted(copy: Copy) -> None:
    kept = copy.log.parent / "kept"
    (copy.log / "tile/0/000").rename(kept)
    (copy.log / "tile/0/000").symlink_to(kept)
    os.mkfifo(copy.log / "pipe")
    notes = noted(copy.check())
    assert set(notes) == {"tile/0/000", "pipe"}
    (copy.log / "tile/0/000").unlink()
    os.mkfifo(copy.log / "tile/0/000")
    assert copy.check().exit_code == 2


def test_a_file_that_everybody_may_write_is_noted(copy: Copy) -> None:
    (copy.log / "tile/0/001").chmod(0o666)
    assert noted(copy.check()) == {"tile/0/001": "may be written by everybody on this machine"}


def test_folders_without_end_and_names_that_steer_a_terminal_do_no_harm(copy: Copy) -> None:
    (copy.log / "/".join(["deep"] * 40)).mkdir(parents=True)
    (copy.log / "a\x1b[2Jb").write_bytes(b"")
    (copy.log / "loop").symlink_to(copy.log)
    report = copy.check()
    assert "a?[2Jb" in noted(report)
    assert "\x1b" not in report.to_text()
    assert any("deeper" in what for what in noted(report).values())


# The entries


def entries_with(writer: Writer, change: Callable[[Writer], object]) -> int:
    """Entries of a small log with one that a test chooses; give its index."""
    writer.count()
    index = len(writer.entries)
    change(writer)
    writer.count()
    return index


def out_of_place(writer: Writer) -> None:
    """A document at a position that is not its stream's next."""
    position, last = writer.streams["governance"]
    writer.streams["governance"] = (position + 70, last)
    writer.publish_services()


CHAIN: dict[str, tuple[Callable[[Writer], object], str]] = {
    "no entry": (lambda writer: writer.entries.append(b"none"), "is no entry"),
    "other entry before": (lambda writer: writer.count(entry={"prev": bytes(32)}), "entry before it"),
    "earlier": (lambda writer: writer.count(entry={"log_time_us": 1}), "is earlier"),
    "position": (lambda writer: writer.count(entry={"stream_seq": 77}), "next one of stream log"),
    "stream before": (lambda writer: writer.count(entry={"stream_prev": bytes(32)}), "next one of stream log"),
    "document": (out_of_place, "next one of stream governance"),
}


@pytest.mark.parametrize(("change", "what"), CHAIN.values(), ids=CHAIN)
def test_the_first_entry_that_does_not_follow_is_named(
    tmp_path: Path, change: Callable[[Writer], object], what: str
) -> None:
    writer = Writer().begin()
    index = entries_with(writer, change)
    writer.write(tmp_path)
    report = Copy(writer, tmp_path).check()
    assert only(report) == (f"tile/entries/000.p/{len(writer.entries)}", index)
    assert what in report.problems[0].what


def test_a_malformed_statement_belongs_to_no_stream_and_moves_none(tmp_path: Path) -> None:
    writer = Writer().begin()
    writer.count(counts=[("role", 99, 1)], void=True)
    position, last = writer.streams["log"]
    writer.streams["log"] = (position - 1, bytes(32) if position == 1 else last)
    writer.count()
    writer.write(tmp_path)
    malformed = parse_entry(writer.entries[-2])
    assert malformed.stream_seq == position - 1
    # At first sight it is a statement of its stream, in its place: what follows is then not the next one.
    report = Copy(writer, tmp_path).check()
    assert only(report)[1] == len(writer.entries) - 1


def test_a_changed_file_is_blamed_and_not_the_entries_in_it(copy: Copy) -> None:
    copy.flip("tile/entries/000", 100)
    report = copy.check()
    assert len(report.problems) == 1
    assert "entry hash" in report.problems[0].what


# Other people's logs


@pytest.mark.skipif(not (VECTORS / "tessera-log").exists(), reason="third-party vectors are not here: set SFRL_VECTORS")
def test_a_log_that_tessera_wrote_is_sound_and_its_entries_are_not_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    shutil.copytree(VECTORS / "tessera-log", log, copy_function=shutil.copyfile)
    policy = parse_trust_policy(TESSERA)

    def check() -> FsckReport:
        return check_log_folder(log, policy, lambda *_stage: None)

    report = check()
    assert (report.verdict, report.size, report.entries_read, report.files) == ("sound", 15, False, 47)
    assert {each.path for each in report.notes} == {f"checkpoint.{size}" for size in range(16)}
    # Every one of its tiles and bundles is looked at, those of older sizes too.
    for path in sorted((log / "tile").rglob("*")):
        if path.is_file():
            raw = path.read_bytes()
            path.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
            assert only(check())[0] == str(path.relative_to(log))
            path.write_bytes(raw)
    # As the history of this log, its checkpoints are one.
    (log / "checkpoints").mkdir()
    for size in range(16):
        (log / f"checkpoint.{size}").rename(log / "checkpoints" / str(size))
    report = check()
    assert (report.verdict, report.older, report.notes) == ("sound", 16, [])


# Memory, and files that change


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    def peak(count: int) -> int:
        entries = [b"%d" % number for number in range(count)]
        tree = tree_of(entries)
        log = tmp_path / str(count)
        for number in range(count // 256):
            for place in (Tile(0, number, 256), Bundle(number, 256)):
                (log / place.path).parent.mkdir(parents=True, exist_ok=True)
            (log / Tile(0, number, 256).path).write_bytes(tile_of_tree(tree, Tile(0, number, 256)))
            (log / Bundle(number, 256).path).write_bytes(encode_bundle(entries[256 * number : 256 * number + 256]))
        tracemalloc.start()
        found = check_structure(FolderLog(log), Checkpoint("a", count, tree.root()), lambda *_stage: None)
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found.tree is not None
        # Every older root and leaf can still be had.
        assert [found.tree.root(size) for size in (1, 257, count - 3)] == [tree.root(s) for s in (1, 257, count - 3)]
        assert found.tree.leaf(300) == tree.leaf(300)
        return used

    few, many = peak(1024), peak(16384)
    assert many < few + 16384


def test_files_that_change_after_they_were_read_are_noticed(copy: Copy) -> None:
    checkpoint = Checkpoint(copy.writer.origin, SIZE, tree_of(copy.writer.entries).root())
    tree = check_structure(FolderLog(copy.log), checkpoint, lambda *_stage: None).tree
    copy.flip("tile/0/000")
    # The entries lead there as well.
    assert tree.root(100) == tree_of(copy.writer.entries[:100]).root()
    tree = check_structure(FolderLog(copy.log), checkpoint, lambda *_stage: None).tree
    copy.flip("tile/entries/000")
    with pytest.raises(MalformedError, match="changed"):
        tree.root(100)


# The log's own side


def test_a_journal_that_belongs_to_the_log_is_sound(copy: Copy) -> None:
    report = copy.check(journal=True)
    assert report.verdict == "sound", report.to_text()
    journal = report.journal
    assert 0 < journal.first_index <= 300
    assert (journal.end_index, journal.signed_size, journal.indexed) == (SIZE, SIZE, SIZE)


def ahead(tmp_path: Path, *, published: int, first: int = 0, **journal: int) -> Copy:
    """A log whose journal is ahead of what is published; full files are there from the journal."""
    writer = Writer().begin()
    while len(writer.entries) < SIZE:
        writer.count()
    writer.write(tmp_path)
    copy = Copy(writer, tmp_path)
    with_journal(writer, copy.journal, first=first, **journal)
    tree = tree_of(writer.entries)
    for place in (Tile(0, 2, 18), Bundle(2, 18), Tile(1, 0, 2)):
        (copy.log / place.path).unlink()
    if published == 300:
        for tile in (Tile(0, 1, 44), Tile(1, 0, 1)):
            copy.put(tile.path, tile_of_tree(tree, tile))
        copy.put(Bundle(1, 44).path, encode_bundle(writer.entries[256:300]))
    copy.put("checkpoint", writer.checkpoint(published))
    return copy


@pytest.mark.parametrize("first", [0, 500])
def test_entries_that_are_not_published_yet_are_taken_from_journal_and_full_bundles(
    tmp_path: Path, first: int
) -> None:
    copy = ahead(tmp_path, published=300, first=first)
    report = copy.check(journal=True)
    assert report.verdict == "sound", report.to_text()
    assert (report.size, report.journal.end_index, report.journal.signed_size) == (300, SIZE, SIZE)
    assert report.journal.indexed == SIZE
    # With the journal the full files are no longer ahead of what is known.
    assert report.ahead == 0
    copy.flip("tile/0/001")
    assert only(copy.check(journal=True))[0] == "tile/0/001"


def test_entries_that_nobody_has_any_more_are_missing(tmp_path: Path) -> None:
    copy = ahead(tmp_path, published=300, first=500)
    (copy.log / "tile/entries/001").unlink()
    report = copy.check(journal=True)
    assert (report.exit_code, [each.path for each in report.missing]) == (2, ["journal/segments"])
    assert "entries 300 to" in report.missing[0].what


def test_another_entry_in_the_journal_is_named(copy: Copy) -> None:
    shutil.rmtree(copy.journal)
    kept = copy.writer.entries
    copy.writer.entries = [*kept[:400], kept[401], *kept[401:]]
    with_journal(copy.writer, copy.journal)
    copy.writer.entries = kept
    shutil.rmtree(copy.journal / "statements.sqlite", ignore_errors=True)
    (copy.journal / "statements.sqlite").unlink()
    (copy.journal / "signed").write_bytes(copy.writer.checkpoint())
    assert only(copy.check(journal=True)) == ("journal/segments", 400)


def test_an_unpublished_entry_that_does_not_follow_is_named(tmp_path: Path) -> None:
    writer = Writer().begin()
    published = len(writer.entries)
    writer.write(tmp_path)
    index = entries_with(writer, lambda writer: writer.count(entry={"prev": bytes(32)}))
    copy = Copy(writer, tmp_path)
    with_journal(writer, copy.journal)
    report = copy.check(journal=True)
    assert only(report) == ("journal/segments", index)
    assert report.size == published < index


def test_a_torn_end_of_the_journal_is_noted_and_a_damaged_middle_named(copy: Copy) -> None:
    newest = sorted((copy.journal / "segments").iterdir())[-1]
    whole = newest.read_bytes()
    newest.write_bytes(whole + b"SFBT and no more")
    assert "16 bytes behind" in noted(copy.check(journal=True))["journal/segments"]
    assert newest.read_bytes() == whole + b"SFBT and no more"
    newest.write_bytes(whole[:60] + bytes([whole[60] ^ 1]) + whole[61:])
    assert copy.check(journal=True).verdict == "damaged"
    newest.unlink()
    report = copy.check(journal=True)
    assert only(report) == ("journal/segments", None)
    assert "ends at" in report.problems[0].what


def test_a_log_that_runs_on_meanwhile_is_no_damage(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries, signatures and statements come between one look and the next."""
    from sfrl_secure.audit import fsck_journal

    writer, kept = copy.writer, list(copy.writer.entries)
    reading = fsck_journal.JournalReading

    def later(folder: Path) -> object:
        writer.count()
        journal = FolderJournal(folder, segment_bytes=10_000)
        journal.append_batch([writer.entries[-1]])
        journal.close()
        (copy.journal / "signed").write_bytes(writer.checkpoint(witnesses=[]))
        shutil.rmtree(copy.log / "tile/entries/001.p")
        copy.put("checkpoint", writer.checkpoint())
        copy.put(f"checkpoints/{SIZE + 1}", writer.checkpoint())
        copy.put(Bundle(2, 19).path, encode_bundle(writer.entries[512:]))
        return reading(folder)

    monkeypatch.setattr(fsck_journal, "JournalReading", later)
    streams, now = dict(writer.streams), writer.now
    try:
        report = copy.check(journal=True)
    finally:
        writer.entries, writer.streams, writer.now = kept, streams, now
    assert report.verdict == "sound", report.to_text()
    assert (report.size, report.journal.end_index, report.journal.signed_size) == (SIZE, SIZE + 1, SIZE)


def test_a_checkpoint_that_is_published_meanwhile_is_no_loss(copy: Copy) -> None:
    newer = copy.writer.checkpoint()
    shutil.rmtree(copy.log / "checkpoints")
    copy.put("checkpoint", copy.writer.checkpoint(512))

    def publish(stage: str, done: int, total: int) -> None:
        if (stage, done) == ("structure", total):
            copy.put("checkpoint", newer)
            copy.put(f"checkpoints/{SIZE}", newer)

    report = check_log_folder(copy.log, copy.writer.policy, publish)
    assert (report.verdict, report.size, report.missing) == ("sound", 512, []), report.to_text()


def test_a_journal_that_is_not_there_is_missing(copy: Copy) -> None:
    shutil.rmtree(copy.journal / "segments")
    report = copy.check(journal=True)
    assert (report.exit_code, [each.path for each in report.missing]) == (2, ["journal/segments"])


SIGNED: dict[str, tuple[Callable[[Writer], bytes], str]] = {
    "nothing": (lambda writer: NOTHING_SIGNED, "nothing was signed"),
    "none": (lambda writer: b"no note", ""),
    "another log": (lambda writer: Writer().checkpoint(), ""),
    "long": (lambda writer: b"a" * 200_000, "last signed note"),
    "empty": (lambda writer: b"", ""),
}


@pytest.mark.parametrize(("note", "what"), SIGNED.values(), ids=SIGNED)
def test_a_last_signed_note_that_is_not_ours_is_a_problem(
    copy: Copy, note: Callable[[Writer], bytes], what: str
) -> None:
    (copy.journal / "signed").write_bytes(note(copy.writer))
    report = copy.check(journal=True)
    assert only(report) == ("journal/signed", None)
    assert what in report.problems[0].what


def test_a_last_signed_note_that_is_gone_is_missing(copy: Copy) -> None:
    (copy.journal / "signed").unlink()
    report = copy.check(journal=True)
    assert (report.exit_code, [each.path for each in report.missing]) == (2, ["journal/signed"])


def test_a_last_signed_note_for_more_or_for_other_entries_is_a_problem(copy: Copy) -> None:
    kept = copy.writer.entries
    for entries, what in (([*kept, b"more"], "ahead"), ([*kept[:-1], b"another"], "equivocation")):
        copy.writer.entries = entries
        (copy.journal / "signed").write_bytes(copy.writer.checkpoint(witnesses=[]))
        copy.writer.entries = kept
        report = copy.check(journal=True)
        assert only(report) == ("journal/signed", None)
        assert what in report.problems[0].what


def reindex(copy: Copy, rows: dict[bytes, int]) -> None:
    path = copy.journal / "statements.sqlite"
    path.unlink()
    index = SqliteStatements(path)
    for digest, position in rows.items():
        index.add(digest, position)
    index.flush(SIZE)
    index.close()


def test_the_index_names_every_statement_under_its_index_and_no_other(copy: Copy) -> None:
    rows = {parse_entry(raw).envelope.digest: at for at, raw in enumerate(copy.writer.entries)}
    digest = parse_entry(copy.writer.entries[400]).envelope.digest
    genesis = parse_entry(copy.writer.entries[0]).envelope.digest
    reindex(copy, {key: at for key, at in rows.items() if key != digest})
    assert only(copy.check(journal=True)) == ("journal/statements.sqlite", 400)
    reindex(copy, {**rows, digest: 401})
    assert only(copy.check(journal=True)) == ("journal/statements.sqlite", 400)
    reindex(copy, {**rows, sha(b"nobody's"): 7})
    report = copy.check(journal=True)
    assert only(report) == ("journal/statements.sqlite", None)
    assert "1 statements that no entry holds" in report.problems[0].what
    # A document without effect is not in it.
    reindex(copy, {key: at for key, at in rows.items() if key != genesis})
    assert copy.check(journal=True).verdict == "sound"


def test_an_index_that_is_gone_or_damaged_is_noted_since_the_log_makes_it_again(copy: Copy) -> None:
    path = copy.journal / "statements.sqlite"
    path.write_bytes(b"no database, and long enough to be taken for one" * 10)
    assert list(noted(copy.check(journal=True))) == ["journal/statements.sqlite"]
    path.unlink()
    report = copy.check(journal=True)
    assert list(noted(report)) == ["journal/statements.sqlite"]
    assert report.journal.indexed is None


def test_an_index_that_cannot_be_read_to_its_end_is_a_problem(copy: Copy) -> None:
    path = copy.journal / "statements.sqlite"
    raw = bytearray(path.read_bytes())
    for page in range(2, len(raw) // 4096):
        raw[page * 4096 : page * 4096 + 2048] = sha256(b"%d" % page) * 64
    path.write_bytes(bytes(raw))
    report = copy.check(journal=True)
    assert {each.path for each in (*report.problems, *report.notes)} == {"journal/statements.sqlite"}
