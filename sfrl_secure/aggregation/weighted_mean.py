"""The weighted mean, missing is zero: the sum of weighted updates, divided once by the sum of all weights.

The sum takes 8 bytes a coordinate, however many updates there are.

Format: proto/README.md, "Rules".

Runs in: aggregator.
Trusts: the admission, which decoded the updates; the bounds that make the sums exact are checked again here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.division import divide_half_even
from sfrl_secure.aggregation.weighted_sum import WeightedSum


class WeightedMean(WeightedSum):
    """Sum of weighted updates, divided once at the end by all weights."""

    def result(self) -> NDArray[np.int64]:
        """The mean per coordinate, int64, shape (n,), rounded half to even.

        Raises:
            MalformedError: no update is in it.
        """
        return divide_half_even(self._numerator, self._weights)

    def _divide(self, sums: NDArray[np.int64], at: NDArray[np.int64] | slice) -> None:
        divide_half_even(sums, self._weights, out=sums)
