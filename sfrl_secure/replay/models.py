"""Models as objects, and the one that comes of a base and what is added to it.

Format: proto/README.md, "Models and aggregates"; "Aggregation", model.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import numpy as np

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.arithmetic import pieces
from sfrl_secure.replay.manifest import Manifest
from sfrl_secure.replay.payload_codes import Integers

MODEL: Final = b"SFRLMDL1"
_HEADER_BYTES: Final = 56
_TYPES: Final = {"int32": "<i4", "int64": "<i8"}


def add_to_model(manifest: Manifest, base: Integers, aggregate: Integers) -> Integers:
    """The model after a round: base plus aggregate, each coordinate cut to the range of its tensor's dtype.

    Takes the place of the aggregate.
    """
    for tensor in manifest.tensors:
        bounds = np.iinfo(tensor.dtype)
        for piece in pieces(tensor.end, tensor.start):
            added = aggregate[piece]
            after = base[piece] + added
            if tensor.dtype == "int64":
                # |aggregate| <= 2**40, so a sum that left 64 bits has come out on the wrong side of its base.
                after[(added > 0) & (after < base[piece])] = bounds.max
                after[(added < 0) & (after > base[piece])] = bounds.min
            np.clip(after, bounds.min, bounds.max, out=added)
    return aggregate


def encode_model(manifest: Manifest, grid_exponent: int, values: Integers) -> Iterator[bytes]:
    """The bytes of a model object, in order."""
    yield _header(manifest, grid_exponent)
    for tensor in manifest.tensors:
        for piece in pieces(tensor.end, tensor.start):
            yield values[piece].astype(_TYPES[tensor.dtype]).tobytes()


def name_of_model(manifest: Manifest, grid_exponent: int, values: Integers) -> Digest:
    """The name of a model object, which need not be in memory for it."""
    hasher = hashlib.sha256()
    for part in encode_model(manifest, grid_exponent, values):
        hasher.update(part)
    return Digest(hasher.digest())


def digest_of(raw: bytes) -> Digest:
    """Name of an object."""
    return Digest(hashlib.sha256(raw).digest())


def model_bytes(manifest: Manifest) -> int:
    """Length of a model object."""
    return _HEADER_BYTES + sum((t.end - t.start) * np.dtype(_TYPES[t.dtype]).itemsize for t in manifest.tensors)


def parse_model(raw: bytes, manifest: Manifest, grid_exponent: int) -> Integers:
    """Read a model object of this manifest and grid.

    Raises:
        MalformedError: another length, manifest or grid.
    """
    if len(raw) != model_bytes(manifest) or raw[:_HEADER_BYTES] != _header(manifest, grid_exponent):
        raise MalformedError("the object is no model of this manifest and grid")
    values = np.empty(manifest.coordinates, np.int64)
    at = _HEADER_BYTES
    for tensor in manifest.tensors:
        count = tensor.end - tensor.start
        values[tensor.start : tensor.end] = np.frombuffer(raw, _TYPES[tensor.dtype], count, offset=at)
        at += count * np.dtype(_TYPES[tensor.dtype]).itemsize
    return values


def _header(manifest: Manifest, grid_exponent: int) -> bytes:
    return MODEL + bytes([grid_exponent]) + bytes(7) + manifest.digest + manifest.coordinates.to_bytes(8, "little")
