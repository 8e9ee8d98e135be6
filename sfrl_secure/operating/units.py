"""Units that people write and read: durations, sizes, times, and parameter units on a segment's grid.

Documents hold integers: microseconds, bytes, grid units. What people write of durations and sizes is turned into them
exactly or not at all, what lies between two points of a grid is rounded. What is in force goes into a draft as the
shortest text that gives the same integer again.

Runs in: operators' machines, cli.
Trusts: nothing; what is written is bounded before it is multiplied.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from sfrl_secure.errors import MalformedError

_DURATIONS_US = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}
_SIZES = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?) ?(d|h|ms|m|s)")
_SIZE = re.compile(r"([0-9]{1,16}) ?(TiB|GiB|MiB|KiB|B)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())
_EXPONENT_MAX = 64
_UNITS_TO_SHORTEN = 1024
_TIME_MAX_US = 2**63 - 1


def parse_duration(text: str) -> int:
    """Take a duration such as `60s`, `1.5h` or `30d` as microseconds.

    Raises:
        MalformedError: any other form, or no whole number of microseconds.
    """
    matched = _DURATION.fullmatch(text)
    if matched is None:
        raise MalformedError('a duration is a number and a unit, such as "60s", "15m", "12h" or "30d"')
    exact = Fraction(matched[1]) * _DURATIONS_US[matched[2]]
    if exact.denominator != 1 or exact > _TIME_MAX_US:
        raise MalformedError("a duration is a whole number of microseconds below 2^63")
    return int(exact)


def format_duration(duration_us: int) -> str:
    """The duration in the largest unit that gives a whole number: `parse_duration` takes it back."""
    for unit, size in _DURATIONS_US.items():
        if duration_us % size == 0 and duration_us:
            return f"{duration_us // size}{unit}"
    return f"{Decimal(duration_us) / 1_000_000:f}s"


def parse_size(text: str) -> int:
    """Take a size such as `512 KiB` or `4 MiB` as bytes.

    Raises:
        MalformedError: any other form.
    """
    matched = _SIZE.fullmatch(text)
    if matched is None:
        raise MalformedError('a size is a whole number and a unit, such as "300 KiB", "4 MiB" or "1000 B"')
    return int(matched[1]) * _SIZES[matched[2]]


def format_size(size: int) -> str:
    """The size in the largest unit that gives a whole number: `parse_size` takes it back."""
    for unit, factor in _SIZES.items():
        if size % factor == 0 and size:
            return f"{size // factor} {unit}"
    return f"{size} B"


def parse_moment(text: str | datetime, now_us: int) -> int:
    """Take a time of day or a duration from now as microseconds since 1970.

    Raises:
        MalformedError: a time without its zone, before 1970, or any other form.
    """
    if isinstance(text, str):
        return now_us + parse_duration(text)
    if text.tzinfo is None:
        raise MalformedError("a time names its zone: write 2027-01-31T12:00:00Z")
    moment_us = (text - _EPOCH) // timedelta(microseconds=1)
    if moment_us < 1:
        raise MalformedError("a time is after 1970")
    return moment_us


def format_moment(moment_us: int) -> str:
    """A time as TOML writes it; the last that it can write for all later ones."""
    if moment_us // 1_000_000 > _LAST_SECOND:
        return "9999-12-31T23:59:59Z"
    return (_EPOCH + timedelta(microseconds=moment_us)).isoformat().replace("+00:00", "Z")


def to_grid(value: int | Decimal, exponent: int, *, up: bool = False) -> int:
    """Turn parameter units into grid units of 2**-exponent, rounded down, or up.

    Raises:
        MalformedError: below zero, not finite, or beyond what any grid has.
    """
    if isinstance(value, Decimal) and (not value.is_finite() or abs(value.adjusted()) > _EXPONENT_MAX):
        raise MalformedError(f"a number is finite and has at most {_EXPONENT_MAX} digits before and behind its point")
    # An integer of any length comes out of TOML.
    if value < 0 or value > 10**_EXPONENT_MAX:
        raise MalformedError(f"a number is from 0 to 10^{_EXPONENT_MAX}")
    exact = Fraction(value) * 2**exponent
    return -int(-exact // 1) if up else int(exact // 1)


def from_grid(units: int, exponent: int) -> str:
    """Grid units as parameter units, every digit: `to_grid` takes it back."""
    # units / 2^e = units * 5^e / 10^e, which ends.
    text = format(Decimal((0, tuple(map(int, str(units * 5**exponent))), -exponent)), "f").partition(".")
    return f"{text[0]}.{text[2].rstrip('0') or '0'}"


def shortest_on_grid(units: int, exponent: int, *, up: bool = False) -> str:
    """Grid units as parameter units, in the fewest digits that `to_grid` takes back, rounding as it is told to.

    So 0.05 comes back as 0.05, on a grid that has no such point. What is only a few units has every digit: its shortest
    text could be a third more than it is.
    """
    power = 1
    for digits in range(1, exponent if units >= _UNITS_TO_SHORTEN else 0):
        power *= 10
        # Not below the point of the grid where it is rounded down to it, not above it where it is rounded up.
        scaled = units * power
        tenths = scaled >> exponent if up else -(-scaled >> exponent)
        text = Decimal((0, tuple(map(int, str(tenths))), -digits))
        if to_grid(text, exponent, up=up) == units:
            found, _, behind = format(text, "f").partition(".")
            return f"{found}.{behind.rstrip('0') or '0'}"
    return from_grid(units, exponent)


def to_parts(value: int | Decimal, parts: int, *, is_rounded: bool = False) -> int:
    """Turn a number into whole parts of one, of which there are `parts`: exactly, or rounded to the nearest.

    Raises:
        MalformedError: below zero, not finite, too long; or no whole number of parts, and not to be rounded.
    """
    to_grid(value, 0)
    exact = Fraction(value) * parts
    if not is_rounded and exact.denominator != 1:
        raise MalformedError(f"a number with at most {len(str(parts)) - 1} digits behind its point")
    return round(exact)


def from_parts(number: int, parts: int) -> str:
    """So many parts of one, as the shortest text that `to_parts` takes back, rounding where it must."""
    for digits in range(1, 2 * len(str(parts))):
        text = f"{Decimal(number) / parts:.{digits}f}"
        if round(Fraction(text) * parts) == number:
            return text
    raise AssertionError("twice the digits of the parts tell any two of them apart")


def in_parameter_units(units: int, exponent: int) -> str:
    """Grid units as parameter units, for reading: every digit that counts."""
    return from_grid(units, exponent).removesuffix(".0")


def time_in_words(microseconds: int) -> str:
    """A time in UTC, to the millisecond."""
    if microseconds // 1_000_000 > _LAST_SECOND:
        return f"{microseconds} us since 1970"
    moment = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S}.{microseconds // 1000 % 1000:03}Z"


def count(number: int, noun: str, nouns: str = "") -> str:
    """A number with its noun; `nouns` where the plural is not the noun and an s."""
    return f"{number} {noun if number == 1 else nouns or noun + 's'}"


def short(digest: bytes) -> str:
    """The first digits of a digest, for a list."""
    return digest.hex()[:12]
