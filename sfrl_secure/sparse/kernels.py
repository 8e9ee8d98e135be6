"""Compiled loops over one leaf's bytes. Imported by `fast` alone, since importing it imports numba.

Every function is total: whatever the bytes are, it reads and writes inside its arrays, since each length that the leaf
announces is compared with the leaf's own first. It returns where its field ends, or -1 where any rule of the format
does not hold, without saying which.

A leaf is read in one pass for each of its fields: unary bits become quotients byte by byte, through a table, and then
a block's low bits, quotients and running sums are one vector each, in `lanes`.

Format: proto/README.md, "Codec".

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing in the bytes.
"""

# numba types these functions itself, when they are first called.
# mypy: disable-error-code="no-untyped-def, call-arg"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from sfrl_secure.sparse.lanes import add_up_narrow, add_up_wide, load_word, store_word

VALUE_MAX = 2**40
SCALE_EXPONENT_MAX = 34
NARROW_PARAMETER_MAX = 16
RUN_MAX = 183
"""Zeros before eight bytes of a unary code, so that a quotient that ends there fits a byte. A canonical quotient is at
most 133."""


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile when first called; keep the code where numba may write."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        # No folder for the cache: a read-only installation without a home.
        return njit(nogil=True)(function)


def _unary_tables() -> tuple[NDArray[np.uint64], NDArray[np.uint8], NDArray[np.uint8]]:
    """For each byte of a unary code: its zeros before each one, a byte each; its ones; its zeros behind the last."""
    quotients, ones, rest = np.zeros((256, 8), np.uint8), np.zeros(256, np.uint8), np.zeros(256, np.uint8)
    for byte in range(256):
        for bit in range(8):
            if byte >> bit & 1:
                quotients[byte, ones[byte]] = rest[byte]
                ones[byte] += 1
                rest[byte] = 0
            else:
                rest[byte] += 1
    return quotients.view(np.uint64).ravel(), ones, rest


_QUOTIENTS, _ONES, _REST = _unary_tables()


@_compiled
def _announced(leaf, start, size):
    """Read `size` bytes as a number."""
    number = np.int64(0)
    for i in range(size):
        number |= np.int64(leaf[start + i]) << (8 * i)
    return number


@_compiled
def _unary_byte(byte, quotients, put, before):
    """Write the quotients that end in a byte, `before` zeros before it; return where the next goes, and its zeros."""
    # All eight; those that are none are overwritten.
    store_word(quotients, put, _QUOTIENTS[byte] + before)
    return put + np.uint64(_ONES[byte]), np.uint64(_REST[byte]) + (np.uint64(0) if byte else before)


@_compiled
def _unary(leaf, start, end, count, quotients):
    """Read `count` numbers from `start` to `end` and say whether there are so many; `quotients` has 72 bytes more."""
    put, before = np.uint64(0), np.uint64(0)
    # Unsigned, so that no index has to be asked whether it counts from the end.
    place, last = np.uint64(start), np.uint64(end)
    while place + np.uint64(8) <= last:
        # Once for eight bytes: they end at most 64 quotients, and add at most 56 zeros to what the last of them gets.
        if put > np.uint64(count) or before > np.uint64(RUN_MAX):
            return False
        for i in range(np.uint64(8)):
            put, before = _unary_byte(leaf[place + np.uint64(i)], quotients, put, before)
        place += np.uint64(8)
    if put > np.uint64(count) or before > np.uint64(RUN_MAX):
        return False
    while place < last:
        put, before = _unary_byte(leaf[place], quotients, put, before)
        place += np.uint64(1)
    return put == np.uint64(count) and leaf[end - 1] != 0


@_compiled
def _steps(leaf, start, end, largest, out):
    """Read a step code from `start` to `end` and return the sum of its numbers, or -1. Rules S1 to S4."""
    count = out.size
    if leaf.size < end or end - start < (count + 7) >> 3 or end - start > (count * (2 * largest + 1) + 7) >> 3:
        return -1
    zeros = np.empty(count + 72, dtype=np.uint8)
    if not _unary(leaf, start, end, count, zeros):
        return -1
    number, total, wrong = np.int64(0), np.int64(0), np.uint8(0)
    for i in range(count):
        run = np.int64(zeros[i])
        number += (run >> 1) ^ -(run & 1)
        wrong |= np.uint8(number < 0 or number > largest)
        out[i] = number
        total += number
    return -1 if wrong else total


@_compiled
def _plane_places(parameters, start):
    """Return where each plane begins, and how far from there the first word of blocks with each parameter is."""
    sizes = np.zeros(33, dtype=np.int64)
    for parameter in parameters:
        sizes[parameter] += 1
    starts, rows = np.zeros(33, dtype=np.uint64), np.zeros(33, dtype=np.uint64)
    held = parameters.size
    for b in range(33):
        starts[b] = start
        held -= sizes[b]
        # Blocks with larger parameters stand before it in each plane.
        rows[b] = 8 * held
        start += 8 * held
    return starts, rows


@_compiled
def rice(leaf, start, largest, before, step, out):
    """Read a Rice code and add up: `out` gets `before` and all numbers so far, and `step` for each. Rules R1 to R5."""
    count = out.size
    blocks = (count + 63) >> 6
    if leaf.size < start + 6:
        return -1
    planes_start = start + 6 + _announced(leaf, start, 2)
    unary_bytes = _announced(leaf, start + 2, 4)
    parameters = np.empty(blocks, dtype=np.int64)
    planes = _steps(leaf, start + 6, planes_start, largest, parameters)
    if planes < 0:
        return -1
    unary_start = planes_start + 8 * planes
    end = unary_start + unary_bytes
    if leaf.size < end or unary_bytes < (count + 7) >> 3 or unary_bytes > (count + 1) >> 1:
        return -1
    quotients = np.empty(64 * blocks + 72, dtype=np.uint8)
    if not _unary(leaf, unary_start, end, count, quotients):
        return -1
    quotients[count:] = 0
    starts, rows = _plane_places(parameters, planes_start)
    last_sums = np.empty(64, dtype=np.int64)
    total = np.int64(before)
    for block in range(blocks):
        first = np.uint64(64 * block)
        numbers = min(64, count - 64 * block)
        b = parameters[block]
        row = rows[b]
        rows[b] += np.uint64(8)
        if numbers < 64:
            for j in range(b):
                if load_word(leaf, starts[j] + row) >> np.uint64(numbers):
                    return -1
        sums, place = (out, first) if numbers == 64 else (last_sums, np.uint64(0))
        if b > NARROW_PARAMETER_MAX:
            last = add_up_wide(leaf, starts, row, quotients, first, b, step, total, sums, place)
        else:
            last = add_up_narrow(leaf, starts, row, quotients, first, b, step, total, sums, place)
        if numbers < 64:
            out[64 * block :] = last_sums[:numbers]
            last = last_sums[numbers - 1]
        mean = (last - total - step * numbers) * 985 // (1024 * numbers)
        if max(mean, 1) >> b != 1:
            return -1
        total = last
    return end


@_compiled
def int8(leaf, start, free, out):
    """Read scales and one byte a value. Rules V1, V2, V7, V8."""
    if leaf.size < start + 2:
        return -1
    numbers_start = start + 2 + _announced(leaf, start, 2)
    exponents = np.empty((out.size + 63) >> 6, dtype=np.int64)
    end = numbers_start + out.size
    if leaf.size < end or _steps(leaf, start + 2, numbers_start, SCALE_EXPONENT_MAX, exponents) < 0:
        return -1
    every = leaf[numbers_start:end].view(np.int8)
    zeros, wrong = np.uint8(0), np.uint8(0)
    # The checks, and then the values: the processor handles more bytes at a time than values. Whole blocks apart, since
    # it is fastest where it knows how many there are.
    for block in range(exponents.size):
        exponent, largest, first = exponents[block], np.uint8(0), 64 * block
        if first + 64 <= out.size:
            for i in range(64):
                magnitude = np.uint8(abs(np.int16(every[first + i])))
                zeros |= np.uint8(magnitude == 0)
                largest = max(largest, magnitude)
        else:
            for i in range(out.size - first):
                magnitude = np.uint8(abs(np.int16(every[first + i])))
                zeros |= np.uint8(magnitude == 0)
                largest = max(largest, magnitude)
        wrong |= np.uint8(largest > 127 or (exponent > 0 and largest < 64)
                          or (exponent == SCALE_EXPONENT_MAX and largest > 64))
    if wrong or (free and zeros):
        return -1
    for block in range(exponents.size):
        exponent, first = exponents[block], 64 * block
        if first + 64 <= out.size:
            for i in range(64):
                out[first + i] = np.int64(every[first + i]) << exponent
        else:
            for i in range(out.size - first):
                out[first + i] = np.int64(every[first + i]) << exponent
    return end


@_compiled
def packed(leaf, start, free, largest_parameter, out):
    """Read scales, the smallest |q| of each block, signs, and a Rice code. Rules V1, V5 to V8."""
    count = out.size
    blocks = (count + 63) >> 6
    if leaf.size < start + 2:
        return -1
    floors_start = start + 2 + _announced(leaf, start, 2)
    exponents = np.empty(blocks, dtype=np.int64)
    if _steps(leaf, start + 2, floors_start, SCALE_EXPONENT_MAX, exponents) < 0:
        return -1
    signs_start = floors_start + blocks
    code_start = signs_start + ((count + 7) >> 3)
    end = rice(leaf, code_start, largest_parameter, 0, 0, out)
    # Where it ends, the leaf has all that stands before.
    if end < 0 or (count & 7 and leaf[code_start - 1] >> (count & 7)):
        return -1
    before = np.int64(0)
    for block in range(blocks):
        values = out[64 * block : 64 * block + 64]
        exponent, floor = exponents[block], np.int64(leaf[floors_start + block])
        smallest, largest, wrong = np.int64(2**62), np.int64(0), np.int64(0)
        for i in range(values.size):
            excess = values[i] - before
            before = values[i]
            smallest, largest = min(smallest, excess), max(largest, excess + floor)
            negative = np.int64(leaf[signs_start + 8 * block + (i >> 3)] >> (i & 7)) & 1
            wrong |= negative & np.int64(excess + floor == 0)
            values[i] = (((excess + floor) ^ -negative) + negative) << exponent
        if smallest != 0 or largest > 127 or wrong or (free and floor == 0) or (exponent > 0 and largest < 64):
            return -1
        if exponent == SCALE_EXPONENT_MAX and largest > 64:
            return -1
    return end
