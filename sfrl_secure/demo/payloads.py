"""Payloads of liars: correct ones, bent in one place.

The places are those of proto/README.md, "Codec": a preamble of 28 bytes, a table row of 36, then one leaf.

Runs in: demo.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
import struct

import numpy as np

from sfrl_secure.sparse.encode import encode_update
from sfrl_secure.sparse.header import ValueType

_COORDINATES_AT = 8
_DIGEST_AT = 32
_LEAF_AT = 64


def honest(coordinates: int, nonzeros: int, grid_exponent: int, *, value: float = 0.001,
           value_type: ValueType = "fp32") -> bytes:
    """A correct payload with evenly spread coordinates and one value everywhere."""
    indices = np.arange(nonzeros, dtype=np.int64) * (coordinates // nonzeros)
    values = np.full(nonzeros, value, dtype=np.float32)
    encoded = encode_update(
        coordinates, indices, values,
        value_type=value_type, grid_exponent=grid_exponent, rng=np.random.default_rng(0),
    )  # fmt: skip
    return encoded.payload


def with_nan(coordinates: int, grid_exponent: int) -> bytes:
    """Five values, the first of them NaN."""
    payload = bytearray(honest(coordinates, 5, grid_exponent))
    # An fp32 leaf: base, one parameter, values.
    struct.pack_into("<f", payload, _LEAF_AT + 4 + 1, float("nan"))
    return _named_again(payload)


def with_padding_bit(coordinates: int, grid_exponent: int) -> bytes:
    """Five nonzeros; plane 0 has 128 bits, and the last of them is set."""
    payload = bytearray(honest(coordinates, 5, grid_exponent, value_type="int8"))
    # An int8 leaf: base, one parameter, one scale, five values, planes of 16 bytes.
    payload[_LEAF_AT + 4 + 1 + 1 + 5 + 15] |= 0x80
    return _named_again(payload)


def with_index_beyond(coordinates: int, grid_exponent: int) -> bytes:
    """Five nonzeros of a larger model, under this model's number of coordinates."""
    return claiming(honest(2 * coordinates, 5, grid_exponent), coordinates)


def claiming(payload: bytes, coordinates: int) -> bytes:
    """The payload with another number of coordinates in its preamble."""
    changed = bytearray(payload)
    struct.pack_into("<Q", changed, _COORDINATES_AT, coordinates)
    return bytes(changed)


def _named_again(payload: bytearray) -> bytes:
    """The payload with its one leaf's digest corrected: only what was bent is wrong."""
    payload[_DIGEST_AT:_LEAF_AT] = hashlib.sha256(payload[_LEAF_AT:]).digest()
    return bytes(payload)
