"""`nnm_trimmed_mean/v1`: each update is mixed with its nearest neighbours, then the ends of every coordinate are cut.

Nearest-neighbour mixing: Allouah and others 2023. Where one or two carry a coordinate, the n mixed values are copies of
two or four numbers, and are counted rather than written down.

Format: proto/README.md, "Rules".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.replay.arithmetic import divide_half_even
from sfrl_secure.replay.columns import Cohort, Columns
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.products import Exact, distances_of, products_of


def nnm_trimmed_mean(cohort: Cohort, liars: int) -> Integers:
    """Give a for every coordinate.

    Args:
        liars: f, less than half of the updates.

    Raises:
        Gone: a payload is there no more.
    """
    n = len(cohort.updates)
    near = _nearest(distances_of(products_of(cohort)), [update.tie for update in cohort.updates], n - liars - 1)
    a = np.zeros(cohort.coordinates, np.int64)
    for columns in cohort.columns():
        for chosen, sums in _trimmed(columns, near, liars):
            a[columns.start + chosen] = divide_half_even(sums, (n - liars) * (n - 2 * liars))
    return a


def _nearest(distances: Exact, ties: Sequence[bytes], count: int) -> NDArray[np.bool_]:
    """Row i: i itself and, of the others, so many with the smallest distance, then tie."""
    n = len(ties)
    near = np.eye(n, dtype=np.bool_)
    for i in range(n):
        others = sorted((distances[i, j], ties[j], j) for j in range(n) if j != i)
        near[i, [j for _, _, j in others[:count]]] = True
    return near


def _trimmed(columns: Columns, near: NDArray[np.bool_], liars: int) -> Iterator[tuple[Integers, Integers]]:
    """The columns that anybody carries, and of each the sum of its n mixed values but the f smallest and f largest."""
    n, has = len(near), near.astype(np.int64)
    having, having_both = has.sum(axis=0), has.T @ has
    for chosen, who, values in columns.carried_by(1):
        copies = np.concatenate([n - having[who], having[who]], axis=1)
        yield chosen, _sum_of_copies(np.concatenate([0 * values, values], axis=1), copies, liars, n)
    for chosen, who, values in columns.carried_by(2):
        (i, j), (v, w) = who.T, values.T
        both = having_both[i, j]
        copies = np.stack([n - having[i] - having[j] + both, having[i] - both, having[j] - both, both], axis=1)
        yield chosen, _sum_of_copies(np.stack([0 * v, v, w, v + w], axis=1), copies, liars, n)
    # Exact in binary64: the sum of 500 values of 2**40 is below 2**49.
    weights = near.T.astype(np.float64)
    for chosen, table in columns.tables(3):
        mixed = np.sort((table.astype(np.float64) @ weights).astype(np.int64), axis=1)
        yield chosen, mixed[:, liars : n - liars].sum(axis=1)


def _sum_of_copies(values: Integers, copies: Integers, liars: int, n: int) -> Integers:
    """Of each row the sum of n numbers but the f smallest and the f largest: so many copies of each value.

    Args:
        values, copies: shape (m, p); a row's copies add up to n.
    """
    order = np.argsort(values, axis=1)
    values, copies = np.take_along_axis(values, order, axis=1), np.take_along_axis(copies, order, axis=1)
    behind = np.cumsum(copies, axis=1)  # places of a row's copies: behind - copies to behind - 1
    kept = np.clip(behind, liars, n - liars) - np.clip(behind - copies, liars, n - liars)
    sums: Integers = (values * kept).sum(axis=1)
    return sums
