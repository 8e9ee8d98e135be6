"""Products and distances of all pairs of a cohort, to the last digit: they leave 64 bits, and become Python's integers.

A value is cut in two, high * 2**20 + low, so that each product of two halves is at most 2**40. Columns that few carry
are gone through pair by pair, with sums of 64 bits. Columns that many carry are one matrix product in binary64: so few
columns at a time that every sum is an integer of at most 2**52, which binary64 holds exactly.

Format: proto/README.md, "Rules", d(i, j); "Clusters", p.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.replay.columns import Cohort, Columns
from sfrl_secure.replay.payload_codes import Integers

_HALF: Final = 20
_PAIRS_MAX: Final = 8
"""Columns that more carry are gone through as tables."""
_TABLE_ROWS: Final = 2**12
_TABLES_MAX: Final = 2**8

Exact = NDArray[Any]
"""Python's integers, of any size."""


def products_of(cohort: Cohort) -> Exact:
    """The sum over all coordinates of v(i) * v(j), for all i and j.

    Returns: shape (n, n), symmetric.

    Raises:
        Gone: a payload is there no more.
    """
    upper: Exact = np.zeros((len(cohort.updates),) * 2, object)
    for columns in cohort.columns():
        for count in range(1, _PAIRS_MAX + 1):
            upper += _of_pairs(columns, count)
        upper += np.triu(_of_tables(columns))
    squares: Exact = np.diag(np.diag(upper))
    return upper + upper.T - squares


def distances_of(products: Exact) -> Exact:
    """The sum over all coordinates of the square of the difference of v(i) and v(j), for all i and j."""
    squares = np.diag(products)
    distances: Exact = squares[:, None] + squares[None, :] - 2 * products
    return distances


def _of_pairs(columns: Columns, count: int) -> Exact:
    """The products of the columns that exactly so many carry; of a pair, i is not above j."""
    n = columns.updates
    found: Exact = np.zeros(n * n, object)
    for _, who, values in columns.carried_by(count):
        high, low = _halves(values)
        # A pair meets at most once in a column, and here are 2**20 columns at most: sums of at most 2**61.
        sums = np.zeros((3, n * n), np.int64)
        for i in range(count):
            for j in range(i, count):
                pair = who[:, i] * n + who[:, j]
                np.add.at(sums[0], pair, high[:, i] * high[:, j])
                np.add.at(sums[1], pair, high[:, i] * low[:, j] + low[:, i] * high[:, j])
                np.add.at(sums[2], pair, low[:, i] * low[:, j])
        found += _joined(*sums)
    return found.reshape(n, n)


def _of_tables(columns: Columns) -> Exact:
    """The products of the columns that more than `_PAIRS_MAX` carry."""
    n = columns.updates
    found: Exact = np.zeros((n, n), object)
    sums = np.zeros((2 * n, 2 * n), np.int64)
    for number, (_, table) in enumerate(columns.tables(_PAIRS_MAX + 1, _TABLE_ROWS), 1):
        halves = np.concatenate(_halves(table), axis=1).astype(np.float64)
        sums += (halves.T @ halves).astype(np.int64)
        if number % _TABLES_MAX == 0:
            found += _joined_halves(sums)
            sums[:] = 0
    return found + _joined_halves(sums)


def _joined_halves(sums: Integers) -> Exact:
    """From the products of all halves with all halves, the high ones first, each sum at most 2**60."""
    n = len(sums) // 2
    return _joined(sums[:n, :n], sums[:n, n:] + sums[n:, :n], sums[n:, n:])


def _joined(high: Integers, crossed: Integers, low: Integers) -> Exact:
    whole: Exact = high.astype(object) * 2 ** (2 * _HALF) + crossed.astype(object) * 2**_HALF + low.astype(object)
    return whole


def _halves(values: Integers) -> tuple[Integers, Integers]:
    """High and low: low from 0 to 2**20 - 1, high of magnitude 2**20 at most."""
    return values >> _HALF, values & (2**_HALF - 1)
