"""A sparse update: which coordinates it speaks of, and by how many units of the grid each changes.

`SparseUpdate` is a whole update, `UpdatePart` one leaf of it as a reader hands it out. Indices rise strictly, values
are integers on the terms' grid, and the arrays are read-only: what exists is correct. Norms are exact integers, so
that two machines that measure one update measure the same.

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
_CHUNK = 32_768
_INT64_END = 2**63


@dataclass(frozen=True, slots=True, eq=False)
class UpdatePart:
    """One leaf's part of an update. `numerator[part.at] += part.values * weight` adds it, in every mode.

    Attributes:
        at: where the values belong: int64 indices, strictly rising, or in dense mode a slice of the coordinates.
        values: int64, shape (count,), count at least 1, grid units, magnitude at most `VALUE_MAX`; read-only.
    """

    at: NDArray[np.int64] | slice
    values: NDArray[np.int64]

    @property
    def count(self) -> int:
        """Values in this part."""
        return self.values.size

    @property
    def indices(self) -> NDArray[np.int64]:
        """The coordinates of the values: int64, shape (count,), strictly rising."""
        if isinstance(self.at, slice):
            return np.arange(self.at.start, self.at.stop, dtype=np.int64)
        return self.at


@dataclass(frozen=True, slots=True, eq=False)
class SparseUpdate:
    """One participant's change of the model, in grid units. Compared by identity; compare the arrays for content.

    Attributes:
        coordinates: coordinates of the whole model, 1 to `COORDINATES_MAX`.
        indices: int64, shape (k,), strictly rising, each from 0 to `coordinates` - 1; read-only.
        values: int64, shape (k,), magnitude at most `VALUE_MAX` grid units, zero where an agreed or dense payload says
            so; read-only.
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
        check_magnitude(self.values)
        object.__setattr__(self, "indices", _frozen(self.indices))
        object.__setattr__(self, "values", _frozen(self.values))

    @property
    def nonzeros(self) -> int:
        """Values that the update carries; in agreed and dense mode some may be zero."""
        return self.indices.size

    @property
    def density_ppm(self) -> int:
        """Values in a million of the coordinates, rounded down."""
        return self.nonzeros * 1_000_000 // self.coordinates

    def norm_squared(self) -> int:
        """Sum the squares of all values exactly, in squared grid units; may need more than 64 bits."""
        return sum_of_squares(self.values)

    def largest_magnitude(self) -> int:
        """Return the largest magnitude of a value in grid units; 0 for an empty update."""
        return largest_magnitude(self.values)


def sum_of_squares(values: NDArray[np.int64]) -> int:
    """Sum the squares of `values` exactly; the sum may need more than 64 bits.

    Args:
        values: int64, shape (k,), any k, magnitude at most `VALUE_MAX`.
    """
    total = 0
    for start in range(0, values.size, _CHUNK):
        chunk = values[start : start + _CHUNK]
        largest = largest_magnitude(chunk)
        if chunk.size * largest * largest < _INT64_END:
            total += int(np.dot(chunk, chunk))
            continue
        # Halves with an arithmetic shift: high * 2**20 + low is the value, high from -2**20 to 2**20, low below 2**20.
        # A chunk's products, of at most 2**40 each, stay below 2**57.
        high, low = chunk >> _HALF_BITS, chunk & ((1 << _HALF_BITS) - 1)
        total += int(np.dot(high, high)) << (2 * _HALF_BITS)
        total += int(np.dot(high, low)) << (_HALF_BITS + 1)
        total += int(np.dot(low, low))
    return total


def largest_magnitude(values: NDArray[np.int64]) -> int:
    """Return the largest magnitude in `values`, at most `VALUE_MAX`; 0 where there are none."""
    return max(int(values.max()), -int(values.min())) if values.size else 0


def check_magnitude(values: NDArray[np.int64]) -> None:
    """Check that no value is larger than `VALUE_MAX`.

    Raises:
        PayloadError: `magnitude`.
    """
    # Python's integers: the magnitude of -2**63 does not exist in int64.
    if largest_magnitude(values) > VALUE_MAX:
        raise PayloadError("magnitude", f"a value is at most {VALUE_MAX} grid units")


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
