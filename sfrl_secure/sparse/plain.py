"""Values one by one: IEEE 754 binary32, its upper half, or grid units in as many bytes as a leaf needs.

Rules V1 and V9 to V15 of the format are here, in that order. A leaf that keeps all of them is seen to in a few passes;
only one that does not is asked which rule it broke first.

Format: proto/README.md, "Codec". Rounding to the upper half: binary32 to bfloat16, half to even.

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import check_magnitude

EXACT_BYTES_MAX = 6
_ALL_HELD = 2**24
"""Up to here binary32 holds every integer."""
_MINUS_ZERO = np.uint32(0x8000_0000)
_EXPONENT = np.uint32(0x7F80_0000)
_LOWER_HALF = np.uint32(0x0000_FFFF)


def pack_floats(values: NDArray[np.int64], value_type: str, grid_exponent: int) -> list[bytes]:
    """Write grid units as binary32, or as its upper half.

    Raises:
        PayloadError: `off_grid`, a value has more significant bits than the type.
    """
    if values.size and int(values.max()) <= _ALL_HELD and int(values.min()) >= -_ALL_HELD:
        # By way of 32 bits: numpy converts these several at a time.
        single = values.astype(np.int32).astype("<f4")
    else:
        single = values.astype("<f4")
        # Back again: no magnitude is beyond int64, and what was rounded comes back as another.
        if not np.array_equal(single.astype(np.int64), values):
            raise PayloadError("off_grid", "fp32 holds 24 significant bits of a value")
    # Exact: the smallest number but zero becomes 2**-40.
    single *= np.float32(2.0**-grid_exponent)
    if value_type == "fp32":
        return [single.tobytes()]
    bits = single.view("<u4")
    if (bits & _LOWER_HALF).any():
        raise PayloadError("off_grid", "bf16 holds 8 significant bits of a value")
    return [(bits >> np.uint32(16)).astype("<u2").tobytes()]


def unpack_floats(leaf: NDArray[np.uint8], start: int, count: int, value_type: str, grid_exponent: int,
                  free: bool) -> tuple[NDArray[np.int64], int]:
    """Read binary32 numbers, or upper halves of such. Rules V1, V9 to V12."""
    size = 4 if value_type == "fp32" else 2
    end = start + size * count
    if leaf.size < end:
        raise PayloadError("length", "the leaf ends inside its values")
    raw = leaf[start:end]
    if size == 4:
        bits = np.frombuffer(raw, dtype="<u4")
    else:
        bits = np.frombuffer(raw, dtype="<u2").astype(np.uint32)
        bits <<= np.uint32(16)
    # Exact, since the factor is a power of two and not below one; what is too large becomes infinite.
    with np.errstate(over="ignore", invalid="ignore"):
        units = bits.view(np.float32) * np.float32(2.0**grid_exponent)
    # A NaN makes both extremes NaN, and no comparison with it holds.
    largest, smallest = units.max(), units.min()
    if not (largest <= VALUE_MAX and smallest >= -VALUE_MAX):
        raise _broken(bits, units, free)
    if largest < 2**31 and smallest >= -(2**31):
        narrow = units.astype(np.int32)
        whole = np.array_equal(narrow.astype(np.float32), units)
        values = narrow.astype(np.int64)
        touched = np.count_nonzero(narrow)
    else:
        values = units.astype(np.int64)
        whole = np.array_equal(np.rint(units), units)
        touched = np.count_nonzero(values)
    # All integers: then what is zero as a value and not as bits is -0.
    if not whole or touched != np.count_nonzero(bits) or (free and touched != count):
        raise _broken(bits, units, free)
    return values, end


def _broken(bits: NDArray[np.uint32], units: NDArray[np.float32], free: bool) -> PayloadError:
    """Say which of rules V9 to V12 is broken first, in a leaf that breaks one."""
    if ((bits & _EXPONENT) == _EXPONENT).any():
        return PayloadError("not_finite", "a value is a finite number")
    if (bits == _MINUS_ZERO).any() or (free and not bits.all()):
        return PayloadError("not_canonical", "no value is -0, and in free mode none is zero")
    if not np.array_equal(np.rint(units), units):
        return PayloadError("off_grid", "a value is a multiple of the grid")
    return PayloadError("magnitude", f"a value is at most {VALUE_MAX} grid units")


def pack_exact(values: NDArray[np.int64]) -> list[bytes]:
    """Write grid units as two's complement, each in the number of bytes that the largest needs."""
    width = exact_width(values)
    if width in (1, 2, 4):
        return [bytes([width]), values.astype(f"<i{width}").tobytes()]
    octets = values.astype("<i8", copy=False).view(np.uint8).reshape(-1, 8)
    written = np.empty((values.size, width), dtype=np.uint8)
    # Byte by byte of all values: numpy copies long columns faster than short rows.
    for octet in range(width):
        written[:, octet] = octets[:, octet]
    return [bytes([width]), written.tobytes()]


def unpack_exact(leaf: NDArray[np.uint8], start: int, count: int, free: bool) -> tuple[NDArray[np.int64], int]:
    """Read grid units. Rules V13 to V15."""
    if leaf.size <= start:
        raise PayloadError("length", "the leaf ends before the width of its values")
    width = int(leaf[start])
    if not 1 <= width <= EXACT_BYTES_MAX:
        raise PayloadError("not_canonical", f"a value has 1 to {EXACT_BYTES_MAX} bytes")
    end = start + 1 + width * count
    if leaf.size < end:
        raise PayloadError("length", "the leaf ends inside its values")
    raw = leaf[start + 1 : end]
    if width in (1, 2, 4):
        values = np.frombuffer(raw, dtype=f"<i{width}").astype(np.int64)
    else:
        # Into the upper bytes, and down again with the sign.
        padded = np.zeros((count, 8), dtype=np.uint8)
        octets = raw.reshape(count, width)
        for octet in range(width):
            padded[:, 8 - width + octet] = octets[:, octet]
        values = padded.view("<i8").ravel().astype(np.int64, copy=False)
        values >>= 8 * (8 - width)
    if free and not values.all():
        raise PayloadError("not_canonical", "an absent coordinate is the zero: no value is zero")
    check_magnitude(values)
    if exact_width(values) != width:
        raise PayloadError("not_canonical", "the width is the smallest that holds all values of the leaf")
    return values, end


def exact_width(values: NDArray[np.int64]) -> int:
    """Return the fewest bytes that hold each of `values` in two's complement, at least 1."""
    # -2**(8 w - 1) needs no more bytes than 2**(8 w - 1) - 1.
    largest = max(int(values.max()), -int(values.min()) - 1, 0)
    return largest.bit_length() // 8 + 1

