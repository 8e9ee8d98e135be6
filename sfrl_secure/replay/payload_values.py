"""A leaf's values, of each type, as integer numbers of grid units.

The rules bear their names in the specification (V1 to V15) and stand in its order, each applied to the whole leaf
before the next. Zeros are values where the coordinates are agreed or all, and none where a payload names its own.

Format: proto/README.md, "Codec", leaf and decoding.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.replay.payload_codes import (
    Fields,
    Integers,
    blocks_of,
    check_parameters,
    read_rice,
    read_steps,
    spread,
    unpack_bits,
)
from sfrl_secure.replay.payload_header import BLOCK, Expected, refuse

_VALUE_MAX: Final = 2**40
_SCALE_MAX: Final = 34
_REST_PARAMETER_MAX: Final = 6


def read_values(fields: Fields, count: int, expected: Expected) -> Integers:
    """Read the values of a leaf. A mask has none: the result is empty.

    Raises:
        PayloadError: with the reason of the first rule that is broken.
    """
    allows_zero = expected.support != "free"
    match expected.value_type:
        case "int8":
            return _read_int8(fields, count, allows_zero)
        case "sign":
            return _read_sign(fields, count, allows_zero)
        case "packed":
            return _read_packed(fields, count, allows_zero)
        case "fp32":
            numbers = np.frombuffer(fields.take(4 * count, "V1"), "<f4")
            return _in_grid_units(numbers, expected.grid_exponent, allows_zero)
        case "bf16":
            halves = np.frombuffer(fields.take(2 * count, "V1"), "<u2")
            return _in_grid_units((halves.astype("<u4") << 16).view("<f4"), expected.grid_exponent, allows_zero)
        case "exact":
            return _read_exact(fields, count, allows_zero)
    return np.zeros(0, np.int64)


def _read_int8(fields: Fields, count: int, allows_zero: bool) -> Integers:
    scales = read_steps(fields, blocks_of(count), _SCALE_MAX)
    steps = np.frombuffer(fields.take(count, "V1"), np.int8).astype(np.int64)
    if (steps == -128).any() or (not allows_zero and (steps == 0).any()):
        refuse("V2", "not_canonical", "a value is -127 to 127, and 0 only where the coordinates are not the payload's")
    return _scaled(steps, scales)


def _read_sign(fields: Fields, count: int, allows_zero: bool) -> Integers:
    blocks = blocks_of(count)
    scales = read_steps(fields, blocks, _SCALE_MAX)
    steps = np.frombuffer(fields.take(blocks, "V1"), np.uint8).astype(np.int64)
    signs = unpack_bits(fields.take(-(-count // 8), "V1"))
    if (steps > 127).any() or (not allows_zero and (steps == 0).any()):
        refuse("V3", "not_canonical", "a block's magnitude is at most 127, and 0 only where it may be")
    magnitudes = spread(steps, count)
    if signs[count:].any() or (signs[:count] & (magnitudes == 0)).any():
        refuse("V4", "not_canonical", "signs of zeros and of no value are zero")
    return _scaled(np.where(signs[:count], -magnitudes, magnitudes), scales)


def _read_packed(fields: Fields, count: int, allows_zero: bool) -> Integers:
    blocks = blocks_of(count)
    scales = read_steps(fields, blocks, _SCALE_MAX)
    least = np.frombuffer(fields.take(blocks, "V1"), np.uint8).astype(np.int64)
    signs = unpack_bits(fields.take(-(-count // 8), "V1"))
    if (least > 127).any() or (not allows_zero and (least == 0).any()) or signs[count:].any():
        refuse("V5", "not_canonical", "a block's least magnitude is at most 127, and 0 only where it may be")
    rest, parameters = read_rice(fields, count, _REST_PARAMETER_MAX)
    magnitudes = rest + spread(least, count)
    if (magnitudes > 127).any():
        refuse("V6", "not_canonical", "a magnitude is at most 127")
    check_parameters(rest, parameters)
    if np.minimum.reduceat(rest, np.arange(0, count, BLOCK)).any():
        refuse("V6", "not_canonical", "a block's least magnitude is one of its values'")
    if (signs[:count] & (magnitudes == 0)).any():
        refuse("V6", "not_canonical", "signs of zeros are zero")
    return _scaled(np.where(signs[:count], -magnitudes, magnitudes), scales)


def _scaled(steps: Integers, scales: Integers) -> Integers:
    """The values of steps of magnitude 127 at most, in their blocks' scales: V7 and V8."""
    largest = np.maximum.reduceat(np.abs(steps), np.arange(0, len(steps), BLOCK))
    if ((scales > 0) & (largest < 64)).any():
        refuse("V7", "not_canonical", "a block has the smallest scale that holds its values")
    values = steps << spread(scales, len(steps))
    _check_magnitude(values, "V8")
    return values


def _in_grid_units(numbers: NDArray[np.float32], grid_exponent: int, allows_zero: bool) -> Integers:
    """Numbers in parameter units as numbers of grid units: V9 to V12."""
    if not np.isfinite(numbers).all():
        refuse("V9", "not_finite", "a value is finite")
    is_zero = numbers == 0
    if (is_zero & np.signbit(numbers)).any() or (not allows_zero and is_zero.any()):
        refuse("V10", "not_canonical", "no value is -0, and 0 only where the coordinates are not the payload's")
    # Exact: binary64 holds every binary32 times a power of two up to 2**40.
    units = np.ldexp(numbers.astype(np.float64), grid_exponent)
    if (units != np.floor(units)).any():
        refuse("V11", "off_grid", "a value is a number of grid units")
    _check_magnitude(units, "V12")
    return units.astype(np.int64)


def _read_exact(fields: Fields, count: int, allows_zero: bool) -> Integers:
    width = fields.take(1, "V13")[0]
    if not 1 <= width <= 6:
        refuse("V13", "not_canonical", "a value has 1 to 6 bytes")
    raw = np.frombuffer(fields.take(width * count, "V13"), np.uint8).reshape(count, width)
    wide = np.zeros((count, 8), np.uint8)
    # In the upper bytes first, so that the shift to the right brings the sign along.
    wide[:, 8 - width :] = raw
    values: Integers = wide.view("<i8")[:, 0].astype(np.int64) >> 8 * (8 - width)
    if not allows_zero and (values == 0).any():
        refuse("V13", "not_canonical", "a value is 0 only where the coordinates are not the payload's")
    _check_magnitude(values, "V14")
    if width != exact_width(values):
        refuse("V15", "not_canonical", "values have as few bytes as hold them all")
    return values


def exact_width(values: Integers) -> int:
    """Bytes that hold each of these values, one or more of them, in two's complement: at least 1."""
    least, most = int(values.min()), int(values.max())
    # One's complement turns a number below 0 into one that needs as many bits beside its sign.
    return max(most, ~least, 0).bit_length() // 8 + 1


def _check_magnitude(values: NDArray[np.int64] | NDArray[np.float64], rule: str) -> None:
    if (np.abs(values) > _VALUE_MAX).any():
        refuse(rule, "magnitude", f"a value is at most {_VALUE_MAX} grid units")
