"""A sparse update: which coordinates change, and by how many units of the grid.

`SparseUpdate` is what the codec gives and takes. Indices rise strictly, values are integers on the terms' grid, never
zero, and both arrays are read-only: an update that exists is correct. Norms are exact integers, so that two machines
that measure one update measure the same.

Format: proto/README.md, "Codec". Grid and bounds: PROTOCOL 7.

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import COORDINATES_MAX, VALUE_MAX

_HALF_BITS = 20
# 2**22 products of two numbers up to 2**20 stay below 2**62.
_CHUNK = 2**22


@dataclass(frozen=True, slots=True, eq=False)
class SparseUpdate:
    """One participant's change of the model, in grid units. Compared by identity; compare the arrays for content.

    Attributes:
        coordinates: coordinates of the whole model, 1 to `COORDINATES_MAX`.
        indices: int64, shape (k,), strictly rising, each from 0 to `coordinates` - 1; read-only.
        values: int64, shape (k,), never zero, magnitude at most `VALUE_MAX` grid units; read-only.
    """

    coordinates: int
    indices: NDArray[np.int64]
    values: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not 1 <= self.coordinates <= COORDINATES_MAX:
            raise PayloadError("shape", f"a model has 1 to {COORDINATES_MAX} coordinates")
        for array in (self.indices, self.values):
            if array.dtype != np.int64 or array.ndim != 1:
                raise PayloadError("shape", "indices and values are int64 vectors")
        if self.indices.size != self.values.size:
            raise PayloadError("shape", "an update has one value for each index")
        check_indices(self.indices, self.coordinates)
        if not self.values.all():
            raise PayloadError("not_canonical", "an absent coordinate is the zero: no value is zero")
        # Not abs(): the magnitude of -2**63 does not exist in int64.
        if self.values.size and (int(self.values.max()) > VALUE_MAX or int(self.values.min()) < -VALUE_MAX):
            raise PayloadError("magnitude", f"a value is at most {VALUE_MAX} grid units")
        object.__setattr__(self, "indices", _frozen(self.indices))
        object.__setattr__(self, "values", _frozen(self.values))

    @property
    def nonzeros(self) -> int:
        """Coordinates that change."""
        return self.indices.size

    @property
    def density_ppm(self) -> int:
        """Coordinates that change in a million, rounded down."""
        return self.nonzeros * 1_000_000 // self.coordinates

    def norm_squared(self) -> int:
        """Sum the squares of all values exactly, in squared grid units; may need more than 64 bits."""
        total = 0
        for start in range(0, self.nonzeros, _CHUNK):
            magnitudes = np.abs(self.values[start : start + _CHUNK])
            high, low = magnitudes >> _HALF_BITS, magnitudes & ((1 << _HALF_BITS) - 1)
            total += int(high @ high) << (2 * _HALF_BITS)
            total += int(high @ low) << (_HALF_BITS + 1)
            total += int(low @ low)
        return total

    def largest_magnitude(self) -> int:
        """Return the largest magnitude of a value in grid units; 0 for an empty update."""
        return int(np.abs(self.values).max()) if self.nonzeros else 0


def check_indices(indices: NDArray[np.int64], coordinates: int) -> None:
    """Check that `indices` rise strictly inside a model of `coordinates`.

    Raises:
        PayloadError: `not_canonical` where they do not rise, `out_of_range` where one is outside the model.
    """
    if indices.size == 0:
        return
    if not (indices[1:] > indices[:-1]).all():
        raise PayloadError("not_canonical", "indices rise strictly")
    if int(indices[0]) < 0 or int(indices[-1]) >= coordinates:
        raise PayloadError("out_of_range", "an index is outside the model")


def _frozen(array: NDArray[np.int64]) -> NDArray[np.int64]:
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array
