"""The weighted mean of each coordinate over those updates that carry it: who says nothing of it has no voice in it.

Sums of values and of weights take 12 bytes a coordinate, however many updates there are.

Format: proto/README.md, "Rules".

Runs in: aggregator.
Trusts: the admission, which decoded the updates; the bounds that make the sums exact are checked again here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.division import divide_each_half_even
from sfrl_secure.aggregation.fast import kernels
from sfrl_secure.aggregation.large_arrays import zeros
from sfrl_secure.aggregation.scatter import add_where
from sfrl_secure.aggregation.weighted_sum import WeightedSum
from sfrl_secure.sparse.update import UpdatePart


class UnionMean(WeightedSum):
    """Sums of weighted updates and, per coordinate, of the weights of those that carry it."""

    def __init__(self, coordinates: int) -> None:
        """Begin with no updates over `coordinates` coordinates, 1 to `COORDINATES_MAX`."""
        super().__init__(coordinates)
        # All weights together are at most 2**22.
        self._denominator = zeros(coordinates, np.int32)

    def result(self) -> NDArray[np.int64]:
        """The mean per coordinate, int64, shape (n,), rounded half to even; 0 where no update carries it.

        Raises:
            MalformedError: no update is in it.
        """
        self._check_not_empty()
        return divide_each_half_even(self._numerator, self._denominator)

    def move(self, part: UpdatePart, weight: int) -> None:
        """Add a part `weight` times, or take it out where that is negative; `check_part` has taken the part."""
        compiled = None if isinstance(part.at, slice) else kernels(part.count)
        if compiled is not None:
            compiled.add_both_at(self._numerator, self._denominator, part.indices, part.values, weight)
            return
        super().move(part, weight)
        add_where(self._denominator, part, np.int32(weight))

    def _divide(self, sums: NDArray[np.int64], at: NDArray[np.int64] | slice) -> None:
        divide_each_half_even(sums, self._denominator[at], out=sums)

    def _empty(self) -> None:
        super()._empty()
        self._denominator.fill(0)
