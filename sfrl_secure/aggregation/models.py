"""Models and aggregates as integer tensors on the terms' grid, and as bytes.

The integers are the model; float32 is derived last, once. A model's name is the SHA-256 of its bytes, and the bytes
name the manifest and the grid, so that one model cannot be read as another.

Format: proto/README.md, "Models and aggregates".

Runs in: aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.limits import GRID_EXPONENT_MAX

_HEADER: Final = struct.Struct("<8sB7s32sQ")
_MODEL: Final = b"SFRLMDL1"
_AGGREGATE: Final = b"SFRLAGG1"
_WIDTH: Final = {"int32": 4, "int64": 8}
_RANGE: Final = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}


@dataclass(frozen=True, slots=True, eq=False)
class ModelSnapshot:
    """A model on its grid.

    Attributes:
        manifest: names, shapes and dtypes of the tensors.
        grid_exponent: e; one grid unit is 2**-e.
        values: int64, shape (manifest.coordinates,), read-only; each inside its tensor's dtype.
    """

    manifest: ModelManifest
    grid_exponent: int
    values: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not 0 <= self.grid_exponent <= GRID_EXPONENT_MAX:
            raise MalformedError(f"a grid exponent is 0 to {GRID_EXPONENT_MAX}")
        if self.values.shape != (self.manifest.coordinates,) or self.values.dtype != np.int64:
            raise MalformedError("a model has one int64 per coordinate of its manifest")
        for tensor, part in _parts(self.manifest, self.values):
            low, high = _RANGE[tensor]
            if part.size and (int(part.min()) < low or int(part.max()) > high):
                raise MalformedError(f"a value does not fit into {tensor}")
        self.values.setflags(write=False)

    def to_bytes(self) -> bytes:
        """The model object's bytes; their SHA-256 is the model's name."""
        parts = [part.astype("<i4" if dtype == "int32" else "<i8").tobytes()
                 for dtype, part in _parts(self.manifest, self.values)]
        return _header(_MODEL, self.manifest, self.grid_exponent) + b"".join(parts)

    def add(self, aggregate: NDArray[np.int64]) -> ModelSnapshot:
        """The model after this one: base + aggregate, each coordinate cut to its dtype's range.

        Args:
            aggregate: int64, shape (n,), each of magnitude at most 2**40, so that an int64 sum is cut and never wraps.
        """
        moved = np.empty_like(self.values)
        for start, stop, dtype in _spans(self.manifest):
            low, high = _RANGE[dtype]
            base, step = self.values[start:stop], aggregate[start:stop]
            # Cut the base to where the step still fits, by its sign: then no sum wraps, and none is cut too soon.
            down = np.maximum(base, low - np.minimum(step, 0))
            up = np.minimum(base, high - np.maximum(step, 0))
            moved[start:stop] = np.where(step < 0, down, up) + step
        return ModelSnapshot(self.manifest, self.grid_exponent, moved)

    def to_float32(self) -> NDArray[np.float32]:
        """The model in parameter units, float32, shape (n,): value * 2**-e, rounded once to nearest even."""
        # int64 to float32 rounds once; scaling by a power of two is exact, far from subnormals.
        return np.ldexp(self.values.astype(np.float32), -self.grid_exponent).astype(np.float32)


def snapshot_from_float(manifest: ModelManifest, grid_exponent: int, values: NDArray[np.float32]) -> ModelSnapshot:
    """Round float32 parameters to the grid, half to even: the model before round 1.

    Raises:
        MalformedError: a value is not finite or does not fit into its tensor's dtype.
    """
    scaled = np.rint(np.ldexp(values.astype(np.float64), grid_exponent))
    if not bool(np.all(np.isfinite(scaled))) or bool(np.any(np.abs(scaled) >= 2.0**62)):
        raise MalformedError("a parameter is not finite or too large for the grid")
    return ModelSnapshot(manifest, grid_exponent, scaled.astype(np.int64))


def parse_model(raw: bytes, manifest: ModelManifest, grid_exponent: int) -> ModelSnapshot:
    """Parse a model object that must be of this manifest and grid.

    Raises:
        MalformedError: another manifest, grid or length.
    """
    _check_header(raw, _MODEL, manifest, grid_exponent, model_bytes(manifest))
    values = np.empty(manifest.coordinates, dtype=np.int64)
    at = _HEADER.size
    for start, stop, dtype in _spans(manifest):
        values[start:stop] = np.frombuffer(raw, "<i4" if dtype == "int32" else "<i8", stop - start, at)
        at += (stop - start) * _WIDTH[dtype]
    return ModelSnapshot(manifest, grid_exponent, values)


def model_bytes(manifest: ModelManifest) -> int:
    """Length of a model object of this manifest."""
    return _HEADER.size + sum((stop - start) * _WIDTH[dtype] for start, stop, dtype in _spans(manifest))


def encode_aggregate(manifest: ModelManifest, grid_exponent: int, values: NDArray[np.int64]) -> bytes:
    """The aggregate object's bytes: int64 per coordinate."""
    if values.shape != (manifest.coordinates,) or values.dtype != np.int64:
        raise MalformedError("an aggregate has one int64 per coordinate of its manifest")
    return _header(_AGGREGATE, manifest, grid_exponent) + values.astype("<i8").tobytes()


def _header(magic: bytes, manifest: ModelManifest, grid_exponent: int) -> bytes:
    return _HEADER.pack(magic, grid_exponent, bytes(7), manifest.digest, manifest.coordinates)


def _check_header(raw: bytes, magic: bytes, manifest: ModelManifest, grid_exponent: int, length: int) -> None:
    if len(raw) != length:
        raise MalformedError(f"an object of this manifest has {length} bytes")
    if raw[: _HEADER.size] != _header(magic, manifest, grid_exponent):
        raise MalformedError("the object is of another kind, manifest or grid")


def _spans(manifest: ModelManifest) -> list[tuple[int, int, str]]:
    return [(start, start + tensor.coordinates, tensor.dtype)
            for start, tensor in zip(manifest.offsets, manifest.tensors, strict=True)]


def _parts(manifest: ModelManifest, values: NDArray[np.int64]) -> list[tuple[str, NDArray[np.int64]]]:
    return [(dtype, values[start:stop]) for start, stop, dtype in _spans(manifest)]
