"""Payloads of liars: correct ones, bent in one place.

The places are those of proto/README.md, "Codec": a preamble of 28 bytes, a table row of 36, then one leaf, which begins
with its base and the lengths of its parameters and unary plane.

Runs in: demo.
Trusts: nothing.
"""

from __future__ import annotations

import struct

import numpy as np

from sfrl_secure.ids import Digest, sha256
from sfrl_secure.sparse.encode import encode_update
from sfrl_secure.sparse.header import ValueType

_COORDINATES_AT = 8
_DIGEST_AT = 32
_LEAF_AT = 64
_PARAMETERS_AT = _LEAF_AT + 10


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
    # The values are the end of a leaf.
    struct.pack_into("<f", payload, len(payload) - 5 * 4, float("nan"))
    return _named_again(payload)


def with_padding_bit(coordinates: int, grid_exponent: int) -> bytes:
    """Five nonzeros; a plane has 64 bits, and the last of the first plane is set."""
    payload = bytearray(honest(coordinates, 5, grid_exponent, value_type="int8"))
    (parameters,) = struct.unpack_from("<H", payload, _LEAF_AT + 4)
    payload[_PARAMETERS_AT + parameters + 7] |= 0x80
    return _named_again(payload)


def with_index_beyond(coordinates: int, grid_exponent: int) -> bytes:
    """Five nonzeros of a larger model, under this model's number of coordinates."""
    return claiming(honest(2 * coordinates, 5, grid_exponent), coordinates)


def claiming(payload: bytes, coordinates: int) -> bytes:
    """The payload with another number of coordinates in its preamble."""
    changed = bytearray(payload)
    struct.pack_into("<Q", changed, _COORDINATES_AT, coordinates)
    return bytes(changed)


def root_of(payload: bytes) -> Digest:
    """The root of a payload of one leaf, whatever its header claims."""
    lengths = sha256(b"\0" + payload[:_DIGEST_AT])
    return sha256(b"\1" + lengths + payload[_DIGEST_AT:_LEAF_AT])


def _named_again(payload: bytearray) -> bytes:
    """The payload with its one leaf's hash corrected: only what was bent is wrong."""
    payload[_DIGEST_AT:_LEAF_AT] = sha256(b"\0" + payload[_LEAF_AT:])
    return bytes(payload)
