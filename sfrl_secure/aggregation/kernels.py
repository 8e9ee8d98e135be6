"""Compiled loops over one part of an update. Imported by `fast` alone, since importing it imports numba.

Indices are not compared with the arrays' ends: `check_part` has done it, with what comes in one part.

Runs in: aggregator.
Trusts: its callers.
"""

# numba types these functions itself, when they are first called.
# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit


def _compiled(function: Callable[..., Any]) -> Any:
    """Compile when first called; keep the code where numba may write."""
    try:
        return njit(cache=True, nogil=True)(function)
    except RuntimeError:
        # No folder for the cache: a read-only installation without a home.
        return njit(nogil=True)(function)


@_compiled
def add_at(sums, at, values, weight):
    """Add `weight` times each value where it belongs."""
    for number in range(at.size):
        # Unsigned, so that no index has to be asked whether it counts from the end.
        sums[np.uint64(at[number])] += values[number] * weight


@_compiled
def add_both_at(sums, weights, at, values, weight):
    """The same, and the weight itself to `weights`."""
    for number in range(at.size):
        place = np.uint64(at[number])
        sums[place] += values[number] * weight
        weights[place] += np.int32(weight)


@_compiled
def count_at(counts, at, number):
    """Add one number where each index says."""
    for place in at:
        counts[np.uint64(place)] += number
