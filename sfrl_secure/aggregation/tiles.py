"""Work over ranges of coordinates: each a pure function of a cohort and a range, so that any thread may do any of them.

What is held at a time is bounded by the values of a range, and not by how many updates there are or how large the model
is. Where a range turns out to hold more than it should, because supports lie close together there, whoever works on it
says so with `Overfull`, and its halves are done instead. Neither the cuts nor who does what changes a bit: all that
comes of a coordinate comes of that coordinate's values.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.large_arrays import zeros
from sfrl_secure.aggregation.parts import SPARSE_FACTOR, moved_part, sparse_where_few
from sfrl_secure.aggregation.scatter import without_zeros
from sfrl_secure.sparse.header import LEAF_VALUES
from sfrl_secure.sparse.update import UpdatePart

VALUES_MAX = 2**21
"""Values of a range, of all updates together, that one thread holds at a time: 16 MiB in each array of theirs."""

Range = tuple[int, int]
"""From a coordinate to before another one."""
Found = TypeVar("Found")


class Overfull(Exception):
    """A range holds more values than one thread may hold at a time; a range of one coordinate never does."""


def ranges_of(cohort: Sequence[Contribution], coordinates: int, values_max: int = VALUES_MAX) -> list[Range]:
    """Cut a model into ranges that hold about half of `values_max` values each, if supports are spread evenly.

    They begin where the leaves of dense payloads do, as far as they are as long as those.
    """
    carried = max(sum(update.nonzeros for update in cohort), 1)
    width = max(1, values_max * coordinates // (2 * carried))
    if width > LEAF_VALUES:
        width -= width % LEAF_VALUES
    return [(start, min(start + width, coordinates)) for start in range(0, coordinates, width)]


def over_ranges(
    work: Callable[[int, int], Found], ranges: Iterable[Range], *, threads: int = 1
) -> Iterator[tuple[int, int, Found]]:
    """Do the work of each range, and give what was found, in order, with the range that it is of.

    At most two ranges for each thread are done and not yet taken by the caller.

    Raises:
        what `work` raises, but `Overfull` where the range has two coordinates.
    """
    if threads == 1:
        for start, stop in ranges:
            yield from _halved(work, start, stop)
        return
    running: deque[Future[list[tuple[int, int, Found]]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="ranges") as pool:
        try:
            for start, stop in ranges:
                running.append(pool.submit(lambda start, stop: list(_halved(work, start, stop)), start, stop))
                if len(running) > 2 * threads:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def _halved(work: Callable[[int, int], Found], start: int, stop: int) -> Iterator[tuple[int, int, Found]]:
    try:
        found = work(start, stop)
    except Overfull:
        middle = (start + stop) // 2
        if middle == start:
            raise
        yield from _halved(work, start, middle)
        yield from _halved(work, middle, stop)
    else:
        yield start, stop, found


class StepParts:
    """A step over a whole model that comes range by range, in any order but without gaps; no more memory than it needs.

    Parts with indices are kept as they are while they are few. With the first part that has all of its coordinates, or
    once there are many, all go into one array.
    """

    def __init__(self, coordinates: int) -> None:
        """Begin without any part."""
        self._coordinates = coordinates
        self._few: list[UpdatePart] = []
        self._touched = 0
        self._whole: NDArray[np.int64] | None = None

    def put(self, start: int, part: UpdatePart) -> None:
        """Take the part of a range that begins at coordinate `start`; the part counts from there."""
        moved = moved_part(part, start)
        if self._whole is not None:
            self._whole[moved.at] = moved.values
            return
        self._few.append(moved)
        self._touched += moved.count
        if isinstance(moved.at, slice) or SPARSE_FACTOR * self._touched > self._coordinates:
            self._whole = zeros(self._coordinates, np.int64)
            for each in self._few:
                self._whole[each.at] = each.values
            self._few.clear()

    def step(self) -> UpdatePart:
        """The whole step: sparse where few of its coordinates are not zero."""
        if self._whole is not None:
            return sparse_where_few(self._whole)
        ordered = sorted((part for part in self._few if part.count), key=lambda part: int(part.indices[0]))
        at = np.concatenate([np.empty(0, dtype=np.int64), *(part.indices for part in ordered)])
        values = np.concatenate([np.empty(0, dtype=np.int64), *(part.values for part in ordered)])
        return without_zeros(at, values)
