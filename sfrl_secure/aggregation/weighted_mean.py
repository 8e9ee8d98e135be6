"""The weighted mean, missing is zero, in exact integers.

The result depends on the set of updates alone: integer sums do not know their order. An update is added when it
arrives and may be dropped from memory; the sum takes 8 bytes a coordinate, however many updates there are.

Format: proto/README.md, "Aggregation".

Runs in: aggregator.
Trusts: the admission, which decoded the updates; the bounds that make the sums exact are checked again here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.division import divide_half_even
from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import COORDINATES_MAX, VALUE_MAX, WEIGHT_SUM_MAX

WEIGHTED_MEAN = "weighted_mean/v1"


class WeightedMean:
    """Sum of weighted updates, divided once at the end."""

    def __init__(self, coordinates: int) -> None:
        """Begin with no updates over `coordinates` coordinates, 1 to `COORDINATES_MAX`."""
        if not 1 <= coordinates <= COORDINATES_MAX:
            raise MalformedError(f"a model has 1 to {COORDINATES_MAX} coordinates")
        self._numerator = np.zeros(coordinates, dtype=np.int64)
        self._weights = 0

    @property
    def weight_sum(self) -> int:
        """Sum of the weights so far."""
        return self._weights

    def add(self, indices: NDArray[np.int64], values: NDArray[np.int64], weight: int) -> None:
        """Add one update.

        Args:
            indices: int64, shape (k,), strictly ascending, in range.
            values: int64, shape (k,), grid integers of magnitude at most `VALUE_MAX`.
            weight: at least 1; all weights together at most `WEIGHT_SUM_MAX`, so that no sum reaches 2**62.

        Raises:
            MalformedError: a bound does not hold; nothing was added.
        """
        if weight < 1 or self._weights + weight > WEIGHT_SUM_MAX:
            raise MalformedError(f"weights are at least 1 and at most {WEIGHT_SUM_MAX} together")
        if indices.shape != values.shape or indices.ndim != 1:
            raise MalformedError("an update has one value per index")
        if indices.size:
            if indices[0] < 0 or indices[-1] >= self._numerator.size or not bool(np.all(np.diff(indices) > 0)):
                raise MalformedError("indices ascend strictly inside the model")
            if int(values.max()) > VALUE_MAX or int(values.min()) < -VALUE_MAX:
                raise MalformedError(f"a value is at most {VALUE_MAX} grid units")
            # Indices are unique, so that a plain fancy-indexed sum is exact.
            self._numerator[indices] += values * np.int64(weight)
        self._weights += weight

    def result(self) -> NDArray[np.int64]:
        """The mean per coordinate, int64, shape (n,), rounded half to even.

        Raises:
            MalformedError: no update was added.
        """
        return divide_half_even(self._numerator, self._weights)
