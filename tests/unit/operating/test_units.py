"""Durations, sizes, times and parameter units: exactly there and back, or refused."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.operating.units import (
    format_duration,
    format_moment,
    format_size,
    from_grid,
    parse_duration,
    parse_moment,
    parse_size,
    shortest_on_grid,
    time_in_words,
    to_grid,
)


@given(st.integers(1, 10**15))
def test_every_duration_comes_back_as_it_was(duration_us: int) -> None:
    assert parse_duration(format_duration(duration_us)) == duration_us


@given(st.integers(1, 2**53))
def test_every_size_comes_back_as_it_was(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.integers(0, 2**62), st.integers(0, 40))
def test_every_number_on_the_grid_comes_back_as_it_was(units: int, exponent: int) -> None:
    written = Decimal(from_grid(units, exponent))
    assert to_grid(written, exponent) == units
    assert to_grid(written, exponent, up=True) == units


@given(st.integers(0, 2**62), st.integers(0, 40), st.booleans())
def test_the_shortest_number_comes_back_as_it_was_rounded_as_it_is_read(units: int, exponent: int, up: bool) -> None:
    written = shortest_on_grid(units, exponent, up=up)
    assert to_grid(Decimal(written), exponent, up=up) == units
    assert len(written) <= len(from_grid(units, exponent))


@pytest.mark.parametrize("written", ["0.05", "0.001", "0.1", "1.5", "10.0", "0.0"])
@pytest.mark.parametrize("up", [False, True])
def test_what_somebody_wrote_is_shown_as_it_was_written(written: str, up: bool) -> None:
    assert shortest_on_grid(to_grid(Decimal(written), 24, up=up), 24, up=up) == written


def test_a_few_units_of_a_grid_are_written_in_full() -> None:
    assert shortest_on_grid(1, 15) == "0.000030517578125"


def test_a_number_between_two_grid_points_is_rounded_to_the_side_that_is_asked_for() -> None:
    assert to_grid(Decimal("0.1"), 4) == 1
    assert to_grid(Decimal("0.1"), 4, up=True) == 2


@pytest.mark.parametrize(
    ("text", "us"), [("60s", 60_000_000), ("1.5h", 5_400_000_000), ("90 m", 5_400_000_000), ("250ms", 250_000)]
)
def test_a_duration_is_read_in_its_unit(text: str, us: int) -> None:
    assert parse_duration(text) == us


@pytest.mark.parametrize("text", ["", "60", "s", "-1s", "1e3s", "1w", "0.0000001s", "999999999999d", "1s2m", "٣s"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "4", "4kB", "4 MB", "-1 B", "1.5 MiB", "4  MiB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(MalformedError):
        parse_size(text)


@pytest.mark.parametrize("value", [-1, Decimal("-0.5"), Decimal("inf"), Decimal("nan"), Decimal("1e999999"), 10**400])
def test_what_is_no_number_of_a_grid_is_refused_before_it_is_multiplied(value: int | Decimal) -> None:
    with pytest.raises(MalformedError):
        to_grid(value, 40)


def test_a_moment_is_a_duration_from_now_or_a_time_with_its_zone() -> None:
    assert parse_moment("1s", 5) == 1_000_005
    assert parse_moment(datetime(1970, 1, 2, tzinfo=UTC), 5) == 86_400_000_000
    with pytest.raises(MalformedError, match="zone"):
        parse_moment(datetime(2027, 1, 1), 5)
    with pytest.raises(MalformedError):
        parse_moment(datetime(1969, 12, 31, tzinfo=UTC), 5)


@given(st.integers(1, 2**52))
def test_every_moment_comes_back_as_it_was(moment_us: int) -> None:
    assert parse_moment(datetime.fromisoformat(format_moment(moment_us)), 0) == moment_us


def test_a_time_after_all_calendars_is_still_said() -> None:
    assert time_in_words(2**63 - 1) == f"{2**63 - 1} us since 1970"
    assert format_moment(2**63 - 1) == "9999-12-31T23:59:59Z"
