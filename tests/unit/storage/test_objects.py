"""Objects bear the digest of their bytes, whatever happens on the disk."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from sfrl_secure.errors import (
    DigestError,
    ExhaustedError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    UncertainStateError,
)
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.storage.bucket import Bucket
from sfrl_secure.storage.objects import BucketObjects, Objects, ObjectStore, open_objects
from tests.unit.storage.buckets import unanswered
from tests.unit.storage.watching import failing, recorded


def test_what_was_put_is_got_under_its_digest(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    digest = store.put(b"payload")
    assert digest == sha256(b"payload")
    assert store.get(digest, 7) == b"payload"
    assert store.is_stored(digest)
    assert store.path(digest) == tmp_path / "objects" / digest.hex()[:2] / digest.hex()


def test_an_object_is_put_twice_and_written_once(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    digest = store.put(b"payload")
    before = store.path(digest).stat().st_ino
    assert store.put(b"payload") == digest
    assert store.path(digest).stat().st_ino == before


def test_a_second_put_makes_the_name_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(tmp_path)
    store.put(b"payload")
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    store.put(b"payload")
    assert len(synced) == 1


def test_an_object_is_durable_before_put_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(tmp_path)
    data_synced: list[int] = []
    folders_synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", data_synced.append)
    monkeypatch.setattr(os, "fsync", folders_synced.append)
    store.put(b"payload")
    # The file's bytes; the folder's name in the store; the file's name in the folder.
    assert (len(data_synced), len(folders_synced)) == (1, 2)


@pytest.mark.parametrize("damaged", [b"", b"payloaD", b"payload and more"])
def test_damaged_bytes_are_not_given_out_and_the_right_ones_replace_them(tmp_path: Path, damaged: bytes) -> None:
    store = ObjectStore(tmp_path)
    digest = store.put(b"payload")
    store.path(digest).write_bytes(damaged)
    with pytest.raises(DigestError):
        store.get(digest, 100)
    store.put(b"payload")
    assert store.get(digest, 100) == b"payload"


LONG = bytes(range(256)) * 8_192
"""Written and hashed side by side."""


def test_a_long_object_gets_its_name_when_its_bytes_are_durable(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    with recorded() as calls:
        digest = store.put(memoryview(LONG))
    assert store.get(digest, len(LONG)) == LONG
    assert digest == sha256(LONG)
    found = [call for call, _ in calls]
    assert found.index("sync_data") < found.index("rename") < len(found) - 1
    assert calls[-1] == ("sync_folder", digest.hex()[:2])


def test_a_long_object_that_is_there_stays_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    digest = store.put(LONG)
    before = store.path(digest).stat().st_ino
    with recorded() as calls:
        assert store.put(LONG) == digest
    assert store.path(digest).stat().st_ino == before
    assert calls[-1] == ("sync_folder", digest.hex()[:2])
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_damaged_long_object_is_replaced(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    digest = store.put(LONG)
    store.path(digest).write_bytes(LONG[:-1] + b"x")
    store.put(LONG)
    assert store.get(digest, len(LONG)) == LONG


@pytest.mark.parametrize("call", ["open_new", "write_all", "rename", "mkdir"])
def test_a_full_disk_keeps_nothing_of_a_long_object(tmp_path: Path, call: str) -> None:
    store = ObjectStore(tmp_path)
    with failing(call, errno.ENOSPC), pytest.raises(ExhaustedError):
        store.put(LONG)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_long_object_that_the_disk_does_not_confirm_is_none(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    with failing("sync_data", errno.EIO), pytest.raises(UncertainStateError):
        store.put(LONG)
    assert not store.is_stored(sha256(LONG))


def test_an_object_over_the_bound_or_missing_is_refused(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    digest = store.put(b"payload")
    with pytest.raises(MalformedError):
        store.get(digest, 6)
    with pytest.raises(NotFoundError):
        store.get(sha256(b"other"), 100)
    assert not store.is_stored(sha256(b"other"))


def test_many_may_put_the_same_object_at_once(tmp_path: Path) -> None:
    stores = [ObjectStore(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        digests = list(pool.map(lambda i: stores[i % 8].put(b"object %d" % (i // 8)), range(64)))
    assert len(set(digests)) == 8
    assert all(stores[0].get(digest, 100) for digest in digests)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.fixture(params=["folder", "bucket"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Objects, Callable[[Digest, bytes], object]]:
    """Objects, and what writes damaged bytes in the place of one."""
    if request.param == "folder":
        folder = open_objects(tmp_path)
        assert isinstance(folder, ObjectStore)
        return folder, lambda digest, data: folder.path(digest).write_bytes(data)
    store = MemoryStore()
    return BucketObjects(Bucket(store, "objects")), lambda digest, data: obstore.put(
        store, f"objects/{digest.hex()[:2]}/{digest.hex()}", data
    )


def test_objects_keep_their_promises_wherever_they_lie(
    anywhere: tuple[Objects, Callable[[Digest, bytes], object]]
) -> None:
    objects, damage = anywhere
    digest = sha256(b"payload")
    assert not objects.is_stored(digest)
    with pytest.raises(NotFoundError):
        objects.get(digest, 7)
    assert objects.put(b"payload") == objects.put(b"payload") == digest
    assert objects.is_stored(digest)
    assert objects.get(digest, 7) == b"payload"
    with pytest.raises(MalformedError):
        objects.get(digest, 6)
    for damaged in (b"", b"payloaD", b"payload and more"):
        damage(digest, damaged)
        with pytest.raises(DigestError):
            objects.get(digest, 100)
        objects.put(b"payload")
        assert objects.get(digest, 7) == b"payload"


def test_a_bucket_that_does_not_answer_confirms_nothing() -> None:
    objects = BucketObjects(Bucket(MemoryStore()))
    with unanswered("put", takes_effect=False), pytest.raises(UncertainStateError):
        objects.put(b"payload")
    assert not objects.is_stored(sha256(b"payload"))
    with unanswered("put", takes_effect=True):
        objects.put(b"payload")
    for call, use in (
        ("get", lambda: objects.get(sha256(b"payload"), 7)), ("head", lambda: objects.is_stored(sha256(b"payload")))
    ):
        with unanswered(call, takes_effect=False), pytest.raises(MissingEvidenceError):
            use()


def test_objects_are_opened_by_folder_or_address(tmp_path: Path) -> None:
    assert isinstance(open_objects(tmp_path / "a"), ObjectStore)
    assert isinstance(open_objects(str(tmp_path / "b")), ObjectStore)
    assert isinstance(open_objects("s3://bucket/objects"), BucketObjects)
    with pytest.raises(MalformedError):
        open_objects("s3://key:secret@bucket")
