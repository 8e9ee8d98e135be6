"""The weighted mean, missing is zero, in exact integers.

The result depends on the set of updates alone: integer sums do not know their order. An update is added part by part
while it is read, and taken out again as exactly; the sum takes 8 bytes a coordinate, however many updates there are.

Format: proto/README.md, "Aggregation".

Runs in: aggregator.
Trusts: the admission, which decoded the updates; the bounds that make the sums exact are checked again here.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.division import divide_half_even
from sfrl_secure.aggregation.parts import check_part
from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import COORDINATES_MAX, WEIGHT_SUM_MAX
from sfrl_secure.sparse.update import UpdatePart

WEIGHTED_MEAN = "weighted_mean/v1"
_BLOCK = 65_536
SPARSE_FACTOR = 4
"""A step with at most one coordinate in so many that is not zero is kept, and written, as a sparse one."""


class WeightedMean:
    """Sum of weighted updates, divided once at the end.

    An update is entered with its weight, then added part by part; it is taken out in the same way. Between the two the
    sum means nothing, and `step` must not be called.
    """

    def __init__(self, coordinates: int) -> None:
        """Begin with no updates over `coordinates` coordinates, 1 to `COORDINATES_MAX`."""
        if not 1 <= coordinates <= COORDINATES_MAX:
            raise MalformedError(f"a model has 1 to {COORDINATES_MAX} coordinates")
        self._numerator = np.zeros(coordinates, dtype=np.int64)
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
        # Indices are unique within an update, so that a plain fancy-indexed sum is exact.
        self._numerator[part.at] += part.values if weight == 1 else part.values * np.int64(weight)

    def take_out_part(self, part: UpdatePart, weight: int) -> None:
        """Take a part out again that was added with this weight.

        Raises:
            MalformedError: an index or a value is out of bounds, so that it never was inside; nothing was taken out.
        """
        check_part(part, self._numerator.size)
        self._numerator[part.at] -= part.values * np.int64(weight)

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

    def step(self) -> UpdatePart:
        """Give the mean as what is to be added to a model: sparse where few coordinates are not zero.

        Only coordinates with a sum are divided, so that a sparse round does not pay for the whole model, and are set
        back: the sum is empty again. Else it is used up: its memory becomes the mean's.

        Raises:
            MalformedError: no update is in it.
        """
        total = self._numerator
        if not self._weights:
            raise MalformedError("of no updates there is no mean")
        touched = int(np.count_nonzero(total))
        if SPARSE_FACTOR * touched > total.size:
            self._is_used_up = True
            divide_half_even(total, self._weights, out=total)
            return sparse_where_few(total)
        at = _nonzero(total, touched)
        values = total[at]
        divide_half_even(values, self._weights, out=values)
        total[at] = 0
        self._weights = 0
        if values.all():
            return UpdatePart(at, values)
        kept = values != 0
        return UpdatePart(at[kept], values[kept])

    def result(self) -> NDArray[np.int64]:
        """The mean per coordinate, int64, shape (n,), rounded half to even.

        Raises:
            MalformedError: no update is in it.
        """
        return divide_half_even(self._numerator, self._weights)


def _nonzero(values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Where the `count` values are that are not zero. Block by block, of truth values: twice as fast as of integers."""
    at, end = np.empty(count, dtype=np.int64), 0
    for start in range(0, values.size, _BLOCK):
        found = np.flatnonzero(values[start : start + _BLOCK] != 0)
        np.add(found, start, out=at[end : end + found.size])
        end += found.size
    return at


def sparse_where_few(values: NDArray[np.int64]) -> UpdatePart:
    """A whole model's worth of values as a part: with indices where few are not zero, else as they are."""
    if SPARSE_FACTOR * int(np.count_nonzero(values)) > values.size:
        return UpdatePart(slice(0, values.size), values)
    at = np.flatnonzero(values)
    return UpdatePart(at, values[at])
