"""Where a value stands: the first number that is none, by its tensor and place, for whoever trained it.

It is looked for only when the encoder has refused the update: what is in order costs nothing.

Runs in: participant, cli, demo.
Trusts: nothing of the update.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.governance.manifest import ModelManifest


@contextmanager
def naming_places(
    manifest: ModelManifest, values: NDArray[np.floating], indices: NDArray[np.int64] | None = None
) -> Iterator[None]:
    """Where the block refuses `values` as not finite, say which of them is the first.

    Args:
        values: shape (k,), parameter units; of all coordinates in order, or of `indices`.

    Raises:
        PayloadError: in place of the one that the block raised.
    """
    try:
        yield
    except PayloadError as error:
        if error.reason != "not_finite":
            raise
        # Not finite as float32: a float64 that float32 does not hold is infinite there.
        with np.errstate(over="ignore"):
            at = np.flatnonzero(~np.isfinite(np.asarray(values).astype(np.float32)))
        if not at.size:
            raise
        coordinate = int(at[0]) if indices is None else int(indices[at[0]])
        where = place_of(manifest, coordinate)
        raise PayloadError(
            error.reason, f"{error}, and that of {where} is none, the first of {at.size}: look at the training"
        ) from None


def place_of(manifest: ModelManifest, coordinate: int) -> str:
    """Name a coordinate as whoever trains knows it: `tensor weight at [3, 2]`; by its number outside the model."""
    for start, tensor in zip(manifest.offsets, manifest.tensors, strict=True):
        if start <= coordinate < start + tensor.coordinates:
            place = ", ".join(str(int(axis)) for axis in np.unravel_index(coordinate - start, tensor.shape))
            return f"tensor {tensor.name} at [{place}]"
    return f"coordinate {coordinate}"
