"""A mirror grows by what is proven, goes on where it stopped, and stays as it was where anything does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfrl_secure.audit.mirror import LogMirror, MirroredLog
from sfrl_secure.audit.mirror_folder import check_is_mirror
from sfrl_secure.errors import (
    ConsistencyError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    SignatureError,
    UnavailableError,
    VerificationError,
)
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.storage.log_files import FolderLogFiles
from sfrl_secure.translog.note import parse_vkey
from sfrl_secure.translog.policy import TrustedLog, TrustPolicy

from ..replay.builder import Writer
from .mirrored import Supply, files_of, note_of, published_files, written_log

SIZE = 600


@pytest.fixture(scope="module")
def writer() -> Writer:
    return written_log(SIZE)


def update(folder: Path, supply: Supply, policy: TrustPolicy | None = None) -> MirroredLog:
    folder.mkdir(exist_ok=True)
    return LogMirror(folder, policy or supply.writer.policy).update(supply, lambda *_: None)


def log_files(folder: Path) -> dict[str, bytes]:
    """The copy, without the history of its checkpoints."""
    return {name: raw for name, raw in files_of(folder / "log").items() if not name.startswith("checkpoints/")}


def evidence_of(folder: Path) -> dict[str, bytes]:
    (kept,) = (folder / "evidence").iterdir()
    return files_of(kept)


def test_a_mirror_has_the_files_of_the_published_log_after_every_step(writer: Writer, tmp_path: Path) -> None:
    held = 0
    for size in (1, 2, 40, 255, 256, 257, 400, 512, 513, SIZE):
        supply = Supply(writer, size)
        done = update(tmp_path, supply)
        assert (done.checkpoint.size, done.held_size, supply.held_sizes) == (size, held, [held])
        note = note_of(writer, writer.entries[:size])
        found = log_files(tmp_path)
        # Cosignatures of ML-DSA-44 are randomised: the texts are one.
        assert found.pop("checkpoint").partition(b"\n\n")[0] == note.partition(b"\n\n")[0]
        expected = published_files(writer, size, note)
        expected.pop("checkpoint")
        assert found == expected
        assert not (tmp_path / "staged").exists()
        held = size


def test_only_what_is_new_is_asked_for(writer: Writer, tmp_path: Path) -> None:
    update(tmp_path, Supply(writer, 300))
    supply = Supply(writer, SIZE)
    update(tmp_path, supply)
    assert supply.asked == [(1, 256), (2, 88)]


def test_the_checkpoints_that_were_taken_are_kept(writer: Writer, tmp_path: Path) -> None:
    for size in (300, SIZE):
        update(tmp_path, Supply(writer, size))
    log = tmp_path / "log"
    assert {path.name for path in (log / "checkpoints").iterdir()} == {"300", str(SIZE)}
    assert (log / f"checkpoints/{SIZE}").read_bytes() == (log / "checkpoint").read_bytes()


def test_nothing_new_changes_nothing(writer: Writer, tmp_path: Path) -> None:
    update(tmp_path, Supply(writer, 300))
    before = files_of(tmp_path)
    supply = Supply(writer, 300)
    assert update(tmp_path, supply).held_size == 300
    assert supply.asked == []
    assert files_of(tmp_path) == before


def test_progress_is_told_to_the_end(writer: Writer, tmp_path: Path) -> None:
    stages: list[tuple[str, int, int]] = []
    LogMirror(tmp_path, writer.policy).update(Supply(writer, SIZE), lambda *stage: stages.append(stage))
    assert stages == [("entries", 256, SIZE), ("entries", 512, SIZE), ("entries", SIZE, SIZE)]


def test_of_a_partial_bundle_that_has_gone_the_beginning_of_the_full_one_is_taken(
    writer: Writer, tmp_path: Path
) -> None:
    supply = Supply(writer, 300, served=writer.entries, only_full=True)
    update(tmp_path, supply)
    assert supply.asked == [(0, 256), (1, 44), (1, 256)]
    note = (tmp_path / "log/checkpoint").read_bytes()
    assert log_files(tmp_path) == published_files(writer, 300, note)


def test_an_interrupted_copy_goes_on_where_it_stopped(writer: Writer, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        update(tmp_path, Supply(writer, SIZE, ends_after=2))
    assert log_files(tmp_path) == {}
    supply = Supply(writer, SIZE)
    update(tmp_path, supply)
    assert supply.asked == [(2, 88)]
    assert log_files(tmp_path) == published_files(writer, SIZE, (tmp_path / "log/checkpoint").read_bytes())


def test_what_was_staged_for_an_older_checkpoint_serves_a_newer_one(writer: Writer, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        update(tmp_path, Supply(writer, 300, ends_after=1))
    supply = Supply(writer, SIZE)
    update(tmp_path, supply)
    assert supply.asked == [(1, 256), (2, 88)]
    assert log_files(tmp_path) == published_files(writer, SIZE, (tmp_path / "log/checkpoint").read_bytes())


def test_a_staged_file_that_was_torn_is_fetched_again(writer: Writer, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        update(tmp_path, Supply(writer, SIZE, ends_after=2))
    (tmp_path / "staged/tile/entries/001").write_bytes(b"")
    supply = Supply(writer, SIZE)
    update(tmp_path, supply)
    assert supply.asked == [(1, 256), (2, 88)]


@pytest.mark.parametrize("name", ["tile/entries/001", "tile/1/000.p/2", "checkpoints/600", "checkpoint"])
def test_whoever_interrupts_it_while_it_grows_has_the_old_copy_and_the_next_run_the_new_one(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    update(tmp_path, Supply(writer, 300))
    before = log_files(tmp_path)
    write = FolderLogFiles.write

    def stop(self: FolderLogFiles, written: str, data: bytes) -> None:
        if self._folder.name == "log" and written == name:
            raise KeyboardInterrupt
        write(self, written, data)

    with monkeypatch.context() as patched:
        patched.setattr(FolderLogFiles, "write", stop)
        with pytest.raises(KeyboardInterrupt):
            update(tmp_path, Supply(writer, SIZE))
    assert log_files(tmp_path).items() >= before.items()
    supply = Supply(writer, SIZE)
    update(tmp_path, supply)
    assert supply.asked == []
    assert log_files(tmp_path) == published_files(writer, SIZE, (tmp_path / "log/checkpoint").read_bytes())


@pytest.mark.parametrize("held", [0, 300])
@pytest.mark.parametrize("bundle", [1, 2])
@pytest.mark.parametrize("at", [60, -1])
def test_a_changed_entry_leaves_the_mirror_as_it_was_and_is_kept_as_evidence(
    writer: Writer, tmp_path: Path, held: int, bundle: int, at: int
) -> None:
    if held:
        update(tmp_path, Supply(writer, held))
    before = files_of(tmp_path / "log") if held else {}

    def lie(index: int, raw: bytes) -> bytes:
        changed = bytearray(raw)
        changed[at] ^= index == bundle
        return bytes(changed)

    supply = Supply(writer, SIZE, lie=lie)
    supply.note = supply.newest_checkpoint(held)
    with pytest.raises(VerificationError, match="evidence"):
        update(tmp_path, supply)
    assert files_of(tmp_path / "log") == before
    kept = evidence_of(tmp_path)
    assert kept["shown"] == supply.note
    assert kept.get("held") == before.get("checkpoint")
    number = f"entries/tile/entries/{bundle:03}{'.p/88' if bundle == 2 else ''}"
    assert number in kept
    # The next run begins to stage anew, and an honest answer is taken.
    assert not (tmp_path / "staged").exists()
    update(tmp_path, Supply(writer, SIZE))
    assert log_files(tmp_path) == published_files(writer, SIZE, (tmp_path / "log/checkpoint").read_bytes())


def test_entries_that_the_mirror_has_cannot_be_replaced_by_others(writer: Writer, tmp_path: Path) -> None:
    update(tmp_path, Supply(writer, 300))
    before = files_of(tmp_path / "log")
    supply = Supply(writer, SIZE)
    # Entry 256 is in the copy, and stands in the bundle that is fetched again because it has grown.
    supply.lie = lambda index, raw: raw[:2] + bytes([raw[2] ^ 1]) + raw[3:] if index == 1 else raw
    with pytest.raises(VerificationError, match="other entries than it gave before"):
        update(tmp_path, supply)
    assert files_of(tmp_path / "log") == before


@pytest.mark.parametrize("lie", [lambda _, raw: raw[:-1], lambda _, raw: raw + b"\0", lambda _, raw: b""])
def test_what_is_no_bundle_is_not_kept(writer: Writer, tmp_path: Path, lie) -> None:
    with pytest.raises(VerificationError, match="cannot be cut"):
        update(tmp_path, Supply(writer, 300, lie=lie))
    assert log_files(tmp_path) == {}


def test_a_log_that_keeps_an_entry_back_leaves_the_mirror_as_it_was(writer: Writer, tmp_path: Path) -> None:
    update(tmp_path, Supply(writer, 300))
    before = files_of(tmp_path / "log")
    with pytest.raises(MissingEvidenceError, match="tile/entries/002"):
        update(tmp_path, Supply(writer, SIZE, served=writer.entries[:550]))
    assert files_of(tmp_path / "log") == before


def test_a_log_that_claims_a_huge_size_costs_no_time(writer: Writer, tmp_path: Path) -> None:
    note = note_of(writer, writer.entries, size=2**62)
    supply = Supply(writer, SIZE, note=note)
    with pytest.raises(MissingEvidenceError):
        update(tmp_path, supply)
    assert len(supply.asked) == 4


def test_a_shrunk_log_is_missing_evidence_and_the_mirror_keeps_what_it_has(writer: Writer, tmp_path: Path) -> None:
    update(tmp_path, Supply(writer, SIZE))
    before = files_of(tmp_path)
    with pytest.raises(MissingEvidenceError, match="fewer entries than the 600"):
        update(tmp_path, Supply(writer, 300))
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("size", [299, 300])
def test_a_checkpoint_of_another_history_is_equivocation_and_both_notes_are_kept(
    writer: Writer, tmp_path: Path, size: int
) -> None:
    update(tmp_path, Supply(writer, 300))
    held = (tmp_path / "log/checkpoint").read_bytes()
    before = files_of(tmp_path / "log")
    other = note_of(writer, [*writer.entries[: size - 1], b"another"])
    with pytest.raises(ConsistencyError) as caught:
        update(tmp_path, Supply(writer, 300, note=other))
    assert (caught.value.older, caught.value.newer) == (held, other)
    assert evidence_of(tmp_path) == {"held": held, "shown": other}
    assert files_of(tmp_path / "log") == before


def test_a_longer_other_history_is_refused(writer: Writer, tmp_path: Path) -> None:
    update(tmp_path, Supply(writer, 300))
    before = files_of(tmp_path / "log")
    others = [*writer.entries[:299], b"another", *writer.entries[300:SIZE]]
    with pytest.raises(VerificationError):
        update(tmp_path, Supply(writer, SIZE, note=note_of(writer, others), served=others))
    assert files_of(tmp_path / "log") == before


def test_the_same_evidence_is_kept_once(writer: Writer, tmp_path: Path) -> None:
    update(tmp_path, Supply(writer, 300))
    other = note_of(writer, [*writer.entries[:299], b"another"])
    for _ in range(3):
        with pytest.raises(ConsistencyError):
            update(tmp_path, Supply(writer, 300, note=other))
    assert len(list((tmp_path / "evidence").iterdir())) == 1


@pytest.mark.parametrize(
    ("note", "error"),
    [
        (b"", MalformedError),
        (b"log\n3\nroot\n\n", MalformedError),
        ("one witness", SignatureError),
        ("no witness", SignatureError),
        ("another log", NotFoundError),
    ],
)
def test_what_is_no_checkpoint_under_keys_and_quorum_is_not_taken(
    writer: Writer, tmp_path: Path, note, error: type[Exception]
) -> None:
    if isinstance(note, str):
        note = {
            "one witness": lambda: note_of(writer, writer.entries, witnesses=["w1"]),
            "no witness": lambda: note_of(writer, writer.entries, witnesses=[]),
            "another log": lambda: note_of(Writer().begin(), writer.entries),
        }[note]()
    supply = Supply(writer, SIZE, note=note)
    with pytest.raises(error):
        update(tmp_path, supply)
    assert supply.asked == []
    assert log_files(tmp_path) == {}


@pytest.mark.parametrize("path", ["tile/0/000", "tile/0/001.p/44"])
@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: bytes([raw[0] ^ 1]) + raw[1:]])
def test_a_mirror_that_was_changed_says_so_and_takes_nothing(
    writer: Writer, tmp_path: Path, path: str, change
) -> None:
    update(tmp_path, Supply(writer, 300))
    tile = tmp_path / "log" / path
    tile.write_bytes(change(tile.read_bytes()))
    supply = Supply(writer, SIZE)
    with pytest.raises(VerificationError, match="the mirror's own"):
        update(tmp_path, supply)
    assert supply.asked == []


def test_a_mirror_whose_tile_is_gone_says_so(writer: Writer, tmp_path: Path) -> None:
    update(tmp_path, Supply(writer, 300))
    (tmp_path / "log/tile/0/000").unlink()
    with pytest.raises(VerificationError, match="the mirror's own tile/0/000 is missing: begin a new mirror"):
        update(tmp_path, Supply(writer, SIZE))


def test_a_mirror_of_another_log_is_not_gone_on_with(writer: Writer, tmp_path: Path) -> None:
    update(tmp_path, Supply(writer, 300))
    other = Writer().begin()
    with pytest.raises(NotFoundError, match="another log than the trust policy's"):
        update(tmp_path, Supply(other, len(other.entries)))


def test_a_mirror_is_of_one_log(writer: Writer, tmp_path: Path) -> None:
    keys = LogKeys.generate()
    second = TrustedLog("log.example/other", tuple(map(parse_vkey, keys.vkeys("log.example/other"))))
    both = TrustPolicy((writer.trust, second), writer.policy.witnesses, writer.policy.groups, writer.policy.quorum)
    with pytest.raises(MalformedError, match="exactly one log"):
        LogMirror(tmp_path, both)


def test_a_log_that_has_published_nothing_is_not_found(writer: Writer, tmp_path: Path) -> None:
    class Nothing(Supply):
        def newest_checkpoint(self, held_size: int) -> bytes:
            raise NotFoundError("nothing yet")

    with pytest.raises(NotFoundError):
        update(tmp_path, Nothing(writer, 0))
    assert log_files(tmp_path) == {}


def test_after_a_rotation_the_same_tree_is_kept_under_the_new_keys(writer: Writer, tmp_path: Path) -> None:
    update(tmp_path, Supply(writer, 300))
    old_note = (tmp_path / "log/checkpoint").read_bytes()
    keys = LogKeys.generate()
    newer = tuple(map(parse_vkey, keys.vkeys(writer.origin)))
    trust = TrustedLog(writer.origin, (*writer.trust.keys, *newer))
    policy = TrustPolicy((trust,), writer.policy.witnesses, writer.policy.groups, writer.policy.quorum)

    class Rotated:
        signer, cosigner = keys.note_signer(writer.origin), keys.cosigner(writer.origin)
        origin, now, witnesses = writer.origin, writer.now, writer.witnesses

    note = note_of(Rotated(), writer.entries[:300])  # type: ignore[arg-type]
    with pytest.raises(MissingEvidenceError, match="generation 1; the trust policy's newest is 2"):
        update(tmp_path, Supply(writer, 300), policy)
    assert (tmp_path / "log/checkpoint").read_bytes() == old_note
    update(tmp_path, Supply(writer, 300, note=note), policy)
    assert (tmp_path / "log/checkpoint").read_bytes() == note
    grown = note_of(Rotated(), writer.entries[:400])  # type: ignore[arg-type]
    assert update(tmp_path, Supply(writer, 400, note=grown), policy).held_size == 300
    # Whoever still has the older policy is told to get the newer one: nothing is false.
    with pytest.raises(MissingEvidenceError, match=r"mirror's own checkpoint: .*get the newer trust policy"):
        update(tmp_path, Supply(writer, 400, note=grown))
    with pytest.raises(MissingEvidenceError, match="get the newer trust policy"):
        update(tmp_path / "fresh", Supply(writer, 400, note=grown))
    assert not (tmp_path / "fresh/evidence").exists()


@pytest.mark.parametrize(
    "change", [lambda raw: b"", lambda raw: raw.replace(b"\n300\n", b"\n299\n"), lambda raw: raw * 99]
)
def test_a_mirror_whose_own_checkpoint_is_damaged_is_begun_anew(writer: Writer, tmp_path: Path, change) -> None:
    update(tmp_path, Supply(writer, 300))
    own = tmp_path / "log/checkpoint"
    own.write_bytes(change(own.read_bytes()))
    supply = Supply(writer, SIZE)
    with pytest.raises(VerificationError, match="own checkpoint is damaged: begin a new mirror"):
        update(tmp_path, supply)
    assert supply.held_sizes == []


def test_a_first_run_that_fails_leaves_nothing(writer: Writer, tmp_path: Path) -> None:
    class Away(Supply):
        def newest_checkpoint(self, held_size: int) -> bytes:
            raise UnavailableError("away")

    with pytest.raises(UnavailableError):
        update(tmp_path, Away(writer, 0))
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_an_empty_folder_and_none_are_taken(writer: Writer, tmp_path: Path) -> None:
    check_is_mirror(tmp_path / "none")
    check_is_mirror(tmp_path)
    (tmp_path / ".DS_Store").touch()
    check_is_mirror(tmp_path)
    (tmp_path / "lock").touch()
    update(tmp_path, Supply(writer, 300))
    check_is_mirror(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["notes.txt"],
        ["checkpoint", "tile"],
        ["log", "objects"],
        ["lock", "log", "journal"],
    ],
    ids=["anything", "a published log", "a federation's", "a mirror with more"],
)
def test_a_folder_of_other_things_is_no_place_for_a_mirror(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(MalformedError, match="holds other things: a mirror is made in a new or empty folder"):
        check_is_mirror(tmp_path)


def test_a_file_is_no_place_for_a_mirror(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(MalformedError, match="file is no folder"):
        check_is_mirror(tmp_path / "file")
