"""Nearest-neighbour mixing, then the trimmed mean, in exact integers.

Each update is replaced by the sum of its neighbours: itself and the updates nearest to it. Of what the mixed updates
say of a coordinate, the smallest and the largest are left out. Mixing is what lets the trimmed mean stand updates that
differ because their data differ (Allouah and others, "Fixing by Mixing", 2023).

A coordinate that few updates have takes few values after mixing: with k contributors at most 2**k, each as often as
there are neighbourhoods with just these of the k inside. They are counted, not written out.

Format: proto/README.md, "Aggregation", Rules.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.columns import Group, Matrix, columns_over
from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.division import divide_half_even
from sfrl_secure.aggregation.members import part_of
from sfrl_secure.aggregation.neighbours import nearest_first, ranks_of
from sfrl_secure.aggregation.products import Products
from sfrl_secure.governance.aggregation_terms import PPM, RuleTerms
from sfrl_secure.limits import COHORT_MAX
from sfrl_secure.sparse.update import UpdatePart

_COUNTED_MAX: Final = 6
"""Up to so many contributors the values after mixing are counted: 64 of at most 6 * 2**40."""
_COUNT_BITS: Final = 9
_WORD: Final = 64
_EXACT: Final = 2**53

assert COHORT_MAX < 2**_COUNT_BITS, "how often a value comes has room beside it"


@dataclass(frozen=True, slots=True, eq=False)
class Neighbourhoods:
    """Whose values each update is mixed of.

    Attributes:
        liars: how many of the smallest, and of the largest, are left out; less than half of n.
        mixing: float64, shape (n, n): 1 at (j, i) where j is a neighbour of i.
        words: uint64, shape (words, n): of each j, a bit for each i that it is a neighbour of.
    """

    liars: int
    mixing: NDArray[np.float64]
    words: NDArray[np.uint64]

    @property
    def count(self) -> int:
        """Updates in the cohort."""
        return len(self.mixing)

    @property
    def divisor(self) -> int:
        """How many values make up what is left of a coordinate."""
        return (self.count - self.liars) * (self.count - 2 * self.liars)


def neighbourhoods_by(rule: RuleTerms, cohort: Sequence[Contribution], products: Products) -> Neighbourhoods:
    """Find each update's neighbours.

    Args:
        products: of the whole cohort, over all coordinates.

    Raises:
        MalformedError: an update is in the cohort twice.
    """
    count = len(cohort)
    assert products.count == count, "these are the cohort's products"
    liars = count * rule.liars_ppm // PPM
    nearest = nearest_first(products.distances(), ranks_of(cohort))[:, : count - liars - 1]
    inside = np.eye(count, dtype=np.bool_)
    inside[np.arange(count)[:, np.newaxis], nearest] = True
    padded = np.zeros((-(-count // _WORD) * _WORD, count), dtype=np.bool_)
    padded[:count] = inside
    bits = padded.reshape(-1, _WORD, count).astype(np.uint64) << np.arange(_WORD, dtype=np.uint64)[:, np.newaxis]
    return Neighbourhoods(liars, np.ascontiguousarray(inside.T, dtype=np.float64), np.bitwise_or.reduce(bits, axis=1))


def trimmed_mean_over(
    cohort: Sequence[Contribution], start: int, stop: int, neighbourhoods: Neighbourhoods
) -> UpdatePart:
    """Mix and trim the coordinates from `start` to before `stop`; the part is numbered from `start`.

    Raises:
        MalformedError: what an update gives is out of bounds.
        Overfull: the range has too many values.
    """
    columns = columns_over(cohort, start, stop)
    # Counting pays while there are fewer values to count than updates.
    counted = min(_COUNTED_MAX, max(neighbourhoods.count.bit_length() - 2, 0))
    sums = np.zeros(columns.at.size, dtype=np.int64)
    for group in columns.groups(counted):
        sums[group.at] = _sums_of_group(group, neighbourhoods)
    for matrix in columns.matrices(counted + 1):
        sums[matrix.at] = _sums_of_matrix(matrix, columns.bits, neighbourhoods)
    return part_of(columns.at - start, divide_half_even(sums, neighbourhoods.divisor, out=sums), stop - start)


def _sums_of_matrix(matrix: Matrix, bits: int, neighbourhoods: Neighbourhoods) -> NDArray[np.int64]:
    count, liars = neighbourhoods.count, neighbourhoods.liars
    # Sums of at most 500 values of at most 2**40: exact in float64, in whichever order.
    mixed = matrix.values.T.astype(np.float64) @ neighbourhoods.mixing
    mixed.sort(axis=1)
    rest = mixed[:, liars : count - liars]
    if neighbourhoods.divisor << bits > _EXACT:
        rest = rest.astype(np.int64)
    sums: NDArray[np.int64] = rest.sum(axis=1).astype(np.int64)
    return sums


def _sums_of_group(group: Group, neighbourhoods: Neighbourhoods) -> NDArray[np.int64]:
    """What is left of coordinates with k entries: the 2**k sums of some of these, each so often, sorted and cut."""
    size, width = group.values.shape
    count, liars = neighbourhoods.count, neighbourhoods.liars
    if size == 1:
        # Sums are the value or 0, which lies at one end of the order.
        inside = np.bitwise_count(neighbourhoods.words).sum(axis=0, dtype=np.int64)
        left = np.clip(inside - liars, 0, count - 2 * liars)
        product: NDArray[np.int64] = group.values[0] * left[group.who[0]]
        return product
    sums = np.zeros((2**size, width), dtype=np.int64)
    often = np.zeros((2**size, width), dtype=np.int64)
    for entry in range(size):
        np.add(sums[: 2**entry], group.values[entry], out=sums[2**entry : 2 * 2**entry])
    often[0] = count
    for word in neighbourhoods.words:
        together = np.empty((2**size, width), dtype=np.uint64)
        together[0] = ~np.uint64(0)
        for entry in range(size):
            np.bitwise_and(together[: 2**entry], word[group.who[entry]], out=together[2**entry : 2 * 2**entry])
        often[1:] += np.bitwise_count(together[1:])
    # So far: in how many neighbourhoods at least these are. Less those with one more: in how many just these are.
    for entry in range(size):
        halves = often.reshape(-1, 2, 2**entry, width)
        halves[:, 0] -= halves[:, 1]
    return _rest_of_counted(sums, often, count, liars)


def _rest_of_counted(
    sums: NDArray[np.int64], often: NDArray[np.int64], count: int, liars: int
) -> NDArray[np.int64]:
    """The sum of all but the `liars` smallest and largest, where a value comes `often`."""
    ordered = np.ascontiguousarray(((sums << _COUNT_BITS) | often).T)
    ordered.sort(axis=1)
    until = np.cumsum(ordered & (2**_COUNT_BITS - 1), axis=1)
    np.clip(until, liars, count - liars, out=until)
    until[:, 1:] -= until[:, :-1].copy()
    until[:, 0] -= liars
    result: NDArray[np.int64] = np.einsum("cv,cv->c", ordered >> _COUNT_BITS, until)
    return result
