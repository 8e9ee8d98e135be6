"""Parts of updates and steps, before they are added to anything: inside the model, and small enough to be exact.

Runs in: aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import numpy as np

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart


def check_part(part: UpdatePart, coordinates: int) -> None:
    """Check that a part has one bounded value for each of its coordinates, and lies inside a model of so many.

    Raises:
        MalformedError: it does not.
    """
    at, values = part.at, part.values
    if values.ndim != 1 or values.dtype != np.int64:
        raise MalformedError("an update has one integer per coordinate")
    if isinstance(at, slice):
        # A slice may count from the end, or run past it: as numbers of coordinates, this one does not.
        if at.step not in (None, 1) or not 0 <= at.start <= at.stop <= coordinates:
            raise MalformedError("a part lies inside the model")
        if at.stop - at.start != values.size:
            raise MalformedError("an update has one value per coordinate")
    else:
        if at.shape != values.shape:
            raise MalformedError("an update has one value per index")
        if at.size and (at[0] < 0 or at[-1] >= coordinates or not bool((at[1:] > at[:-1]).all())):
            raise MalformedError("indices ascend strictly inside the model")
    if values.size and (int(values.max()) > VALUE_MAX or int(values.min()) < -VALUE_MAX):
        raise MalformedError(f"a value is at most {VALUE_MAX} grid units")
