"""The journal: nothing acknowledged is lost, nothing broken is believed."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.storage.journal import BATCH_RECORDS_MAX, Journal

BATCHES = [[b"one"], [b"two", b"", b"three" * 9], [b"four", b"five"]]


def make_journal(path: Path, batches: list[list[bytes]] = BATCHES) -> list[int]:
    """Write `batches`; give the file's length after each."""
    Journal.create(path)
    lengths = [path.stat().st_size]
    journal = Journal(path)
    for batch in batches:
        journal.append_batch(batch)
        lengths.append(path.stat().st_size)
    journal.close()
    return lengths


def read_journal(path: Path) -> list[bytes]:
    journal = Journal(path)
    records = list(journal.records())
    journal.close()
    return records


def flat(batches: list[list[bytes]]) -> list[bytes]:
    return [record for batch in batches for record in batch]


def test_records_come_back_in_order_after_each_opening(tmp_path: Path) -> None:
    make_journal(tmp_path / "journal")
    assert read_journal(tmp_path / "journal") == flat(BATCHES)
    journal = Journal(tmp_path / "journal")
    journal.append_batch([b"six"])
    assert journal.record(6) == b"six"
    assert list(journal.records(first=5)) == [b"five", b"six"]
    journal.close()
    assert read_journal(tmp_path / "journal") == [*flat(BATCHES), b"six"]


def test_a_journal_is_created_with_its_first_batches_or_not_at_all(tmp_path: Path) -> None:
    Journal.create(tmp_path / "journal", BATCHES)
    assert read_journal(tmp_path / "journal") == flat(BATCHES)
    with pytest.raises(UncertainStateError):
        Journal.create(tmp_path / "journal")
    with pytest.raises(NotFoundError):
        Journal(tmp_path / "none")


def test_an_append_torn_at_any_byte_is_cut_and_what_was_before_it_stays(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lengths = make_journal(path)
    whole = path.read_bytes()
    for end in range(lengths[-2], lengths[-1]):
        path.write_bytes(whole[:end])
        journal = Journal(path)
        assert list(journal.records()) == flat(BATCHES[:-1])
        assert journal.cut_bytes == end - lengths[-2]
        journal.append_batch([b"again"])
        journal.close()
        assert read_journal(path) == [*flat(BATCHES[:-1]), b"again"]


def test_an_append_whose_blocks_came_to_the_disk_out_of_order_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lengths = make_journal(path)
    whole = path.read_bytes()
    for hole in range(lengths[-2], lengths[-1]):
        path.write_bytes(whole[:hole] + bytes(min(8, len(whole) - hole)) + whole[hole + 8:])
        if path.read_bytes() != whole:
            assert read_journal(path) == flat(BATCHES[:-1])


def test_a_cut_is_durable_before_anything_is_appended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "journal"
    make_journal(path)
    path.write_bytes(path.read_bytes()[:-1])
    lengths: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: lengths.append(os.fstat(descriptor).st_size))
    Journal(path).close()
    assert lengths == [path.stat().st_size]


def test_damage_to_any_byte_before_the_last_batch_stops_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lengths = make_journal(path)
    whole = path.read_bytes()
    for at in range(lengths[-2]):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1:])
        with pytest.raises(UncertainStateError):
            Journal(path)
    assert lengths[-2] > 200


@pytest.mark.parametrize("missing", range(len(BATCHES) - 1))
def test_a_batch_taken_out_stops_the_opening(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "journal"
    lengths = make_journal(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:lengths[missing]] + whole[lengths[missing + 1]:])
    with pytest.raises(UncertainStateError):
        Journal(path)


def test_a_batch_twice_stops_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    lengths = make_journal(path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[lengths[-2]:])
    with pytest.raises(UncertainStateError):
        Journal(path)


def test_more_rubbish_than_an_append_can_leave_stops_the_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal"
    make_journal(path)
    whole = path.read_bytes()
    monkeypatch.setattr("sfrl_secure.storage.journal._BODY_BYTES_MAX", 100)
    path.write_bytes(whole + bytes(153))
    with pytest.raises(UncertainStateError):
        Journal(path)
    path.write_bytes(whole + bytes(152))
    assert read_journal(path) == flat(BATCHES)


def test_a_record_that_reads_as_a_batch_of_another_journal_is_only_a_record(tmp_path: Path) -> None:
    other = tmp_path / "other"
    lengths = make_journal(other)
    foreign = other.read_bytes()[lengths[0]:]
    path = tmp_path / "journal"
    before = make_journal(path, [[b"one"], [foreign, foreign]])
    whole = path.read_bytes()
    # Torn before the foreign bytes and after them: neither time may they be taken for a later batch.
    for end in (before[1] + 60, len(whole) - 1):
        path.write_bytes(whole[:before[1]] + b"X" + whole[before[1] + 1:end])
        assert read_journal(path) == [b"one"]


def test_a_file_that_is_no_journal_stops_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    make_journal(path, [])
    whole = path.read_bytes()
    for rubbish in (b"", b"SFRLJNL1", bytes(40), whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
        path.write_bytes(rubbish)
        with pytest.raises(UncertainStateError):
            Journal(path)


def test_a_journal_whose_sync_failed_takes_nothing_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_journal(tmp_path / "journal")
    journal = Journal(tmp_path / "journal")

    def failing(_: int) -> None:
        raise OSError(errno.EIO, "made to fail")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", failing)
        with pytest.raises(UncertainStateError):
            journal.append_batch([b"lost?"])
    assert journal.count == len(flat(BATCHES))
    # The next sync would succeed, and say nothing about the pages that the failed one dropped.
    with pytest.raises(UncertainStateError):
        journal.append_batch([b"more"])
    journal.close()


def test_a_full_disk_ends_the_journal_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_journal(tmp_path / "journal")
    journal = Journal(tmp_path / "journal")

    def failing(*_: object) -> int:
        raise OSError(errno.ENOSPC, "made to fail")

    with monkeypatch.context() as full:
        full.setattr(os, "write", failing)
        with pytest.raises(UncertainStateError):
            journal.append_batch([b"lost?"])
    with pytest.raises(UncertainStateError):
        journal.append_batch([b"more"])
    journal.close()


def test_a_batch_is_one_write_and_one_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_journal(tmp_path / "journal")
    journal = Journal(tmp_path / "journal")
    calls: list[str] = []
    real_write, real_sync = os.write, os.fdatasync
    monkeypatch.setattr(os, "write", lambda *given: (calls.append("write"), real_write(*given))[1])
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: (calls.append("sync"), real_sync(descriptor))[1])
    journal.append_batch([bytes(1000)] * 100)
    assert calls == ["write", "sync"]
    journal.close()


def test_batches_are_bounded_and_records_outside_are_not_found(tmp_path: Path) -> None:
    make_journal(tmp_path / "journal")
    journal = Journal(tmp_path / "journal")
    for batch in ([], [b""] * (BATCH_RECORDS_MAX + 1), [bytes(65_536)]):
        with pytest.raises(MalformedError):
            journal.append_batch(batch)
    # Refused before anything was written: the journal lives.
    journal.append_batch([bytes(65_535)])
    for index in (-1, journal.count):
        with pytest.raises(NotFoundError):
            journal.record(index)
    journal.close()


def test_a_file_cut_under_us_is_noticed(tmp_path: Path) -> None:
    lengths = make_journal(tmp_path / "journal")
    journal = Journal(tmp_path / "journal")
    os.truncate(tmp_path / "journal", lengths[0])
    with pytest.raises(UncertainStateError):
        journal.record(0)
    journal.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.binary(max_size=50), min_size=1, max_size=4), min_size=1, max_size=4),
    data=st.data(),
)
def test_whatever_a_crash_leaves_the_acknowledged_prefix_is_read(
    tmp_path: Path, batches: list[list[bytes]], data: st.DataObject
) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    lengths = make_journal(path, batches)
    whole = path.read_bytes()
    tail = bytearray(whole[lengths[-2]:data.draw(st.integers(lengths[-2], lengths[-1]))])
    if tail:
        # One page of the torn batch never came to the disk.
        at = data.draw(st.integers(0, len(tail) - 1))
        tail[at:] = bytes(len(tail) - at)
    path.write_bytes(whole[:lengths[-2]] + bytes(tail))
    assert read_journal(path) in (flat(batches[:-1]), flat(batches))
