"""A bound on the memory that a piece of work takes.

What numpy takes is counted too.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

MIB = 2**20


@contextmanager
def memory_below(limit: int) -> Iterator[None]:
    """What is held at once inside stays below `limit` bytes, beside what was there before."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()
