"""Keeping the process small: one heap for a few threads each, not one for every thread.

Payloads go through the gatekeeper in pieces of up to 1 MiB, which one thread takes memory for and another gives back.
glibc gives each thread a heap of its own, up to eight a core, and each of them grows to what any thread ever needed.

Runs in: gatekeeper.
Trusts: nothing.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
"""mallopt(3)."""

ARENAS = 2


def share_heaps() -> bool:
    """Have all threads share two heaps; whether the C library knows how. Before threads are made."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library, which has its own ways
        return False
    return bool(mallopt(_M_ARENA_MAX, ARENAS))
