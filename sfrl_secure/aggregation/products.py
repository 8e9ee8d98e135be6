"""Exact sums of products of a cohort's updates, two by two: what squared distances and cosines are made of.

Sums are up to 2**111. Inside of a range they are taken in pieces that are exact: by floating-point matrix products
where every sum of them is an integer of at most 2**53, whichever order a BLAS adds in, or in 64-bit integers. A power
of two that all values of a range have in common is left out first; values that are still too wide are cut in two.

Products over ranges add up to those over all of them, bit for bit, however the ranges are cut.

Format: proto/README.md, "Aggregation", Rules.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation import wide_integers
from sfrl_secure.aggregation.columns import MATRIX_WIDTH, Columns, Group, columns_over
from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.wide_integers import LIMBS, Wide, add_shifted, settle

RANGE_MAX: Final = 2**20
"""Coordinates that are summed up before limbs are settled: 2**20 products of at most 2**42 fit into 64 bits."""
_PAIRED_MAX: Final = 8
"""Up to so many entries of a coordinate are multiplied pair by pair; of more, a matrix is cheaper."""
_HALF_BITS: Final = 20
_LOW_HALF: Final = 2**_HALF_BITS - 1
_NARROW_BITS: Final = 20
"""Products of values up to this are exact in one matrix product."""
_WORD_BITS: Final = 31
"""Products of values up to this fit into 64 bits."""
_LOW_WORD: Final = 2**32 - 1
_ZEROS_MAX: Final = (wide_integers.SHIFT_MAX - 2 * _HALF_BITS) // 2

assert MATRIX_WIDTH * 2 ** (2 * _NARROW_BITS) <= 2**53, "what a matrix product adds up is exact in float64"


@dataclass(frozen=True, slots=True, eq=False)
class Products:
    """For each two updates of a cohort of n, the sum of their products over some coordinates.

    Attributes:
        limbs: int64, shape (3, n, n), settled, symmetric.
    """

    limbs: Wide

    @classmethod
    def nothing(cls, count: int) -> Products:
        """Over no coordinates, of `count` updates."""
        return cls(np.zeros((LIMBS, count, count), dtype=np.int64))

    @property
    def count(self) -> int:
        """Updates in the cohort."""
        return len(self.limbs[0])

    def __add__(self, other: Products) -> Products:
        """Over both's coordinates, of which none is in both."""
        return Products(settle(self.limbs + other.limbs))

    def distances(self) -> Wide:
        """The squared distance of each two updates: wide integers, shape (3, n, n), settled."""
        own = self.limbs.diagonal(axis1=1, axis2=2)
        return settle(own[:, :, np.newaxis] + own[:, np.newaxis, :] - 2 * self.limbs)

    def integers(self) -> NDArray[np.object_]:
        """The products as Python's integers, shape (n, n)."""
        return wide_integers.to_integers(self.limbs)


def products_over(cohort: Sequence[Contribution], start: int, stop: int) -> Products:
    """Sum up the products over the coordinates from `start` to before `stop`.

    Raises:
        MalformedError: what an update gives is out of bounds.
    """
    limbs = np.zeros((LIMBS, len(cohort), len(cohort)), dtype=np.int64)
    for first in range(start, stop, RANGE_MAX):
        columns = columns_over(cohort, first, min(first + RANGE_MAX, stop))
        zeros = min(columns.zeros, _ZEROS_MAX)
        for sums in (_of_matrices(columns, zeros, len(cohort)), _of_groups(columns, zeros, len(cohort))):
            for shift, values in sums.items():
                add_shifted(limbs, values, shift + 2 * zeros)
    return Products(limbs)


Sums = dict[int, NDArray[np.int64]]
"""By how many bits sums are yet to be shifted: 0, 20, 32 or 40."""


def _of_matrices(columns: Columns, zeros: int, count: int) -> Sums:
    """Products of coordinates that many have. At most 2**20 coordinates, of products of at most 2**41: 2**61."""
    is_narrow = columns.bits - zeros <= _NARROW_BITS
    sums: Sums = {}

    def add(shift: int, product: NDArray[np.float64]) -> None:
        if shift not in sums:
            sums[shift] = np.zeros((count, count), dtype=np.int64)
        sums[shift] += product.astype(np.int64)

    for matrix in columns.matrices(_PAIRED_MAX + 1):
        values = matrix.values >> zeros
        if is_narrow:
            whole = values.astype(np.float64)
            add(0, whole @ whole.T)
            continue
        high, low = (values >> _HALF_BITS).astype(np.float64), (values & _LOW_HALF).astype(np.float64)
        add(2 * _HALF_BITS, high @ high.T)
        crossed = high @ low.T
        add(_HALF_BITS, crossed + crossed.T)
        add(0, low @ low.T)
    return sums


def _of_groups(columns: Columns, zeros: int, count: int) -> Sums:
    """Products of coordinates that few have, pair by pair: each pair once for a coordinate."""
    bits = columns.bits - zeros
    sums: Sums = {}

    def add(shift: int, pair: NDArray[np.int64], products: NDArray[np.int64]) -> None:
        if shift not in sums:
            sums[shift] = np.zeros(count * count, dtype=np.int64)
        np.add.at(sums[shift], pair, products)

    for group in columns.groups(_PAIRED_MAX):
        values = group.values >> zeros
        high, low = values >> _HALF_BITS, values & _LOW_HALF
        for pair, one, other in _pairs(group, count):
            if bits <= _HALF_BITS + 1:
                add(0, pair, values[one] * values[other])
            elif bits <= _WORD_BITS:
                products = values[one] * values[other]
                add(0, pair, products & _LOW_WORD)
                add(32, pair, products >> 32)
            else:
                add(0, pair, low[one] * low[other])
                add(_HALF_BITS, pair, high[one] * low[other] + low[one] * high[other])
                add(2 * _HALF_BITS, pair, high[one] * high[other])
    return {shift: _mirrored(each.reshape(count, count)) for shift, each in sums.items()}


def _pairs(group: Group, count: int) -> Iterator[tuple[NDArray[np.int64], int, int]]:
    """Each two entries of a group, an entry with itself too: the number of the pair of updates, and which entries."""
    size = group.who.shape[0]
    for one in range(size):
        for other in range(one, size):
            yield group.who[one] * count + group.who[other], one, other


def _mirrored(upper: NDArray[np.int64]) -> NDArray[np.int64]:
    """The symmetric matrix that has this upper triangle; the lower one is 0."""
    return upper + np.triu(upper, 1).T
