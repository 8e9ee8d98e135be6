"""What one update carries of a range of coordinates, in one piece: one integer for each of its coordinates.

Runs in: aggregator.
Trusts: nothing. That coordinates rise inside of the range is for `check_rising`, or for whoever sorts them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.errors import MalformedError
from sfrl_secure.sparse.update import UpdatePart

_NOTHING: Final = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Carried:
    """What one update carries of a range: coordinates, int64, shape (k,), and their values, int64, shape (k,)."""

    at: NDArray[np.int64]
    values: NDArray[np.int64]

    @classmethod
    def read(cls, contribution: Contribution, start: int, stop: int) -> Carried:
        """Read the coordinates from `start` to before `stop` of an update.

        Raises:
            MalformedError: a part has another shape.
        """
        parts = list(contribution.parts(start, stop))
        for part in parts:
            check_shape(part)
        if len(parts) == 1:
            return cls(parts[0].indices, parts[0].values)
        if not parts:
            return cls(_NOTHING, _NOTHING)
        return cls(np.concatenate([part.indices for part in parts]), np.concatenate([part.values for part in parts]))

    def spread(self, start: int, stop: int) -> NDArray[np.int64]:
        """The values of all of the range.

        Raises:
            MalformedError: a coordinate is outside of it, or twice.
        """
        check_rising(self.at, start, stop)
        whole = np.zeros(stop - start, dtype=np.int64)
        whole[self.at - start] = self.values
        return whole


def check_rising(at: NDArray[np.int64], start: int, stop: int) -> None:
    """Check that coordinates rise strictly inside of a range.

    Raises:
        MalformedError: they do not.
    """
    if at.size and not (start <= int(at[0]) and int(at[-1]) < stop and (at[1:] > at[:-1]).all()):
        raise MalformedError("an update's coordinates rise strictly, inside of the range that was asked for")


def check_shape(part: UpdatePart) -> None:
    """Check that a part has one integer for each of its coordinates.

    Raises:
        MalformedError: it does not.
    """
    values, at = part.values, part.at
    if values.dtype != np.int64 or values.ndim != 1:
        raise MalformedError("an update has one integer per coordinate")
    if isinstance(at, slice):
        if at.step not in (None, 1) or at.stop - at.start != values.size:
            raise MalformedError("an update has one value per coordinate")
    elif at.dtype != np.int64 or at.shape != values.shape:
        raise MalformedError("an update has one value per index")
