"""Supports as bytes: Rice codes in blocks of 128 nonzeros, low bits in bit planes, quotients in one unary plane.

Each index is written as the number of coordinates skipped before it, so indices out of order or twice cannot be
written at all. A block's Rice parameter is a function of the block's span and never a choice: one support has one
encoding. The function aims a little below the usual ln 2 of the mean; it was measured to come closer to the entropy
bound on random and on clustered supports.

Bit planes let a decoder without loops read one bit of many blocks at once. Rules L3 to L9 of the format are here, in
that order.

Format: proto/README.md, "Codec". Rice codes: R. F. Rice, 1979; Golomb's parameter for geometric gaps: Gallager and
van Voorhis, 1975.

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse.header import BLOCK_NONZEROS, RICE_PARAMETER_MAX, block_count, unary_byte_bounds

_PLANE_BLOCK_BYTES = BLOCK_NONZEROS // 8


def pack_support(indices: NDArray[np.int64], base: int) -> tuple[bytes, bytes]:
    """Write one leaf's support.

    Args:
        indices: int64, shape (count,), count at least 1, strictly rising, the first at least `base`.
        base: the index after the last one of the leaf before, 0 in the first leaf.

    Returns: the parameters, one byte a block; and the bit planes with the unary plane behind them.
    """
    count = indices.size
    skips = np.zeros(block_count(count) * BLOCK_NONZEROS, dtype=np.int64)
    skips[0] = int(indices[0]) - base
    np.subtract(indices[1:], indices[:-1], out=skips[1:count])
    skips[1:count] -= 1
    blocks = skips.reshape(-1, BLOCK_NONZEROS)
    parameters = rice_parameters(blocks.sum(axis=1), count)
    shifts = parameters.astype(np.int64)[:, None]

    order, held = _plane_order(parameters)
    low = (blocks & ((1 << shifts) - 1))[order]
    planes = [np.packbits(((low[:rows] >> bit) & 1).astype(np.uint8).ravel(), bitorder="little").tobytes()
              for bit, rows in enumerate(held)]

    ends = np.cumsum((blocks >> shifts).ravel()[:count] + 1) - 1
    unary = np.zeros(int(ends[-1]) + 1, dtype=np.uint8)
    unary[ends] = 1
    planes.append(np.packbits(unary, bitorder="little").tobytes())
    return parameters.tobytes(), b"".join(planes)


def unpack_support(parameters: NDArray[np.uint8], packed: bytes, *, count: int, base: int,
                   coordinates: int) -> NDArray[np.int64]:
    """Read one leaf's support strictly. Rules L3 to L9.

    Args:
        parameters: uint8, shape (blocks of `count`,), as they stand in the leaf.
        packed: bit planes and unary plane: the rest of the leaf.
        count: nonzeros of the leaf, 1 to 65,536.
        base: the leaf's base, 0 to 2**32 - 1.
        coordinates: coordinates of the model, at most 2**31.

    Returns: int64, shape (count,), strictly rising, each from `base` to `coordinates` - 1.

    Raises:
        PayloadError: `not_canonical`, `length`, `declared` or `out_of_range`.
    """
    if int(parameters.max()) > RICE_PARAMETER_MAX:
        raise PayloadError("not_canonical", f"a Rice parameter is at most {RICE_PARAMETER_MAX}")
    planes_bytes = _PLANE_BLOCK_BYTES * int(parameters.sum(dtype=np.int64))
    quotients = _unpack_unary(packed, planes_bytes, count)
    low = _unpack_planes(packed, planes_bytes, parameters)
    if count < quotients.size and low[-1, count % BLOCK_NONZEROS :].any():
        raise PayloadError("not_canonical", "padding bits of the last block are zero")

    # No overflow, whatever a peer sends: quotients add up to less than 2**18 and are shifted by at most 30.
    skips = quotients.reshape(-1, BLOCK_NONZEROS)
    skips <<= parameters[:, None]
    skips |= low
    spans = skips.sum(axis=1)
    if base + count + int(spans.sum()) > coordinates:
        raise PayloadError("out_of_range", "an index is outside the model")
    if not np.array_equal(rice_parameters(spans, count), parameters):
        raise PayloadError("not_canonical", "a Rice parameter is the function's value for its block")
    # In place: an index is the base, what was skipped up to here, and the nonzeros before.
    indices = quotients[:count]
    indices[0] += base - 1
    indices += 1
    return np.cumsum(indices, out=indices)


def rice_parameters(spans: NDArray[np.int64], count: int) -> NDArray[np.uint8]:
    """Return each block's parameter: max(0, floor(log2(span * 985 // (1024 * nonzeros of the block)))).

    Args:
        spans: int64, shape (blocks,), coordinates skipped in each block, below 2**50.
        count: nonzeros of all blocks together; each block but the last holds 128.
    """
    held = np.full(spans.size, BLOCK_NONZEROS, dtype=np.int64)
    held[-1] = count - (spans.size - 1) * BLOCK_NONZEROS
    means = spans * 985 // (1024 * held)
    # frexp gives the bit length, exactly below 2**53, and 0 for 0.
    bit_lengths = np.frexp(means.astype(np.float64))[1]
    parameters: NDArray[np.uint8] = np.maximum(bit_lengths - 1, 0).astype(np.uint8)
    return parameters


def _plane_order(parameters: NDArray[np.uint8]) -> tuple[NDArray[np.intp], list[int]]:
    """Order blocks by falling parameter, equal ones as they stand; count for each plane the blocks that it holds."""
    order = np.argsort(RICE_PARAMETER_MAX - parameters, kind="stable")
    sizes = np.bincount(parameters, minlength=1)
    held = parameters.size - np.cumsum(sizes)[:-1]
    return order, held.tolist()


def _unpack_unary(packed: bytes, start: int, count: int) -> NDArray[np.int64]:
    """Read the quotients, zeros after the last one up to a whole block; rules L4 to L6."""
    shortest, longest = unary_byte_bounds(count)
    if not shortest <= len(packed) - start <= longest:
        raise PayloadError("length", f"this leaf's unary plane has {shortest} to {longest} bytes")
    unary = np.unpackbits(np.frombuffer(packed, dtype=np.uint8, offset=start), bitorder="little")
    # As bool, which numpy searches nine times faster than numbers.
    ends = np.flatnonzero(unary.view(np.bool_))
    if ends.size != count:
        raise PayloadError("declared", "the unary plane holds one 1 for each nonzero")
    if int(ends[-1]) // 8 != len(packed) - start - 1:
        raise PayloadError("length", "nothing follows the byte of the last nonzero")
    quotients = np.zeros(block_count(count) * BLOCK_NONZEROS, dtype=np.int64)
    quotients[0] = ends[0]
    np.subtract(ends[1:], ends[:-1], out=quotients[1:count])
    quotients[1:count] -= 1
    return quotients


def _unpack_planes(packed: bytes, planes_bytes: int, parameters: NDArray[np.uint8]) -> NDArray[np.unsignedinteger]:
    """Read the low bits of each nonzero, shape (blocks, 128), in the support's order."""
    order, held = _plane_order(parameters)
    bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8, count=planes_bytes), bitorder="little")
    low: NDArray[np.unsignedinteger] = np.zeros((parameters.size, BLOCK_NONZEROS), dtype=np.uint8)
    start = 0
    # Eight planes at a time, so that most steps move single bytes; more than eight are rare above 0.2 % density.
    for first in range(0, len(held), 8):
        octet = np.zeros((parameters.size, BLOCK_NONZEROS), dtype=np.uint8)
        for shift, rows in enumerate(held[first : first + 8]):
            plane = bits[start : start + rows * BLOCK_NONZEROS].reshape(rows, BLOCK_NONZEROS)
            plane <<= np.uint8(shift)
            octet[:rows] |= plane
            start += plane.size
        low = octet if first == 0 else low | octet.astype(np.uint32) << np.uint32(first)
    inverse = np.empty_like(order)
    inverse[order] = np.arange(order.size)
    return low[inverse]
