"""Values as bytes: int8 with a power-of-two scale for each block of 128, or IEEE 754 binary32.

Both forms hold integers on the grid exactly, and each update has one encoding of each form: a block's scale is the
smallest that holds its largest magnitude, no value is zero, and a binary32 has one bit pattern. Rules V1 to V4 of the
format are here, in that order.

Format: proto/README.md, "Codec".

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.header import BLOCK_NONZEROS, ValueType, block_count

Number = TypeVar("Number", np.int8, np.int64)

MANTISSA_MAX = 127
SCALE_EXPONENT_MAX = VALUE_MAX.bit_length() - MANTISSA_MAX.bit_length()
"""34: a block with a larger scale would hold a value above `VALUE_MAX`."""


def pack_values(values: NDArray[np.int64], value_type: ValueType, grid_exponent: int) -> bytes:
    """Write one leaf's values, which are already on the grid and representable.

    Args:
        values: int64, shape (count,), grid units, not zero, magnitude at most `VALUE_MAX`.
        value_type: `int8` or `fp32`.
        grid_exponent: the grid is 2**-grid_exponent.

    Raises:
        PayloadError: `off_grid`, a value lies between two values that the type can hold here.
    """
    if value_type == "fp32":
        exact = np.ldexp(values.astype(np.float64), -grid_exponent)
        single = exact.astype("<f4")
        if not np.array_equal(single, exact):
            raise PayloadError("off_grid", "fp32 holds 24 significant bits of a value")
        return single.tobytes()
    exponents = scale_exponents(values)
    padded = _blocks(values)
    mantissas = padded >> exponents[:, None]
    if not np.array_equal(mantissas << exponents[:, None], padded):
        raise PayloadError("off_grid", "int8 holds 7 significant bits of a block's largest value")
    return exponents.astype(np.uint8).tobytes() + mantissas.ravel()[: values.size].astype(np.int8).tobytes()


def scale_exponents(values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each block's canonical scale: the smallest exponent that brings its largest magnitude below 128."""
    largest = np.abs(_blocks(values)).max(axis=1)
    # frexp gives the bit length, exactly below 2**53.
    bit_lengths = np.frexp(largest.astype(np.float64))[1]
    exponents: NDArray[np.int64] = np.maximum(bit_lengths - MANTISSA_MAX.bit_length(), 0).astype(np.int64)
    return exponents


def unpack_values(raw: bytes, value_type: ValueType, grid_exponent: int, count: int) -> NDArray[np.int64]:
    """Read one leaf's values strictly. Rules V1 to V4.

    Args:
        raw: exactly the bytes of scales and values, as `leaf_fixed_bytes` counts them.
        value_type: `int8` or `fp32`.
        grid_exponent: the grid is 2**-grid_exponent.
        count: nonzeros of the leaf, at least 1.

    Returns: int64, shape (count,), grid units, not zero, magnitude at most `VALUE_MAX`.

    Raises:
        PayloadError: `not_finite`, `not_canonical`, `off_grid` or `magnitude`.
    """
    if value_type == "fp32":
        return _unpack_fp32(raw, grid_exponent)
    return _unpack_int8(raw, count)


def _unpack_int8(raw: bytes, count: int) -> NDArray[np.int64]:
    blocks = block_count(count)
    exponents = np.frombuffer(raw, dtype=np.uint8, count=blocks)
    mantissas = np.frombuffer(raw, dtype=np.int8, count=count, offset=blocks)
    if int(exponents.max()) > SCALE_EXPONENT_MAX:
        raise PayloadError("magnitude", f"a scale's exponent is at most {SCALE_EXPONENT_MAX}")
    # -128 is -64 at the next scale, so it would be a second encoding of one value.
    if not mantissas.all() or int(mantissas.min()) < -MANTISSA_MAX:
        raise PayloadError("not_canonical", "an int8 value is from -127 to 127 and not zero")
    largest = _blocks(np.abs(mantissas)).max(axis=1).astype(np.int64)
    if ((exponents > 0) & (largest * 2 <= MANTISSA_MAX)).any():
        raise PayloadError("not_canonical", "a scale is the smallest that holds its block's largest value")
    scales = np.left_shift(np.int64(1), exponents, dtype=np.int64)
    if int((largest * scales).max()) > VALUE_MAX:
        raise PayloadError("magnitude", f"a value is at most {VALUE_MAX} grid units")
    values = _blocks(mantissas.astype(np.int64))
    return np.multiply(values, scales[:, None]).ravel()[:count]


def _unpack_fp32(raw: bytes, grid_exponent: int) -> NDArray[np.int64]:
    bits = np.frombuffer(raw, dtype="<u4")
    if ((bits & 0x7F80_0000) == 0x7F80_0000).any():
        raise PayloadError("not_finite", "a value is a finite number")
    if not (bits & 0x7FFF_FFFF).all():
        raise PayloadError("not_canonical", "an absent coordinate is the zero: no value is zero")
    # Exact: binary64 holds every binary32 times 2**40.
    units = np.ldexp(bits.view("<f4").astype(np.float64), grid_exponent)
    if not np.array_equal(np.rint(units), units):
        raise PayloadError("off_grid", "a value is a multiple of the grid")
    if float(np.abs(units).max()) > VALUE_MAX:
        raise PayloadError("magnitude", f"a value is at most {VALUE_MAX} grid units")
    return units.astype(np.int64)


def _blocks(values: NDArray[Number]) -> NDArray[Number]:
    """View `values` as (blocks, 128), with zeros behind the last."""
    blocks = block_count(values.size)
    if values.size == blocks * BLOCK_NONZEROS:
        return values.reshape(blocks, BLOCK_NONZEROS)
    padded = np.zeros((blocks, BLOCK_NONZEROS), dtype=values.dtype)
    padded.ravel()[: values.size] = values
    return padded
