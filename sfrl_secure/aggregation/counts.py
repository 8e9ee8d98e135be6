"""How many updates carry a coordinate, and how many have a value there that is not zero.

Both are one count where no update carries zeros, as in free mode without a clip; what is carried and zero is counted
beside it, and has memory once there is such a value. 16 bits each: see `CONTRIBUTIONS_MAX`.

Format: proto/README.md, "Cap", "Masks".

Runs in: aggregator.
Trusts: its callers, who checked the parts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.fast import kernels
from sfrl_secure.aggregation.large_arrays import zeros
from sfrl_secure.aggregation.scatter import add_where
from sfrl_secure.sparse.update import UpdatePart

Counts = NDArray[np.uint16]
"""Of each coordinate, how many updates."""


class PresenceCounts:
    """Counts over a model's coordinates, or over a range of them that is numbered from 0."""

    def __init__(self, coordinates: int) -> None:
        """Begin with no updates."""
        self._carried = zeros(coordinates, np.uint16)
        self._silent: Counts | None = None

    def add_part(self, part: UpdatePart) -> None:
        """Count a part of an update."""
        self._count(part, 1)

    def take_out_part(self, part: UpdatePart) -> None:
        """Count a part no more that was counted."""
        # Modulo 2**16: to add as much as is missing there is to take 1 away.
        self._count(part, 2**16 - 1)

    def carriers(self) -> Counts:
        """How many updates carry each coordinate: uint16, shape (coordinates,)."""
        return self._carried

    def votes(self) -> Counts:
        """How many updates have a value there that is not 0: uint16, shape (coordinates,)."""
        return self._carried if self._silent is None else self._carried - self._silent

    def _count(self, part: UpdatePart, by: int) -> None:
        number = np.uint16(by)
        compiled = None if isinstance(part.at, slice) else kernels(part.count)
        if compiled is not None:
            compiled.count_at(self._carried, part.indices, number)
        else:
            add_where(self._carried, part, number)
        if part.values.all():
            return
        if self._silent is None:
            self._silent = zeros(self._carried.size, np.uint16)
        silent = np.flatnonzero(part.values == 0)
        places = silent + part.at.start if isinstance(part.at, slice) else part.at[silent]
        # Each coordinate once, so that nothing is lost.
        self._silent[places] += number
