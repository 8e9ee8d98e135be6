"""A range of coordinates, column by column: who of a cohort carries each coordinate, and with which value.

What is held is what is carried: a column that two of a hundred updates carry has two entries. So much is read at a time
as an auditor's machine holds, however many updates there are and however long they are.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.replay.counted import Counted
from sfrl_secure.replay.decoder import Part
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.payload_header import LEAF

_HELD_MAX: Final = 2**25
"""Values that one reading of the payloads holds: half a gigabyte with their coordinates."""
_ENTRIES_MAX: Final = 2**20
_COORDINATES_MAX: Final = 2**20
"""Values and coordinates of columns that are made at a time: what a processor has at hand."""
_TABLE_MAX: Final = 2**20
"""Values of one table."""


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The columns of the coordinates from `start` on.

    Attributes:
        updates: how many updates there are.
        counts: int32, of each column how many carry it; `first`, where its entries begin.
        who: uint16, of each entry the update's number, rising in a column.
        values: int64, of each entry the value, zeros among them.
    """

    start: int
    updates: int
    counts: NDArray[np.int32]
    first: NDArray[np.int32]
    who: NDArray[np.uint16]
    values: Integers

    @property
    def stop(self) -> int:
        """The coordinate behind the last."""
        return self.start + len(self.counts)

    def votes(self) -> NDArray[np.uint16]:
        """Of each column, how many of its values are not 0."""
        before = np.concatenate([np.zeros(1, np.int32), np.cumsum(self.values != 0, dtype=np.int32)])
        votes: NDArray[np.uint16] = (before[self.first + self.counts] - before[self.first]).astype(np.uint16)
        return votes

    def carried_by(self, count: int) -> Iterator[tuple[Integers, Integers, Integers]]:
        """The columns that exactly so many carry, some at a time.

        Returns: which columns they are, shape (m,); who carries them, and with which values, shape (m, count).
        """
        exactly = np.flatnonzero(self.counts == count)
        rows = _TABLE_MAX // count
        for at in range(0, len(exactly), rows):
            chosen = exactly[at : at + rows]
            entries = self.first[chosen, None] + np.arange(count)
            yield chosen, self.who[entries].astype(np.int64), self.values[entries]

    def tables(self, at_least: int, rows_max: int = _TABLE_MAX) -> Iterator[tuple[Integers, Integers]]:
        """The columns that at least so many carry, as tables of all updates' values, some columns at a time.

        Returns: which columns they are, shape (m,); values, shape (m, updates), 0 where an update does not carry one.
        """
        wide = np.flatnonzero(self.counts >= at_least)
        rows = max(1, min(rows_max, _TABLE_MAX // self.updates))
        for at in range(0, len(wide), rows):
            chosen = wide[at : at + rows]
            counts = self.counts[chosen]
            if counts.min() == self.updates:
                yield chosen, self.values[self.first[chosen, None] + np.arange(self.updates)]
                continue
            behind = np.cumsum(counts)
            row = np.repeat(np.arange(len(chosen)), counts)
            entries = np.arange(behind[-1]) + np.repeat(self.first[chosen] - (behind - counts), counts)
            table = np.zeros((len(chosen), self.updates), np.int64)
            table[row, self.who[entries]] = self.values[entries]
            yield chosen, table


class Cohort:
    """The updates that are added up, one or more, and their columns, range by range.

    A range is as large as one reading of its payloads allows; it is gone through in smaller ones.
    """

    def __init__(self, coordinates: int, updates: Sequence[Counted]) -> None:
        """Take them in the order of the counted list; nothing depends on it."""
        self.coordinates, self.updates = coordinates, updates
        self._last: Held | None = None

    def columns(self) -> Iterator[Columns]:
        """All coordinates, range by range. Who asks again has not to read again, where one reading was enough.

        Raises:
            Gone: a payload is there no more.
        """
        for start, stop in self._readings(0, self.coordinates):
            if self._last is None or (self._last.start, self._last.stop) != (start, stop):
                self._last = None  # two need not be in memory at a time
                self._last = Held(self.updates, start, stop)
            yield from self._last.columns(start, stop)

    def _readings(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The range in halves, and these in halves, until each is small enough. Dense leaves stay whole if they can."""
        entries = sum(update.stored.at_most(start, stop) for update in self.updates)
        if stop - start == 1 or entries <= _HELD_MAX:
            yield start, stop
            return
        middle = (start + stop) // 2
        if stop - start > LEAF:
            middle = start + max(1, (middle - start) // LEAF) * LEAF
        yield from self._readings(start, middle)
        yield from self._readings(middle, stop)


class Held:
    """What a cohort carries of a range, as it was read: each update's parts."""

    def __init__(self, updates: Sequence[Counted], start: int, stop: int) -> None:
        """Read it.

        Raises:
            Gone: a payload is there no more.
        """
        self.start, self.stop, self._updates = start, stop, len(updates)
        self._parts = [(number, part) for number, update in enumerate(updates) for part in update.parts(start, stop)]

    def columns(self, start: int, stop: int) -> Iterator[Columns]:
        """The columns of these coordinates: in halves, and these in halves, until each is small enough."""
        within = [(number, part.within(start, stop)) for number, part in self._parts]
        parts = [(number, part) for number, part in within if len(part.values)]
        entries = sum(len(part.values) for _, part in parts)
        if stop - start > 1 and (entries > _ENTRIES_MAX or stop - start > _COORDINATES_MAX):
            middle = (start + stop) // 2
            yield from self.columns(start, middle)
            yield from self.columns(middle, stop)
            return
        is_agreed = len(parts) == self._updates > 0 and all(_is_same(part, parts[0][1]) for _, part in parts)
        make = _agreed_columns_of if is_agreed else _columns_of
        yield make(self._updates, parts, start, stop)


def _is_same(part: Part, other: Part) -> bool:
    """Whether two parts have the same coordinates."""
    if isinstance(part.at, slice) or isinstance(other.at, slice):
        return isinstance(part.at, slice) and isinstance(other.at, slice) and part.at == other.at
    return np.array_equal(part.at, other.at)


def _agreed_columns_of(updates: int, parts: Sequence[tuple[int, Part]], start: int, stop: int) -> Columns:
    """The same as `_columns_of`, where every update has one part, and all of them the same coordinates."""
    counts = np.zeros(stop - start, np.int32)
    counts[_shifted(parts[0][1].at, start)] = updates
    values = np.stack([part.values for _, part in parts], axis=1).reshape(-1)
    who = np.tile(np.arange(updates, dtype=np.uint16), len(parts[0][1].values))
    return Columns(start, updates, counts, np.cumsum(counts, dtype=np.int32) - counts, who, values)


def _columns_of(updates: int, parts: Sequence[tuple[int, Part]], start: int, stop: int) -> Columns:
    """Count what each column gets, then put every value in its place, one update after the other."""
    counts = np.zeros(stop - start, np.int32)
    for _, part in parts:
        counts[_shifted(part.at, start)] += 1  # an update has a coordinate once
    first = np.cumsum(counts, dtype=np.int32) - counts
    total = int(first[-1] + counts[-1])
    who, values = np.empty(total, np.uint16), np.empty(total, np.int64)
    free = first.copy()
    for number, part in parts:
        at = _shifted(part.at, start)
        places = free[at]
        who[places], values[places] = number, part.values
        free[at] += 1
    return Columns(start, updates, counts, first, who, values)


def _shifted(at: Integers | slice, start: int) -> Integers | slice:
    return slice(at.start - start, at.stop - start) if isinstance(at, slice) else at - start
