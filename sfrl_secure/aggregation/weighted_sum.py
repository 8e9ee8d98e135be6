"""Sums of weighted updates, in exact integers: what the means have in common.

An update is entered with its weight, then added part by part; it is taken out in the same way, and then it is as if it
had never been there. Between the two the sum means nothing. Integer sums do not know their order, and the bounds of
weights and values keep them below 2**62.

Format: proto/README.md, "Rules".

Runs in: aggregator.
Trusts: the admission, which decoded the updates; the bounds that make the sums exact are checked again here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.fast import kernels
from sfrl_secure.aggregation.large_arrays import zeros
from sfrl_secure.aggregation.parts import check_part
from sfrl_secure.aggregation.scatter import add_where
from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import COORDINATES_MAX, WEIGHT_SUM_MAX
from sfrl_secure.sparse.update import UpdatePart


class WeightedSum:
    """Sum of weighted updates over a model's coordinates, or over a range of them that is numbered from 0."""

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

    def _check_not_empty(self) -> None:
        if not self._weights:
            raise MalformedError("of no updates there is no mean")
