"""A log as files: what is right is verified, what was changed is named, what is gone is missing.

The log has three bundles and a tile above them, so that every kind of file is there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sfrl_secure.audit.report import Report
from sfrl_secure.audit.source import FolderLog, FolderObjects
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.errors import DigestError, MalformedError
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import sign_checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import add_signatures, format_note, parse_note
from sfrl_secure.translog.policy import TrustPolicy, format_trust_policy
from sfrl_secure.translog.tiles import encode_bundle, parse_bundle, tile_of_tree, tiles_of
from sfrl_secure.translog.tree import MerkleTree

from ..replay.builder import SECOND, Writer, sha

UPDATES = {"r1": {0: 5, 13: -7}, "r2": {0: 6, 3: 100}, "r3": {16: 1}}
SIZE = 530


class Copy:
    """A copy of the log that a test may damage."""

    def __init__(self, writer: Writer, folder: Path, trust_policy: bytes) -> None:
        self.writer, self.folder, self.trust_policy = writer, folder, trust_policy
        self.log, self.objects = folder / "log", folder / "objects"

    def verify(self, **other: Any) -> Report:
        return verify_log(self.log, self.trust_policy, self.objects, **other)

    def flip(self, path: Path, where: int) -> None:
        raw = bytearray(path.read_bytes())
        raw[where] ^= 1
        path.write_bytes(bytes(raw))

    def object(self, digest: bytes) -> Path:
        return self.objects / digest.hex()[:2] / digest.hex()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Writer, Path, bytes]:
    writer = Writer().begin()
    writer.anchoring = True
    writer.run_round(UPDATES)
    writer.run_round({"r1": {1: 5}, "r4": {2: 7}})
    writer.refuse("r1", "round_not_open", fields={"round": 7})
    while len(writer.entries) < SIZE:
        writer.count()
    folder = tmp_path_factory.mktemp("audited")
    _, trust_policy, _ = writer.write(folder)
    return writer, folder, trust_policy


@pytest.fixture
def copy(written: tuple[Writer, Path, bytes], tmp_path: Path) -> Copy:
    writer, folder, trust_policy = written
    shutil.copytree(folder, tmp_path / "copy")
    return Copy(writer, tmp_path / "copy", trust_policy)


def only(report: Report) -> tuple[str, int | None, str]:
    assert (report.verdict, report.exit_code, len(report.findings)) == ("false", 1, 1)
    finding = report.findings[0]
    return finding.code, finding.index, finding.subject


def test_a_good_log_is_verified(copy: Copy) -> None:
    stages: list[tuple[str, int, int]] = []
    report = copy.verify(progress=lambda *stage: stages.append(stage))
    assert (report.verdict, report.exit_code, report.findings, report.missing) == ("verified", 0, (), ())
    assert (report.size, report.replayed, report.rounds, report.models, report.admitted) == (SIZE, SIZE, 2, 2, 5)
    assert report.root == MerkleTree(leaf_hash(entry) for entry in copy.writer.entries).root().hex()
    assert report.results_sound
    assert report.conduct_clean
    assert report.refused == {"round_not_open": 1}
    assert report.witnessed.quorum_met
    assert stages[-1] == ("replay", SIZE, SIZE)


def test_the_report_is_json_and_text(copy: Copy) -> None:
    report = copy.verify(same_operator=["w1"])
    fields = json.loads(json.dumps(report.to_json()))
    assert fields["verdict"] == "verified"
    assert fields["witnesses_same_operator"] == ["w1"]
    assert fields["log_time_us"] == copy.writer.now
    text = report.to_text()
    assert text.startswith(f"VERIFIED: all {SIZE} entries")
    assert "w1 (same operator as the log) at " in text
    assert "w2 at " in text


@pytest.mark.parametrize("index", [0, 1, 37, 255, 256, SIZE - 1])
@pytest.mark.parametrize("where", ["first", "last", "length"])
def test_a_changed_byte_of_an_entry_names_the_entry(copy: Copy, index: int, where: str) -> None:
    number = index // 256
    path = copy.log / f"tile/entries/{number:03}{'.p/18' if number == 2 else ''}"
    begin = sum(2 + len(entry) for entry in copy.writer.entries[number * 256 : index])
    offset = {"length": begin + 1, "first": begin + 2, "last": begin + 1 + len(copy.writer.entries[index])}[where]
    copy.flip(path, offset)
    report = copy.verify()
    assert only(report) == ("structure", index, str(path.relative_to(copy.log)))
    assert report.replayed == 0
    assert report.to_text().startswith(f"FALSE: 1 finding\n  entry {index}, ")


@pytest.mark.parametrize(("path", "entries"), [
    ("tile/0/000", "entries 0 to 255"), ("tile/0/001", "entries 256 to 511"), ("tile/0/002.p/18", "entries 512 to 529"),
    ("tile/1/000.p/2", "entries 0 to 511"),
])  # fmt: skip
@pytest.mark.parametrize("where", [0, -1])
def test_a_changed_byte_of_a_tile_names_tile_and_entries(copy: Copy, path: str, entries: str, where: int) -> None:
    copy.flip(copy.log / path, where)
    report = copy.verify()
    assert only(report) == ("structure", None, path)
    assert report.findings[0].expected.endswith(entries)


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"\0", lambda raw: b""])
@pytest.mark.parametrize("path", ["tile/0/001", "tile/1/000.p/2"])
def test_a_tile_of_another_length_is_named(copy: Copy, path: str, change: Callable[[bytes], bytes]) -> None:
    (copy.log / path).write_bytes(change((copy.log / path).read_bytes()))
    assert only(copy.verify()) == ("structure", None, path)


def test_bytes_behind_the_last_entry_of_a_bundle_are_named(copy: Copy) -> None:
    path = copy.log / "tile/entries/001"
    path.write_bytes(path.read_bytes() + b"\0")
    assert only(copy.verify()) == ("structure", 511, "tile/entries/001")


@pytest.mark.parametrize("first", [5, 255])
def test_two_entries_that_changed_places_are_named_by_the_first(copy: Copy, first: int) -> None:
    entries = list(copy.writer.entries)
    entries[first], entries[first + 1] = entries[first + 1], entries[first]
    for number in (0, 1):
        (copy.log / f"tile/entries/{number:03}").write_bytes(encode_bundle(entries[256 * number : 256 * number + 256]))
    code, index, _ = only(copy.verify())
    assert (code, index) == ("structure", first)


def test_entries_and_tiles_that_agree_with_each_other_and_not_with_the_root_are_false(copy: Copy) -> None:
    entries = list(copy.writer.entries)
    entries[300] = entries[300][:-1] + bytes([entries[300][-1] ^ 1])
    tree = MerkleTree(leaf_hash(entry) for entry in entries)
    (copy.log / "tile/entries/001").write_bytes(encode_bundle(entries[256:512]))
    (copy.log / "tile/0/001").write_bytes(tree.subtree_hashes(0, 256, 512))
    code, _, subject = only(copy.verify())
    assert (code, subject) == ("structure", "tile/1/000.p/2")
    for tile in tiles_of(SIZE):
        (copy.log / tile.path).write_bytes(tile_of_tree(tree, tile))
    code, _, subject = only(copy.verify())
    assert (code, subject) == ("structure", "checkpoint")


def test_every_changed_object_is_false_and_every_missing_one_is_missing(copy: Copy) -> None:
    for digest in copy.writer.objects:
        path = copy.object(digest)
        raw = path.read_bytes()
        copy.flip(path, len(raw) // 2)
        code, index, subject = only(copy.verify())
        assert (code, subject) == ("object_altered", digest.hex())
        assert index is not None
        path.unlink()
        report = copy.verify()
        assert (report.verdict, report.exit_code, report.findings) == ("missing", 2, ())
        assert [(each.digest, each.index) for each in report.missing] == [(digest, index)]
        assert not report.results_sound
        headline, line, *_ = report.to_text().splitlines()
        assert headline == "MISSING: nothing is false, and 1 piece of evidence lacking"
        assert line.startswith(f"  object {digest.hex()}")
        path.write_bytes(raw)
    assert copy.verify().verdict == "verified"


def test_a_model_that_nobody_can_compute_again_is_named_with_its_entry_and_round(copy: Copy) -> None:
    step = copy.writer.steps[0]
    index = next(n for n, raw in enumerate(copy.writer.entries) if leaf_hash(raw) == step.published)
    copy.object(sha(copy.writer.payload_of(UPDATES["r3"]))).unlink()
    report = copy.verify()
    assert (report.verdict, len(report.missing)) == ("missing", 1)
    said = f"  entry {index}: round 1 cannot be worked out again from what is here: aggregate, model"
    assert said in report.to_text().splitlines()
    assert json.loads(json.dumps(report.to_json()))["untold"] == [
        {"index": index, "round": 1, "what": ["aggregate", "model"]}
    ]


def test_an_object_that_no_entry_names_is_compared_with_its_name(copy: Copy) -> None:
    stray = copy.object(sha(b"stray"))
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"stray")
    assert copy.verify().verdict == "verified"
    stray.write_bytes(b"other")
    assert only(copy.verify()) == ("object_altered", None, sha(b"stray").hex())


def test_a_missing_bundle_is_missing_and_the_entries_before_it_are_replayed(copy: Copy) -> None:
    (copy.log / "tile/entries/001").unlink()
    report = copy.verify()
    assert (report.exit_code, report.replayed, report.rounds) == (2, 256, 2)
    assert [each.path for each in report.missing] == ["tile/entries/001"]


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/002.p/18", "tile/1/000.p/2"])
def test_a_missing_tile_is_missing_and_everything_else_is_verified(copy: Copy, path: str) -> None:
    (copy.log / path).unlink()
    report = copy.verify()
    assert (report.exit_code, report.replayed) == (2, SIZE)
    assert [each.path for each in report.missing] == [path]


def test_a_missing_checkpoint_is_missing(copy: Copy) -> None:
    (copy.log / "checkpoint").unlink()
    report = copy.verify()
    assert (report.exit_code, [each.path for each in report.missing]) == (2, ["checkpoint"])
    assert report.to_text().startswith("MISSING")


def test_what_is_false_outweighs_what_is_missing(copy: Copy) -> None:
    (copy.log / "tile/entries/001").unlink()
    copy.flip(copy.log / "tile/entries/000", 40)
    report = copy.verify()
    assert report.exit_code == 1
    assert report.missing


def test_a_full_bundle_stands_for_a_partial_one_that_has_gone(copy: Copy) -> None:
    path = copy.log / "tile/entries/002.p/18"
    entries = [*parse_bundle(path.read_bytes(), 18), *[b"later"] * 238]
    path.unlink()
    (copy.log / "tile/entries/002").write_bytes(encode_bundle(entries))
    (copy.log / "tile/0/002.p/18").unlink()
    (copy.log / "tile/0/002").write_bytes(b"".join(leaf_hash(entry) for entry in entries))
    assert copy.verify().verdict == "verified"


# Checkpoint


def test_a_checkpoint_without_a_quorum_is_false(copy: Copy) -> None:
    (copy.log / "checkpoint").write_bytes(copy.writer.checkpoint(witnesses=["w1"]))
    report = copy.verify()
    assert only(report) == ("checkpoint", None, "checkpoint")
    assert "NOT met" in report.to_text()


@pytest.mark.parametrize("line", [0, 1, 2, 3])
def test_a_changed_line_of_the_checkpoint_is_false(copy: Copy, line: int) -> None:
    path = copy.log / "checkpoint"
    text, lines = path.read_text().split("\n\n")
    changed = lines.rstrip("\n").split("\n")
    middle = len(changed[line]) - 40
    other = "A" if changed[line][middle] != "A" else "B"
    changed[line] = changed[line][:middle] + other + changed[line][middle + 1 :]
    path.write_text(text + "\n\n" + "\n".join(changed) + "\n")
    assert only(copy.verify()) == ("checkpoint", None, "checkpoint")


@pytest.mark.parametrize("line", [0, 1])
def test_a_checkpoint_without_one_of_the_logs_lines_is_false(copy: Copy, line: int) -> None:
    path = copy.log / "checkpoint"
    text, lines = path.read_text().split("\n\n")
    kept = lines.rstrip("\n").split("\n")
    del kept[line]
    path.write_text(text + "\n\n" + "\n".join(kept) + "\n")
    report = copy.verify()
    assert only(report) == ("checkpoint", None, "checkpoint")
    # One sentence, and no pair of an expectation and what was found instead.
    assert "    by files: a key of the log has no line on the checkpoint\n" in report.to_text()


def test_a_checkpoint_of_an_older_size_verifies_that_much(copy: Copy) -> None:
    (copy.log / "checkpoint").write_bytes(copy.writer.checkpoint(512))
    report = copy.verify()
    # The tiles of size 512 that are no tiles of size 530: both are full ones, so all are there.
    assert (report.verdict, report.size) == ("verified", 512)


def test_an_older_checkpoint_of_the_same_history_is_no_finding(copy: Copy) -> None:
    assert copy.verify(older=[copy.writer.checkpoint(100), copy.writer.checkpoint(0, witnesses=[])]).exit_code == 0


def test_an_older_checkpoint_of_another_history_is_equivocation(copy: Copy) -> None:
    entries = copy.writer.entries
    copy.writer.entries = [*entries[:99], b"another"]
    other = copy.writer.checkpoint()
    copy.writer.entries = entries
    report = copy.verify(older=[other])
    assert only(report)[0] == "equivocation"
    assert report.replayed == 0


def test_a_log_that_has_become_shorter_is_missing_something(copy: Copy) -> None:
    (copy.log / "checkpoint").write_bytes(copy.writer.checkpoint(512))
    report = copy.verify(older=[copy.writer.checkpoint()])
    assert (report.exit_code, [each.path for each in report.missing]) == (2, ["checkpoint"])


def test_an_older_checkpoint_that_is_none_of_the_log_is_the_callers_mistake(copy: Copy) -> None:
    with pytest.raises(MalformedError):
        copy.verify(older=[b"no note"])
    with pytest.raises(MalformedError):
        copy.verify(older=[copy.writer.checkpoint(50).replace(b"A", b"B")])


def test_an_older_checkpoint_of_another_log_is_the_callers_mistake(copy: Copy) -> None:
    other = Writer()
    policy = copy.writer.policy
    both = TrustPolicy((copy.writer.trust, other.trust), policy.witnesses, policy.groups, policy.quorum)
    with pytest.raises(MalformedError, match="same log"):
        verify_log(copy.log, format_trust_policy(both), copy.objects, older=[other.checkpoint(witnesses=[])])


def test_a_name_that_is_no_witness_is_the_callers_mistake(copy: Copy) -> None:
    """A slip of the pen must not let a witness of the log's operator look independent."""
    with pytest.raises(MalformedError, match="no witness w9"):
        copy.verify(same_operator=["w1", "w9"])


def test_a_trust_policy_that_is_none_is_the_callers_mistake(copy: Copy) -> None:
    with pytest.raises(MalformedError):
        verify_log(copy.log, b"quorum nobody\n", copy.objects)


# Meaning


def test_a_void_entry_makes_the_log_false_and_is_named_with_its_writer(tmp_path: Path) -> None:
    writer = Writer().begin()
    writer.run_round(UPDATES)
    writer.open_round(writer=writer.gatekeeper, void=True)
    log, trust_policy, objects = writer.write(tmp_path)
    report = verify_log(log, trust_policy, objects)
    assert only(report)[:2] == ("role", len(writer.entries) - 1)
    assert report.results_sound
    assert not report.conduct_clean
    assert f"by {writer.gatekeeper}; expected aggregator" in report.to_text()


def test_a_wrong_model_is_not_sound(tmp_path: Path) -> None:
    writer = Writer().begin()
    writer.open_round()
    for name, update in UPDATES.items():
        writer.admit(name, update)
    writer.close()
    writer.publish_model(model=[1] * 17)
    report = verify_log(*writer.write(tmp_path))
    assert [each.code for each in report.findings] == ["model"]
    assert not report.results_sound


@pytest.mark.parametrize(("early_us", "codes"), [(120 * SECOND, []), (122 * SECOND, ["time_ahead"])])
def test_a_log_whose_time_is_ahead_of_its_witnesses_is_false(
    tmp_path: Path, early_us: int, codes: list[str]
) -> None:
    """It would close rounds before their deadlines."""
    writer = Writer().begin()
    last_us = writer.now
    writer.now -= early_us
    log, trust_policy, objects = writer.write(tmp_path)
    report = verify_log(log, trust_policy, objects)
    assert [each.code for each in report.findings] == codes
    assert last_us - writer.now == early_us


def test_an_ineffective_genesis_ends_the_walk(tmp_path: Path) -> None:
    writer = Writer()
    writer.genesis(signers=["ann"])
    writer.publish_services()
    report = verify_log(*writer.write(tmp_path))
    assert only(report)[:2] == ("threshold", 0)
    assert (report.replayed, report.results_sound) == (1, False)


def test_a_log_without_entries_has_no_genesis(tmp_path: Path) -> None:
    report = verify_log(*Writer().write(tmp_path))
    assert only(report)[0] == "genesis"


def test_a_long_report_is_cut(tmp_path: Path) -> None:
    writer = Writer().begin()
    for _ in range(30):
        writer.count(writer=writer.aggregator)
    report = verify_log(*writer.write(tmp_path))
    assert len(report.findings) == 30
    assert "and 10 more findings" in report.to_text()


# Sources


def test_a_log_that_claims_a_huge_size_costs_no_time(tmp_path: Path) -> None:
    writer = Writer().begin()
    log, trust_policy, objects = writer.write(tmp_path)
    claimed = Checkpoint(writer.origin, 2**60, leaf_hash(b""))
    raw = sign_checkpoint(claimed, writer.signer, writer.cosigner, 5)
    note = parse_note(raw)
    lines = [witness.cosign(note.text, 6) for witness in writer.witnesses.values()]
    (log / "checkpoint").write_bytes(format_note(add_signatures(note, lines)))
    report = verify_log(log, trust_policy, objects)
    assert report.exit_code == 2
    assert len(report.missing) == 101


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "checkpoint")
    (tmp_path / "tile").mkdir()
    source = FolderLog(tmp_path)
    assert source.read("checkpoint", 10) is None
    assert source.read("tile", 10) is None
    assert source.read("none", 10) is None


def test_reading_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").write_bytes(b"x" * 100)
    assert FolderLog(tmp_path).read("checkpoint", 10) == b"x" * 11


def test_objects_are_hashed_whole_and_given_as_far_as_asked(tmp_path: Path) -> None:
    raw = b"y" * (3 * 1024 * 1024)
    folder = tmp_path / sha(raw).hex()[:2]
    folder.mkdir()
    (folder / sha(raw).hex()).write_bytes(raw)
    (folder / "notes.txt").write_bytes(b"not an object")
    objects = FolderObjects(tmp_path)
    assert objects.read(sha(raw), 10) == b"y" * 11
    assert objects.read(sha(raw), len(raw)) == raw
    assert list(objects.names()) == [sha(raw)]
    (folder / sha(raw).hex()).write_bytes(raw[:-1] + b"z")
    with pytest.raises(DigestError):
        objects.read(sha(raw), 10)
    with pytest.raises(DigestError):
        objects.holds(sha(raw))
    assert not objects.holds(sha(b"none"))


def test_a_part_of_an_object_is_given_as_it_is(tmp_path: Path) -> None:
    objects = FolderObjects(tmp_path)
    assert objects.read_at(sha(b"abcdef"), 0, 1) is None
    folder = tmp_path / sha(b"abcdef").hex()[:2]
    folder.mkdir()
    # Whoever asks has the hash of the part, and not of the whole.
    (folder / sha(b"abcdef").hex()).write_bytes(b"abcdeX")
    assert [objects.read_at(sha(b"abcdef"), *at) for at in ((0, 2), (4, 9), (9, 1))] == [b"ab", b"eX", b""]


def test_files_that_change_while_they_are_read_are_noticed(copy: Copy) -> None:
    def change(stage: str, done: int, _of: int) -> None:
        if (stage, done) == ("replay", 10):
            copy.flip(copy.log / "tile/entries/001", 40)

    code, index, _ = only(copy.verify(progress=change))
    assert (code, index) == ("structure", 256)


def test_time_is_shown_for_people(copy: Copy) -> None:
    shown = copy.verify().to_text()
    assert "replayed    530 entries up to 2025-10-09" in shown
    assert copy.writer.now // SECOND > 1_760_000_000
