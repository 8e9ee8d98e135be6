"""Leakage: what of an update would betray single examples.

Few touched coordinates are one example's, nearly; a support that touches few rows of an embedding says which tokens the
examples had; a last layer that moves few labels one way, and the others the other way, says which labels; values
smaller than the noise that is claimed were not given it. A gatekeeper refuses such an update before anybody else has
it, and the SDK before it is sent. All in exact integers, so that everyone sees the same.

A guard watches one axis of one tensor while an update comes, part by part; it takes memory for the axis and for a
part, however long the update is. What all of this does not see stands in proto/README.md, "Leakage", which is also the
format.

Runs in: gatekeeper, aggregator, participant.
Trusts: the terms. Nothing in the update.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.manifest import TensorSpec

_HALF_BITS = 20
_LOW = (1 << _HALF_BITS) - 1

_SPREAD_MAX = 4
"""A part's sums take at most so many times as much room as the part, or they are gathered."""

Halves = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Numbers as high * 2**20 + low."""


class RowGuard:
    """How many different indices of an axis are touched."""

    def __init__(self, tensor: TensorSpec, axis: int, least: int) -> None:
        """Watch an axis of which at least `least` indices are touched, or none."""
        self._axis = _Axis(tensor, axis)
        self._least = least
        self._count = 0
        self._touched = np.zeros(self._axis.length, dtype=np.bool_)

    def add(self, positions: NDArray[np.int64], values: NDArray[np.int64]) -> None:
        """Take in some of the tensor's touched coordinates.

        Args:
            positions: int64, shape (k,), row-major in the tensor, from 0; none in two calls.
            values: int64, shape (k,), none of them 0.
        """
        if self._count >= self._least:
            return
        along = self._axis.index(positions)
        fresh = np.unique(along[~self._touched[along]])
        self._touched[fresh] = True
        self._count += fresh.size

    def check(self) -> None:
        """Check what has come.

        Raises:
            DeniedError: `leak_rows`.
        """
        if 0 < self._count < self._least:
            raise DeniedError("leak_rows", f"fewer than {self._least} indices of a guarded axis are touched")


class LabelGuard:
    """How many indices of an axis are raised, and how many lowered."""

    def __init__(self, tensor: TensorSpec, axis: int, least: int) -> None:
        """Watch an axis of which at least `least` indices are raised and as many lowered, or none is touched."""
        self._axis = _Axis(tensor, axis)
        self._least = least
        self._is_touched = False
        # 2**31 values of 2**40 do not fit into 64 bits. Their halves of 20 bits do: their sums stay below 2**52.
        self._high = np.zeros(self._axis.length, dtype=np.int64)
        self._low = np.zeros(self._axis.length, dtype=np.int64)

    def add(self, positions: NDArray[np.int64], values: NDArray[np.int64]) -> None:
        """Take in some of the tensor's touched coordinates, as `RowGuard.add`."""
        if not positions.size:
            return
        self._is_touched = True
        along = self._axis.index(positions)
        first, last = int(along.min()), int(along.max())
        if last - first < _SPREAD_MAX * along.size:
            place, where = along - first, slice(first, last + 1)
            self._high[where] += _summed(place, values >> _HALF_BITS)
            self._low[where] += _summed(place, values & _LOW)
        else:
            few, place = np.unique(along, return_inverse=True)
            self._high[few] += _summed(place, values >> _HALF_BITS)
            self._low[few] += _summed(place, values & _LOW)

    def check(self) -> None:
        """Check what has come.

        Raises:
            DeniedError: `leak_labels`.
        """
        if self._is_touched and min(raised_and_lowered((self._high, self._low))) < self._least:
            message = f"fewer than {self._least} indices of a guarded axis are raised, or lowered"
            raise DeniedError("leak_labels", message)


class _Axis:
    """One axis of a tensor."""

    def __init__(self, tensor: TensorSpec, axis: int) -> None:
        self.length = tensor.shape[axis]
        self._behind = prod(tensor.shape[axis + 1 :])

    def index(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The index along the axis of each position in the tensor."""
        found: NDArray[np.int64] = positions // self._behind % self.length
        return found


def _summed(place: NDArray[np.int64], halves: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum of the halves at each place: exact, since float64 adds fewer than 2**32 numbers up to 2**20 exactly."""
    return np.bincount(place, weights=halves).astype(np.int64)


def raised_and_lowered(sums: Halves) -> tuple[int, int]:
    """How many of the sums are above an eighth of the largest magnitude among them, and how many of their opposites.

    Args:
        sums: at least one; both halves below 2**59, which leaves room for eight times of each.
    """
    upward = _carried(*sums)
    downward = _carried(-sums[0], -sums[1])
    largest = max(_greatest(upward), _greatest(downward))
    return _count_above_eighth(upward, largest), _count_above_eighth(downward, largest)


def _carried(high: NDArray[np.int64], low: NDArray[np.int64]) -> Halves:
    """The same numbers with 0 <= low < 2**20, so that they are in order by high, then low."""
    return high + (low >> _HALF_BITS), low & _LOW


def _greatest(numbers: Halves) -> tuple[int, int]:
    high, low = numbers
    top = high.max()
    return int(top), int(low[high == top].max())


def _count_above_eighth(numbers: Halves, largest: tuple[int, int]) -> int:
    high, low = _carried(8 * numbers[0], 8 * numbers[1])
    return int(np.count_nonzero((high > largest[0]) | ((high == largest[0]) & (low > largest[1]))))
