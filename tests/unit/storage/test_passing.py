"""What passed is given back by the system's memory, and by nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from obstore.store import MemoryStore

from sfrl_secure.ids import sha256
from sfrl_secure.storage.bucket import Bucket
from sfrl_secure.storage.objects import BucketObjects, ObjectStore
from sfrl_secure.storage.passing import PassingObjects
from tests.unit.storage.watching import name_of, recorded


@pytest.fixture
def advised(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files of which the system is told that it need not keep them."""
    names: list[str] = []

    def advise(descriptor: int, offset: int, length: int, advice: int) -> None:
        assert (offset, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        names.append(name_of(descriptor))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    return names


def test_an_object_has_passed_when_it_is_closed_and_not_before(tmp_path: Path, advised: list[str]) -> None:
    digest = ObjectStore(tmp_path).put(b"payload")
    with PassingObjects(ObjectStore(tmp_path)).open(digest, 7) as reader:
        assert list(reader.chunks()) == [b"payload"]
        assert not advised
    reader.close()
    assert advised == [digest.hex()]


def test_what_somebody_reads_again_is_kept(tmp_path: Path, advised: list[str]) -> None:
    objects = ObjectStore(tmp_path)
    digest = objects.put(b"payload")
    objects.get(digest, 7)
    with objects.open(digest, 7) as reader:
        reader.check_digest()
    assert not advised


@pytest.mark.parametrize("length", [7, 3 * 2**20])
def test_what_is_put_has_passed_once_it_is_durable(tmp_path: Path, advised: list[str], length: int) -> None:
    with recorded() as calls:
        digest = PassingObjects(ObjectStore(tmp_path)).put(bytes(length))
        assert "sync_data" in [call for call, _ in calls]
        assert not [call for call, _ in calls[-1:] if call != "sync_folder"]
    assert advised == [digest.hex()]
    assert ObjectStore(tmp_path).get(digest, length) == bytes(length)


def test_what_is_got_has_passed(tmp_path: Path, advised: list[str]) -> None:
    objects = PassingObjects(ObjectStore(tmp_path))
    digest = objects.put(b"payload")
    advised.clear()
    assert objects.get(digest, 7) == b"payload"
    assert advised == [digest.hex()]


def test_advice_that_is_not_taken_costs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError("no such advice here")

    monkeypatch.setattr(os, "posix_fadvise", refuse)
    objects = PassingObjects(ObjectStore(tmp_path))
    digest = objects.put(b"payload")
    assert objects.get(digest, 7) == b"payload"


def test_a_system_without_advice_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fadvise")
    objects = PassingObjects(ObjectStore(tmp_path))
    assert objects.get(objects.put(b"payload"), 7) == b"payload"


def test_objects_of_a_bucket_pass_too(tmp_path: Path) -> None:
    objects = PassingObjects(BucketObjects(Bucket(MemoryStore(), "objects")))
    (tmp_path / "file").write_bytes(b"adopted")
    objects.adopt(tmp_path / "file", sha256(b"adopted"))
    assert objects.get(objects.put(b"payload"), 7) == b"payload"
    assert objects.is_stored(sha256(b"adopted"))
    assert not objects.is_stored(sha256(b"nothing"))
