"""Sums of weighted updates, in exact integers: what the means have in common.

An update is entered with its weight, then added part by part; it is taken out in the same way, and then it is as if it
had never been there. Between the two the sum means nothing. Integer sums do not know their order, and the bounds of
weights and values keep them below 2**62.

Format: proto/README.md, "Rules".

Runs in: aggregator.
Trusts: the admission, which decoded the updates; the bounds that make the sums exact are checked again here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.fast import kernels
from sfrl_secure.aggregation.large_arrays import zeros
from sfrl_secure.aggregation.parts import SPARSE_FACTOR, check_part, sparse_where_few
from sfrl_secure.aggregation.scatter import add_where, nonzero, without_zeros
from sfrl_secure.aggregation.tiles import over_ranges
from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import COORDINATES_MAX, WEIGHT_SUM_MAX
from sfrl_secure.sparse.update import UpdatePart


class WeightedSum(ABC):
    """Sum of weighted updates over a model's coordinates, or over a range of them that is numbered from 0.

    By what each coordinate's sum is divided at the end, its kinds say.
    """

    def __init__(self, coordinates: int) -> None:
        """Begin with no updates over `coordinates` coordinates, 1 to `COORDINATES_MAX`."""
        if not 1 <= coordinates <= COORDINATES_MAX:
            raise MalformedError(f"a model has 1 to {COORDINATES_MAX} coordinates")
        self._numerator = zeros(coordinates, np.int64)
        self._weights = 0
        self._is_used_up = False

    @property
    def is_empty(self) -> bool:
        """Whether it is as if it had just been begun."""
        return not self._is_used_up and not self._weights

    @property
    def weight_sum(self) -> int:
        """Sum of the weights so far."""
        return self._weights

    def enter(self, weight: int) -> None:
        """Begin with one more update: its weight counts from now on.

        Args:
            weight: at least 1; all weights together at most `WEIGHT_SUM_MAX`, so that no sum exceeds 2**62.

        Raises:
            MalformedError: a bound does not hold; nothing was entered.
        """
        if weight < 1 or self._weights + weight > WEIGHT_SUM_MAX:
            raise MalformedError(f"weights are at least 1 and at most {WEIGHT_SUM_MAX} together")
        self._weights += weight

    def leave(self, weight: int) -> None:
        """Let an update that was entered with this weight count no more; all its parts were taken out."""
        assert 1 <= weight <= self._weights, "only what was entered leaves"
        self._weights -= weight

    def add_part(self, part: UpdatePart, weight: int) -> None:
        """Add a part of an update that was entered with this weight.

        Raises:
            MalformedError: an index or a value is out of bounds; nothing was added.
        """
        check_part(part, self._numerator.size)
        self.move(part, weight)

    def take_out_part(self, part: UpdatePart, weight: int) -> None:
        """Take a part out again that was added with this weight.

        Raises:
            MalformedError: an index or a value is out of bounds, so that it never was inside; nothing was taken out.
        """
        check_part(part, self._numerator.size)
        self.move(part, -weight)

    def add(self, indices: NDArray[np.int64], values: NDArray[np.int64], weight: int) -> None:
        """Add one whole update.

        Args:
            indices: int64, shape (k,), strictly ascending, in range.
            values: int64, shape (k,), grid integers of magnitude at most `VALUE_MAX`.
            weight: as `enter` wants it.

        Raises:
            MalformedError: a bound does not hold; nothing was added.
        """
        self.enter(weight)
        try:
            self.add_part(UpdatePart(indices, values), weight)
        except MalformedError:
            self.leave(weight)
            raise

    def move(self, part: UpdatePart, weight: int) -> None:
        """Add a part `weight` times, or take it out where that is negative; `check_part` has taken the part."""
        compiled = None if isinstance(part.at, slice) else kernels(part.count)
        if compiled is not None:
            compiled.add_at(self._numerator, part.indices, part.values, weight)
        else:
            add_where(self._numerator, part, part.values if weight == 1 else part.values * np.int64(weight))

    def step(self, *, threads: int = 1) -> UpdatePart:
        """Give the mean as what is to be added to a model: sparse where few coordinates are not zero.

        Only coordinates with a sum are divided, so that a sparse round does not pay for the whole model, and are set
        back: the sum is empty again. Else it is used up: its memory becomes the mean's.

        Args:
            threads: that look through the sum, a range each; they change no bit.

        Raises:
            MalformedError: no update is in it.
        """
        self._check_not_empty()
        total = self._numerator
        width = -(-total.size // threads)
        ranges = [(start, min(start + width, total.size)) for start in range(0, total.size, width)]

        def count(start: int, stop: int) -> int:
            return int(np.count_nonzero(total[start:stop]))

        def divide(start: int, stop: int) -> None:
            self._divide(total[start:stop], slice(start, stop))

        def take(start: int, stop: int) -> UpdatePart:
            at = nonzero(total[start:stop], counts[start])
            at += start
            values = total[at]
            total[at] = 0
            self._divide(values, at)
            return without_zeros(at, values)

        counts = {start: found for start, _, found in over_ranges(count, ranges, threads=threads)}
        if SPARSE_FACTOR * sum(counts.values()) > total.size:
            self._is_used_up = True
            list(over_ranges(divide, ranges, threads=threads))
            return sparse_where_few(total)
        parts = [part for _, _, part in over_ranges(take, ranges, threads=threads)]
        self._empty()
        return UpdatePart(np.concatenate([part.indices for part in parts]),
                          np.concatenate([part.values for part in parts]))

    @abstractmethod
    def _divide(self, sums: NDArray[np.int64], at: NDArray[np.int64] | slice) -> None:
        """Divide the sums of some coordinates, in place, rounded half to even."""

    def _empty(self) -> None:
        """Be as if just begun; the sums are zeros by now."""
        self._weights = 0

    def _check_not_empty(self) -> None:
        if not self._weights:
            raise MalformedError("of no updates there is no mean")
