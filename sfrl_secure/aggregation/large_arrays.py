"""Arrays over a whole model that are added to here and there, in large pages where the system has them.

An update touches each hundredth coordinate, so that nearly every addition is on another small page: where the processor
has to look up each of them, adding up takes a quarter longer. numpy asks for large pages too, but not for memory that
was used before.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

import mmap
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

LARGE_BYTES = 2**22
"""Below, an array is the allocator's matter, which has room at once."""
Number = TypeVar("Number", np.int64, np.int32, np.uint16)


def zeros(count: int, dtype: type[Number]) -> NDArray[Number]:
    """Zeros of one dtype, shape (count,); they take memory as they are written."""
    length = count * np.dtype(dtype).itemsize
    if length < LARGE_BYTES:
        return np.zeros(count, dtype=dtype)
    room = mmap.mmap(-1, length, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        room.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(room, dtype=dtype, count=count)
