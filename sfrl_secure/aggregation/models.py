"""Models and steps: integer tensors on the terms' grid, and what is added to them, as bytes.

The integers are the model; float32 is derived last, once. A model's name is the SHA-256 of its bytes, and the bytes
name the manifest and the grid, so that one model cannot be read as another. A model is kept as its bytes: 4 a value
where the manifest says int32, and nothing is copied to parse it, to store it or to name it.

A step is the aggregate object: a payload of value type exact, which whoever has the base can add to it.

Format: proto/README.md, "Models and aggregates".

Runs in: aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.buffers import Room
from sfrl_secure.aggregation.exact_object import decode_exact, encode_exact
from sfrl_secure.aggregation.layout import BLOCK, HEADER, TYPES, Views, move_run, rewritten, runs_of, view_of
from sfrl_secure.aggregation.parts import check_part
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.limits import GRID_EXPONENT_MAX
from sfrl_secure.sparse.update import UpdatePart

_MODEL: Final = b"SFRLMDL1"


class ModelSnapshot:
    """A model on its grid. It does not change; compare `to_bytes` for content.

    Attributes:
        manifest: names, shapes and dtypes of the tensors.
        grid_exponent: e; one grid unit is 2**-e.
    """

    __slots__ = ("_raw", "grid_exponent", "manifest")

    def __init__(self, manifest: ModelManifest, grid_exponent: int, values: NDArray[np.int64]) -> None:
        """Take int64 values, shape (manifest.coordinates,), each inside its tensor's dtype.

        Raises:
            MalformedError: another shape, a value that does not fit, or no grid exponent.
        """
        if values.shape != (manifest.coordinates,) or values.dtype != np.int64:
            raise MalformedError("a model has one int64 per coordinate of its manifest")
        for run in runs_of(manifest):
            part, limits = values[run.start : run.stop], np.iinfo(TYPES[run.dtype])
            if int(part.min()) < limits.min or int(part.max()) > limits.max:
                raise MalformedError(f"a value does not fit into {run.dtype}")

        def fill(views: Views) -> None:
            for run, view in views:
                view[:] = values[run.start : run.stop]

        blank = _header(manifest, grid_exponent).ljust(model_bytes(manifest), b"\0")
        self._set(manifest, grid_exponent, rewritten(manifest, blank, fill))

    @classmethod
    def _of(cls, manifest: ModelManifest, grid_exponent: int, raw: bytes | memoryview) -> ModelSnapshot:
        made = cls.__new__(cls)
        made._set(manifest, grid_exponent, raw)
        return made

    def _set(self, manifest: ModelManifest, grid_exponent: int, raw: bytes | memoryview) -> None:
        self.manifest, self.grid_exponent, self._raw = manifest, grid_exponent, raw

    @property
    def values(self) -> NDArray[np.int64]:
        """The model in grid units, int64, shape (n,): a copy, whoever wants it twice keeps it; read-only."""
        values = np.empty(self.manifest.coordinates, dtype=np.int64)
        for run in runs_of(self.manifest):
            values[run.start : run.stop] = view_of(self._raw, run)
        values.setflags(write=False)
        return values

    def values_at(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """The model at some coordinates, int64, shape of `at`, which ascends strictly inside the model."""
        values = np.empty(at.size, dtype=np.int64)
        for run in runs_of(self.manifest):
            first, end = np.searchsorted(at, (run.start, run.stop))
            values[first:end] = view_of(self._raw, run)[at[first:end] - run.start]
        return values

    @property
    def raw(self) -> memoryview:
        """The model object's bytes where they stand, read-only; their SHA-256 is the model's name."""
        return memoryview(self._raw).toreadonly()

    def to_bytes(self) -> bytes:
        """The same as an object of its own."""
        return self._raw if isinstance(self._raw, bytes) else bytes(self._raw)

    def add(self, step: NDArray[np.int64] | UpdatePart, *, room: Room | None = None) -> ModelSnapshot:
        """The model after this one: base + step, each coordinate cut to its dtype's range.

        Args:
            step: int64, shape (n,), or a part of it; each of magnitude at most 2**40, so that an int64 sum is cut and
                never wraps.
            room: as many bytes as the model has, where the new one goes: see `Rooms`.
        """
        whole = step if isinstance(step, UpdatePart) else UpdatePart(slice(0, step.size), step)
        return self.add_parts([whole], room=room)

    def add_parts(self, parts: Iterable[UpdatePart], *, room: Room | None = None) -> ModelSnapshot:
        """The same for a step that comes in parts: see `decode_step`. Each coordinate is in one of them at most.

        Raises:
            MalformedError: a part lies outside the model, or a value is too large; and what `parts` raises.
        """
        coordinates = self.manifest.coordinates

        def move(views: Views) -> None:
            for part in parts:
                check_part(part, coordinates)
                for run, view in views:
                    move_run(run, view, part)

        return self._of(self.manifest, self.grid_exponent, rewritten(self.manifest, self._raw, move, room))

    def to_float32(self, *, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """The model in parameter units, float32, shape (n,): value * 2**-e, rounded once to nearest even.

        Args:
            out: where it is written, of the same shape; a new array where it is None.
        """
        values = np.empty(self.manifest.coordinates, dtype=np.float32) if out is None else out
        for run in runs_of(self.manifest):
            # An integer to float32 rounds once; scaling by a power of two is exact, far from subnormals.
            values[run.start : run.stop] = view_of(self._raw, run)
        values *= self._unit
        return values

    def change_to(
        self, weights: NDArray[np.float32], *, out: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """`weights` minus `to_float32`, float32, shape (n,), and no other array of that size.

        Args:
            out: where it is written, of the same shape, and no part of `weights`; a new array where it is None.
        """
        change = np.empty(self.manifest.coordinates, dtype=np.float32) if out is None else out
        for run in runs_of(self.manifest):
            view = view_of(self._raw, run)
            for start in range(run.start, run.stop, BLOCK):
                stop = min(start + BLOCK, run.stop)
                block = change[start:stop]
                block[:] = view[start - run.start : stop - run.start]
                block *= self._unit
                np.subtract(weights[start:stop], block, out=block)
        return change

    @property
    def _unit(self) -> np.float32:
        return np.float32(2.0**-self.grid_exponent)


def snapshot_from_float(manifest: ModelManifest, grid_exponent: int, values: NDArray[np.float32]) -> ModelSnapshot:
    """Round float32 parameters to the grid, half to even: the model before round 1.

    Raises:
        MalformedError: a value is not finite or does not fit into its tensor's dtype.
    """
    scaled = np.rint(np.ldexp(values.astype(np.float64), grid_exponent))
    if not bool(np.all(np.isfinite(scaled))) or bool(np.any(np.abs(scaled) >= 2.0**62)):
        raise MalformedError("a parameter is not finite or too large for the grid")
    return ModelSnapshot(manifest, grid_exponent, scaled.astype(np.int64))


def parse_model(raw: bytes | memoryview, manifest: ModelManifest, grid_exponent: int) -> ModelSnapshot:
    """Parse a model object that must be of this manifest and grid.

    Raises:
        MalformedError: another manifest, grid or length.
    """
    length = model_bytes(manifest)
    if len(raw) != length:
        raise MalformedError(f"an object of this manifest has {length} bytes")
    if raw[: HEADER.size] != _header(manifest, grid_exponent):
        raise MalformedError("the object is of another kind, manifest or grid")
    return ModelSnapshot._of(manifest, grid_exponent, raw)


def model_bytes(manifest: ModelManifest) -> int:
    """Length of a model object of this manifest."""
    return HEADER.size + sum((run.stop - run.start) * TYPES[run.dtype].itemsize for run in runs_of(manifest))


def encode_step(manifest: ModelManifest, grid_exponent: int, step: NDArray[np.int64] | UpdatePart) -> bytes:
    """The aggregate object's bytes: see `encode_exact`.

    Raises:
        MalformedError: another shape than the model's, or a value that is too large.
    """
    return encode_exact(manifest.coordinates, grid_exponent, step)


def decode_step(raw: bytes | memoryview, manifest: ModelManifest, grid_exponent: int) -> Iterator[UpdatePart]:
    """Decode an aggregate object that must be of this model's size and grid, part by part; see `add_parts`.

    The caller compares the SHA-256 of the model that it makes with the digest that it wants: nothing else says that
    this is the step which leads there, so the digests of its leaves are not looked at.

    Raises:
        PayloadError: as `decode_exact`.
    """
    return decode_exact(raw, manifest.coordinates, grid_exponent, with_digests=False)


def _header(manifest: ModelManifest, grid_exponent: int) -> bytes:
    if not 0 <= grid_exponent <= GRID_EXPONENT_MAX:
        raise MalformedError(f"a grid exponent is 0 to {GRID_EXPONENT_MAX}")
    return HEADER.pack(_MODEL, grid_exponent, bytes(7), manifest.digest, manifest.coordinates)
