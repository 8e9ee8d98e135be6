"""The same leaves through compiled loops, where numba can be imported: same bytes, same refusals.

A kernel says what a canonical leaf holds, or nothing. A leaf of which it says nothing goes through the numpy code,
which finds the first rule that is broken, so that there is one list of reasons; a kernel that took more or less than
numpy would break the tests that compare them.

Only where the environment says `SFRL_NUMBA=1`, and then with the first large leaf: importing numba costs a second and
some 60 MiB, compiling some seconds more, and numba unpickles its cache of compiled code, so that whoever can write
there runs code. It pays for who decodes many large updates.

Format: proto/README.md, "Codec".

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import importlib
import os
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

LARGE_LEAF = 2_048
"""Values from which a leaf is large: below, a kernel saves less than calling it costs."""


class Kernels(Protocol):
    """What `kernels` compiles. Each reads from `start` of a leaf into all of `out`, and returns where its field ends,
    or -1."""

    def rice(self, leaf: NDArray[np.uint8], start: int, largest: int, before: int, step: int,
             out: NDArray[np.int64]) -> int:
        """Read a Rice code and add up: `out` gets `before` and all numbers so far, and `step` for each."""

    def int8(self, leaf: NDArray[np.uint8], start: int, free: bool, out: NDArray[np.int64]) -> int:
        """Read scales and one byte a value."""

    def packed(self, leaf: NDArray[np.uint8], start: int, free: bool, largest_parameter: int,
               out: NDArray[np.int64]) -> int:
        """Read scales, the smallest |q| of each block, signs, and a Rice code."""


class _Loaded:
    kernels: Kernels | None = None
    tried = False


def kernels(count: int) -> Kernels | None:
    """Return the kernels for a leaf of `count` values; None where numpy is to read it."""
    if count < LARGE_LEAF:
        return None
    if not _Loaded.tried:
        if os.environ.get("SFRL_NUMBA") == "1":
            try:
                _Loaded.kernels = cast("Kernels", importlib.import_module("sfrl_secure.sparse.kernels"))
            except ImportError:
                _Loaded.kernels = None
        _Loaded.tried = True
    return _Loaded.kernels


def fast_rice(compiled: Kernels, leaf: NDArray[np.uint8], start: int, count: int, largest: int, *, before: int,
              step: int) -> tuple[NDArray[np.int64], int] | None:
    """Read the Rice code at `start` of a leaf, with all of its rules; None where one does not hold.

    Returns: int64, shape (count,): `before` and all numbers so far, `step` added for each; and where the code ends.
    """
    sums = np.empty(count, dtype=np.int64)
    end = compiled.rice(leaf, start, largest, before, step, sums)
    return None if end < 0 else (sums, end)


def fast_int8(compiled: Kernels, leaf: NDArray[np.uint8], start: int, count: int, free: bool) -> tuple[
        NDArray[np.int64], int] | None:
    """Read int8 values at `start` of a leaf, with all of their rules; None where one does not hold."""
    values = np.empty(count, dtype=np.int64)
    end = compiled.int8(leaf, start, free, values)
    return None if end < 0 else (values, end)


def fast_packed(compiled: Kernels, leaf: NDArray[np.uint8], start: int, count: int, free: bool,
                largest: int) -> tuple[NDArray[np.int64], int] | None:
    """Read packed values at `start` of a leaf, with all of their rules; None where one does not hold."""
    values = np.empty(count, dtype=np.int64)
    end = compiled.packed(leaf, start, free, largest, values)
    return None if end < 0 else (values, end)
