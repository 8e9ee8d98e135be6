"""Rice codes in blocks of 64: low bits in bit planes, one 64-bit word a block and plane, and quotients in unary.

A block's parameter is a function of the sum of its numbers and never a choice, so that a list of numbers has one code.
The function aims a little below the usual ln 2 of the mean; it was measured to come closer to the entropy bound on
random and on clustered supports. Bit planes let a decoder without loops read one bit of many blocks at once.

Rules R1 to R5 of the format are here. R5 is a function of its own, since a rule of the reader's stands before it.

Format: proto/README.md, "Codec", "Rice code". R. F. Rice, 1979; the parameter for geometric gaps: Gallager and van
Voorhis, 1975.

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse.header import BLOCK_VALUES, LEAF_VALUES, block_count
from sfrl_secure.sparse.steps import pack_steps, pack_unary, unary_ends, unpack_steps

_LENGTHS = struct.Struct("<HI")
_PLANE_BYTES = BLOCK_VALUES // 8
_BLOCK_NUMBERS = np.arange(LEAF_VALUES // BLOCK_VALUES)
_PLANE_SHIFTS = np.arange(32, dtype=np.uint64) % 8
_MEAN_SHIFT = 16
"""From the sum of 64 numbers, times 985, to their mean: 10 bits for 1,024, and 6 for 64."""
_MEAN_OF_ONE = np.array(1 << _MEAN_SHIFT, dtype=np.int64)


class RiceStrides(NamedTuple):
    """What a Rice code holds, before its parameters were checked.

    Attributes:
        strides: int32 or int64, shape (blocks, 64): each number and 1, and 1 behind the last number. The caller's to
            change. int32 only where the sum of all strides and the caller's headroom are below 2**31.
        parameters: int64, shape (blocks,).
        end: where the code ends in the leaf.
    """

    strides: NDArray[np.signedinteger]
    parameters: NDArray[np.int64]
    end: int


def pack_rice(numbers: NDArray[np.int64]) -> list[bytes]:
    """Write one leaf's numbers, int64, shape (count,), count 1 to 65,536, none negative; fields in order."""
    count = numbers.size
    blocks = in_blocks(numbers)
    parameters = rice_parameters(blocks.sum(axis=1), count)
    shifts = parameters[:, None]
    order, held = _plane_order(parameters)
    low = (blocks & ((1 << shifts) - 1)).astype("<u4")[order]
    octets = low.view(np.uint8).reshape(*low.shape, 4)
    planes = []
    for first in range(0, held.size, 8):
        octet = np.ascontiguousarray(octets[..., first // 8])
        # Any number but 0 is a one bit for packbits.
        planes += [np.packbits(octet[:rows] & np.uint8(1 << bit), bitorder="little").tobytes()
                   for bit, rows in enumerate(held[first : first + 8].tolist())]
    steps, unary = pack_steps(parameters), pack_unary((blocks >> shifts).ravel()[:count])
    return [_LENGTHS.pack(len(steps), len(unary)), steps, *planes, unary]


def unpack_rice(leaf: NDArray[np.uint8], start: int, count: int, largest: int, headroom: int = 0) -> RiceStrides:
    """Read `count` numbers that begin at `start`, strictly but for their parameters. Rules R1 to R4.

    Args:
        leaf: the whole leaf.
        start: where the code begins.
        count: numbers, 1 to 65,536.
        largest: the largest parameter allowed, at most 30.
        headroom: what the caller adds to the sum of all strides in the array that it gets.

    Raises:
        PayloadError: `length`, `declared` or `not_canonical`.
    """
    blocks = block_count(count)
    steps_start = start + _LENGTHS.size
    if leaf.size < steps_start:
        raise PayloadError("length", "the leaf ends inside a Rice code")
    steps_bytes, unary_bytes = _LENGTHS.unpack_from(leaf.data, start)
    planes_start = steps_start + steps_bytes
    if leaf.size < planes_start:
        raise PayloadError("length", "the leaf ends inside a Rice code")
    parameters, highest = unpack_steps(leaf[steps_start:planes_start], blocks, largest)
    unary_start = planes_start + _PLANE_BYTES * int(np.add.reduce(parameters))
    end = unary_start + unary_bytes
    # A canonical block's quotients add up to less than 2.08 a number, and each number has one bit more.
    if leaf.size < end or not -(-count // 8) <= unary_bytes <= -(-count // 2):
        raise PayloadError("length", "the leaf ends inside a Rice code, or its unary plane has an impossible length")
    # No overflow, whatever a peer sends: quotients add up to less than 8 U <= 2**18, and are shifted by at most 30.
    slots = blocks * BLOCK_VALUES
    dtype = np.int32 if ((8 * unary_bytes + slots) << highest) + slots + headroom < 2**31 else np.int64
    # What is no longer needed goes at once: the memory of one array is then the next one's, and still in the cache.
    places = unary_ends(leaf[unary_start:end], count).astype(dtype)
    flat: NDArray[np.signedinteger] = np.empty(slots, dtype)
    # The distance of two ones is a quotient and 1. With p the parameter, a stride is that distance times 2**p, less
    # 2**p - 1, plus the low bits; and 2**p - 1 less the low bits is what they are with each bit turned round.
    flat[0] = places[0] + 1
    np.subtract(places[1:], places[:-1], flat[1:count])
    del places
    if slots > count:
        flat[count:] = 0
    strides = flat.reshape(blocks, BLOCK_VALUES)
    if highest:
        np.left_shift(strides, parameters.astype(dtype)[:, None], strides)
        np.subtract(strides, _turned_low_bits(parameters, leaf[planes_start:unary_start]), strides)
    if slots > count:
        # No distance was here, and all low bits are zero.
        if np.count_nonzero(flat[count:] != 1 - (1 << int(parameters[-1]))):
            raise PayloadError("not_canonical", "bits of a plane that belong to no number are zero")
        flat[count:] = 1
    return RiceStrides(strides, parameters, end)


def check_parameters(parameters: NDArray[np.int64], sums: NDArray[np.int64], count: int) -> None:
    """Check that each parameter is the function's value for its block. Rule R5.

    Args:
        parameters: int64, shape (blocks,), as they stand in the leaf.
        sums: int64, shape (blocks,), the sum of each block's numbers, below 2**50; changed.
        count: numbers of all blocks together.

    Raises:
        PayloadError: `not_canonical`.
    """
    in_last, last_sum = count % BLOCK_VALUES, int(sums[-1])
    sums *= 985
    # The number of bits is one more than the parameter; a mean of 0 has the parameter of 1.
    np.maximum(sums, _MEAN_OF_ONE, out=sums)
    np.right_shift(sums, parameters + _MEAN_SHIFT, sums)
    if in_last:
        sums[-1] = max(last_sum * 985 // (1_024 * in_last), 1) >> int(parameters[-1])
    if np.count_nonzero(sums != 1):
        raise PayloadError("not_canonical", "a Rice parameter is the function's value for its block")


def rice_parameters(sums: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return each block's parameter: max(0, floor(log2(sum * 985 // (1024 * numbers of the block)))).

    Args:
        sums: int64, shape (blocks,), below 2**50.
        count: numbers of all blocks together; each block but the last holds 64.
    """
    # frexp gives the bit length, exactly below 2**53, and 0 for 0.
    bit_lengths: NDArray[np.int64] = np.frexp(_means(sums, count))[1].astype(np.int64)
    bit_lengths -= 1
    return np.maximum(bit_lengths, 0, out=bit_lengths)


def _means(sums: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return sum * 985 // (1024 * numbers of the block), for each block."""
    means: NDArray[np.int64] = sums * 985
    means >>= 16
    last = count % BLOCK_VALUES
    if last:
        means[-1] = int(sums[-1]) * 985 // (1024 * last)
    return means


def in_blocks(numbers: NDArray[np.int64], fill: int = 0) -> NDArray[np.int64]:
    """View `numbers` as (blocks, 64), with `fill` behind the last."""
    blocks = block_count(numbers.size)
    if numbers.size == blocks * BLOCK_VALUES:
        return numbers.reshape(blocks, BLOCK_VALUES)
    padded = np.full(blocks * BLOCK_VALUES, fill, dtype=numbers.dtype)
    padded[: numbers.size] = numbers
    return padded.reshape(blocks, BLOCK_VALUES)


def _plane_order(parameters: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Order blocks by falling parameter, equal ones as they stand; count for each plane the blocks that it holds."""
    # As bytes, which numpy sorts by counting; turned round, since it sorts them rising.
    order = np.invert(parameters.astype(np.uint8)).argsort(kind="stable")
    sizes: NDArray[np.int64] = np.bincount(parameters)
    return order, parameters.size - np.add.accumulate(sizes[:-1])


def _turned_low_bits(parameters: NDArray[np.int64], planes: NDArray[np.uint8]) -> NDArray[np.integer]:
    """Return each number's low bits, in the order of the blocks and each bit turned round.

    Args:
        parameters: of each block; not all are 0.
        planes: exactly the planes.

    Returns: shape (blocks, 64), as narrow as the largest parameter allows.
    """
    order, held = _plane_order(parameters)
    sizes = held * _PLANE_BYTES
    turned = np.empty(planes.size + _PLANE_BYTES, np.uint8)
    np.invert(planes, turned[: planes.size])
    # One byte a bit, 0 or 1; a word is eight numbers, and eight words are a block. Eight planes become one byte a
    # number: a byte of 0 or 1 shifted by at most 7 stays in its byte.
    words = np.unpackbits(turned, None, None, "little").view(np.uint64)
    bits = words[: planes.size]
    np.left_shift(bits, _PLANE_SHIFTS[: held.size].repeat(sizes), bits)
    octets: list[NDArray[np.uint64]] = []
    start = 0
    for plane, size in enumerate(sizes.tolist()):
        end = start + size
        if plane % 8:
            octet = octets[-1][:size]
            np.bitwise_or(octet, words[start:end], octet)
        else:
            octets.append(words[start:end])
        start = end
    # One row more, without bits, over what the second plane was or over what was left behind the last.
    size = octets[0].size
    words[size : size + _PLANE_BYTES] = 0
    numbers: NDArray[np.integer] = words[: size + _PLANE_BYTES].view(np.uint8)
    if len(octets) > 1:
        numbers = numbers.astype(np.uint16 if len(octets) == 2 else np.int32)
        for number, octet in enumerate(octets[1:], 1):
            upper = octet.view(np.uint8).astype(numbers.dtype)
            upper <<= 8 * number
            numbers[: upper.size] |= upper
    # Blocks of a plane stand by falling parameter. Those whose parameter is 0, which no plane holds, stand behind all
    # rows: mode clip takes the last row for them.
    ranks = np.empty(parameters.size, np.intp)
    ranks[order] = _BLOCK_NUMBERS[: parameters.size]
    return numbers.reshape(-1, BLOCK_VALUES).take(ranks, 0, None, "clip")
