"""The log's store in a bucket: created once, on purpose; of two processes that hold it, the second to write stops."""

from __future__ import annotations

import obstore
import pytest
from obstore.store import MemoryStore

from sfrl_secure.errors import (
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.storage.bucket import Bucket
from sfrl_secure.storage.log_bucket import BucketLogStore, BucketSignedNote, read_signed_note
from sfrl_secure.storage.log_names import caching_of, content_type_of
from sfrl_secure.storage.log_store import NOTHING_SIGNED, LogStore
from tests.unit.storage.buckets import objects_of, unanswered

BATCHES = [[b"genesis"], [b"one", b"two"]]


def new_log() -> MemoryStore:
    store = MemoryStore()
    BucketLogStore.create(store, "log", BATCHES)
    return store


def open_store(store: MemoryStore) -> LogStore:
    return BucketLogStore.open(store, "log")


def test_a_new_log_holds_its_batches_and_has_signed_nothing() -> None:
    store = open_store(new_log())
    assert [store.journal.record(index) for index in range(store.journal.count)] == [b"genesis", b"one", b"two"]
    assert store.signed.read() == NOTHING_SIGNED
    assert list(store.files.names("tile")) == []
    store.close()
    with pytest.raises(UncertainStateError):
        store.journal.append_batch([b"three"])


def test_a_log_is_opened_again_as_it_was_left() -> None:
    bucket = new_log()
    store = open_store(bucket)
    store.journal.append_batch([b"three"])
    store.signed.read()
    store.signed.replace(b"note of 4")
    store.files.write("checkpoint", b"published")
    store.files.sync()
    store.close()
    store = open_store(bucket)
    assert (store.journal.count, store.signed.read()) == (4, b"note of 4")
    assert store.files.read("checkpoint", 100) == b"published"


def test_a_log_is_never_created_over_another() -> None:
    bucket = new_log()
    with pytest.raises(UncertainStateError, match="already"):
        BucketLogStore.create(bucket, "log", BATCHES)
    BucketLogStore.create(bucket, "another", [[b"another genesis"]])
    store = open_store(bucket)
    store.signed.read()
    store.signed.replace(b"note")
    for name in objects_of(bucket):
        if "/journal/" in name or name.endswith("/floor"):
            obstore.delete(bucket, name)
    with pytest.raises(UncertainStateError, match="has signed here"):
        BucketLogStore.create(bucket, "log", BATCHES)
    with pytest.raises(UncertainStateError, match="its journal is gone"):
        open_store(bucket)


def test_opening_never_makes_a_log() -> None:
    bucket = MemoryStore()
    with pytest.raises(UncertainStateError, match="no log here"):
        open_store(bucket)
    assert objects_of(bucket) == {}


def test_a_store_that_answers_nothing_at_an_opening_is_not_our_uncertainty() -> None:
    bucket = new_log()
    with unanswered("head", takes_effect=False, then_dead=True), pytest.raises(UnavailableError, match="bucket"):
        open_store(bucket)


def test_the_last_signed_note_is_read_while_the_log_is_open_and_while_it_is_not() -> None:
    bucket = new_log()
    store = open_store(bucket)
    store.signed.read()
    store.signed.replace(b"note")
    assert read_signed_note(bucket, "log") == b"note"
    store.close()
    assert read_signed_note(bucket, "log") == b"note"


def test_a_log_that_has_lost_its_signed_note_does_not_open() -> None:
    bucket = new_log()
    obstore.delete(bucket, "log/private/signed")
    with pytest.raises(UncertainStateError, match="lost its signed note"):
        open_store(bucket)


@pytest.mark.parametrize("reached", ["signed", "floor"])
def test_a_creation_that_was_interrupted_can_be_asked_for_again(reached: str) -> None:
    bucket = MemoryStore()
    with unanswered("put", takes_effect=True, then_dead=True, name=reached), pytest.raises(UncertainStateError):
        BucketLogStore.create(bucket, "log", BATCHES)
    with pytest.raises(UncertainStateError, match="no log here"):
        open_store(bucket)
    BucketLogStore.create(bucket, "log", BATCHES)
    assert open_store(bucket).journal.count == 3


def test_of_two_processes_the_second_to_write_stops() -> None:
    bucket = new_log()
    one, other = open_store(bucket), open_store(bucket)
    for store in (one, other):
        store.signed.read()
    one.journal.append_batch([b"three"])
    with pytest.raises(UncertainStateError, match="another process"):
        other.journal.append_batch([b"another three"])
    one.signed.replace(b"note of 4")
    with pytest.raises(UncertainStateError, match="somebody else"):
        other.signed.replace(b"another note")
    store = open_store(bucket)
    assert (store.journal.record(3), store.signed.read()) == (b"three", b"note of 4")


def test_a_note_is_replaced_only_where_ours_stands() -> None:
    bucket = Bucket(MemoryStore())
    signed = BucketSignedNote(bucket)
    with pytest.raises(NotFoundError):
        signed.read()
    bucket.create("signed", NOTHING_SIGNED)
    with pytest.raises(UncertainStateError, match="not read"):
        signed.replace(b"never read")
    assert signed.read() == NOTHING_SIGNED
    with unanswered("put", takes_effect=False), pytest.raises(UncertainStateError):
        signed.replace(b"lost")
    with unanswered("put", takes_effect=True):
        signed.replace(b"first")
    signed.replace(b"second")
    assert bucket.read("signed", 100) == b"second"
    bucket.put("signed", bytes(NOTE_BYTES_MAX + 1), content_type="text/plain", caching="no-store")
    with pytest.raises(UncertainStateError, match="cannot be read"):
        signed.read()
    with unanswered("get", takes_effect=False), pytest.raises(UncertainStateError, match="cannot be read"):
        signed.read()


def test_files_are_read_as_they_were_written_listed_in_order_and_removed() -> None:
    files = open_store(new_log()).files
    names = ["tile/0/000", "tile/0/000.p/12", "tile/0/000.p/7", "tile/0/x001/000", "tile/entries/000"]
    for name in reversed(names):
        files.write(name, b"older")
        files.write(name, name.encode())
    assert list(files.names("tile")) == sorted(names) == names
    assert files.read(names[1], 100) == names[1].encode()
    files.remove(names[1])
    files.remove(names[1])
    assert list(files.names("tile/0/000.p")) == [names[2]]
    with pytest.raises(NotFoundError):
        files.read(names[1], 100)
    with pytest.raises(MalformedError):
        files.read(names[0], 3)


@pytest.mark.parametrize("name", ["", "..", "a/../b", "/a", "a/", ".a", "A", "a b"])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    files = open_store(new_log()).files
    for use in (lambda: files.read(name, 10), lambda: files.write(name, b""), lambda: files.remove(name),
                lambda: list(files.names(name))):
        with pytest.raises(MalformedError):
            use()


def test_a_store_that_does_not_answer_stops_who_writes_and_not_who_reads() -> None:
    files = open_store(new_log()).files
    files.write("checkpoint", b"")
    with unanswered("put", takes_effect=True), pytest.raises(UncertainStateError):
        files.write("checkpoint", b"1")
    with unanswered("get", takes_effect=False), pytest.raises(MissingEvidenceError):
        files.read("checkpoint", 10)
    with unanswered("delete", takes_effect=False):
        files.remove("checkpoint")
    assert files.read("checkpoint", 10) == b"1"


def test_only_the_checkpoint_changes_and_only_hashes_are_for_everyone() -> None:
    assert caching_of("checkpoint") == "public, max-age=1"
    for name in ("tile/0/000", "tile/1/x001/000.p/7", "checkpoints/512"):
        assert caching_of(name) == "public, max-age=31536000, immutable"
    for name in ("tile/entries/000", "tile/entries/x001/000.p/7"):
        assert caching_of(name) == "private, max-age=31536000, immutable"
    assert {content_type_of(name) for name in ("checkpoint", "checkpoints/512")} == {"text/plain; charset=utf-8"}
    assert {content_type_of(name) for name in ("tile/0/000", "tile/entries/000")} == {"application/octet-stream"}
