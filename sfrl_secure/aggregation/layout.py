"""Where a model object has its values, and how they are moved.

Tensors of one dtype that follow each other are one run. Values are written in place, in a copy of the bytes that is
made once: 4 bytes a value where the manifest says int32. numpy makes the copy: it asks for large pages, and a copy into
small ones costs six times as much.

Format: proto/README.md, "Models and aggregates".

Runs in: aggregator, participant.
Trusts: its callers, who checked lengths and parts.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.buffers import Room
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.sparse.update import UpdatePart

HEADER: Final = struct.Struct("<8sB7s32sQ")
Grid = NDArray[np.signedinteger]
"""Grid integers of either dtype."""
TYPES: Final[dict[str, np.dtype[np.signedinteger]]] = {"int32": np.dtype("<i4"), "int64": np.dtype("<i8")}
BLOCK: Final = 65_536
"""Values that are moved at a time, in the processor's cache."""
MANIFESTS_KEPT: Final = 8
"""Manifests whose runs are remembered: a model of many tensors is asked for them at each step of its way."""


class Run(NamedTuple):
    """Neighbouring tensors of one dtype: coordinates from `start` to before `stop`, from byte `at` of the object on."""

    start: int
    stop: int
    dtype: str
    at: int


Views = list[tuple[Run, Grid]]
"""Each run with its values where they stand."""


@lru_cache(maxsize=MANIFESTS_KEPT)
def runs_of(manifest: ModelManifest) -> tuple[Run, ...]:
    """The runs of a manifest's tensors, in order."""
    runs: list[Run] = []
    at = HEADER.size
    for start, tensor in zip(manifest.offsets, manifest.tensors, strict=True):
        stop = start + tensor.coordinates
        if runs and runs[-1].dtype == tensor.dtype:
            runs[-1] = runs[-1]._replace(stop=stop)
        else:
            runs.append(Run(start, stop, tensor.dtype, at))
        at += tensor.coordinates * TYPES[tensor.dtype].itemsize
    return tuple(runs)


def view_of(raw: bytes | memoryview, run: Run) -> Grid:
    """The run's values where they stand: read-only over bytes, to be written through a memoryview."""
    return np.frombuffer(raw, TYPES[run.dtype], run.stop - run.start, run.at)


def rewritten(
    manifest: ModelManifest,
    raw: bytes | memoryview,
    change: Callable[[Views], None],
    room: Room | None = None,
) -> memoryview:
    """A copy of a model object's bytes, read-only, after `change` wrote into it. It keeps none of the views.

    Where `change` raises, what was written so far belongs to nobody.

    Args:
        room: where the copy goes, of the same length; new memory where it is None.
    """
    given = np.frombuffer(raw, dtype=np.uint8)
    copy = np.empty_like(given).data if room is None else room
    np.copyto(np.frombuffer(copy, dtype=np.uint8), given)
    change([(run, view_of(copy, run)) for run in runs_of(manifest)])
    return copy.toreadonly()


def move_run(run: Run, view: Grid, part: UpdatePart) -> None:
    """Add what of the part lies in this run."""
    if isinstance(part.at, slice):
        first, end = max(part.at.start, run.start), min(part.at.stop, run.stop)
        for start in range(first, end, BLOCK):
            stop = min(start + BLOCK, end)
            block = view[start - run.start : stop - run.start]
            block[:] = _cut_sum(block, part.values[start - part.at.start : stop - part.at.start])
        return
    first, end = np.searchsorted(part.at, (run.start, run.stop))
    at = part.at[first:end] - run.start
    view[at] = _cut_sum(view[at], part.values[first:end])


def _cut_sum(base: Grid, step: NDArray[np.int64]) -> NDArray[np.int64]:
    """base + step, cut to the range of base's dtype."""
    limits = np.iinfo(base.dtype)
    if base.dtype != np.int64:
        moved = base + step
        return np.clip(moved, limits.min, limits.max, out=moved)
    # Cut the base to where the step still fits, by its sign: then no sum wraps, and none is cut too soon.
    down = np.maximum(base, limits.min - np.minimum(step, 0))
    up = np.minimum(base, limits.max - np.maximum(step, 0))
    cut: NDArray[np.int64] = np.where(step < 0, down, up) + step
    return cut
