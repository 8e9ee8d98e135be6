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
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse.header import BLOCK_VALUES, block_count
from sfrl_secure.sparse.steps import pack_steps, pack_unary, unary_ends, unpack_steps

_LENGTHS = struct.Struct("<HI")
_PLANE_BYTES = BLOCK_VALUES // 8
_PLANE_SHIFTS = np.arange(32, dtype=np.uint64) % 8
_BLOCK_ITEMS = {size: np.dtype((np.void, size * BLOCK_VALUES)) for size in (4, 8)}
_LOWEST = [0, *(-(-(2 << exponent << 16) // 985) for exponent in range(31))]
"""For each parameter, the smallest sum of 64 numbers that has it; above 0, sum * 985 // 2**16 is at least 2**parameter
there."""
_SMALLEST_SUMS = np.array(_LOWEST[:-1]) + BLOCK_VALUES
"""The same, of 64 strides."""
_SUM_RANGES = np.diff(_LOWEST).astype(np.uint64)
"""For each parameter, how many sums have it."""


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
    order, held = _plane_order(parameters), _held(np.bincount(parameters).tolist())
    low = (blocks & ((1 << shifts) - 1)).astype("<u4")[order]
    octets = low.view(np.uint8).reshape(*low.shape, 4)
    planes = []
    for first in range(0, len(held), 8):
        octet = np.ascontiguousarray(octets[..., first // 8])
        # Any number but 0 is a one bit for packbits.
        planes += [np.packbits(octet[:rows] & np.uint8(1 << bit), bitorder="little").tobytes()
                   for bit, rows in enumerate(held[first : first + 8])]
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
    parameters, sizes = unpack_steps(leaf[steps_start:planes_start], blocks, largest)
    held = _held(sizes)
    unary_start = planes_start + _PLANE_BYTES * sum(held)
    end = unary_start + unary_bytes
    # A canonical block's quotients add up to less than 2.08 a number, and each number has one bit more.
    if leaf.size < end or not count <= 8 * unary_bytes <= 4 * count + 4:
        raise PayloadError("length", "the leaf ends inside a Rice code, or its unary plane has an impossible length")
    # No overflow, whatever a peer sends: quotients add up to less than 8 U <= 2**18, and are shifted by at most 30.
    slots = blocks * BLOCK_VALUES
    dtype = np.int32 if ((8 * unary_bytes + slots) << len(held)) + slots + headroom < 2**31 else np.int64
    # What is no longer needed goes at once: the memory of one array is then the next one's, and still in the cache.
    places = unary_ends(leaf[unary_start:end], count).astype(dtype)
    flat: NDArray[np.signedinteger] = np.empty(slots, dtype)
    # The distance of two ones is a quotient and 1; where the parameter is 0, that is the stride.
    flat[0] = places.item(0) + 1
    np.subtract(places[1:], places[:-1], flat[1:count])
    del places
    flat[count:] = 1
    ones = flat[count:].tobytes()
    strides = flat.reshape(blocks, BLOCK_VALUES)
    if held:
        _add_low_bits(strides, parameters, held, leaf[planes_start:unary_start])
        # A one bit there has made a stride larger.
        if flat[count:].tobytes() != ones:
            raise PayloadError("not_canonical", "bits of a plane that belong to no number are zero")
    return RiceStrides(strides, parameters, end)


def check_parameters(parameters: NDArray[np.int64], sums: NDArray[np.int64], count: int) -> None:
    """Check that each parameter is the function's value for its block. Rule R5.

    Args:
        parameters: int64, shape (blocks,), as they stand in the leaf.
        sums: int64, shape (blocks,), the sum of each block's strides, 64 of them in the last one too, below 2**50;
            changed.
        count: numbers of all blocks together.

    Raises:
        PayloadError: `not_canonical`.
    """
    in_last = count % BLOCK_VALUES
    if in_last:
        last = int(parameters[-1])
        mean = (int(sums[-1]) - BLOCK_VALUES) * 985 // (1_024 * in_last)
        # Of so many numbers there is no table: what stands here instead passes or fails below.
        sums[-1] = _SMALLEST_SUMS[last] if max(mean, 1) >> last == 1 else 0
    np.subtract(sums, _SMALLEST_SUMS.take(parameters), sums)
    # As unsigned numbers, of which a negative one is the largest.
    if np.count_nonzero(sums.view(np.uint64) >= _SUM_RANGES.take(parameters)):
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


def _plane_order(parameters: NDArray[np.int64]) -> NDArray[np.intp]:
    """Order blocks by falling parameter, equal ones as they stand."""
    # As bytes, which numpy sorts by counting; turned round, since it sorts them rising.
    return np.invert(parameters.astype(np.uint8)).argsort(kind="stable")


def _held(sizes: list[int]) -> list[int]:
    """Count for each plane the blocks that it holds, from how many blocks have each parameter."""
    return list(accumulate(sizes[:0:-1]))[::-1]


def _add_low_bits(strides: NDArray[np.signedinteger], parameters: NDArray[np.int64], held: list[int],
                  planes: NDArray[np.uint8]) -> None:
    """Make strides of distances in all blocks whose parameter is not 0.

    Args:
        strides: shape (blocks, 64); changed.
        parameters: of each block; not all are 0.
        held: blocks of each plane.
        planes: exactly the planes.
    """
    chosen = _plane_order(parameters)[: held[0]]
    # With p the parameter, a stride is the distance times 2**p, less 2**p - 1, plus the low bits; and 2**p - 1 less the
    # low bits is what they are with each bit turned round.
    part = strides.take(chosen, 0, None, "clip")
    np.left_shift(part, parameters.take(chosen).astype(strides.dtype)[:, None], part)
    for number, octet in enumerate(_turned_low_bits(held, planes)):
        rows = part[: len(octet)]
        np.subtract(rows, np.left_shift(octet, 8 * number, dtype=part.dtype) if number else octet, rows)
    # A block as one item: numpy copies those many times faster than rows.
    item = _BLOCK_ITEMS[part.dtype.itemsize]
    strides.reshape(-1).view(item)[chosen] = part.reshape(-1).view(item)


def _turned_low_bits(held: list[int], planes: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    """Return each number's low bits, in the order of the planes and each bit turned round.

    Args:
        held: blocks of each plane.
        planes: exactly the planes.

    Returns: for each eight planes, shape (blocks of the first of them, 64).
    """
    sizes = [_PLANE_BYTES * blocks for blocks in held]
    # One byte a bit, 0 or 1; a word is eight numbers, and eight words are a block. Eight planes become one byte a
    # number: a byte of 0 or 1 shifted by at most 7 stays in its byte.
    words = np.unpackbits(np.invert(planes), None, None, "little").view(np.uint64)
    np.left_shift(words, _PLANE_SHIFTS[: len(sizes)].repeat(sizes), words)
    octets = []
    end = 0
    for first in range(0, len(sizes), 8):
        start, end = end, end + sizes[first]
        octet = words[start:end]
        for size in sizes[first + 1 : first + 8]:
            start, end = end, end + size
            lower = octet[:size]
            np.bitwise_or(lower, words[start:end], lower)
        octets.append(octet.view(np.uint8).reshape(-1, BLOCK_VALUES))
    return octets
