"""What a cohort's updates say of a range of coordinates, turned round: by coordinate, not by update.

Robust rules look at the values of one coordinate together. Where all updates carry the same coordinates, as in agreed
and in dense mode, their values are the rows of a matrix already. Where each has a support of its own, most coordinates
have one to three contributors: their entries are sorted by coordinate, and coordinates with as many contributors are
looked at together. What is 0 and what is not carried is the same to these rules.

Memory is in proportion to the values in the range, whatever the cohort; matrices are handed out in bounded pieces.

Runs in: aggregator.
Trusts: the admission, which decoded the updates; the bounds that make the sums exact are checked again here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.carried import Carried, check_rising
from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.tiles import VALUES_MAX, Overfull
from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import COHORT_MAX, VALUE_MAX

MATRIX_WIDTH: Final = 4_096
"""Coordinates of one matrix at most: a sum over them of products of 2**40 is at most 2**52, exact in float64."""
MATRIX_CELLS: Final = 2**19
"""Values of one matrix at most, where one row is not longer."""
_DENSE_SHARE: Final = 4
"""A range of which the updates carry more than one in so many values is a matrix as it stands."""
_RADIX_BITS: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """Coordinates with the same number k of entries.

    Attributes:
        at: positions in `Columns.at`, int64, shape (c,).
        who: positions in the cohort, int64, shape (k, c), rising along the first axis.
        values: int64, shape (k, c), grid units.
    """

    at: NDArray[np.int64]
    who: NDArray[np.int64]
    values: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """Some coordinates, with a value of each update.

    Attributes:
        at: which positions in `Columns.at`.
        values: int64, shape (n, w), w at most `MATRIX_WIDTH`, grid units, 0 where an update has none.
    """

    at: NDArray[np.int64] | slice
    values: NDArray[np.int64]


class Columns(Protocol):
    """The coordinates of a range that may have a value that is not 0.

    Attributes:
        at: their numbers in the model, int64, shape (m,), rising.
        bits: no magnitude is above 2**bits.
        zeros: every value is a multiple of 2**zeros.
    """

    @property
    def at(self) -> NDArray[np.int64]: ...
    @property
    def bits(self) -> int: ...
    @property
    def zeros(self) -> int: ...

    def groups(self, most: int) -> Iterator[Group]:
        """Give the coordinates with 1 to `most` entries, those with as many together."""
        ...

    def matrices(self, least: int) -> Iterator[Matrix]:
        """Give the coordinates with `least` entries and more; together with `groups(least - 1)` that is all."""
        ...


def columns_over(cohort: Sequence[Contribution], start: int, stop: int) -> Columns:
    """Read what `cohort` says of the coordinates from `start` to before `stop`.

    Raises:
        MalformedError: there are no updates or too many, a value is out of bounds, or a coordinate is outside the range
            or twice in an update.
        Overfull: the range has more than `VALUES_MAX` values.
    """
    if not 1 <= len(cohort) <= COHORT_MAX:
        raise MalformedError(f"a cohort has 1 to {COHORT_MAX} updates")
    found, carried = [], 0
    for contribution in cohort:
        found.append(Carried.read(contribution, start, stop))
        carried += found[-1].at.size
        if carried > VALUES_MAX and stop - start > 1:
            raise Overfull
    first = found[0].at
    if first.size and all(np.array_equal(each.at, first) for each in found[1:]):
        check_rising(first, start, stop)
        return SharedColumns(first, [each.values for each in found])
    if _DENSE_SHARE * carried > len(cohort) * (stop - start):
        return SharedColumns(np.arange(start, stop), [each.spread(start, stop) for each in found])
    return ScatteredColumns(found, start, stop)


class SharedColumns:
    """Columns of which every update has a value, 0 or not."""

    def __init__(self, at: NDArray[np.int64], rows: Sequence[NDArray[np.int64]]) -> None:
        """Take the updates' values of the coordinates `at`."""
        self.at = at
        self.bits, self.zeros = _extent(rows)
        self._rows = rows

    def groups(self, most: int) -> Iterator[Group]:
        """Give none: of a cohort that is smaller than `most`, too, all is in matrices."""
        return iter(())

    def matrices(self, least: int) -> Iterator[Matrix]:
        """Give all."""
        width = _width(len(self._rows))
        for start in range(0, self.at.size, width):
            here = slice(start, min(start + width, self.at.size))
            yield Matrix(here, np.stack([row[here] for row in self._rows]))


class ScatteredColumns:
    """Columns of which few updates have a value. Entries that are 0 are left out."""

    def __init__(self, found: Sequence[Carried], start: int, stop: int) -> None:
        """Sort what each update carries of the range from `start` to before `stop` by coordinate."""
        counts = np.array([each.at.size for each in found])
        at = np.concatenate([each.at for each in found])
        values = np.concatenate([each.values for each in found])
        who = np.repeat(np.arange(len(found), dtype=np.int16), counts)
        self.bits, self.zeros = _extent([values])
        if at.size and not (start <= int(at.min()) and int(at.max()) < stop):
            raise MalformedError("an update's coordinates are inside of the range that was asked for")
        offsets = at - start
        if not values.all():
            kept = np.flatnonzero(values)
            offsets, values, who = offsets[kept], values[kept], who[kept]
        order = _stable_order(offsets, stop - start)
        offsets, self._values, self._who = offsets[order], values[order], who[order]
        is_first = np.empty(offsets.size, dtype=np.bool_)
        is_first[:1] = True
        np.not_equal(offsets[1:], offsets[:-1], out=is_first[1:])
        # The order is stable: of one coordinate, positions in the cohort rise, or an update has it twice.
        if not (is_first[1:] | (self._who[1:] > self._who[:-1])).all():
            raise MalformedError("an update has a coordinate once")
        self._first = np.flatnonzero(is_first)
        self._counts = np.diff(self._first, append=offsets.size)
        self.at = offsets[self._first] + start
        self._updates = len(found)

    def groups(self, most: int) -> Iterator[Group]:
        """Give the coordinates with 1 to `most` entries, those with as many together."""
        for count in range(1, most + 1):
            at = np.flatnonzero(self._counts == count)
            if at.size:
                entries = self._first[at] + np.arange(count)[:, np.newaxis]
                yield Group(at, self._who[entries].astype(np.int64), self._values[entries])

    def matrices(self, least: int) -> Iterator[Matrix]:
        """Give the coordinates with `least` entries and more."""
        many = np.flatnonzero(self._counts >= least)
        width = _width(self._updates)
        for start in range(0, many.size, width):
            at = many[start : start + width]
            counts = self._counts[at]
            ends = np.cumsum(counts)
            entries = np.arange(int(ends[-1])) + np.repeat(self._first[at] - ends + counts, counts)
            values = np.zeros((self._updates, at.size), dtype=np.int64)
            values[self._who[entries], np.repeat(np.arange(at.size), counts)] = self._values[entries]
            yield Matrix(at, values)


def _width(updates: int) -> int:
    return max(1, min(MATRIX_WIDTH, MATRIX_CELLS // updates))


def _stable_order(offsets: NDArray[np.int64], end: int) -> NDArray[np.int64]:
    """Sort offsets from 0 to before `end`, at most 2**32: numpy sorts 16 bits at a time by counting."""
    order = np.argsort(offsets.astype(np.uint16), kind="stable")
    if end > 2**_RADIX_BITS:
        order = order[np.argsort((offsets >> _RADIX_BITS).astype(np.uint16)[order], kind="stable")]
    return order


def _extent(rows: Sequence[NDArray[np.int64]]) -> tuple[int, int]:
    """How many bits magnitudes have, and by which power of two all values can be divided.

    Raises:
        MalformedError: a value is out of bounds.
    """
    largest, ones = 0, 0
    for row in rows:
        if row.size:
            largest = max(largest, int(row.max()), -int(row.min()))
            # A negative number in two's complement ends in as many zeros as its magnitude.
            ones |= int(np.bitwise_or.reduce(row))
    if largest > VALUE_MAX:
        raise MalformedError(f"values are at most {VALUE_MAX} grid units")
    return (largest - 1).bit_length() if largest else 0, (ones & -ones).bit_length() - 1 if ones else 0
