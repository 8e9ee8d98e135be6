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
from sfrl_secure.aggregation.parts import SPARSE_FACTOR, sparse_where_few
from sfrl_secure.aggregation.scatter import nonzero, without_zeros
from sfrl_secure.aggregation.weighted_sum import WeightedSum
from sfrl_secure.sparse.update import UpdatePart


class WeightedMean(WeightedSum):
    """Sum of weighted updates, divided once at the end by all weights."""

    def step(self) -> UpdatePart:
        """Give the mean as what is to be added to a model: sparse where few coordinates are not zero.

        Only coordinates with a sum are divided, so that a sparse round does not pay for the whole model, and are set
        back: the sum is empty again. Else it is used up: its memory becomes the mean's.

        Raises:
            MalformedError: no update is in it.
        """
        self._check_not_empty()
        total = self._numerator
        touched = int(np.count_nonzero(total))
        if SPARSE_FACTOR * touched > total.size:
            self._is_used_up = True
            divide_half_even(total, self._weights, out=total)
            return sparse_where_few(total)
        at = nonzero(total, touched)
        values = total[at]
        divide_half_even(values, self._weights, out=values)
        total[at] = 0
        self._weights = 0
        return without_zeros(at, values)

    def result(self) -> NDArray[np.int64]:
        """The mean per coordinate, int64, shape (n,), rounded half to even.

        Raises:
            MalformedError: no update is in it.
        """
        return divide_half_even(self._numerator, self._weights)
