"""Journal and index, read beside the log that owns them: what they hold, what is damaged, and never a changed byte."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError
from sfrl_secure.ids import sha256
from sfrl_secure.storage.index import SqliteStatements
from sfrl_secure.storage.index_reading import IndexReading
from sfrl_secure.storage.journal import FolderJournal
from sfrl_secure.storage.segment_reading import JournalReading


def record(index: int) -> bytes:
    return b"record %d " % index * 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three segments of 40 records in batches of 4, the first dropped."""
    FolderJournal.create(tmp_path / "segments")
    journal = FolderJournal(tmp_path / "segments", segment_bytes=3000)
    for first in range(0, 40, 4):
        journal.append_batch([record(index) for index in range(first, first + 4)])
    journal.drop_before(16)
    journal.close()
    assert len(list((tmp_path / "segments").iterdir())) >= 2
    return tmp_path / "segments"


def segments(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def test_all_records_come_in_order(folder: Path) -> None:
    reading = JournalReading(folder)
    first = reading.first_index
    assert first > 0
    assert list(reading.records()) == [record(index) for index in range(first, 40)]
    assert (reading.end_index, reading.torn_bytes) == (40, 0)


def test_a_torn_end_is_counted_and_left_as_it_is(folder: Path) -> None:
    newest = segments(folder)[-1]
    whole = newest.read_bytes()
    for cut in (1, 20, 100):
        newest.write_bytes(whole[:-cut])
        reading = JournalReading(folder)
        read = list(reading.records())
        assert read == [record(index) for index in range(reading.first_index, 36)]
        assert reading.torn_bytes > 0
        assert newest.read_bytes() == whole[:-cut]


def test_damage_before_the_end_is_named_by_its_segment(folder: Path) -> None:
    for path in segments(folder):
        whole = path.read_bytes()
        # Behind the header; up to the last batch, where damage looks like a crash.
        for at in (0, 20, 60, 120, 400):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            with pytest.raises(MalformedError, match=path.name):
                list(JournalReading(folder).records())
        path.write_bytes(whole)


def test_a_segment_that_is_cut_or_missing_before_the_newest_is_named(folder: Path) -> None:
    first, second = segments(folder)[:2]
    whole = first.read_bytes()
    first.write_bytes(whole[:-1])
    with pytest.raises(MalformedError, match=first.name):
        list(JournalReading(folder).records())
    first.write_bytes(whole)
    # A segment under a name that is not its own, and a gap.
    second.rename(second.with_name(f"{int(second.name) + 1:020}"))
    with pytest.raises(MalformedError, match=f"{int(second.name) + 1:020}"):
        list(JournalReading(folder).records())


def test_a_batch_that_was_taken_out_is_missed(folder: Path) -> None:
    path = segments(folder)[0]
    raw = path.read_bytes()
    begin = raw.index(b"SFBT")
    end = raw.index(b"SFBT", begin + 1)
    path.write_bytes(raw[:begin] + raw[end:])
    with pytest.raises(MalformedError, match="missing"):
        list(JournalReading(folder).records())


def test_a_segment_that_cannot_be_read_is_missing_evidence(folder: Path) -> None:
    path = segments(folder)[-1]
    path.unlink()
    path.mkdir()
    with pytest.raises(MissingEvidenceError, match=path.name):
        list(JournalReading(folder).records())


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_a_folder_without_segments_is_no_journal(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFoundError):
        JournalReading(tmp_path / name)


# Index


def make_index(path: Path, count: int = 20) -> SqliteStatements:
    index = SqliteStatements(path)
    for number in range(count):
        index.add(sha256(b"%d" % number), number)
    index.flush(count)
    return index


def check(path: Path, count: int) -> None:
    before = {each: each.read_bytes() for each in path.parent.iterdir() if not each.name.endswith("-shm")}
    reading = IndexReading(path)
    assert (reading.size, reading.count) == (count, count)
    assert [reading.find(sha256(b"%d" % number)) for number in range(count)] == list(range(count))
    assert reading.find(sha256(b"another")) is None
    reading.close()
    assert {each: each.read_bytes() for each in before} == before


def test_an_index_is_read_while_the_log_has_it_open_and_after(tmp_path: Path) -> None:
    path = tmp_path / "statements.sqlite"
    index = make_index(path)
    check(path, 20)
    index.add(sha256(b"20"), 20)
    index.flush(21)
    check(path, 21)
    index.close()
    check(path, 21)


def test_an_index_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        IndexReading(tmp_path / "statements.sqlite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["text", "database", "empty state", "words", "damaged"])
def test_what_is_no_index_is_malformed(tmp_path: Path, what: str) -> None:
    path = tmp_path / "statements.sqlite"
    if what == "text":
        path.write_bytes(b"not a database, and longer than its header" * 100)
    else:
        make_index(path, 2000).close()
        if what == "damaged":
            raw = bytearray(path.read_bytes())
            raw[4096:8192] = bytes(4096)
            path.write_bytes(bytes(raw))
        else:
            change = {
                "database": "PRAGMA application_id = 7",
                "empty state": "DELETE FROM state",
                "words": "UPDATE state SET indexed_size = 'many'",
            }[what]
            connection = sqlite3.connect(path, isolation_level=None)
            connection.execute(change)
            connection.close()
    with pytest.raises(MalformedError):
        read_all(path)


def read_all(path: Path) -> None:
    reading = IndexReading(path)
    try:
        for number in range(2000):
            reading.find(sha256(b"%d" % number))
    finally:
        reading.close()
