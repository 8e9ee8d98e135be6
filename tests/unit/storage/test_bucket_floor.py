"""The floor object: what it says comes back, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.storage.bucket_floor import (
    FLOOR_BYTES_MAX,
    FLOOR_OF_A_NEW_LOG,
    RANGES_MAX,
    Floor,
    encode_floor,
    parse_floor,
    ranges_of,
)

RUN = bytes(range(16))
INDEX = st.integers(0, 2**63 - 1)


@given(INDEX, st.sets(INDEX, min_size=1, max_size=2 * RANGES_MAX))
def test_what_a_floor_says_comes_back_and_no_mark_is_lost(first_index: int, marks: set[int]) -> None:
    floor = Floor(first_index, RUN, ranges_of(sorted(marks)))
    raw = encode_floor(floor)
    assert parse_floor(raw) == floor
    assert len(raw) <= FLOOR_BYTES_MAX
    assert len(floor.marked) == min(len(marks), RANGES_MAX)
    assert all(map(floor.is_marked, marks))
    # Beyond 64 only what lies among the lowest ones is marked without need.
    for mark in sorted(marks)[-RANGES_MAX + 1:]:
        assert floor.is_marked(mark + 1) == (mark + 1 in marks)


def test_the_bytes_of_a_floor_stay_as_they_are() -> None:
    floor = Floor(12, RUN, (range(12, 30), range(45, 46)))
    assert encode_floor(floor) == b"12 000102030405060708090a0b0c0d0e0f 12-29,45-45\n"


def test_in_a_floor_without_marks_everything_is_marked() -> None:
    floor = parse_floor(b"7 000102030405060708090a0b0c0d0e0f\n")
    assert (floor.first_index, floor.run) == (7, RUN)
    assert all(map(floor.is_marked, (0, 7, 2**63 - 1)))
    assert parse_floor(encode_floor(floor)) == floor
    assert parse_floor(FLOOR_OF_A_NEW_LOG).first_index == 0


def test_the_longest_floor_is_within_the_bound() -> None:
    floor = Floor(10**19 - 1, RUN, tuple(range(10**18 + at, 10**18 + at + 1) for at in range(RANGES_MAX)))
    assert len(encode_floor(floor)) <= FLOOR_BYTES_MAX
    assert parse_floor(encode_floor(floor)) == floor


@pytest.mark.parametrize(
    "marks",
    [
        b"", b"5", b"5-", b"-5", b"5-5,", b",5-5", b"05-5", b"5-05", b"+5-5", b"5--5", b"5-5, 6-6", b"5-5 6-6", b"5-4",
        b"5-7,7-9", b"6-6,5-5", b"5-5,5-5", b"5-" + b"9" * 20, "5-\u0665".encode(),
        b",".join(b"%d-%d" % (at, at) for at in range(RANGES_MAX + 1)),
    ],
)
def test_marks_that_are_none_are_refused(marks: bytes) -> None:
    assert parse_floor(b"4 " + RUN.hex().encode() + b" 5-6\n").marked == (range(5, 7),)
    with pytest.raises(MalformedError):
        parse_floor(b"4 " + RUN.hex().encode() + b" " + marks + b"\n")


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"4", b"4\n", b"4 \n", b"-4 " + b"0" * 32 + b"\n", b"04 " + b"0" * 32 + b"\n", b"4 " + b"0" * 31 + b"\n",
        b"4 " + b"0" * 33 + b"\n", b"4 " + b"A" * 32 + b"\n", b"4 " + b"0" * 32, b"4 " + b"0" * 32 + b"\n\n",
        b" 4 " + b"0" * 32 + b"\n", b"1" * 20 + b" " + b"0" * 32 + b"\n", b"4 " + b"0" * 32 + b" 5-5",
    ],
)
def test_what_is_no_floor_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_floor(raw)
