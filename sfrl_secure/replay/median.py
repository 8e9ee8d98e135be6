"""`median/v1`: the middle of all n values of a coordinate.

Format: proto/README.md, "Rules".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import numpy as np

from sfrl_secure.replay.arithmetic import divide_half_even
from sfrl_secure.replay.columns import Cohort
from sfrl_secure.replay.payload_codes import Integers


def median(cohort: Cohort) -> Integers:
    """Give a for every coordinate.

    Raises:
        Gone: a payload is there no more.
    """
    n = len(cohort.updates)
    low, high = (n - 1) // 2, n // 2  # the places of the middle one, or of the middle two
    a = np.zeros(cohort.coordinates, np.int64)
    for columns in cohort.columns():
        # Where at most `low` carry the coordinate, zeros have both middle places, whatever the signs of the others.
        for chosen, table in columns.tables(low + 1):
            ranked = np.sort(table, axis=1)
            a[columns.start + chosen] = divide_half_even(ranked[:, low] + ranked[:, high], 2)
    return a
