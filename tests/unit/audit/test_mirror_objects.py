"""A mirror's objects: all that entries name, nothing that is not what its name says, and what is lacking is asked for
again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfrl_secure.audit.mirror import LogMirror
from sfrl_secure.audit.mirror_objects import MirroredObjects, ObjectMirror
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.errors import MalformedError, MissingEvidenceError, UnavailableError
from sfrl_secure.limits import OBJECT_HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX

from ..replay.builder import COORDINATES, Admitted, Writer, sha
from .mirrored import Store, Supply, files_of, written_log

SIZE = 300
NOT_KEPT, EVIDENCE = sha(b"not kept"), sha(b"kept as evidence")


@pytest.fixture(scope="module")
def writer() -> Writer:
    return written_log(SIZE)


def mirrored(writer: Writer, folder: Path, size: int = SIZE) -> Path:
    LogMirror(folder, writer.policy).update(Supply(writer, size), lambda *_: None)
    return folder


def update(folder: Path, store: Store, size: int = SIZE) -> MirroredObjects:
    return ObjectMirror(folder).update(size, store, lambda *_: None)


def kept(folder: Path) -> set[str]:
    return {Path(name).name for name in files_of(folder / "objects")}


def test_every_object_that_an_entry_names_is_fetched_once_and_no_other(writer: Writer, tmp_path: Path) -> None:
    store = Store({**writer.objects, sha(b"stray"): b"stray"})
    done = update(mirrored(writer, tmp_path), store)
    assert (done.fetched, done.missing, done.altered) == (len(writer.objects), set(), set())
    assert kept(tmp_path) == {digest.hex() for digest in writer.objects}
    asked = [digest for digest, _ in store.asked]
    assert len(asked) == len(set(asked))
    assert EVIDENCE in asked
    assert NOT_KEPT not in asked


def test_the_mirror_is_verified_as_the_log_itself_is(writer: Writer, tmp_path: Path) -> None:
    log, policy, objects = writer.write(tmp_path / "original")
    folder = tmp_path / "copy"
    folder.mkdir()
    update(mirrored(writer, folder), Store(writer.objects))
    copied = verify_log(folder / "log", policy, folder / "objects")
    original = verify_log(log, policy, objects)
    assert copied.results_sound
    assert (copied.verdict, copied.findings, copied.missing) == (
        original.verdict, original.findings, original.missing,
    )  # fmt: skip


def test_how_long_an_object_may_be_comes_from_its_statement_or_the_terms(writer: Writer, tmp_path: Path) -> None:
    store = Store(writer.objects)
    update(mirrored(writer, tmp_path), store)
    models = 8 * COORDINATES + OBJECT_HEADER_BYTES_MAX
    payloads = [digest for digest, bytes_max in store.asked if bytes_max != models]
    assert len(payloads) == 6
    assert all(bytes_max in (models, len(writer.objects[digest])) for digest, bytes_max in store.asked)


def test_no_statement_lets_a_payload_be_longer_than_any(tmp_path: Path) -> None:
    writer = Writer().begin()
    writer.refuse("r1", "round_not_open", fields={"payload_bytes": 2**60}, payload=b"kept", evidence=2)
    store = Store({**writer.objects, sha(b"kept"): b"kept"})
    size = len(writer.entries)
    update(mirrored(writer, tmp_path, size), store, size)
    assert (sha(b"kept"), PAYLOAD_BYTES_MAX) in store.asked


def test_the_mask_of_terms_is_fetched_like_any_object(tmp_path: Path) -> None:
    writer, mask = Writer().begin(), b"a mask of three"
    named = {"digest": sha(mask).hex(), "nonzeros": 3, "next": None}
    writer.publish_terms(writer.terms(support_modes=["agreed", "free"], mask=named))
    store = Store({**writer.objects, sha(mask): mask})
    size = len(writer.entries)
    update(mirrored(writer, tmp_path, size), store, size)
    assert (sha(mask), 8 * 3 + OBJECT_HEADER_BYTES_MAX) in store.asked
    assert object_file(tmp_path, sha(mask)).read_bytes() == mask


@pytest.mark.parametrize("lies_first", [True, False])
@pytest.mark.parametrize("reread", [True, False])
def test_a_false_length_does_not_hide_an_object_that_another_entry_names(
    lies_first: bool, reread: bool, tmp_path: Path
) -> None:
    writer, payload = Writer().begin(), b"longer than one byte"
    for says in sorted((1, len(payload)), reverse=not lies_first):
        writer.refuse("r1", "round_not_open", fields={"payload_bytes": says}, payload=payload, evidence=2)
    store = Store({**writer.objects, sha(payload): payload})
    size = len(writer.entries)
    mirrored(writer, tmp_path, size)
    for _ in range(2):  # the second time it is there
        done = ObjectMirror(tmp_path).update(size, store, lambda *_: None, reread=reread)
        assert (done.missing, done.altered) == (set(), set())
        assert object_file(tmp_path, sha(payload)).read_bytes() == payload
    assert len([digest for digest, _ in store.asked if digest == sha(payload)]) == 1 + lies_first


def test_an_object_that_is_longer_than_every_entry_says_is_asked_for_again_and_never_kept(tmp_path: Path) -> None:
    writer, payload = Writer().begin(), b"longer than one byte"
    for says in (1, 3, 2):
        writer.refuse("r1", "round_not_open", fields={"payload_bytes": says}, payload=payload, evidence=2)
    store = Store({**writer.objects, sha(payload): payload})
    size = len(writer.entries)
    assert update(mirrored(writer, tmp_path, size), store, size).altered == {sha(payload)}
    assert [bytes_max for digest, bytes_max in store.asked if digest == sha(payload)] == [1, 3]
    assert update(tmp_path, store, size).altered == {sha(payload)}
    assert [bytes_max for digest, bytes_max in store.asked if digest == sha(payload)] == [1, 3, 3]
    assert not object_file(tmp_path, sha(payload)).exists()


def test_what_is_there_is_not_fetched_again(writer: Writer, tmp_path: Path) -> None:
    update(mirrored(writer, tmp_path), Store(writer.objects))
    store = Store(writer.objects)
    assert update(tmp_path, store).fetched == 0
    assert store.asked == []


def test_a_longer_log_is_looked_through_from_where_the_last_run_ended(writer: Writer, tmp_path: Path) -> None:
    small = 40
    store = Store(writer.objects)
    first = update(mirrored(writer, tmp_path, small), store, small)
    assert json.loads((tmp_path / "objects.json").read_bytes())["entries"] == small
    second = update(mirrored(writer, tmp_path), store)
    assert first.fetched + second.fetched == len(writer.objects)
    assert kept(tmp_path) == {digest.hex() for digest in writer.objects}


def test_a_missing_object_is_said_and_asked_for_the_next_time(writer: Writer, tmp_path: Path) -> None:
    lacking = {digest: raw for digest, raw in writer.objects.items() if digest != EVIDENCE}
    store = Store(lacking)
    done = update(mirrored(writer, tmp_path), store)
    assert (done.missing, done.altered, done.fetched) == ({EVIDENCE}, set(), len(lacking))
    assert update(tmp_path, Store(lacking)).missing == {EVIDENCE}
    again = Store(writer.objects)
    assert update(tmp_path, again) == MirroredObjects(fetched=1)
    assert [digest for digest, _ in again.asked] == [EVIDENCE]
    assert update(tmp_path, Store({})) == MirroredObjects()


def test_an_object_that_is_not_what_its_name_says_is_said_and_not_kept(writer: Writer, tmp_path: Path) -> None:
    done = update(mirrored(writer, tmp_path), Store(writer.objects, altered={EVIDENCE}))
    assert (done.altered, done.missing) == ({EVIDENCE}, set())
    assert EVIDENCE.hex() not in kept(tmp_path)
    assert update(tmp_path, Store(writer.objects)).fetched == 1


def test_an_object_that_is_too_long_is_not_kept(writer: Writer, tmp_path: Path) -> None:
    class TooLong(Store):
        def fetch_object(self, digest, bytes_max: int) -> bytes:
            return bytes(bytes_max + 1) if digest == EVIDENCE else super().fetch_object(digest, bytes_max)

    assert update(mirrored(writer, tmp_path), TooLong(writer.objects)).altered == {EVIDENCE}
    assert EVIDENCE.hex() not in kept(tmp_path)


def test_a_store_that_goes_away_leaves_what_came_and_is_gone_on_with(writer: Writer, tmp_path: Path) -> None:
    mirrored(writer, tmp_path)
    with pytest.raises(UnavailableError):
        update(tmp_path, Store(writer.objects, ends_after=3))
    assert len(kept(tmp_path)) == 3
    assert update(tmp_path, Store(writer.objects)).fetched == len(writer.objects) - 3
    assert kept(tmp_path) == {digest.hex() for digest in writer.objects}


@pytest.mark.parametrize(
    "record",
    [
        b"", b"[]", b"{}", b'{"entries": -1, "segments": {}, "wanted": {}}', b"not JSON",
        b'{"entries": 999999, "segments": {}, "wanted": {}}', b'{"entries": 1, "segments": {"a": "b"}, "wanted": {}}',
        b'{"entries": 300, "segments": {}, "wanted": {"zz": 1}}', b'{"entries": 300, "segments": [], "wanted": {}}',
    ],
)  # fmt: skip
def test_a_record_that_is_lost_or_damaged_is_made_again(writer: Writer, tmp_path: Path, record: bytes) -> None:
    update(mirrored(writer, tmp_path), Store(writer.objects))
    (tmp_path / "objects" / EVIDENCE.hex()[:2] / EVIDENCE.hex()).unlink()
    (tmp_path / "objects.json").write_bytes(record)
    assert update(tmp_path, Store(writer.objects)).fetched == 1


@pytest.mark.parametrize("lengths", [1, [1, 2], [1, 2, -3], [1, 2, "3"], [1, 2, 3, 4]], ids=str)
def test_lengths_that_a_record_cannot_have_are_learnt_again_from_the_entries(
    writer: Writer, tmp_path: Path, lengths: object
) -> None:
    update(mirrored(writer, tmp_path), Store(writer.objects))
    good = json.loads((tmp_path / "objects.json").read_bytes())
    (name,) = good["segments"]
    (tmp_path / "objects.json").write_text(json.dumps(good | {"segments": {name: lengths}}))
    update(tmp_path, Store(writer.objects))
    assert json.loads((tmp_path / "objects.json").read_bytes()) == good


def test_a_mirror_whose_objects_were_removed_fetches_them_again(writer: Writer, tmp_path: Path) -> None:
    import shutil

    update(mirrored(writer, tmp_path), Store(writer.objects))
    shutil.rmtree(tmp_path / "objects")
    assert update(tmp_path, Store(writer.objects)).fetched == len(writer.objects)


def object_file(folder: Path, digest: bytes) -> Path:
    return folder / "objects" / digest.hex()[:2] / digest.hex()


def test_an_object_that_the_mirror_lost_comes_back(writer: Writer, tmp_path: Path) -> None:
    update(mirrored(writer, tmp_path), Store(writer.objects))
    object_file(tmp_path, EVIDENCE).unlink()
    store = Store(writer.objects)
    assert update(tmp_path, store) == MirroredObjects(fetched=1)
    assert [digest for digest, _ in store.asked] == [EVIDENCE]
    assert object_file(tmp_path, EVIDENCE).read_bytes() == writer.objects[EVIDENCE]


def test_a_stray_file_does_not_hide_an_object_that_was_lost(writer: Writer, tmp_path: Path) -> None:
    update(mirrored(writer, tmp_path), Store(writer.objects))
    lost = object_file(tmp_path, EVIDENCE)
    lost.rename(lost.with_name("stray"))
    assert update(tmp_path, Store(writer.objects)).fetched == 1


def test_what_is_there_is_read_again_only_on_demand_and_then_mended(writer: Writer, tmp_path: Path) -> None:
    update(mirrored(writer, tmp_path), Store(writer.objects))
    object_file(tmp_path, EVIDENCE).write_bytes(b"rotten")
    assert update(tmp_path, Store({})) == MirroredObjects()
    store = Store(writer.objects)
    assert ObjectMirror(tmp_path).update(SIZE, store, lambda *_: None, reread=True) == MirroredObjects(fetched=1)
    assert [digest for digest, _ in store.asked] == [EVIDENCE]
    assert object_file(tmp_path, EVIDENCE).read_bytes() == writer.objects[EVIDENCE]


def test_entries_that_are_none_name_nothing(tmp_path: Path) -> None:
    writer = Writer().begin()
    writer.entries.append(b"no entry at all")
    mirrored(writer, tmp_path, len(writer.entries))
    assert update(tmp_path, Store(writer.objects), len(writer.entries)).fetched == 1


def test_a_model_of_a_segment_without_terms_is_not_asked_for(tmp_path: Path) -> None:
    writer = Writer()
    writer.genesis()
    writer.publish_services()
    writer.terms_raw = json.dumps(writer.terms()).encode()  # they are never in the log
    writer.open_round()
    assert writer.round is not None
    writer.round.admitted.append(Admitted("r1", b"", {0: 5}, 10))
    writer.publish_model()
    store = Store(writer.objects)
    size = len(writer.entries)
    assert update(mirrored(writer, tmp_path, size), store, size) == MirroredObjects()
    assert store.asked == []


@pytest.mark.parametrize(("change", "error"), [(None, MissingEvidenceError), (b"\0", MalformedError)])
def test_a_damaged_copy_is_named(writer: Writer, tmp_path: Path, change: bytes | None, error: type[Exception]) -> None:
    mirrored(writer, tmp_path)
    bundle = tmp_path / "log/tile/entries/000"
    if change is None:
        bundle.unlink()
    else:
        bundle.write_bytes(bundle.read_bytes() + change)
    with pytest.raises(error, match=r"own tile/entries/000 is .*: begin a new mirror"):
        update(tmp_path, Store(writer.objects))


def test_progress_is_told_to_the_end(writer: Writer, tmp_path: Path) -> None:
    mirrored(writer, tmp_path)
    stages: list[tuple[str, int, int]] = []
    ObjectMirror(tmp_path).update(SIZE, Store(writer.objects), lambda *stage: stages.append(stage))
    assert stages == [("objects", 256, SIZE), ("objects", SIZE, SIZE)]
