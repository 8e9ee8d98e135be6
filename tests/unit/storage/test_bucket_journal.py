"""The journal in a bucket: of two processes the second stops, whatever was dropped meanwhile and whoever slept."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from sfrl_secure.errors import MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.storage.bucket import Bucket
from sfrl_secure.storage.bucket_batch import encode_batch_object, parse_batch_object
from sfrl_secure.storage.bucket_floor import parse_floor
from sfrl_secure.storage.bucket_journal import BucketJournal
from tests.unit.storage.buckets import objects_of, unanswered

RUN = bytes(16)


def batch_at(index: int, count: int = 3) -> list[bytes]:
    return [b"record %06d" % at for at in range(index, index + count)]


def make_bucket(count: int = 0) -> tuple[MemoryStore, Bucket]:
    """A bucket with a journal of 3 records and `count` more, in batches of 3."""
    store = MemoryStore()
    bucket = Bucket(store, "log")
    BucketJournal.create(bucket, [batch_at(0)])
    if count:
        journal = BucketJournal(bucket)
        for index in range(3, 3 + count, 3):
            journal.append_batch(batch_at(index))
    return store, bucket


def records_of(journal: BucketJournal) -> list[bytes]:
    return [journal.record(index) for index in range(journal.first_index, journal.count)]


def batches_in(store: MemoryStore) -> dict[int, int]:
    return {
        int(path.rpartition("/")[2]): len(data) for path, data in objects_of(store).items() if "/journal/" in path
    }


def marks_in(bucket: Bucket) -> tuple[range, ...]:
    return parse_floor(bucket.read("floor", 4096)).marked


def test_records_come_back_after_each_opening() -> None:
    _, bucket = make_bucket(27)
    journal = BucketJournal(bucket)
    assert (journal.first_index, journal.count, journal.cut_bytes) == (0, 30, 0)
    journal.append_batch(batch_at(30))
    assert records_of(journal) == batch_at(0, 33)
    for index in (-1, 33):
        with pytest.raises(NotFoundError):
            journal.record(index)


def test_a_batch_is_one_object_under_the_index_of_its_first_record() -> None:
    store, bucket = make_bucket()
    BucketJournal(bucket).append_batch(batch_at(3))
    assert sorted(batches_in(store)) == [0, 3]
    found = parse_batch_object(objects_of(store)[f"log/journal/{3:020}"])
    assert (found.first_index, found.records) == (3, tuple(batch_at(3)))


def test_a_journal_is_created_whole_in_one_object_and_never_replaced() -> None:
    store = MemoryStore()
    bucket = Bucket(store, "log")
    with pytest.raises(NotFoundError):
        BucketJournal(bucket)
    with pytest.raises(MalformedError):
        BucketJournal.create(bucket, [])
    BucketJournal.create(bucket, [batch_at(index, 256) for index in range(0, 1024, 256)])
    assert list(batches_in(store)) == [0]
    assert records_of(BucketJournal(bucket)) == batch_at(0, 1024)
    with pytest.raises(UncertainStateError, match="already"):
        BucketJournal.create(bucket, [batch_at(0)])
    with pytest.raises(UncertainStateError, match="already"):
        BucketJournal.create(bucket, [batch_at(index, 256) for index in range(0, 1024, 256)])


def test_a_creation_that_was_interrupted_can_be_asked_for_again() -> None:
    store = MemoryStore()
    bucket = Bucket(store, "log")
    with unanswered("put", takes_effect=True, then_dead=True, name="floor"), pytest.raises(UncertainStateError):
        BucketJournal.create(bucket, [batch_at(0)])
    with pytest.raises(NotFoundError):
        BucketJournal(bucket)
    BucketJournal.create(bucket, [batch_at(0)])
    assert records_of(BucketJournal(bucket)) == batch_at(0)


def test_dropping_removes_whole_batches_and_never_the_newest() -> None:
    store, bucket = make_bucket(27)
    journal = BucketJournal(bucket)
    journal.drop_before(2)
    assert journal.first_index == 0
    journal.drop_before(11)
    assert (journal.first_index, journal.count) == (9, 30)
    assert records_of(journal) == batch_at(9, 21)
    with pytest.raises(NotFoundError):
        journal.record(8)
    journal.drop_before(10_000)
    assert (journal.first_index, journal.count) == (27, 30)
    assert records_of(BucketJournal(bucket)) == batch_at(27, 3)
    # The first batch, and the first after the one opening that appended, keep their names; empty.
    assert [index for index, size in batches_in(store).items() if not size] == [0, 3]
    assert sorted(batches_in(store)) == [0, 3, 27]


def test_of_two_processes_the_second_to_append_stops() -> None:
    _, bucket = make_bucket()
    one, other = BucketJournal(bucket), BucketJournal(bucket)
    one.append_batch(batch_at(3))
    with pytest.raises(UncertainStateError, match="another process"):
        other.append_batch([b"something else"])
    with pytest.raises(UncertainStateError, match="before"):
        other.append_batch([b"something else"])
    one.append_batch(batch_at(6))
    assert records_of(BucketJournal(bucket)) == batch_at(0, 9)


def test_the_same_batch_of_another_process_is_not_ours() -> None:
    _, bucket = make_bucket()
    one, other = BucketJournal(bucket), BucketJournal(bucket)
    one.append_batch(batch_at(3))
    with pytest.raises(UncertainStateError):
        other.append_batch(batch_at(3))


def test_a_process_that_slept_while_a_newer_one_wrote_and_dropped_is_refused() -> None:
    _, bucket = make_bucket(6)
    asleep = BucketJournal(bucket)
    asleep.append_batch(batch_at(9))
    newer = BucketJournal(bucket)
    for index in range(12, 60, 3):
        newer.append_batch(batch_at(index))
        newer.drop_before(index)
    newest = BucketJournal(bucket)
    newest.append_batch(batch_at(60))
    newest.drop_before(60)
    assert newest.first_index == 60
    with pytest.raises(UncertainStateError):
        asleep.append_batch([b"a second history"])


def test_a_process_drops_nothing_after_another_has_opened_the_log() -> None:
    store, bucket = make_bucket(6)
    older = BucketJournal(bucket)
    older.append_batch(batch_at(9))
    opened = BucketJournal(bucket)
    older.append_batch(batch_at(12))
    older.append_batch(batch_at(15))
    before = batches_in(store)
    with pytest.raises(UncertainStateError, match="opened"):
        older.drop_before(15)
    assert batches_in(store) == before
    # Else this name would be free, and its owner long gone on.
    with pytest.raises(UncertainStateError):
        opened.append_batch([b"a second history"])


def test_where_a_process_has_opened_the_log_the_name_stays_taken_whoever_wrote_there() -> None:
    store, bucket = make_bucket()
    oldest = BucketJournal(bucket)
    oldest.append_batch([b"3"])
    opened = BucketJournal(bucket)
    oldest.append_batch([b"4"])  # The second that it writes: it does not say itself that it is a fence.
    newest = BucketJournal(bucket)
    newest.append_batch([b"5"])
    newest.drop_before(newest.count)
    assert (newest.first_index, batches_in(store)[4]) == (5, 0)
    with pytest.raises(UncertainStateError, match="another process"):
        opened.append_batch([b"a second history"])
    assert records_of(BucketJournal(bucket)) == [b"5"]


def test_a_dropping_that_comes_while_another_process_opens_the_log_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _, bucket = make_bucket(6)
    older = BucketJournal(bucket)
    older.append_batch(batch_at(9))
    refusals = []

    def drop_and_read(journal: BucketJournal) -> list[Any]:
        with pytest.raises(UncertainStateError, match="opened"):
            older.drop_before(9)
        refusals.append(journal)
        return read_batches(journal)

    read_batches = BucketJournal._read_batches
    monkeypatch.setattr(BucketJournal, "_read_batches", drop_and_read)
    newer = BucketJournal(bucket)
    assert refusals == [newer]
    assert records_of(newer) == batch_at(0, 12)


def test_of_two_processes_that_open_at_once_the_later_one_does(monkeypatch: pytest.MonkeyPatch) -> None:
    _, bucket = make_bucket(6)
    openers = []

    def open_and_read(journal: BucketJournal) -> list[Any]:
        monkeypatch.setattr(BucketJournal, "_read_batches", read_batches)
        openers.append(BucketJournal(bucket))
        return read_batches(journal)

    read_batches = BucketJournal._read_batches
    monkeypatch.setattr(BucketJournal, "_read_batches", open_and_read)
    with pytest.raises(UncertainStateError, match="opened"):
        BucketJournal(bucket)
    openers[0].append_batch(batch_at(9))
    openers[0].drop_before(9)
    assert records_of(BucketJournal(bucket)) == batch_at(9)


def test_in_a_bucket_of_before_there_were_marks_everything_counts_as_marked() -> None:
    store, bucket = make_bucket(27)
    opened = BucketJournal(bucket)
    opened.append_batch(batch_at(30))
    # The floor as it was: the first two batches below it, left there by a dropping that was interrupted.
    bucket.put("floor", b"6 " + b"0" * 32 + b"\n", content_type="text/plain", caching="no-store")
    journal = BucketJournal(bucket)
    assert records_of(journal) == batch_at(6, 27)
    journal.append_batch(batch_at(33))
    journal.append_batch(batch_at(36))
    journal.append_batch(batch_at(39))
    journal.drop_before(42)
    # All that was there at the opening, and its first batch; the second and the third are its own.
    assert [index for index, size in batches_in(store).items() if not size] == list(range(0, 36, 3))
    assert sorted(batches_in(store)) == [*range(0, 36, 3), 39]
    assert records_of(BucketJournal(bucket)) == batch_at(39)


def test_a_log_that_is_opened_again_and_again_has_one_mark() -> None:
    _, bucket = make_bucket(9)
    for index in range(12, 300, 3):
        for _ in range(2):
            journal = BucketJournal(bucket)
            assert marks_in(bucket) == (range(index, index + 1),)
        journal.append_batch(batch_at(index))
        if index % 20 == 0:
            journal.drop_before(index)


def test_marks_are_handed_on_until_what_they_guard_was_dropped() -> None:
    store, bucket = make_bucket()
    writer = BucketJournal(bucket)
    writer.append_batch(batch_at(3))
    waiting = []
    for index in range(6, 6 + 3 * 100, 3):
        waiting.append(BucketJournal(bucket))
        writer.append_batch(batch_at(index))
    newest = BucketJournal(bucket)
    marked = marks_in(bucket)
    assert len(marked) == 64
    # The lowest ones together, the others each alone.
    assert marked[0] == range(6, 118)
    assert marked[1:] == tuple(range(index, index + 1) for index in range(120, 307, 3))
    newest.append_batch(batch_at(306))
    newest.drop_before(306)
    assert [index for index, size in batches_in(store).items() if not size] == list(range(0, 306, 3))
    assert marks_in(bucket) == marked
    for process in (*waiting, writer):
        with pytest.raises(UncertainStateError, match="another process"):
            process.append_batch([b"a second history"])
    BucketJournal(bucket)
    assert marks_in(bucket) == (range(309, 310),)


@settings(max_examples=300, deadline=None)
@example(
    [(3, "append"), (0, "open"), (3, "append"), (2, "open"), (2, "append"), (2, "drop"), (0, "append")]
)
@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["append", "append", "drop", "open"])), min_size=5, max_size=60
    )
)
def test_whatever_processes_do_there_is_one_history(steps: list[tuple[int, str]]) -> None:
    """Any interleaving of four processes; what any of them acknowledged is the log, once."""
    _, bucket = make_bucket()
    acknowledged = dict(enumerate(batch_at(0)))
    processes = [BucketJournal(bucket) for _ in range(4)]
    said = itertools.count()
    for who, action in steps:
        try:
            if action == "open":
                processes[who] = BucketJournal(bucket)
            elif action == "drop":
                processes[who].drop_before(processes[who].count)
            else:
                index, record = processes[who].count, b"said %d" % next(said)
                processes[who].append_batch([record])
                assert index not in acknowledged
                acknowledged[index] = record
        except UncertainStateError:
            pass
    last = BucketJournal(bucket)
    assert last.count == len(acknowledged)
    assert records_of(last) == [acknowledged[index] for index in range(last.first_index, last.count)]


def test_an_append_whose_answer_is_lost_is_looked_up() -> None:
    _, bucket = make_bucket()
    journal = BucketJournal(bucket)
    with unanswered("put", takes_effect=True):
        journal.append_batch(batch_at(3))
    assert records_of(journal) == batch_at(0, 6)
    with unanswered("put", takes_effect=False), pytest.raises(UncertainStateError):
        journal.append_batch(batch_at(6))
    # The request may still arrive: only a new start can tell.
    with pytest.raises(UncertainStateError, match="before"):
        journal.append_batch(batch_at(6))
    assert records_of(BucketJournal(bucket)) == batch_at(0, 6)


@pytest.mark.parametrize("call", ["put", "delete"])
@pytest.mark.parametrize("takes_effect", [False, True])
def test_a_dropping_that_was_interrupted_is_finished_at_the_next_opening(call: str, takes_effect: bool) -> None:
    store, bucket = make_bucket(27)
    journal = BucketJournal(bucket)
    with unanswered(call, takes_effect=takes_effect, then_dead=True, name="floor" if call == "put" else ""), \
            pytest.raises(UncertainStateError):
        journal.drop_before(20)
    journal = BucketJournal(bucket)
    has_begun = call == "delete" or takes_effect
    assert journal.first_index == (18 if has_begun else 0)
    assert records_of(journal) == batch_at(journal.first_index, 30 - journal.first_index)
    if has_begun:
        assert sorted(batches_in(store)) == [0, 3, 18, 21, 24, 27]
        assert [index for index, size in batches_in(store).items() if not size] == [0, 3]
    journal.drop_before(30)
    assert records_of(BucketJournal(bucket)) == batch_at(27, 3)


@pytest.mark.parametrize("lost", [0, 9, 15])
def test_a_batch_that_is_gone_stops_the_opening(lost: int) -> None:
    _, bucket = make_bucket(27)
    bucket.remove([f"journal/{lost:020}"])
    with pytest.raises(UncertainStateError, match="missing"):
        BucketJournal(bucket)


def test_a_journal_that_has_lost_all_its_batches_is_not_an_empty_one() -> None:
    _, bucket = make_bucket(27)
    BucketJournal(bucket).drop_before(20)
    bucket.remove([f"journal/{index:020}" for index in range(6, 30, 3)])
    with pytest.raises(UncertainStateError, match="lost"):
        BucketJournal(bucket)
    bucket.remove([f"journal/{index:020}" for index in (0, 3)])
    with pytest.raises(UncertainStateError, match="lost"):
        BucketJournal(bucket)


@pytest.mark.parametrize("name", ["floor", f"journal/{9:020}"])
@pytest.mark.parametrize("data", [b"", b"0", b"0 " + b"0" * 32, b"-1 " + b"0" * 32 + b"\n", b"x" * 65])
def test_an_object_that_is_not_what_its_name_says_stops_the_opening(name: str, data: bytes) -> None:
    _, bucket = make_bucket(27)
    bucket.put(name, data, content_type="text/plain", caching="no-store")
    with pytest.raises(UncertainStateError):
        BucketJournal(bucket)


def test_a_batch_under_another_ones_name_stops_the_opening() -> None:
    _, bucket = make_bucket(27)
    data = encode_batch_object(RUN, 12, [batch_at(12)], is_fence=False)
    bucket.put(f"journal/{9:020}", data, content_type="text/plain", caching="no-store")
    with pytest.raises(UncertainStateError):
        BucketJournal(bucket)


def test_a_store_that_does_not_answer_opens_nothing() -> None:
    _, bucket = make_bucket(27)
    for call in ("get", "put", "list"):
        with unanswered(call, takes_effect=False, then_dead=True), pytest.raises(UncertainStateError):
            BucketJournal(bucket)
    assert records_of(BucketJournal(bucket)) == batch_at(0, 30)


def test_new_records_are_read_without_asking_the_store_and_memory_is_bounded() -> None:
    _, bucket = make_bucket()
    journal = BucketJournal(bucket, recent_bytes_max=100)
    for index in range(3, 60, 3):
        journal.append_batch(batch_at(index))
    with unanswered("get", takes_effect=False, then_dead=True):
        assert [journal.record(index) for index in (57, 58, 59)] == batch_at(57)
        with pytest.raises(UncertainStateError):
            journal.record(20)
    assert journal.record(20) == batch_at(20, 1)[0]
    assert journal._recent._bytes <= 100
    with unanswered("get", takes_effect=False, then_dead=True):
        assert journal.record(19) == batch_at(19, 1)[0]


@pytest.mark.parametrize("data", [b"", encode_batch_object(RUN, 3, [batch_at(3, 2)], is_fence=False)])
def test_a_batch_that_was_changed_under_us_is_noticed(data: bytes) -> None:
    _, bucket = make_bucket(27)
    journal = BucketJournal(bucket, recent_bytes_max=0)
    bucket.put(f"journal/{3:020}", data, content_type="text/plain", caching="no-store")
    with pytest.raises(UncertainStateError):
        journal.record(4)


def test_a_malformed_batch_leaves_the_journal_alive() -> None:
    _, bucket = make_bucket()
    journal = BucketJournal(bucket)
    for batch in ([], [bytes(65_536)], [b""] * 257):
        with pytest.raises(MalformedError):
            journal.append_batch(batch)
    journal.append_batch(batch_at(3))
    journal.close()
    with pytest.raises(UncertainStateError):
        journal.append_batch(batch_at(6))


def test_every_damaged_byte_of_a_batch_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = encode_batch_object(RUN, 7, [[b"one", b""], [b"two"]], is_fence=True)
    found = parse_batch_object(raw)
    assert (found.first_index, found.is_fence, found.records) == (7, True, (b"one", b"", b"two"))
    for at in range(len(raw)):
        for damaged in (raw[:at], raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1:]):
            with pytest.raises(MalformedError):
                parse_batch_object(damaged)
    with pytest.raises(MalformedError):
        parse_batch_object(raw + b"\0")
    monkeypatch.setattr("sfrl_secure.storage.bucket_batch.BATCH_OBJECT_BYTES_MAX", len(raw) - 1)
    with pytest.raises(MalformedError, match="at most"):
        encode_batch_object(RUN, 7, [[b"one", b""], [b"two"]], is_fence=True)
