"""Compiled loops, where numba can be imported: the same integers.

Only where the environment says `SFRL_NUMBA=1`, and then with the first large part: see `sparse.fast` for what it costs
and whom it trusts. All of it is addition of integers that were checked before, so that there is one result.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

LARGE_PART = 2_048
"""Values from which a part is large: below, a kernel saves less than calling it costs."""


class Kernels(Protocol):
    """What `kernels` compiles. Indices are inside the arrays: whoever calls has looked."""

    def add_at(self, sums: NDArray[np.int64], at: NDArray[np.int64], values: NDArray[np.int64], weight: int) -> None:
        """Add `weight` times each value where it belongs."""

    def add_both_at(
        self,
        sums: NDArray[np.int64],
        weights: NDArray[np.int32],
        at: NDArray[np.int64],
        values: NDArray[np.int64],
        weight: int,
    ) -> None:
        """The same, and the weight itself to `weights`."""

    def count_at(self, counts: NDArray[np.uint16], at: NDArray[np.int64], number: np.uint16) -> None:
        """Add one number where each index says."""


class _Loaded:
    kernels: Kernels | None = None
    tried = False


def kernels(count: int) -> Kernels | None:
    """Return the kernels for a part of `count` values; None where numpy is to add it."""
    if count < LARGE_PART:
        return None
    if not _Loaded.tried:
        if os.environ.get("SFRL_NUMBA") == "1":
            try:
                _Loaded.kernels = cast("Kernels", importlib.import_module("sfrl_secure.aggregation.kernels"))
            except ImportError:
                _Loaded.kernels = None
        _Loaded.tried = True
    return _Loaded.kernels
