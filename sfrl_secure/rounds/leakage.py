"""Leakage: what of an update would betray single examples.

A support that touches few rows of an embedding says which tokens the examples had; a last layer that moves few labels
one way, and the others the other way, says which labels; values smaller than the noise that is claimed were not given
it. A gatekeeper refuses such an update before anybody else has it, and the SDK before it is sent. All in exact
integers, so that everyone sees the same.

What this does not see stands in proto/README.md, "Leakage", which is also the format.

Runs in: gatekeeper, aggregator, participant.
Trusts: the terms. Nothing in the update.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.terms import LeakageBound, SegmentTerms
from sfrl_secure.sparse.update import SparseUpdate

_HALF_BITS = 20
_LOW = (1 << _HALF_BITS) - 1

Halves = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Numbers as high * 2**20 + low."""


def check_leakage(terms: SegmentTerms, update: SparseUpdate, noise_std: int) -> None:
    """Step 13, its end: rows, then labels, then noise.

    Args:
        update: of the terms' manifest.
        noise_std: as the header claims it, in grid units; 0 for none.

    Raises:
        DeniedError: `leak_rows`, `leak_labels`, `leak_noise`.
    """
    for bound in terms.leakage.rows:
        along, _ = _touched(terms, update, bound)
        if along.size and np.unique(along).size < bound.least:
            raise DeniedError("leak_rows", f"fewer than {bound.least} indices of a guarded axis are touched")
    for bound in terms.leakage.labels:
        along, values = _touched(terms, update, bound)
        if along.size and min(raised_and_lowered(_sums(along, values))) < bound.least:
            message = f"fewer than {bound.least} indices of a guarded axis are raised, or lowered"
            raise DeniedError("leak_labels", message)
    if noise_std > 0 and 4 * update.norm_squared() < update.nonzeros * noise_std**2:
        raise DeniedError("leak_noise", "the values are smaller than the noise that is claimed")


def _touched(
    terms: SegmentTerms, update: SparseUpdate, bound: LeakageBound
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Of each coordinate that the update touches in the bound's tensor: its index along the axis, and its value."""
    manifest = terms.model.manifest
    at = next(place for place, tensor in enumerate(manifest.tensors) if tensor.name == bound.tensor)
    shape, start = manifest.tensors[at].shape, manifest.offsets[at]
    first, end = np.searchsorted(update.indices, (start, start + prod(shape)))
    behind = prod(shape[bound.axis + 1 :])
    along = (update.indices[first:end] - start) // behind % shape[bound.axis]
    return along, update.values[first:end]


def _sums(along: NDArray[np.int64], values: NDArray[np.int64]) -> Halves:
    """Sum of the values at each different index.

    2**31 values of 2**40 do not fit into 64 bits. Their halves of 20 bits do: each half's sum stays below 2**52, which
    float64 adds exactly too.
    """
    _, place = np.unique(along, return_inverse=True)
    high = np.bincount(place, weights=values >> _HALF_BITS).astype(np.int64)
    low = np.bincount(place, weights=values & _LOW).astype(np.int64)
    return high, low


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
