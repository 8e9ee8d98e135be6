"""Parts of updates and steps, before they are added to anything: inside the model, and small enough to be exact.

Runs in: aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart

SPARSE_FACTOR: Final = 4
"""A step with at most one coordinate in so many that is not zero is kept, and written, as a sparse one."""


def check_part(part: UpdatePart, stop: int, start: int = 0) -> int:
    """Check that a part has one bounded value for each of its coordinates, all from `start` to before `stop`.

    Returns: the coordinate behind its last one, `start` where it has none: where the next part may begin.

    Raises:
        MalformedError: it does not.
    """
    at, values = part.at, part.values
    if values.ndim != 1 or values.dtype != np.int64:
        raise MalformedError("an update has one integer per coordinate")
    end = start
    if isinstance(at, slice):
        # A slice may count from the end, or run past it: as numbers of coordinates, this one does not.
        if at.step not in (None, 1) or not start <= at.start <= at.stop <= stop:
            raise MalformedError("a part lies inside the model")
        if at.stop - at.start != values.size:
            raise MalformedError("an update has one value per coordinate")
        end = at.stop
    else:
        if at.shape != values.shape or at.dtype != np.int64:
            raise MalformedError("an update has one value per index")
        if at.size:
            if at[0] < start or at[-1] >= stop or not bool((at[1:] > at[:-1]).all()):
                raise MalformedError("indices ascend strictly inside the model")
            end = int(at[-1]) + 1
    if values.size and (int(values.max()) > VALUE_MAX or int(values.min()) < -VALUE_MAX):
        raise MalformedError(f"a value is at most {VALUE_MAX} grid units")
    return end


def cut_part(part: UpdatePart, start: int, stop: int) -> UpdatePart:
    """What of a part lies from coordinate `start` to before `stop`: views of it, maybe of nothing."""
    at = part.at
    if isinstance(at, slice):
        first = min(max(at.start, start), at.stop)
        end = max(first, min(at.stop, stop))
        return UpdatePart(slice(first, end), part.values[first - at.start : end - at.start])
    if at.size and start <= at[0] and at[-1] < stop:
        return part
    first, end = (int(found) for found in np.searchsorted(at, (start, stop)))
    return UpdatePart(at[first:end], part.values[first:end])


def moved_part(part: UpdatePart, distance: int) -> UpdatePart:
    """The same values, each `distance` coordinates further up."""
    if not distance:
        return part
    at = part.at
    if isinstance(at, slice):
        return UpdatePart(slice(at.start + distance, at.stop + distance), part.values)
    return UpdatePart(at + distance, part.values)


def sparse_where_few(values: NDArray[np.int64]) -> UpdatePart:
    """A whole model's worth of values as a part: with indices where few are not zero, else as they are."""
    if SPARSE_FACTOR * int(np.count_nonzero(values)) > values.size:
        return UpdatePart(slice(0, values.size), values)
    at = np.flatnonzero(values)
    return UpdatePart(at, values[at])
