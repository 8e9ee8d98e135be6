"""Supports as bytes: each index as the number of coordinates skipped before it, in a Rice code.

Indices out of order or twice cannot be written at all, and one support has one encoding. Rules L2 and L3 of the format
are here, with R1 to R5 for the skips between and behind them.

Format: proto/README.md, "Codec", "Skips".

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse.fast import fast_rice, kernels
from sfrl_secure.sparse.header import BLOCK_VALUES, LEAF_VALUES
from sfrl_secure.sparse.rice import check_parameters, pack_rice, unpack_rice

SKIP_PARAMETER_MAX = 30
"""No canonical parameter is larger, since a model has at most 2**31 coordinates."""
_BASE = struct.Struct("<I")
_BASE_BYTES = _BASE.size


def pack_support(indices: NDArray[np.int64], base: int) -> list[bytes]:
    """Write one leaf's support: its base and the Rice code of its skips.

    Args:
        indices: int64, shape (count,), count at least 1, strictly rising, the first at least `base`.
        base: the index after the last one of the leaf before, 0 in the first leaf.
    """
    skips = np.empty_like(indices)
    skips[0] = int(indices[0]) - base
    np.subtract(indices[1:], indices[:-1], out=skips[1:])
    skips[1:] -= 1
    return [base.to_bytes(_BASE_BYTES, "little"), *pack_rice(skips)]


def unpack_support(leaf: NDArray[np.uint8], *, count: int, leaf_index: int, base: int | None,
                   coordinates: int) -> tuple[NDArray[np.int64], int]:
    """Read one leaf's support strictly. Rules L2, R1 to R4, L3, R5.

    Args:
        leaf: the whole leaf.
        count: values of the leaf, 1 to 65,536.
        leaf_index: number of the leaf.
        base: the index after the last one of the leaf before; None where that is not known.
        coordinates: coordinates of the model, at most 2**31.

    Returns: int64, shape (count,), strictly rising, each below `coordinates`; and where the values begin.

    Raises:
        PayloadError: `length`, `not_canonical`, `declared` or `out_of_range`.
    """
    if leaf.size < _BASE_BYTES:
        raise PayloadError("length", "a leaf begins with its base")
    stored = int(_BASE.unpack_from(leaf.data)[0])
    if leaf_index == 0:
        base = 0
    if stored != base if base is not None else stored < leaf_index * LEAF_VALUES:
        raise PayloadError("not_canonical", "a leaf's base continues the leaf before")
    compiled = kernels(count)
    if compiled is not None:
        fast = fast_rice(compiled, leaf, _BASE_BYTES, count, SKIP_PARAMETER_MAX, before=stored - 1, step=1)
        if fast is not None and int(fast[0][-1]) < coordinates:
            return fast
    strides, parameters, end = unpack_rice(leaf, _BASE_BYTES, count, SKIP_PARAMETER_MAX, headroom=stored)
    # An index is the one before and a stride, which is what was skipped and 1.
    indices = _running_sums(strides.ravel(), stored - 1)
    if indices.item(count) >= coordinates:
        raise PayloadError("out_of_range", "an index is outside the model")
    check_parameters(parameters, indices[BLOCK_VALUES::BLOCK_VALUES] - indices[:-1:BLOCK_VALUES], count)
    return indices[1 : count + 1], end


def _running_sums(strides: NDArray[np.signedinteger], before: int) -> NDArray[np.int64]:
    """Return `before` and what it is after each stride.

    Args:
        strides: an even number of them, none negative; changed. In int32 the sum of all is below 2**31 with `before`.
    """
    sums = np.empty(strides.size + 1, np.int64)
    sums[0] = before
    strides[0] += before
    if strides.dtype == np.int64:
        np.add.accumulate(strides, 0, None, sums[1:])
        return sums
    # Two at a time, as the halves of one number, which takes half as long; no half reaches the other. Then each half is
    # the sum of every second stride, and with the one before it the sum of all.
    halves = strides.view(np.int64)
    np.add.accumulate(halves, 0, None, halves)
    wholes = np.empty_like(strides)
    wholes[0] = strides[0]
    np.add(strides[1:], strides[:-1], wholes[1:])
    sums[1:] = wholes
    return sums
