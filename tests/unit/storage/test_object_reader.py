"""An object is read a piece at a time, and hashed when somebody asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from sfrl_secure.errors import DigestError, ExhaustedError, MalformedError, MissingEvidenceError, NotFoundError
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.storage.bucket import Bucket
from sfrl_secure.storage.object_reader import HashedObjects
from sfrl_secure.storage.objects import BucketObjects, Objects, ObjectStore
from tests.unit.storage.buckets import unanswered
from tests.unit.storage.watching import failing, recorded

DATA = bytes(range(256)) * 5
Place = tuple[Objects, Callable[[Digest, bytes], object]]


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Objects, and what writes damaged bytes in the place of one."""
    if request.param == "folder":
        folder = ObjectStore(tmp_path / "objects")
        return folder, lambda digest, data: folder.path(digest).write_bytes(data)
    store = MemoryStore()
    return BucketObjects(Bucket(store, "objects")), lambda digest, data: obstore.put(
        store, f"objects/{digest.hex()[:2]}/{digest.hex()}", data
    )


def test_any_part_of_an_object_is_read_and_nothing_beyond_it(place: Place) -> None:
    digest = place[0].put(DATA)
    with place[0].open(digest, len(DATA)) as reader:
        assert reader.size == len(DATA)
        assert reader.read(3, 7) == DATA[3:10]
        assert reader.read(len(DATA), 0) == b""
        assert b"".join(reader.chunks(chunk_bytes=100)) == DATA
        assert [len(each) for each in reader.chunks(1_000, chunk_bytes=200)] == [200, 80]
        assert b"".join(reader.chunks(10, 300, 100)) == DATA[10:310]
        for offset, length in ((-1, 2), (0, -1), (0, len(DATA) + 1), (len(DATA), 1)):
            with pytest.raises(MalformedError):
                reader.read(offset, length)
        with pytest.raises(MalformedError):
            list(reader.chunks(0, len(DATA) + 1))


def test_what_is_missing_or_too_long_is_not_opened(place: Place) -> None:
    digest = place[0].put(DATA)
    with pytest.raises(NotFoundError):
        place[0].open(sha256(b"other"), 100)
    with pytest.raises(MalformedError):
        place[0].open(digest, len(DATA) - 1)


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    path = store.path(sha256(b"pipe"))
    path.parent.mkdir()
    os.mkfifo(path)
    with pytest.raises(MalformedError):
        store.open(sha256(b"pipe"), 100)


def test_damaged_bytes_do_not_pass_and_right_ones_do(place: Place) -> None:
    objects, damage = place
    digest = objects.put(DATA)
    with objects.open(digest, 10_000) as reader:
        reader.check_digest()
    for damaged in (b"", b"x" + DATA[1:], DATA + b"more"):
        damage(digest, damaged)
        with objects.open(digest, 10_000) as reader, pytest.raises(DigestError):
            reader.check_digest()
    objects.put(DATA)
    with objects.open(digest, 10_000) as reader:
        reader.check_digest()


def test_an_object_is_hashed_once_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(tmp_path)
    digest = store.put(DATA)
    read: list[int] = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *given: read.append(given[1]) or pread(*given))
    for _ in range(3):
        with store.open(digest, 10_000) as reader:
            reader.check_digest()
    assert len(read) == 1
    os.utime(store.path(digest), ns=(1, 1))
    with store.open(digest, 10_000) as reader:
        reader.check_digest()
    assert len(read) == 2


def test_who_puts_the_time_of_the_last_write_back_is_seen(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    digest = store.put(DATA)
    with store.open(digest, 10_000) as reader:
        reader.check_digest()
    before = store.path(digest).stat()
    # Longer than a file system's clock takes to move on.
    time.sleep(0.02)
    with store.path(digest).open("r+b") as file:
        file.write(b"other")
    os.utime(store.path(digest), ns=(before.st_atime_ns, before.st_mtime_ns))
    with store.open(digest, 10_000) as reader, pytest.raises(DigestError):
        reader.check_digest()


def test_what_is_remembered_of_one_object_says_nothing_of_another(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path)
    right, wrong = store.put(DATA), sha256(b"wrong")
    with store.open(right, 10_000) as reader:
        reader.check_digest()
    store.path(wrong).parent.mkdir(exist_ok=True)
    store.path(wrong).hardlink_to(store.path(right))
    with store.open(wrong, 10_000) as reader, pytest.raises(DigestError):
        reader.check_digest()


def test_the_newest_objects_are_remembered() -> None:
    hashed = HashedObjects(objects_max=2)
    for each in range(3):
        hashed.add(each)
    assert [hashed.holds(each) for each in range(3)] == [False, True, True]


def test_an_object_that_changes_while_it_is_open_gives_no_bytes_of_two(place: Place) -> None:
    objects, damage = place
    digest = objects.put(DATA)
    with objects.open(digest, 10_000) as reader:
        assert reader.read(0, 10) == DATA[:10]
        damage(digest, b"short")
        with pytest.raises(MissingEvidenceError):
            reader.read(1_000, 10)
        with pytest.raises(MissingEvidenceError):
            reader.check_digest()


def test_a_bucket_that_does_not_answer_gives_nothing() -> None:
    objects = BucketObjects(Bucket(MemoryStore()))
    digest = objects.put(DATA)
    with unanswered("head", takes_effect=False), pytest.raises(MissingEvidenceError):
        objects.open(digest, 10_000)
    with objects.open(digest, 10_000) as reader, unanswered("get", takes_effect=False), \
            pytest.raises(MissingEvidenceError):  # fmt: skip
        reader.read(0, 1)


def test_a_file_becomes_an_object(place: Place, tmp_path: Path) -> None:
    objects, damage = place
    for there in (None, b"damaged", DATA):
        file = tmp_path / "file"
        file.write_bytes(DATA)
        if there is not None:
            damage(sha256(DATA), there)
        objects.adopt(file, sha256(DATA))
        assert objects.get(sha256(DATA), 10_000) == DATA


def test_a_file_is_renamed_and_its_new_name_made_durable(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    file = tmp_path / "file"
    file.write_bytes(DATA)
    digest = sha256(DATA)
    inode = file.stat().st_ino
    with recorded() as calls:
        store.adopt(file, digest)
    assert calls == [
        ("mkdir", digest.hex()[:2]), ("sync_folder", "objects"),
        ("rename", digest.hex()), ("sync_folder", digest.hex()[:2]),
    ]  # fmt: skip
    assert store.path(digest).stat().st_ino == inode
    assert not file.exists()


def test_a_full_disk_leaves_the_file_where_it_was(tmp_path: Path) -> None:
    store = ObjectStore(tmp_path / "objects")
    file = tmp_path / "file"
    file.write_bytes(DATA)
    with failing("rename", 28), pytest.raises(ExhaustedError):
        store.adopt(file, sha256(DATA))
    assert file.read_bytes() == DATA
    assert not store.is_stored(sha256(DATA))


def test_an_object_in_parts_stands_there_whole_or_not_at_all() -> None:
    store = MemoryStore()
    objects = BucketObjects(Bucket(store))
    whole = os.urandom(12_000_000)

    def broken() -> object:
        yield whole[:11_000_000]
        raise NotFoundError("a part is gone")

    with pytest.raises(NotFoundError):
        objects.put_parts(broken(), sha256(whole))  # type: ignore[arg-type]
    assert not objects.is_stored(sha256(whole))
    objects.put_parts((whole[at : at + 1_000_000] for at in range(0, len(whole), 1_000_000)), sha256(whole))
    assert objects.get(sha256(whole), len(whole)) == whole
