"""Uploads go on from what is durable, and no call can alter another's bytes, or an object."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import obstore
import pytest
from obstore.store import MemoryStore

from sfrl_secure.errors import (
    ExhaustedError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.storage import folder_uploads
from sfrl_secure.storage.bucket import Bucket
from sfrl_secure.storage.bucket_uploads import PART_BYTES, BucketUploads
from sfrl_secure.storage.folder_uploads import FolderUploads
from sfrl_secure.storage.objects import BucketObjects, Objects, ObjectStore
from sfrl_secure.storage.uploads import Upload, Uploads, open_uploads
from tests.unit.storage.buckets import objects_of, unanswered
from tests.unit.storage.watching import failing, recorded, stops_at_each_call

PAYLOAD = bytes(range(250)) * 40
WHO = sha256(b"statement")
FAR_FUTURE_US = 2**62


class Place:
    """Uploads and objects of one gatekeeper, and what lies there."""

    def __init__(self, uploads: Uploads, objects: Objects, names: Callable[[], list[str]]) -> None:
        self.uploads, self.objects, self.names = uploads, objects, names

    def begin(self, who: Digest = WHO, payload: bytes = PAYLOAD) -> Upload:
        return self.uploads.begin(who, len(payload))


def folder_place(folder: Path) -> Place:
    uploads = FolderUploads(folder / "uploads")
    return Place(uploads, ObjectStore(folder / "objects"), lambda: sorted(os.listdir(folder / "uploads")))


def bucket_place(store: MemoryStore) -> Place:
    names = lambda: sorted(each for each in objects_of(store) if each.startswith("uploads/"))  # noqa: E731
    return Place(BucketUploads(Bucket(store, "uploads")), BucketObjects(Bucket(store, "objects")), names)


@pytest.fixture(params=["folder", "bucket"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Place, Place]:
    """Two gatekeepers that share a store."""
    if request.param == "folder":
        return folder_place(tmp_path), folder_place(tmp_path)
    store = MemoryStore()
    return bucket_place(store), bucket_place(store)


@pytest.fixture
def place(places: tuple[Place, Place]) -> Place:
    return places[0]


def leave(place: Place, data: bytes, who: Digest = WHO) -> None:
    """A call that broke when so much was durable."""
    with place.begin(who) as upload:
        taken = sum(len(each) for each in upload.take_over())
        upload.append(data[taken:])
        assert upload.sync() == len(data)


def test_an_upload_in_one_call_becomes_the_object(place: Place) -> None:
    with place.begin() as upload:
        assert upload.held == 0
        assert list(upload.take_over()) == []
        for at in range(0, len(PAYLOAD), 999):
            upload.append(memoryview(PAYLOAD)[at : at + 999])
        assert upload.received == len(PAYLOAD)
        upload.commit(place.objects, sha256(PAYLOAD))
    assert place.objects.get(sha256(PAYLOAD), 100_000) == PAYLOAD
    assert place.names() == []


def test_another_gatekeeper_goes_on_from_what_is_durable(places: tuple[Place, Place]) -> None:
    leave(places[0], PAYLOAD[:3_000])
    leave(places[1], PAYLOAD[:7_000])
    with places[0].begin() as upload:
        assert upload.held == 7_000
        assert b"".join(upload.take_over()) == PAYLOAD[:7_000]
        upload.append(PAYLOAD[7_000:])
        upload.commit(places[0].objects, sha256(PAYLOAD))
    assert places[1].objects.get(sha256(PAYLOAD), 100_000) == PAYLOAD
    assert places[1].names() == []


def test_what_is_not_durable_is_not_promised(place: Place) -> None:
    with place.begin() as upload:
        upload.append(PAYLOAD[:100])
    with place.begin() as upload:
        assert upload.held == 0
    assert place.names() == []


def test_another_statements_upload_is_another_upload(place: Place) -> None:
    leave(place, PAYLOAD[:3_000])
    with place.begin(sha256(b"other")) as upload:
        assert upload.held == 0


def test_more_than_the_payload_is_neither_taken_nor_taken_over(place: Place) -> None:
    with place.begin() as upload:
        upload.append(PAYLOAD[:-1])
        with pytest.raises(MalformedError):
            upload.append(b"xy")
        upload.append(PAYLOAD[-1:])
        upload.sync()
    with place.begin(payload=PAYLOAD[:-1]) as upload:
        assert upload.held == 0
    with place.begin() as upload:
        assert upload.held == len(PAYLOAD)


def test_two_calls_at_once_do_not_meet(places: tuple[Place, Place]) -> None:
    """The first one's bytes are another payload's: neither the second's copy nor its object is touched by them."""
    with places[0].begin() as first, places[1].begin() as second:
        assert second.held == 0
        first.append(b"\xff" * 500)
        first.sync()
        second.append(PAYLOAD)
        second.commit(places[1].objects, sha256(PAYLOAD))
        first.append(b"\xff" * 500)
        try:
            first.sync()
        finally:
            assert places[1].objects.get(sha256(PAYLOAD), 100_000) == PAYLOAD
    assert places[0].objects.get(sha256(PAYLOAD), 100_000) == PAYLOAD


def test_what_a_call_still_writes_is_copied_as_far_as_it_has_come(places: tuple[Place, Place]) -> None:
    with places[0].begin() as stalled:
        stalled.append(PAYLOAD[:4_000])
        stalled.sync()
        with places[1].begin() as upload:
            assert upload.held == 4_000
            copied = upload.take_over()
            first = next(copied)
            assert PAYLOAD.startswith(first)
            rest = b"".join(copied)
            assert first + rest == PAYLOAD[:4_000]
            upload.append(PAYLOAD[4_000:])
            upload.commit(places[1].objects, sha256(PAYLOAD))
    assert places[1].objects.get(sha256(PAYLOAD), 100_000) == PAYLOAD


def test_while_a_call_holds_the_longest_remainder_others_leave_one_copy_at_most(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    with place.begin() as held:
        held.append(PAYLOAD[:5_000])
        held.sync()
        for _ in range(4):
            with place.begin() as broken:
                assert sum(map(len, broken.take_over())) == 5_000
        assert len(place.names()) == 2


def test_both_of_two_whole_calls_may_commit(tmp_path: Path) -> None:
    places = folder_place(tmp_path), folder_place(tmp_path)
    with places[0].begin() as first, places[1].begin() as second:
        for upload in (first, second):
            upload.append(PAYLOAD)
            upload.sync()
        first.commit(places[0].objects, sha256(PAYLOAD))
        second.commit(places[1].objects, sha256(PAYLOAD))
    assert places[0].objects.get(sha256(PAYLOAD), 100_000) == PAYLOAD
    assert places[0].names() == []


def test_after_discard_nothing_is_left_of_this_call_or_those_before(place: Place) -> None:
    leave(place, PAYLOAD[:3_000])
    leave(place, PAYLOAD[:10], sha256(b"other"))
    with place.begin() as upload:
        list(upload.take_over())
        upload.append(PAYLOAD[3_000:5_000])
        upload.sync()
        upload.discard()
        upload.discard()
    with place.begin() as upload:
        assert upload.held == 0
    with place.begin(sha256(b"other")) as upload:
        assert upload.held == 10


def test_a_copy_that_was_not_finished_leaves_what_it_was_made_from(place: Place) -> None:
    leave(place, PAYLOAD[:3_000])
    with place.begin() as upload:
        next(iter(upload.take_over()))
    names = place.names()
    assert len(names) == 1
    with place.begin() as upload:
        assert b"".join(upload.take_over()) == PAYLOAD[:3_000]


def test_what_nobody_goes_on_with_is_swept(place: Place) -> None:
    leave(place, PAYLOAD[:3_000])
    leave(place, PAYLOAD[:10], sha256(b"other"))
    assert place.uploads.sweep(1) == 0
    assert len(place.names()) == 2
    assert place.uploads.sweep(FAR_FUTURE_US) == 2
    assert place.names() == []


# In a folder


def test_what_a_call_holds_is_neither_swept_nor_discarded(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    with place.begin() as held:
        held.append(PAYLOAD[:100])
        held.sync()
        assert place.uploads.sweep(FAR_FUTURE_US) == 0
        with place.begin() as other:
            list(other.take_over())
            other.discard()
        assert len(place.names()) == 1
        held.append(PAYLOAD[100:])
        held.commit(place.objects, sha256(PAYLOAD))
    assert place.objects.get(sha256(PAYLOAD), 100_000) == PAYLOAD


def test_nothing_but_what_uploads_made_is_touched(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    others = ["x", WHO.hex(), f"{WHO.hex()}.short", f"{WHO.hex()}.{'0' * 16}.tmp", f"{'g' * 64}.{'0' * 16}"]
    for name in others:
        (tmp_path / "uploads" / name).write_bytes(PAYLOAD[:50])
    with place.begin() as upload:
        assert upload.held == 0
        upload.append(PAYLOAD)
        upload.commit(place.objects, sha256(PAYLOAD))
    place.uploads.sweep(FAR_FUTURE_US)
    assert place.names() == sorted(others)


def planted(place: Place, tmp_path: Path, kind: str) -> Path:
    """Something of the name of a remainder; behind it, where it leads anywhere, more bytes than any call has left."""
    path, secret = tmp_path / "uploads" / f"{WHO.hex()}.{'0' * 16}", tmp_path / "secret"
    secret.write_bytes(PAYLOAD[:9_000])
    match kind:
        case "link":
            path.symlink_to(secret)
        case "hard link":
            path.hardlink_to(secret)
        case "dangling":
            path.symlink_to(tmp_path / "none")
        case "ring":
            path.symlink_to(path)
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "socket":
            # Such a name is short.
            with socket.socket(socket.AF_UNIX) as made, chdir(path.parent):
                made.bind(path.name)
    return path


@pytest.mark.parametrize("kind", ["link", "hard link", "dangling", "ring", "folder", "pipe", "socket"])
def test_what_is_no_file_of_a_call_is_neither_copied_nor_in_the_way(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder_place(tmp_path)
    opened: set[Path] = set()
    real = folder_uploads.open_regular
    monkeypatch.setattr(folder_uploads, "open_regular", lambda path: opened.add(path) or real(path))
    leave(place, PAYLOAD[:100])
    path = planted(place, tmp_path, kind)
    with place.begin() as upload:
        assert upload.held == 100
        assert b"".join(upload.take_over()) == PAYLOAD[:100]
    assert place.uploads.sweep(FAR_FUTURE_US) == 1
    leave(place, PAYLOAD[:200])
    with place.begin() as upload:
        list(upload.take_over())
        upload.discard()
    # To open a device may do something; what is no file is not opened at all.
    assert (path in opened) == (kind == "hard link")
    # A name that somebody gave to a file is forgotten; what is no file stays for whoever put it there.
    assert place.names() == ([] if kind == "hard link" else [path.name])
    assert (tmp_path / "secret").read_bytes() == PAYLOAD[:9_000]


def test_what_is_put_in_the_place_of_a_file_while_it_is_looked_at_is_not_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is listed, and then the file is another thing."""
    place = folder_place(tmp_path)
    (tmp_path / "secret").write_bytes(PAYLOAD[:9_000])
    real, others = folder_uploads.open_regular, iter(("link", "pipe", "folder", "nothing") * 2)

    def swapped(path: Path) -> int | None:
        path.unlink()
        match next(others):
            case "link":
                path.symlink_to(tmp_path / "secret")
            case "pipe":
                os.mkfifo(path)
            case "folder":
                path.mkdir()
        return real(path)

    monkeypatch.setattr(folder_uploads, "open_regular", swapped)
    path = tmp_path / "uploads" / f"{WHO.hex()}.{'0' * 16}"
    for number in range(8):
        path.write_bytes(PAYLOAD[:100])
        if number < 4:
            with place.begin() as upload:
                assert upload.held == 0
        else:
            assert place.uploads.sweep(FAR_FUTURE_US) == 0
        if path.is_dir():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


def test_a_file_that_cannot_be_opened_for_now_is_no_reason_to_begin_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder_place(tmp_path)
    leave(place, PAYLOAD[:100])

    def refuse(path: Path, flags: int) -> int:
        raise OSError(errno.EMFILE, "too many files are open")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        with pytest.raises(MissingEvidenceError):
            place.begin()
    with place.begin() as upload:
        assert upload.held == 100


def test_what_is_under_way_is_for_our_own_user_and_an_object_is_as_all_objects_are(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    other = place.objects.put(b"put at once")
    with place.begin() as upload:
        upload.append(PAYLOAD)
        upload.sync()
        (name,) = place.names()
        assert (tmp_path / "uploads" / name).stat().st_mode & 0o777 == 0o600
        upload.commit(place.objects, sha256(PAYLOAD))
    assert isinstance(place.objects, ObjectStore)
    modes = {place.objects.path(each).stat().st_mode & 0o777 for each in (other, sha256(PAYLOAD))}
    assert modes == {0o644}


def test_what_a_dead_process_left_is_taken_over_and_removed(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from sfrl_secure.storage.folder_uploads import FolderUploads\nfrom sfrl_secure.ids import sha256\n"
        "upload = FolderUploads(Path(sys.argv[1])).begin(sha256(b'statement'), 10_000)\n"
        "upload.append(bytes(range(250)) * 20)\nupload.sync()\nupload.append(bytes(range(9)))\nos._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "uploads")], check=True, timeout=60)
    with place.begin() as upload:
        # What was written beyond the last sync may be there too.
        assert upload.held == 5_009
        assert b"".join(upload.take_over()) == PAYLOAD[:5_000] + bytes(range(9))
        assert len(place.names()) == 1
    assert len(place.names()) == 1


def test_bytes_and_name_are_synced_before_they_are_called_durable(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    with recorded() as calls, place.begin() as upload:
        upload.append(PAYLOAD[:10])
        upload.sync()
        upload.sync()
        upload.append(PAYLOAD[10:20])
        upload.sync()
    assert [call for call, _ in calls] == [
        "open_new", "lock_exclusively", "write_all", "sync_data", "sync_folder", "write_all", "sync_data",
    ]  # fmt: skip


def test_a_full_disk_ends_the_call_and_keeps_what_was_durable(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    with place.begin() as upload:
        upload.append(PAYLOAD[:100])
        upload.sync()
        with failing("write_all", 28), pytest.raises(ExhaustedError):
            upload.append(PAYLOAD[100:200])
    with place.begin() as upload:
        assert upload.held == 100
    with failing("open_new", 28), pytest.raises(ExhaustedError):
        place.begin()


def test_a_sync_that_fails_is_not_tried_again(tmp_path: Path) -> None:
    place = folder_place(tmp_path)
    with place.begin() as upload:
        upload.append(PAYLOAD[:100])
        with failing("sync_data", 5), pytest.raises(UncertainStateError):
            upload.sync()


def test_a_crash_at_any_call_leaves_a_part_of_the_payload_or_the_object(tmp_path: Path) -> None:
    confirmed = 0

    def whole() -> None:
        nonlocal confirmed
        place = folder_place(tmp_path / "at")
        with place.begin() as upload:
            list(upload.take_over())
            upload.append(PAYLOAD[upload.received : 6_000])
            confirmed = max(confirmed, upload.sync())
            upload.append(PAYLOAD[6_000:])
            upload.commit(place.objects, sha256(PAYLOAD))

    def begin() -> None:
        nonlocal confirmed
        subprocess.run(["rm", "-rf", str(tmp_path / "at")], check=True)
        (tmp_path / "at").mkdir()
        leave(folder_place(tmp_path / "at"), PAYLOAD[:2_000])
        confirmed = 2_000

    for _ in stops_at_each_call(whole, begin):
        place = folder_place(tmp_path / "at")
        try:
            assert place.objects.get(sha256(PAYLOAD), 100_000) == PAYLOAD
        except NotFoundError:
            with place.begin() as upload:
                assert upload.held >= confirmed
                assert PAYLOAD.startswith(b"".join(upload.take_over()))
    assert folder_place(tmp_path / "at").names() == []


# In a bucket


def test_parts_are_of_a_fair_length_and_lie_where_they_belong() -> None:
    store = MemoryStore()
    place = bucket_place(store)
    payload = os.urandom(3 * PART_BYTES + 500)
    with place.begin(payload=payload) as upload:
        for at in range(0, len(payload), 300_000):
            upload.append(payload[at : at + 300_000])
        upload.sync()
        found = {name: len(data) for name, data in objects_of(store).items()}
    names = [name.split("/") for name in found]
    assert {(name[0], name[1]) for name in names} == {("uploads", WHO.hex())}
    assert len({name[2] for name in names}) == 1
    offsets = sorted((int(name.split("/")[3], 16), length) for name, length in found.items())
    assert [length >= PART_BYTES for _, length in offsets] == [True, True, False]
    with place.begin(payload=payload) as upload:
        assert b"".join(upload.take_over()) == payload
        upload.commit(place.objects, sha256(payload))
    assert place.objects.get(sha256(payload), len(payload)) == payload
    assert place.names() == []


def test_parts_with_a_gap_and_other_names_are_not_taken_over() -> None:
    store = MemoryStore()
    place = bucket_place(store)
    for name in (f"{'1' * 16}/{5:016x}", f"{'2' * 16}/x", f"{'3' * 16}/{0:016x}/more", f"{'4' * 16}/{0:016x}"):
        obstore.put(store, f"uploads/{WHO.hex()}/{name}", b"12345")
    obstore.put(store, f"uploads/{WHO.hex()}/{'4' * 16}/{6:016x}", b"12345")
    with place.begin() as upload:
        assert b"".join(upload.take_over()) == b"12345"


def test_a_part_that_is_gone_or_cut_is_missed() -> None:
    store = MemoryStore()
    place = bucket_place(store)
    leave(place, PAYLOAD[:3_000])
    (name,) = place.names()
    for damage in (lambda: obstore.put(store, name, b"short"), lambda: obstore.delete(store, name)):
        with place.begin() as upload:
            damage()
            with pytest.raises(MissingEvidenceError):
                list(upload.take_over())
        leave(place, PAYLOAD[:3_000]) if place.names() == [] else obstore.put(store, name, PAYLOAD[:3_000])


def test_a_call_whose_parts_another_one_removed_finds_the_object_or_gives_up() -> None:
    store = MemoryStore()
    place = bucket_place(store)
    for committed in (True, False):
        with place.begin() as first:
            first.append(PAYLOAD)
            first.sync()
            with place.begin() as second:
                list(second.take_over())
                if committed:
                    second.commit(place.objects, sha256(PAYLOAD))
                else:
                    second.discard()
            if committed:
                first.commit(place.objects, sha256(PAYLOAD))
                obstore.delete(store, f"objects/{sha256(PAYLOAD).hex()[:2]}/{sha256(PAYLOAD).hex()}")
            else:
                with pytest.raises(UnavailableError):
                    first.commit(place.objects, sha256(PAYLOAD))


def test_a_bucket_that_does_not_confirm_makes_nothing_durable() -> None:
    store = MemoryStore()
    place = bucket_place(store)
    with place.begin() as upload:
        upload.append(PAYLOAD[:100])
        with unanswered("put", takes_effect=False, then_dead=True), pytest.raises(UncertainStateError):
            upload.sync()
    with unanswered("list", takes_effect=False), pytest.raises(MissingEvidenceError):
        place.begin()


def test_uploads_are_opened_by_folder_or_address(tmp_path: Path) -> None:
    assert isinstance(open_uploads(tmp_path / "a"), FolderUploads)
    assert isinstance(open_uploads(str(tmp_path / "b")), FolderUploads)
    assert isinstance(open_uploads("s3://bucket/uploads"), BucketUploads)
    with pytest.raises(MalformedError):
        open_uploads("s3://key:secret@bucket")
