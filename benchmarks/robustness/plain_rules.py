"""The rules once more, slow and short, over whole tables of integers: a check of the fast ones, and one more.

A table is int64, (updates, coordinates), zero where an update does not carry a coordinate. A trimmed mean without
mixing is no rule that terms can name, and stands here for what mixing is worth.

Format: proto/README.md, "Aggregation".

Runs in: a developer's machine.
Trusts: its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.contribution import Contribution

TRIMMED_MEAN = "trimmed_mean"
"""Without mixing: no rule that terms can name."""

Table = NDArray[np.int64]
Vector = NDArray[np.int64]
PPM = 1_000_000


def table_of(cohort: Sequence[Contribution], coordinates: int) -> tuple[Table, NDArray[np.bool_]]:
    """Write a cohort out; and where each carries something."""
    table = np.zeros((len(cohort), coordinates), dtype=np.int64)
    carried = np.zeros(table.shape, dtype=np.bool_)
    for number, update in enumerate(cohort):
        for part in update.parts(0, coordinates):
            table[number, part.at], carried[number, part.at] = part.values, True
    return table, carried


def half_even(numerators: Vector, denominator: int | Vector) -> Vector:
    """Quotients, rounded half to even."""
    quotients = numerators // denominator
    twice = 2 * (numerators - quotients * denominator)
    rounded: Vector = quotients + ((twice > denominator) | ((twice == denominator) & (quotients % 2 == 1)))
    return rounded


def clip(table: Table, bound: int | None = None, median_ppm: int | None = None) -> Table:
    """The table after a clip."""
    norms = [isqrt(sum(int(value) ** 2 for value in row[row != 0])) for row in table]
    if bound is None:
        assert median_ppm is not None, "a clip has one of both"
        bound = sorted(norms)[(len(norms) - 1) // 2] * median_ppm // PPM
    rows = [
        half_even(row * ((bound << 20) // (norm + 1)), 1 << 20) if norm > bound else row
        for row, norm in zip(table, norms, strict=True)
    ]
    return np.array(rows)


def mean(table: Table) -> Vector:
    """Missing is zero; equal weights."""
    return half_even(table.sum(axis=0), len(table))


def union_mean(table: Table, carried: NDArray[np.bool_]) -> Vector:
    """Over those who carry a coordinate; equal weights."""
    return half_even(table.sum(axis=0), np.maximum(carried.sum(axis=0), 1))


def trimmed_mean(table: Table, liars: int, mixed: int = 1) -> Vector:
    """Without the smallest and the largest `liars` of each coordinate.

    Args:
        mixed: how many updates each row is a sum of.
    """
    rest = np.sort(table, axis=0)[liars : len(table) - liars]
    return half_even(rest.sum(axis=0), mixed * len(rest))


def nnm_trimmed_mean(table: Table, ties: Sequence[bytes], liars: int) -> Vector:
    """Mix each row with its nearest, then trim."""
    count = len(table)
    distances = squared_distances(table)
    mixed = np.empty_like(table)
    for row in range(count):
        others = [other for other in range(count) if other != row]
        others.sort(key=lambda other: (distances[row][other], ties[other]))
        mixed[row] = table[[row, *others[: count - liars - 1]]].sum(axis=0)
    return trimmed_mean(mixed, liars, count - liars)


def multi_krum(table: Table, ties: Sequence[bytes], liars: int, selected: int) -> Vector:
    """The mean of the rows whose nearest others are nearest."""
    count = len(table)
    distances = squared_distances(table)
    near = min(count - 1, max(1, count - liars - 2))
    scores = [sum(sorted(distances[row][other] for other in range(count) if other != row)[:near])
              for row in range(count)]
    best = sorted(range(count), key=lambda row: (scores[row], ties[row]))
    return mean(table[best[: max(1, selected)]])


def median(table: Table) -> Vector:
    """The middle one, or the mean of the middle two."""
    ordered, count = np.sort(table, axis=0), len(table)
    if count % 2:
        return ordered[count // 2]
    return half_even(ordered[count // 2 - 1] + ordered[count // 2], 2)


def squared_distances(table: Table) -> list[list[int]]:
    """Between all rows, as Python's integers where 64 bits could be too few."""
    largest = int(np.abs(table).max(initial=0))
    if (4 * largest * largest * table.shape[1]) >> 53 == 0:
        values = table.astype(np.float64)
        products = (values @ values.T).astype(np.int64)
        squares = np.diag(products)
        small: list[list[int]] = (squares[:, np.newaxis] + squares - 2 * products).tolist()
        return small
    # Values of at most 2**41 - the differences - as two limbs of 21 bits, or the squares would not fit.
    distances = [[0] * len(table) for _ in table]
    for first in range(len(table)):
        for second in range(first):
            differences = table[first] - table[second]
            high, low = differences >> 21, differences & (2**21 - 1)
            distances[first][second] = distances[second][first] = (
                (int(high @ high) << 42) + (int(high @ low) << 22) + int(low @ low))
    return distances
