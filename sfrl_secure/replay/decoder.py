"""The payload codec, read: coordinates and grid integers, or the reason of the first rule that is broken.

The rules bear their names in the specification (P1 to V4) and stand in its order. Whole arrays where a leaf has
thousands of nonzeros, nothing cleverer.

Format: proto/README.md, "Codec".

Runs in: verifier.
Trusts: nothing. What is expected comes from the signed statement and the round's terms.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError

_PREAMBLE_BYTES: Final = 28
_ROW_BYTES: Final = 36
_LEAF: Final = 65_536
_BLOCK: Final = 128
_PLANE_BYTES: Final = 16
_COORDINATES_MAX: Final = 2**31
_VALUE_MAX: Final = 2**40
_VALUE_TYPES: Final = {1: "int8", 2: "fp32"}
_WIDTH: Final = {"int8": 1, "fp32": 4}


@dataclass(frozen=True, slots=True, eq=False)
class DecodedUpdate:
    """What a payload says.

    Attributes:
        indices: int64, shape (k,), strictly ascending coordinates.
        values: int64, shape (k,), grid units, none 0.
    """

    indices: NDArray[np.int64]
    values: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Header:
    value_type: str
    coordinates: int
    grid_exponent: int
    lengths: tuple[int, ...]
    digests: tuple[bytes, ...]
    counts: tuple[int, ...]


def decode_payload(
    payload: bytes, *, coordinates: int, nonzeros: int, value_type: str, grid_exponent: int
) -> DecodedUpdate:
    """Decode a payload, and refuse whatever is not the one encoding of its update.

    Args:
        coordinates: of the round's model.
        nonzeros: declared in the signed statement; `value_type` likewise.
        grid_exponent: of the terms.

    Raises:
        PayloadError: with the reason of the first rule that is broken.
    """
    header = _parse_header(payload, coordinates, nonzeros, value_type, grid_exponent)
    all_indices, all_values = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    at, base = _PREAMBLE_BYTES + _ROW_BYTES * len(header.lengths), 0
    for length, digest, count in zip(header.lengths, header.digests, header.counts, strict=True):
        leaf = payload[at : at + length]
        at += length
        if hashlib.sha256(leaf).digest() != digest:
            _refuse("L1", "digest", "a leaf has the digest that the table says")
        indices = _decode_indices(leaf, header, count, base)
        values = _decode_int8(leaf, count) if header.value_type == "int8" else _decode_fp32(leaf, header, count)
        all_indices.append(indices)
        all_values.append(values)
        base = int(indices[-1]) + 1
    return DecodedUpdate(np.concatenate(all_indices), np.concatenate(all_values))


def _refuse(rule: str, reason: str, message: str) -> None:
    raise PayloadError(reason, f"{rule}: {message}")


def _parse_header(raw: bytes, coordinates: int, nonzeros: int, value_type: str, grid_exponent: int) -> _Header:
    if len(raw) < _PREAMBLE_BYTES:
        _refuse("P1", "length", f"a payload has {_PREAMBLE_BYTES} bytes or more")
    version, support, kind, grid = raw[4:8]
    if raw[:4] != b"SFRU" or version != 1 or support != 1 or kind not in _VALUE_TYPES or grid > 40:
        _refuse("P2", "format", "magic, version, support mode, value type and grid exponent are ours")
    claimed_coordinates = int.from_bytes(raw[8:16], "little")
    claimed_nonzeros = int.from_bytes(raw[16:24], "little")
    if not 1 <= claimed_coordinates <= _COORDINATES_MAX or claimed_nonzeros > claimed_coordinates:
        _refuse("P3", "shape", "a model has 1 to 2**31 coordinates, and a payload not more nonzeros")
    leaves = int.from_bytes(raw[24:28], "little")
    if leaves != -(-claimed_nonzeros // _LEAF):
        _refuse("P4", "not_canonical", f"every leaf but the last has {_LEAF} nonzeros")
    if _VALUE_TYPES[kind] != value_type or grid != grid_exponent:
        _refuse("E1", "format", "value type and grid are those of the statement and the terms")
    if claimed_coordinates != coordinates:
        _refuse("E2", "shape", "the coordinates are the model's")
    if claimed_nonzeros != nonzeros:
        _refuse("E3", "declared", "the nonzeros are as declared")
    begin = _PREAMBLE_BYTES + _ROW_BYTES * leaves
    if len(raw) < begin:
        _refuse("T1", "length", "the leaf table is whole")
    rows = [raw[at : at + _ROW_BYTES] for at in range(_PREAMBLE_BYTES, begin, _ROW_BYTES)]
    lengths = tuple(int.from_bytes(row[:4], "little") for row in rows)
    counts = tuple(min(_LEAF, nonzeros - _LEAF * number) for number in range(leaves))
    for length, count in zip(lengths, counts, strict=True):
        fixed, blocks = _fixed_bytes(value_type, count), -(-count // _BLOCK)
        # 480 bytes a block are 30 planes of 16.
        if not fixed + -(-count // 8) <= length <= fixed + 480 * blocks + -(-count // 2):
            _refuse("T2", "length", "a leaf's length is possible for its nonzeros")
    if begin + sum(lengths) != len(raw):
        _refuse("T3", "length", "the leaves are the rest of the payload")
    return _Header(value_type, coordinates, grid_exponent, lengths, tuple(row[4:] for row in rows), counts)


def _fixed_bytes(value_type: str, count: int) -> int:
    """Bytes of a leaf before its planes: base, parameters, scales, values."""
    blocks = -(-count // _BLOCK)
    return 4 + blocks + (blocks if value_type == "int8" else 0) + _WIDTH[value_type] * count


def _decode_indices(leaf: bytes, header: _Header, count: int, base: int) -> NDArray[np.int64]:
    if int.from_bytes(leaf[:4], "little") != base:
        _refuse("L2", "not_canonical", "a leaf begins where the one before ended")
    blocks = -(-count // _BLOCK)
    parameters = np.frombuffer(leaf, np.uint8, blocks, offset=4).astype(np.int64)
    if parameters.max() > 30:
        _refuse("L3", "not_canonical", "a parameter is at most 30")
    planes_at = _fixed_bytes(header.value_type, count)
    unary_at = planes_at + _PLANE_BYTES * int(parameters.sum())
    unary = leaf[unary_at:]
    if not -(-count // 8) <= len(leaf) - unary_at <= -(-count // 2):
        _refuse("L4", "length", "the unary plane has a possible length")
    ones = np.flatnonzero(np.unpackbits(np.frombuffer(unary, np.uint8), bitorder="little"))
    if len(ones) != count:
        _refuse("L5", "declared", "the unary plane has one bit a nonzero")
    if int(ones[-1]) // 8 != len(unary) - 1:
        _refuse("L6", "length", "the unary plane ends with its last nonzero")
    low_bits = _decode_planes(leaf[planes_at:unary_at], parameters)
    if low_bits[count:].any():
        _refuse("L7", "not_canonical", "bits that belong to no nonzero are zero")
    # Zeros between one bits are the skip's high part.
    quotients = np.diff(ones, prepend=-1) - 1
    skips = (quotients << np.repeat(parameters, _BLOCK)[:count]) + low_bits[:count]
    indices = base - 1 + np.cumsum(skips + 1)
    if int(indices[-1]) >= header.coordinates:
        _refuse("L8", "out_of_range", "the last index is a coordinate of the model")
    _check_parameters(skips, parameters)
    return indices


def _decode_planes(planes: bytes, parameters: NDArray[np.int64]) -> NDArray[np.int64]:
    """The low bits of each skip, 128 to a block, also for nonzeros that the last block does not have."""
    low_bits = np.zeros((len(parameters), _BLOCK), np.int64)
    falling = np.argsort(-parameters, kind="stable")
    at = 0
    for bit in range(int(parameters.max())):
        members = falling[parameters[falling] > bit]
        size = _PLANE_BYTES * len(members)
        plane = np.unpackbits(np.frombuffer(planes, np.uint8, size, offset=at), bitorder="little")
        low_bits[members] |= plane.reshape(len(members), _BLOCK).astype(np.int64) << bit
        at += size
    return low_bits.reshape(-1)


def _check_parameters(skips: NDArray[np.int64], parameters: NDArray[np.int64]) -> None:
    starts = np.arange(0, len(skips), _BLOCK)
    nonzeros = np.diff(starts, append=len(skips))
    means = np.add.reduceat(skips, starts) * 985 // (1024 * nonzeros)
    # floor(log2 m) is b when m shifted by b is 1; b is 0 also for m = 0.
    if not ((means >> parameters == 1) | ((parameters == 0) & (means == 0))).all():
        _refuse("L9", "not_canonical", "a parameter is the function's value for its block")


def _decode_int8(leaf: bytes, count: int) -> NDArray[np.int64]:
    blocks = -(-count // _BLOCK)
    scales = np.frombuffer(leaf, np.uint8, blocks, offset=4 + blocks).astype(np.int64)
    steps = np.frombuffer(leaf, np.int8, count, offset=4 + 2 * blocks).astype(np.int64)
    if scales.max() > 34:
        _refuse("V1", "magnitude", "a scale exponent is at most 34")
    if (steps == 0).any() or (steps == -128).any():
        _refuse("V2", "not_canonical", "a value is -127 to 127 and not 0")
    largest = np.maximum.reduceat(np.abs(steps), np.arange(0, count, _BLOCK))
    if ((scales > 0) & (largest < 64)).any():
        _refuse("V3", "not_canonical", "a block has the smallest scale that holds its values")
    values = steps << np.repeat(scales, _BLOCK)[:count]
    if (np.abs(values) > _VALUE_MAX).any():
        _refuse("V4", "magnitude", "a value is at most 2**40 grid units")
    return values


def _decode_fp32(leaf: bytes, header: _Header, count: int) -> NDArray[np.int64]:
    blocks = -(-count // _BLOCK)
    numbers = np.frombuffer(leaf, "<f4", count, offset=4 + blocks)
    if not np.isfinite(numbers).all():
        _refuse("V1", "not_finite", "a value is finite")
    if (numbers == 0).any():
        _refuse("V2", "not_canonical", "no value is zero")
    # Exact: binary64 holds every binary32 times a power of two up to 2**40.
    units = np.ldexp(numbers.astype(np.float64), header.grid_exponent)
    if (units != np.floor(units)).any():
        _refuse("V3", "off_grid", "a value is a number of grid units")
    if (np.abs(units) > _VALUE_MAX).any():
        _refuse("V4", "magnitude", "a value is at most 2**40 grid units")
    return units.astype(np.int64)
