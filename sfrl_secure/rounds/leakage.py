"""Leakage: what of an update would betray single examples.

A support that touches few rows of an embedding says which tokens the examples had; a last layer that raises few labels
says which labels; values smaller than the noise that is claimed were not given it. A gatekeeper refuses such an update
before anybody else has it, and the SDK before it is sent. All in exact integers, so that everyone sees the same.

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
        if along.size and _raised(along, values) < bound.least:
            raise DeniedError("leak_labels", f"fewer than {bound.least} indices of a guarded axis are raised")
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


def _raised(along: NDArray[np.int64], values: NDArray[np.int64]) -> int:
    """How many different indices have values with a sum above 0.

    2**31 values of 2**40 do not fit into 64 bits. Their halves of 20 bits do: each half's sum stays below 2**52, which
    float64 adds exactly too.
    """
    _, place = np.unique(along, return_inverse=True)
    high = np.bincount(place, weights=values >> _HALF_BITS).astype(np.int64)
    low = np.bincount(place, weights=values & _LOW).astype(np.int64)
    high += low >> _HALF_BITS
    return int(np.count_nonzero((high > 0) | ((high == 0) & (low & _LOW > 0))))
