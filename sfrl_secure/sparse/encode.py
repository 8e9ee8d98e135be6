"""A participant's change to payload bytes: the only encoding that a decoder takes.

`encode_update`, `encode_dense` and `encode_agreed` round parameters onto the grid and write them; `pack_update` and
`pack_dense` write what is already on it. The same values give the same bytes on every machine.

Format: proto/README.md, "Codec".

Runs in: participant; gatekeeper and aggregator for aggregates.
Trusts: its caller.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TypeVar, cast, get_args

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.limits import COORDINATES_MAX, GRID_EXPONENT_MAX
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.header import (
    AGREED_PREAMBLE_BYTES,
    LEAF_VALUES,
    PREAMBLE_BYTES,
    Header,
    LeafRecord,
    Preamble,
    SupportMode,
    ValueType,
    leaf_byte_bounds,
    parse_leaf_table,
    parse_preamble,
    write_header,
)
from sfrl_secure.sparse.leaf import encode_leaf
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.sparse.quantize import round_and_drop, round_values
from sfrl_secure.sparse.reader import read_parts
from sfrl_secure.sparse.update import SparseUpdate, UpdatePart, check_indices, check_magnitude


@dataclass(frozen=True, eq=False)
class EncodedUpdate:
    """A payload, and what a statement says of it.

    Attributes:
        buffer: the bytes that travel, read-only; their SHA-256 is the payload's name.
        root: tree hash that the statement binds.
        support: how coordinates are told.
        value_type: how values are written.
        nonzeros: values that it carries.
        coordinates: coordinates of the model.
        grid_exponent: the grid is 2**-grid_exponent.
        mask: in agreed mode the mask.
    """

    buffer: memoryview = field(repr=False)
    root: Digest
    support: SupportMode
    value_type: ValueType
    nonzeros: int
    coordinates: int
    grid_exponent: int
    mask: Mask | None = field(default=None, repr=False)

    @cached_property
    def payload(self) -> bytes:
        """The bytes that travel, as an object of their own."""
        return bytes(self.buffer)

    @property
    def expected(self) -> ExpectedPayload:
        """What a decoder expects whose statement and terms fit this payload."""
        return ExpectedPayload(self.coordinates, self.nonzeros, self.support, self.value_type, self.grid_exponent,
                               len(self.buffer), self.root, self.mask)

    def parts(self) -> Iterator[UpdatePart]:
        """Read what every decoder reads from the payload, leaf by leaf."""
        return read_parts([self.buffer], self.expected)

    @cached_property
    def update(self) -> SparseUpdate:
        """What every decoder reads from the payload; what error feedback subtracts."""
        return decode_update(self.payload, self.expected)


def encode_update(coordinates: int, indices: NDArray[np.int64], values: NDArray[np.floating], *,
                  value_type: ValueType, grid_exponent: int, rng: np.random.Generator) -> EncodedUpdate:
    """Round `values` onto the grid, drop what became zero, and write the payload in free mode.

    int8, packed: unbiased; with zero for a dropped coordinate, the expectation of the decoded value, times
    2**-grid_exponent, is the value. fp32, bf16, exact: to the nearest; `rng` is not used. sign: the mean magnitude of
    a block of 64.

    Args:
        coordinates: coordinates of the model, 1 to `COORDINATES_MAX`.
        indices: int64, shape (k,), strictly rising.
        values: float32 or float64, shape (k,), in index order, parameter units, at most
            `VALUE_MAX` * 2**-grid_exponent.
        value_type: any value type.
        grid_exponent: the grid is 2**-grid_exponent, 0 to `GRID_EXPONENT_MAX`.
        rng: source of the rounding noise.

    Raises:
        PayloadError: the input breaks one of these bounds. Nothing is sorted or clipped for the caller.
    """
    preamble = _preamble("free", value_type, grid_exponent, coordinates, indices.size)
    if indices.shape != values.shape or indices.ndim != 1 or indices.dtype != np.int64:
        raise PayloadError("shape", "indices are an int64 vector, with one value for each")
    # Before rounding too: what is dropped must not hide an index that is out of order.
    check_indices(indices, coordinates)
    kept, on_grid = round_and_drop(values, value_type, grid_exponent, rng)
    preamble = _preamble("free", value_type, grid_exponent, coordinates, kept.size)
    return _write(preamble, indices if kept.size == indices.size else indices[kept], partial(_leaf_of, on_grid), None)


def encode_dense(values: NDArray[np.floating], *, value_type: ValueType, grid_exponent: int,
                 rng: np.random.Generator, take_room: TakeRoom | None = None) -> EncodedUpdate:
    """Round one value for each coordinate of the model onto the grid and write the payload in dense mode.

    Args: as for `encode_update`; `values` has shape (coordinates,), and
        take_room: gives the memory that the payload is written into; new memory where it is None.

    Raises:
        PayloadError: the input breaks a bound.
    """
    preamble = _preamble("dense", value_type, grid_exponent, values.size, values.size)
    _check_vector(values)
    return _write(preamble, None, _rounded(values, value_type, grid_exponent, rng), None, take_room)


def encode_agreed(mask: Mask, values: NDArray[np.floating], *, value_type: ValueType, grid_exponent: int,
                  rng: np.random.Generator) -> EncodedUpdate:
    """Round one value for each coordinate of `mask`, in its order, and write the payload in agreed mode.

    Args: as for `encode_update`; `values` has the shape of `mask.indices`.

    Raises:
        PayloadError: the input breaks a bound.
    """
    preamble = _preamble("agreed", value_type, grid_exponent, mask.coordinates, mask.indices.size, mask)
    if values.shape != mask.indices.shape:
        raise PayloadError("shape", "an update has one value for each coordinate of the mask")
    _check_vector(values)
    return _write(preamble, None, _rounded(values, value_type, grid_exponent, rng), mask)


def pack_update(update: SparseUpdate, *, value_type: ValueType, grid_exponent: int, support: SupportMode = "free",
                mask: Mask | None = None) -> bytes:
    """Write `update` without rounding anything.

    Args:
        update: in agreed mode it has exactly the mask's coordinates, in dense mode all.
        value_type: any value type.
        grid_exponent: the grid is 2**-grid_exponent.
        support: how coordinates are told.
        mask: in agreed mode the mask.

    Raises:
        PayloadError: `format` or `shape`; `not_canonical` for a zero in free mode; `off_grid` where `value_type`
            cannot hold a value exactly.
    """
    preamble = _preamble(support, value_type, grid_exponent, update.coordinates, update.nonzeros, mask)
    if support == "dense" and update.nonzeros != update.coordinates:
        raise PayloadError("shape", "in dense mode an update has one value for each coordinate of the model")
    if mask is not None and not (mask.coordinates == update.coordinates
                                 and np.array_equal(mask.indices, update.indices)):
        raise PayloadError("shape", "in agreed mode an update has exactly the mask's coordinates")
    if support == "free" and not update.values.all():
        raise PayloadError("not_canonical", "an absent coordinate is the zero: no value is zero")
    indices = update.indices if support == "free" else None
    return _write(preamble, indices, partial(_leaf_of, update.values), mask).payload


def pack_dense(values: NDArray[np.int64], *, value_type: ValueType, grid_exponent: int) -> bytes:
    """Write one value for each coordinate, int64 grid units, without rounding anything.

    Raises:
        PayloadError: `format`, `shape`, `magnitude`, or `off_grid`.
    """
    preamble = _preamble("dense", value_type, grid_exponent, values.size, values.size)
    if values.ndim != 1 or values.dtype != np.int64:
        raise PayloadError("shape", "grid units are an int64 vector")
    check_magnitude(values)
    return _write(preamble, None, partial(_leaf_of, values), None).payload


def payload_root(payload: bytes | memoryview) -> Digest:
    """Return the root of a payload whose header is well-formed, whatever its leaves hold.

    Raises:
        PayloadError: `length`, `format`, `shape` or `not_canonical`.
    """
    preamble = parse_preamble(payload)
    if preamble.support == "agreed":
        if len(payload) < AGREED_PREAMBLE_BYTES:
            raise PayloadError("length", f"in agreed mode a payload begins with {AGREED_PREAMBLE_BYTES} bytes")
        digest = Digest(bytes(payload[PREAMBLE_BYTES:AGREED_PREAMBLE_BYTES]))
        preamble = Preamble(preamble.support, preamble.value_type, preamble.grid_exponent, preamble.coordinates,
                            preamble.nonzeros, digest)
    return parse_leaf_table(payload, preamble, len(payload)).root


def _preamble(support: str, value_type: str, grid_exponent: int, coordinates: int, nonzeros: int,
              mask: Mask | None = None) -> Preamble:
    if value_type not in get_args(ValueType) or support not in get_args(SupportMode):
        raise PayloadError("format", "no such support mode or value type")
    if (mask is not None) != (support == "agreed"):
        raise PayloadError("format", "a mask is there in agreed mode exactly")
    if not 0 <= grid_exponent <= GRID_EXPONENT_MAX:
        raise PayloadError("format", f"a grid exponent is from 0 to {GRID_EXPONENT_MAX}")
    if not 1 <= coordinates <= COORDINATES_MAX:
        raise PayloadError("shape", f"a model has 1 to {COORDINATES_MAX} coordinates")
    return Preamble(support, value_type, grid_exponent, coordinates, nonzeros,
                    ZERO_DIGEST if mask is None else mask.digest)


def _check_vector(values: NDArray[np.floating]) -> None:
    if values.ndim != 1 or values.dtype not in (np.float32, np.float64):
        raise PayloadError("shape", "values are a vector of float32 or float64")


Scalar = TypeVar("Scalar", bound=np.generic)
TakeRoom = Callable[[int], memoryview]
"""Gives memory of so many bytes to write into."""
Values = Callable[[int], NDArray[np.int64]]
"""The values of leaf so many, grid units: so that no array holds those of a whole model in 64 bits."""


def _rounded(values: NDArray[np.floating], value_type: str, grid_exponent: int, rng: np.random.Generator) -> Values:
    return lambda leaf_index: round_values(_leaf_of(values, leaf_index), value_type, grid_exponent, rng)


def _leaf_of(values: NDArray[Scalar], leaf_index: int) -> NDArray[Scalar]:
    return values[leaf_index * LEAF_VALUES : (leaf_index + 1) * LEAF_VALUES]


def _write(preamble: Preamble, indices: NDArray[np.int64] | None, values: Values, mask: Mask | None,
           take_room: TakeRoom | None = None) -> EncodedUpdate:
    longest = sum(leaf_byte_bounds(preamble.leaf_values(each))[1] for each in range(preamble.leaf_count))
    # Pages that nothing is written to cost nothing; numpy asks for large ones, and 45 MB of small ones take longer to
    # have than to fill.
    end, size = preamble.header_bytes, preamble.header_bytes + longest
    buffer = np.empty(size, dtype=np.uint8).data if take_room is None else take_room(size)
    records: list[LeafRecord] = []
    base = 0
    for leaf_index in range(preamble.leaf_count):
        leaf = encode_leaf(preamble, leaf_index, indices, base, values(leaf_index))
        for item in leaf.fields:
            buffer[end : end + len(item)] = item
            end += len(item)
        records.append(leaf.record)
        if indices is not None:
            base = int(indices[min((leaf_index + 1) * LEAF_VALUES, indices.size) - 1]) + 1
    header = Header(preamble, tuple(records))
    buffer[: preamble.header_bytes] = write_header(header)
    return EncodedUpdate(buffer[:end].toreadonly(), header.root, cast("SupportMode", preamble.support),
                         cast("ValueType", preamble.value_type), preamble.nonzeros, preamble.coordinates,
                         preamble.grid_exponent, mask)
