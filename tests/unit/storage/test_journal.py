"""The journal in segments: they follow one another, grow at one end and are dropped at the other."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from sfrl_secure.errors import ExhaustedError, MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.storage.journal import FolderJournal
from tests.unit.storage.watching import failing, recorded, stops_at_each_call

SMALL = 1000
"""A segment of so many bytes is full."""


def batch_at(index: int, count: int = 3) -> list[bytes]:
    return [b"record %06d " % at * 10 for at in range(index, index + count)]


def make_journal(folder: Path, count: int = 30) -> FolderJournal:
    """Make a journal of `count` records in several segments."""
    FolderJournal.create(folder)
    journal = FolderJournal(folder, segment_bytes=SMALL)
    for index in range(0, count, 3):
        journal.append_batch(batch_at(index))
    return journal


def records_of(journal: FolderJournal) -> list[bytes]:
    return [journal.record(index) for index in range(journal.first_index, journal.count)]


def segments_in(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir())


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_records_of_all_segments_come_back_after_each_opening(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "segments")
    assert records_of(journal) == batch_at(0, 30)
    journal.close()
    assert len(segments_in(tmp_path / "segments")) > 3
    journal = FolderJournal(tmp_path / "segments", segment_bytes=SMALL)
    assert (journal.first_index, journal.count, journal.cut_bytes) == (0, 30, 0)
    journal.append_batch(batch_at(30))
    assert records_of(journal) == batch_at(0, 33)
    for index in (-1, 33):
        with pytest.raises(NotFoundError):
            journal.record(index)
    journal.close()


def test_a_journal_is_created_with_its_batches_in_segments_and_never_replaced(tmp_path: Path) -> None:
    FolderJournal.create(tmp_path / "segments", [batch_at(index) for index in range(0, 30, 3)], segment_bytes=SMALL)
    assert len(segments_in(tmp_path / "segments")) > 3
    journal = FolderJournal(tmp_path / "segments")
    assert records_of(journal) == batch_at(0, 30)
    journal.close()
    with pytest.raises(UncertainStateError, match="already"):
        FolderJournal.create(tmp_path / "segments")
    with pytest.raises(NotFoundError):
        FolderJournal(tmp_path / "none")
    with pytest.raises(MalformedError):
        FolderJournal.create(tmp_path / "bad", [[bytes(65_536)]])
    assert not (tmp_path / "bad").exists()


def test_a_batch_is_one_write_and_one_sync_of_one_file(tmp_path: Path) -> None:
    FolderJournal.create(tmp_path / "segments")
    journal = FolderJournal(tmp_path / "segments")
    with recorded() as calls:
        journal.append_batch([bytes(1000)] * 100)
    assert calls == [("write_all", f"{0:020}"), ("sync_data", f"{0:020}")]
    journal.close()


def test_a_new_segment_is_durable_before_a_batch_goes_into_it(tmp_path: Path) -> None:
    FolderJournal.create(tmp_path / "segments")
    journal = FolderJournal(tmp_path / "segments", segment_bytes=SMALL)
    journal.append_batch([bytes(SMALL)])
    with recorded() as calls:
        journal.append_batch([b"next"])
    journal.close()
    name = f"{1:020}"
    assert [call for call, _ in calls] == [
        "open_new", "write_all", "sync_data", "rename", "sync_folder", "open_to_append", "write_all", "sync_data"
    ]
    assert [subject for _, subject in calls[3:]] == [name, "segments", name, name, name]


def test_dropping_removes_whole_segments_and_nothing_from_the_index_on(tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    journal = make_journal(folder)
    starts = segments_in(folder)
    assert len(starts) > 3
    journal.drop_before(starts[2] - 1)
    assert segments_in(folder) == starts[1:]
    journal.drop_before(starts[2])
    assert (segments_in(folder), journal.first_index) == (starts[2:], starts[2])
    with pytest.raises(NotFoundError, match="dropped"):
        journal.record(starts[2] - 1)
    assert records_of(journal) == batch_at(starts[2], 30 - starts[2])
    journal.drop_before(10_000)
    # The newest stays: its name says how long the log is.
    assert segments_in(folder) == starts[-1:]
    journal.append_batch(batch_at(30))
    journal.close()
    journal = FolderJournal(folder)
    assert (journal.first_index, journal.count) == (starts[-1], 33)
    assert records_of(journal) == batch_at(starts[-1], 33 - starts[-1])
    journal.close()


def test_each_removal_is_durable_before_the_next(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "segments")
    starts = segments_in(tmp_path / "segments")
    with recorded() as calls:
        journal.drop_before(starts[2])
    journal.close()
    assert calls == [
        ("unlink", f"{0:020}"), ("sync_folder", "segments"), ("unlink", f"{starts[1]:020}"), ("sync_folder", "segments")
    ]


def test_dropped_segments_are_closed_and_a_reader_of_one_is_not_disturbed(tmp_path: Path) -> None:
    before = open_descriptors()
    journal = make_journal(tmp_path / "segments")
    reading = journal._segments[0]
    journal.drop_before(10_000)
    assert reading.record(0) == batch_at(0, 1)[0]
    del reading
    assert open_descriptors() == before + 1
    journal.close()
    assert open_descriptors() == before


def test_readers_go_on_while_segments_come_and_go(tmp_path: Path) -> None:
    FolderJournal.create(tmp_path / "segments")
    journal = FolderJournal(tmp_path / "segments", segment_bytes=SMALL)
    journal.append_batch(batch_at(0))
    wrong: list[object] = []
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            index = max(journal.count - 5, journal.first_index)
            try:
                if journal.record(index) != batch_at(index, 1)[0]:
                    wrong.append(index)
            except NotFoundError:
                if index >= journal.first_index:
                    wrong.append(index)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for index in range(3, 600, 3):
        journal.append_batch(batch_at(index))
        journal.drop_before(index - 20)
    ended.set()
    for reader in readers:
        reader.join()
    journal.close()
    assert wrong == []


@pytest.mark.parametrize("lost", ["middle", "batch"])
def test_a_gap_between_segments_stops_the_opening(tmp_path: Path, lost: str) -> None:
    folder = tmp_path / "segments"
    make_journal(folder).close()
    paths = sorted(folder.iterdir())
    before = open_descriptors()
    if lost == "middle":
        paths[1].unlink()
    else:
        # As long as before its last batch: whole, and yet too short.
        whole = paths[1].read_bytes()
        paths[1].write_bytes(whole[:whole.rindex(b"SFBT")])
    with pytest.raises(UncertainStateError, match="missing"):
        FolderJournal(folder)
    assert open_descriptors() == before


def test_a_torn_segment_is_cut_only_where_it_is_the_newest(tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    make_journal(folder).close()
    *_, older, newest = sorted(folder.iterdir())
    newest.write_bytes(newest.read_bytes()[:-1])
    journal = FolderJournal(folder)
    assert journal.cut_bytes > 0
    assert records_of(journal) == batch_at(0, 27)
    journal.close()
    older.write_bytes(older.read_bytes()[:-1])
    with pytest.raises(UncertainStateError):
        FolderJournal(folder)


def test_a_journal_without_segments_is_not_an_empty_one(tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    make_journal(folder).close()
    for path in folder.iterdir():
        path.unlink()
    (folder / "notes.txt").write_bytes(b"not ours")
    with pytest.raises(UncertainStateError, match="lost"):
        FolderJournal(folder)


@pytest.mark.parametrize(("call", "number"), [("sync_data", errno.EIO), ("write_all", errno.ENOSPC)])
def test_a_journal_that_failed_takes_nothing_more(tmp_path: Path, call: str, number: int) -> None:
    journal = make_journal(tmp_path / "segments")
    with failing(call, number), pytest.raises(UncertainStateError):
        journal.append_batch([b"lost?"])
    assert journal.count == 30
    # The next sync would succeed, and say nothing about the pages that the failed one dropped.
    with pytest.raises(UncertainStateError, match="before"):
        journal.append_batch([b"more"])
    assert records_of(journal) == batch_at(0, 30)
    journal.close()


@pytest.mark.parametrize("call", ["open_new", "write_all", "sync_data", "rename", "sync_folder", "open_to_append"])
def test_a_segment_that_cannot_be_made_ends_the_journal(tmp_path: Path, call: str) -> None:
    folder = tmp_path / "segments"
    FolderJournal.create(folder)
    journal = FolderJournal(folder, segment_bytes=SMALL)
    journal.append_batch([bytes(SMALL)])
    with failing(call, errno.EIO), pytest.raises(UncertainStateError):
        journal.append_batch([b"lost?"])
    with pytest.raises(UncertainStateError, match="before"):
        journal.append_batch([b"more"])
    journal.close()
    journal = FolderJournal(folder, segment_bytes=SMALL)
    assert records_of(journal) == [bytes(SMALL)]
    journal.close()


def test_a_malformed_batch_leaves_the_journal_alive(tmp_path: Path) -> None:
    journal = make_journal(tmp_path / "segments")
    with pytest.raises(MalformedError):
        journal.append_batch([])
    journal.append_batch(batch_at(30))
    assert records_of(journal) == batch_at(0, 33)
    journal.close()


def test_what_was_appended_is_there_whichever_call_a_crash_comes_before(tmp_path: Path) -> None:
    """Five batches over three segments, the older ones dropped on the way; the process ends before each call."""
    acknowledged = 0
    folder = tmp_path / "none"
    round_number = 0

    def reset() -> None:
        nonlocal acknowledged, folder, round_number
        acknowledged, round_number = 0, round_number + 1
        folder = tmp_path / f"segments-{round_number}"
        FolderJournal.create(folder)

    def append() -> None:
        nonlocal acknowledged
        journal = FolderJournal(folder, segment_bytes=600)
        try:
            for index in range(0, 15, 3):
                journal.append_batch(batch_at(index))
                acknowledged = index + 3
                journal.drop_before(index)
        finally:
            journal.close()

    seen: set[str] = set()
    for call in stops_at_each_call(append, reset):
        seen.add(call)
        journal = FolderJournal(folder, segment_bytes=600)
        assert journal.count in (acknowledged, acknowledged + 3)
        assert records_of(journal) == batch_at(journal.first_index, journal.count - journal.first_index)
        assert journal.first_index <= max(acknowledged - 3, 0)
        journal.append_batch(batch_at(journal.count))
        journal.close()
        assert not list(folder.glob(".*"))
    assert seen == {"open_to_append", "open_new", "write_all", "sync_data", "rename", "sync_folder", "unlink"}


def test_a_creation_that_a_crash_interrupts_leaves_a_whole_journal_or_none(tmp_path: Path) -> None:
    folder = tmp_path / "segments"
    batches = [batch_at(index) for index in range(0, 30, 3)]
    round_number = 0

    def reset() -> None:
        nonlocal folder, round_number
        round_number += 1
        folder = tmp_path / f"log-{round_number}" / "segments"
        folder.parent.mkdir()

    stops = 0
    for _ in stops_at_each_call(lambda: FolderJournal.create(folder, batches, segment_bytes=SMALL), reset):
        stops += 1
        if not folder.exists():
            FolderJournal.create(folder, batches, segment_bytes=SMALL)
        journal = FolderJournal(folder)
        assert records_of(journal) == batch_at(0, 30)
        journal.close()
        assert [path.name for path in folder.parent.iterdir()] == ["segments"]
    assert stops > 20


def test_a_creation_on_a_full_disk_says_so_and_makes_nothing(tmp_path: Path) -> None:
    with failing("write_all", errno.ENOSPC), pytest.raises(ExhaustedError):
        FolderJournal.create(tmp_path / "segments", [batch_at(0)])
    assert not (tmp_path / "segments").exists()
