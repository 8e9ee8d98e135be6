"""A segment of the journal: nothing acknowledged is lost, nothing broken is believed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.storage.batch import BATCH_RECORDS_MAX, encode_records, parse_lengths
from sfrl_secure.storage.segment import Segment
from tests.unit.storage.watching import recorded

BATCHES = [[b"one"], [b"two", b"", b"three" * 9], [b"four", b"five"]]
FIRST = 1000


def make_segment(path: Path, batches: list[list[bytes]] = BATCHES) -> list[int]:
    """Write `batches`; give the file's length after each."""
    Segment.create(path, FIRST)
    lengths = [path.stat().st_size]
    segment = Segment(path, FIRST, is_newest=True)
    for batch in batches:
        segment.append(batch)
        lengths.append(path.stat().st_size)
    assert segment.bytes_held == lengths[-1]
    segment.close()
    return lengths


def read_segment(path: Path, *, is_newest: bool = True) -> list[bytes]:
    segment = Segment(path, FIRST, is_newest=is_newest)
    records = [segment.record(index) for index in range(FIRST, segment.end_index)]
    segment.close()
    return records


def flat(batches: list[list[bytes]]) -> list[bytes]:
    return [record for batch in batches for record in batch]


def test_records_come_back_in_order_after_each_opening(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    make_segment(path)
    assert read_segment(path, is_newest=False) == flat(BATCHES)
    segment = Segment(path, FIRST, is_newest=True)
    segment.append([b"six", b"seven"])
    assert [segment.record(FIRST + 6), segment.record(FIRST + 7)] == [b"six", b"seven"]
    segment.close()
    assert read_segment(path) == [*flat(BATCHES), b"six", b"seven"]


def test_a_segment_is_created_with_its_batches_and_for_its_owner_alone(tmp_path: Path) -> None:
    Segment.create(tmp_path / "segment", FIRST, BATCHES)
    assert read_segment(tmp_path / "segment") == flat(BATCHES)
    assert (tmp_path / "segment").stat().st_mode & 0o777 == 0o600


def test_an_append_torn_at_any_byte_is_cut_and_what_was_before_it_stays(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    lengths = make_segment(path)
    whole = path.read_bytes()
    for end in range(lengths[-2], lengths[-1]):
        path.write_bytes(whole[:end])
        segment = Segment(path, FIRST, is_newest=True)
        assert segment.end_index == FIRST + len(flat(BATCHES[:-1]))
        assert segment.cut_bytes == end - lengths[-2]
        segment.append([b"again"])
        segment.close()
        assert read_segment(path) == [*flat(BATCHES[:-1]), b"again"]


def test_an_append_whose_blocks_came_to_the_disk_out_of_order_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    lengths = make_segment(path)
    whole = path.read_bytes()
    for hole in range(lengths[-2], lengths[-1]):
        path.write_bytes(whole[:hole] + bytes(min(8, len(whole) - hole)) + whole[hole + 8:])
        if path.read_bytes() != whole:
            assert read_segment(path) == flat(BATCHES[:-1])


def test_a_torn_end_of_a_segment_that_is_not_the_newest_stops_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    lengths = make_segment(path)
    whole = path.read_bytes()
    for end in range(lengths[-2] + 1, lengths[-1]):
        path.write_bytes(whole[:end])
        with pytest.raises(UncertainStateError, match="not the newest"):
            Segment(path, FIRST, is_newest=False)
    assert path.stat().st_size == lengths[-1] - 1


def test_a_cut_is_durable_before_anything_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    make_segment(path)
    path.write_bytes(path.read_bytes()[:-1])
    with recorded() as calls:
        Segment(path, FIRST, is_newest=True).close()
    assert [call for call, _ in calls] == ["open_to_append", "truncate", "sync_data"]


def test_damage_to_any_byte_before_the_last_batch_stops_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    lengths = make_segment(path)
    whole = path.read_bytes()
    for at in range(lengths[-2]):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1:])
        with pytest.raises(UncertainStateError):
            Segment(path, FIRST, is_newest=True)
    assert lengths[-2] > 200


@pytest.mark.parametrize("missing", range(len(BATCHES) - 1))
def test_a_batch_taken_out_stops_the_opening(tmp_path: Path, missing: int) -> None:
    path = tmp_path / "segment"
    lengths = make_segment(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:lengths[missing]] + whole[lengths[missing + 1]:])
    with pytest.raises(UncertainStateError):
        Segment(path, FIRST, is_newest=True)


def test_a_batch_twice_stops_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    lengths = make_segment(path)
    whole = path.read_bytes()
    path.write_bytes(whole + whole[lengths[-2]:])
    with pytest.raises(UncertainStateError):
        Segment(path, FIRST, is_newest=True)


def test_more_rubbish_than_an_append_can_leave_stops_the_opening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "segment"
    make_segment(path)
    whole = path.read_bytes()
    monkeypatch.setattr("sfrl_secure.storage.segment.BATCH_BYTES_MAX", 100)
    path.write_bytes(whole + bytes(153))
    with pytest.raises(UncertainStateError):
        Segment(path, FIRST, is_newest=True)
    path.write_bytes(whole + bytes(152))
    assert read_segment(path) == flat(BATCHES)


def test_a_file_longer_than_any_segment_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "segment"
    lengths = make_segment(path)
    monkeypatch.setattr("sfrl_secure.storage.segment._FILE_BYTES_MAX", lengths[-1] - 1)
    with pytest.raises(UncertainStateError, match="longer than"):
        Segment(path, FIRST, is_newest=True)


def test_a_record_that_reads_as_a_batch_of_another_journal_is_only_a_record(tmp_path: Path) -> None:
    other = tmp_path / "other"
    lengths = make_segment(other)
    foreign = other.read_bytes()[lengths[0]:]
    path = tmp_path / "segment"
    before = make_segment(path, [[b"one"], [foreign, foreign]])
    whole = path.read_bytes()
    # Torn before the foreign bytes and after them: neither time may they be taken for a later batch.
    for end in (before[1] + 60, len(whole) - 1):
        path.write_bytes(whole[:before[1]] + b"X" + whole[before[1] + 1:end])
        assert read_segment(path) == [b"one"]


def test_a_file_that_is_no_segment_stops_the_opening(tmp_path: Path) -> None:
    path = tmp_path / "segment"
    make_segment(path, [])
    whole = path.read_bytes()
    for rubbish in (b"", b"SFRLJNL2", bytes(48), whole[:-1], bytes([whole[0] ^ 1]) + whole[1:]):
        path.write_bytes(rubbish)
        with pytest.raises(UncertainStateError):
            Segment(path, FIRST, is_newest=True)


def test_a_segment_under_another_ones_name_stops_the_opening(tmp_path: Path) -> None:
    make_segment(tmp_path / "segment", [])
    with pytest.raises(UncertainStateError):
        Segment(tmp_path / "segment", FIRST + 1, is_newest=True)


def test_a_file_cut_under_us_is_noticed(tmp_path: Path) -> None:
    lengths = make_segment(tmp_path / "segment")
    segment = Segment(tmp_path / "segment", FIRST, is_newest=True)
    os.truncate(tmp_path / "segment", lengths[0])
    with pytest.raises(UncertainStateError):
        segment.record(FIRST)
    segment.close()
    with pytest.raises(UncertainStateError):
        segment.record(FIRST)


def test_records_outside_are_not_found(tmp_path: Path) -> None:
    make_segment(tmp_path / "segment")
    segment = Segment(tmp_path / "segment", FIRST, is_newest=True)
    for index in (-1, FIRST - 1, segment.end_index):
        with pytest.raises(NotFoundError):
            segment.record(index)
    segment.close()


def test_batches_and_records_are_bounded() -> None:
    for batch in ([], [b""] * (BATCH_RECORDS_MAX + 1), [bytes(65_536)]):
        with pytest.raises(MalformedError):
            encode_records(batch)
    longest = [bytes(65_535)] * BATCH_RECORDS_MAX
    assert list(parse_lengths(encode_records(longest), len(longest))) == [65_535] * len(longest)


@pytest.mark.parametrize("batch", [[b"a"], [b"", b"bc", b""], [b"x" * 300]])
def test_bytes_that_are_not_exactly_a_batch_are_refused(batch: list[bytes]) -> None:
    data = encode_records(batch)
    assert list(parse_lengths(data, len(batch))) == [len(record) for record in batch]
    for damaged, count in (
        *((data[:end], len(batch)) for end in range(len(data))),
        (data + b"\0", len(batch)),
        (data, len(batch) + 1),
        (data, len(batch) - 1),
    ):
        with pytest.raises(MalformedError):
            parse_lengths(damaged, count)
    with pytest.raises(MalformedError):
        parse_lengths(b"", 0)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    batches=st.lists(st.lists(st.binary(max_size=50), min_size=1, max_size=4), min_size=1, max_size=4),
    data=st.data(),
)
def test_whatever_a_crash_leaves_the_acknowledged_prefix_is_read(
    tmp_path: Path, batches: list[list[bytes]], data: st.DataObject
) -> None:
    path = tmp_path / "segment"
    path.unlink(missing_ok=True)
    lengths = make_segment(path, batches)
    whole = path.read_bytes()
    tail = bytearray(whole[lengths[-2]:data.draw(st.integers(lengths[-2], lengths[-1]))])
    if tail:
        # One page of the torn batch never came to the disk.
        at = data.draw(st.integers(0, len(tail) - 1))
        tail[at:] = bytes(len(tail) - at)
    path.write_bytes(whole[:lengths[-2]] + bytes(tail))
    assert read_segment(path) in (flat(batches[:-1]), flat(batches))
