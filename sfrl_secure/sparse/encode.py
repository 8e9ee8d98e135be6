"""A sparse update to payload bytes: the only encoding that `decode_update` takes.

`encode_update` rounds parameters onto the grid and writes them; `pack_update` writes an update that is already on it.
The same update gives the same bytes on every machine.

Format: proto/README.md, "Codec".

Runs in: participant.
Trusts: its caller.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import sha256
from sfrl_secure.limits import GRID_EXPONENT_MAX
from sfrl_secure.sparse.header import (
    LEAF_NONZEROS,
    VALUE_TYPE_NUMBERS,
    Header,
    LeafRecord,
    Preamble,
    ValueType,
    write_header,
)
from sfrl_secure.sparse.quantize import round_to_grid, round_to_int8_blocks, to_grid_units
from sfrl_secure.sparse.support import pack_support
from sfrl_secure.sparse.update import SparseUpdate, check_indices
from sfrl_secure.sparse.values import pack_values


@dataclass(frozen=True, slots=True, eq=False)
class EncodedUpdate:
    """A payload and what it decodes to.

    Attributes:
        payload: the bytes that travel; their SHA-256 is the payload's name.
        update: what every decoder reads from them; what error feedback subtracts.
    """

    payload: bytes
    update: SparseUpdate


def encode_update(coordinates: int, indices: NDArray[np.int64], values: NDArray[np.floating], *,
                  value_type: ValueType, grid_exponent: int, rng: np.random.Generator) -> EncodedUpdate:
    """Round `values` onto the grid, drop what became zero, and write the payload.

    int8: rounded at random between the two neighbours that the value's block can hold. Unbiased: with zero for a
    dropped coordinate, the expectation of the decoded value, times 2**-grid_exponent, is the value.
    fp32: rounded to binary32 and then to the nearest grid point, half to even; `rng` is not used.

    Args:
        coordinates: coordinates of the model, 1 to `COORDINATES_MAX`.
        indices: int64, shape (k,), strictly rising.
        values: float32 or float64, shape (k,), in index order, parameter units, at most
            `VALUE_MAX` * 2**-grid_exponent.
        value_type: `int8` or `fp32`.
        grid_exponent: the grid is 2**-grid_exponent, 0 to `GRID_EXPONENT_MAX`.
        rng: source of the rounding noise.

    Raises:
        PayloadError: the input breaks one of these bounds. Nothing is sorted or clipped for the caller.
    """
    _check_format(value_type, grid_exponent)
    if indices.shape != values.shape or indices.ndim != 1 or indices.dtype != np.int64:
        raise PayloadError("shape", "indices are an int64 vector, with one value for each")
    # Before rounding too: what is dropped must not hide an index that is out of order.
    check_indices(indices, coordinates)
    units = to_grid_units(values, grid_exponent)
    if value_type == "fp32":
        rounded = round_to_grid(units)
        kept = np.flatnonzero(rounded)
        on_grid = rounded[kept]
    else:
        kept, on_grid = round_to_int8_blocks(units, rng)
    update = SparseUpdate(coordinates, indices[kept], on_grid)
    return EncodedUpdate(pack_update(update, value_type=value_type, grid_exponent=grid_exponent), update)


def pack_update(update: SparseUpdate, *, value_type: ValueType, grid_exponent: int) -> bytes:
    """Write `update` without rounding anything.

    Raises:
        PayloadError: `format`, or `off_grid` where `value_type` cannot hold a value exactly.
    """
    _check_format(value_type, grid_exponent)
    leaves: list[bytes] = []
    base = 0
    for first in range(0, update.nonzeros, LEAF_NONZEROS):
        indices = update.indices[first : first + LEAF_NONZEROS]
        values = update.values[first : first + LEAF_NONZEROS]
        parameters, planes = pack_support(indices, base)
        leaves.append(base.to_bytes(4, "little") + parameters + pack_values(values, value_type, grid_exponent) + planes)
        base = int(indices[-1]) + 1
    preamble = Preamble(value_type, grid_exponent, update.coordinates, update.nonzeros)
    records = tuple(LeafRecord(len(leaf), sha256(leaf)) for leaf in leaves)
    return write_header(Header(preamble, records)) + b"".join(leaves)


def _check_format(value_type: str, grid_exponent: int) -> None:
    if value_type not in VALUE_TYPE_NUMBERS:
        raise PayloadError("format", "the value types of this version are int8 and fp32")
    if not 0 <= grid_exponent <= GRID_EXPONENT_MAX:
        raise PayloadError("format", f"a grid exponent is from 0 to {GRID_EXPONENT_MAX}")
