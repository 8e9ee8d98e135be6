"""Values as a short number times a power of two that a block shares: int8, sign and packed.

A block's scale is the smallest that holds its largest magnitude, so that one update has one encoding. `packed` adds an
entropy stage: top-k values lie above a threshold, so that |q| is written as its excess over the smallest of its block,
in a Rice code. Rules V1 to V8 of the format are here, in that order.

Format: proto/README.md, "Codec". Signs with a shared scale: Bernstein et al. 2018 (signSGD); Karimireddy et al. 2019.

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.fast import fast_int8, fast_packed, kernels
from sfrl_secure.sparse.header import BLOCK_VALUES, block_count
from sfrl_secure.sparse.rice import check_parameters, in_blocks, pack_rice, unpack_rice
from sfrl_secure.sparse.steps import pack_steps, unpack_steps

MANTISSA_MAX = 127
SCALE_EXPONENT_MAX = VALUE_MAX.bit_length() - MANTISSA_MAX.bit_length()
"""34: a block with a larger scale would hold a value above `VALUE_MAX`."""
EXCESS_PARAMETER_MAX = 6
"""No canonical parameter of a packed value is larger, since |q| is at most 127."""

_STEPS_LENGTH = struct.Struct("<H")
_LARGE_EIGHT = np.array(0x4040_4040_4040_4040, dtype=np.uint64)
_TOO_LARGE_EIGHT = 0x8080_8080_8080_8080


def scale_exponents(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each block's canonical scale: the smallest exponent that brings its largest magnitude below 128."""
    largest = np.abs(in_blocks(values)).max(axis=1)
    # frexp gives the bit length, exactly below 2**53.
    bit_lengths = np.frexp(largest.astype(np.float64))[1]
    exponents: NDArray[np.int64] = np.maximum(bit_lengths - MANTISSA_MAX.bit_length(), 0).astype(np.int64)
    return exponents


def pack_int8(values: NDArray[np.int64]) -> list[bytes]:
    """Write scales, and one byte a value.

    Raises:
        PayloadError: `off_grid`.
    """
    exponents, numbers = _numbers(values)
    return [*_pack_scales(exponents), numbers.astype(np.int8).tobytes()]


def pack_sign(values: NDArray[np.int64]) -> list[bytes]:
    """Write scales, one byte a block, and signs: all values of a block have one magnitude.

    Raises:
        PayloadError: `off_grid`.
    """
    exponents, numbers = _numbers(values)
    magnitudes = np.abs(numbers)
    first = magnitudes[::BLOCK_VALUES]
    if not np.array_equal(np.repeat(first, BLOCK_VALUES)[: values.size], magnitudes):
        raise PayloadError("off_grid", "sign holds one magnitude for all values of a block")
    return [*_pack_scales(exponents), first.astype(np.uint8).tobytes(), _pack_signs(values)]


def pack_packed(values: NDArray[np.int64]) -> list[bytes]:
    """Write scales, the smallest |q| of each block, signs, and the Rice code of what each |q| has beyond it.

    Raises:
        PayloadError: `off_grid`.
    """
    exponents, numbers = _numbers(values)
    magnitudes = np.abs(numbers)
    floors = in_blocks(magnitudes, MANTISSA_MAX).min(axis=1)
    excess = magnitudes - np.repeat(floors, BLOCK_VALUES)[: values.size]
    return [*_pack_scales(exponents), floors.astype(np.uint8).tobytes(), _pack_signs(values), *pack_rice(excess)]


def unpack_int8(leaf: NDArray[np.uint8], start: int, count: int, free: bool) -> tuple[NDArray[np.int64], int]:
    """Read scales and one byte a value. Rules V1, V2, V7, V8."""
    compiled = kernels(count)
    fast = None if compiled is None else fast_int8(compiled, leaf, start, count, free)
    if fast is not None:
        return fast
    exponents, highest, start = _unpack_scales(leaf, start, count)
    end = start + count
    if leaf.size < end:
        raise PayloadError("length", "the leaf ends inside its values")
    numbers = leaf[start:end].view(np.int8)
    # One bit more than a magnitude needs: that of -128 reads as 128.
    whole_blocks = np.empty(exponents.size * BLOCK_VALUES, np.int8)
    np.abs(numbers, whole_blocks[:count])
    whole_blocks[count:] = 0
    magnitudes = whole_blocks.view(np.uint8)
    found = _bits_of_blocks(magnitudes)
    if int(np.bitwise_or.reduce(found)) & _TOO_LARGE_EIGHT or (free and np.count_nonzero(numbers) != count):
        raise PayloadError("not_canonical", "a value is from -127 to 127, and in free mode not zero")
    _check_scales(found, magnitudes, exponents, highest)
    return _scaled(numbers, exponents, highest), end


def unpack_sign(leaf: NDArray[np.uint8], start: int, count: int, free: bool) -> tuple[NDArray[np.int64], int]:
    """Read scales, one byte a block, and signs. Rules V1, V3, V4, V7, V8."""
    exponents, highest, start = _unpack_scales(leaf, start, count)
    signs_start = start + exponents.size
    end = signs_start + (count + 7) // 8
    if leaf.size < end:
        raise PayloadError("length", "the leaf ends inside its values")
    numbers = leaf[start:signs_start]
    if int(numbers.max()) > MANTISSA_MAX or (free and int(numbers.min()) == 0):
        raise PayloadError("not_canonical", "a block's number is at most 127, and in free mode not zero")
    negative = _unpack_signs(leaf[signs_start:end], count)
    if (np.repeat(numbers == 0, BLOCK_VALUES)[:count] & negative).any():
        raise PayloadError("not_canonical", "the sign bit of a zero is zero")
    _check_magnitudes(numbers.astype(np.int64), exponents)
    signed = 1 - 2 * negative.view(np.int8)
    signed *= np.repeat(numbers.view(np.int8), BLOCK_VALUES)[:count]
    return _scaled(signed, exponents, highest), end


def unpack_packed(leaf: NDArray[np.uint8], start: int, count: int, free: bool) -> tuple[NDArray[np.int64], int]:
    """Read scales, the smallest |q| of each block, signs, and a Rice code. Rules V1, V5 to V8."""
    compiled = kernels(count)
    fast = None if compiled is None else fast_packed(compiled, leaf, start, count, free, EXCESS_PARAMETER_MAX)
    if fast is not None:
        return fast
    exponents, highest, start = _unpack_scales(leaf, start, count)
    blocks = exponents.size
    signs_start = start + blocks
    code_start = signs_start + (count + 7) // 8
    if leaf.size < code_start:
        raise PayloadError("length", "the leaf ends inside its values")
    floors = leaf[start:signs_start]
    if int(floors.max()) > MANTISSA_MAX or (free and int(floors.min()) == 0):
        raise PayloadError("not_canonical", "a block's smallest number is at most 127, and in free mode not zero")
    negative = _unpack_signs(leaf[signs_start:code_start], count)
    code = unpack_rice(leaf, code_start, count, EXCESS_PARAMETER_MAX)
    excess = code.strides - 1
    # At most 2**18 quotients, shifted by at most 6: the sums below stay far below 2**31.
    sums = code.strides.sum(axis=1, dtype=np.int64)
    if count % BLOCK_VALUES:
        # Behind the last number stands whatever makes it no minimum and no maximum.
        excess[-1, count % BLOCK_VALUES :] = excess[-1, 0]
    largest = excess.max(axis=1) + floors
    if int(largest.max()) > MANTISSA_MAX:
        raise PayloadError("not_canonical", "a value is from -127 to 127")
    check_parameters(code.parameters, sums, count)
    if excess.min(axis=1).any():
        raise PayloadError("not_canonical", "a block's smallest number is the smallest of its values")
    magnitudes = (excess.astype(np.int8) + floors.view(np.int8)[:, None]).ravel()[:count]
    if (negative & (magnitudes == 0)).any():
        raise PayloadError("not_canonical", "the sign bit of a zero is zero")
    _check_magnitudes(largest.astype(np.int64), exponents)
    signed = 1 - 2 * negative.view(np.int8)
    signed *= magnitudes
    return _scaled(signed, exponents, highest), code.end


def _numbers(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each block's scale and each value's q, or raise PayloadError."""
    exponents = scale_exponents(values)
    blocks = in_blocks(values)
    numbers = blocks >> exponents[:, None]
    if not np.array_equal(numbers << exponents[:, None], blocks):
        raise PayloadError("off_grid", "a value has 7 significant bits of its block's largest")
    return exponents, numbers.ravel()[: values.size]


def _pack_scales(exponents: NDArray[np.int64]) -> list[bytes]:
    steps = pack_steps(exponents)
    return [_STEPS_LENGTH.pack(len(steps)), steps]


def _unpack_scales(leaf: NDArray[np.uint8], start: int, count: int) -> tuple[NDArray[np.int64], int, int]:
    """Read the scales: each, the largest, and where they end. Rules S1 to S4."""
    steps_start = start + _STEPS_LENGTH.size
    if leaf.size < steps_start:
        raise PayloadError("length", "the leaf ends inside its scales")
    end = steps_start + int(_STEPS_LENGTH.unpack_from(leaf.data, start)[0])
    if leaf.size < end:
        raise PayloadError("length", "the leaf ends inside its scales")
    exponents, sizes = unpack_steps(leaf[steps_start:end], block_count(count), SCALE_EXPONENT_MAX)
    return exponents, len(sizes) - 1, end


def _pack_signs(values: NDArray[np.int64]) -> bytes:
    return np.packbits(values < 0, bitorder="little").tobytes()


def _unpack_signs(raw: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """Read `count` sign bits; those behind the last are zero (in rules V4 and V5)."""
    bits = np.unpackbits(raw, bitorder="little")
    if bits[count:].any():
        raise PayloadError("not_canonical", "sign bits behind the last value are zero")
    return bits[:count].view(np.bool_)


def _bits_of_blocks(magnitudes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return for each block a word, of whose eight bytes one at least has each bit that a magnitude has."""
    words = magnitudes.view(np.uint64)
    words = words[0::2] | words[1::2]
    words = words[0::2] | words[1::2]
    return words[0::2] | words[1::2]


def _check_scales(found: NDArray[np.uint64], magnitudes: NDArray[np.uint8], exponents: NDArray[np.int64],
                  highest: int) -> None:
    """Check one magnitude a value, each at most 127, in whole blocks. Rules V7, V8.

    Args:
        found: their bits, from `_bits_of_blocks`.
        magnitudes: shape (64 * blocks,).
        exponents: shape (blocks,).
        highest: the largest of them.
    """
    # At least 64 is what has bit 6.
    large = found & _LARGE_EIGHT
    if np.count_nonzero(large) != large.size and np.count_nonzero(exponents[large == 0]):
        raise PayloadError("not_canonical", "a scale is the smallest that holds its block's largest value")
    if highest == SCALE_EXPONENT_MAX:
        top = magnitudes.reshape(-1, BLOCK_VALUES)[exponents == SCALE_EXPONENT_MAX]
        _check_magnitudes(top.max(axis=1).astype(np.int64), np.full(top.shape[0], SCALE_EXPONENT_MAX))


def _check_magnitudes(largest: NDArray[np.int64], exponents: NDArray[np.int64]) -> None:
    """Check each block by its largest |q|. Rules V7, V8."""
    if ((exponents > 0) & (largest * 2 <= MANTISSA_MAX)).any():
        raise PayloadError("not_canonical", "a scale is the smallest that holds its block's largest value")
    if int((largest << exponents).max()) > VALUE_MAX:
        raise PayloadError("magnitude", f"a value is at most {VALUE_MAX} grid units")


def _scaled(numbers: NDArray[np.int8], exponents: NDArray[np.int64], highest: int) -> NDArray[np.int64]:
    """Multiply each number by its block's power of two, at most 2**highest, as int64."""
    # 127 * 2**24 is below 2**31: half the bytes while it lasts.
    dtype = np.int32 if highest <= 24 else np.int64
    values = numbers.astype(dtype)
    np.left_shift(values, exponents.astype(dtype).repeat(BLOCK_VALUES)[: numbers.size], values)
    return values.astype(np.int64, copy=False)
