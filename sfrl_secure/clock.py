"""Time, passed in.

One reading per request serves every decision in it. Decisions of the log use the log's own time; replay never asks a
clock at all.

Runs in: everything.
Trusts: the operating system's clock, in `SystemClock` alone.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Gives the time in whole microseconds since 1970-01-01 UTC."""

    def now_us(self) -> int:
        """The time now, microseconds."""
        ...


class SystemClock:
    """The operating system's clock."""

    def now_us(self) -> int:
        """The time now, microseconds."""
        return time.time_ns() // 1000


class FixedClock:
    """A clock that stands still until it is moved: for tests and replays of one moment."""

    def __init__(self, now_us: int) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """The time that was set, microseconds."""
        return self._now_us

    def advance(self, microseconds: int) -> None:
        """Move forward; a negative number moves back, which the log must notice."""
        self._now_us += microseconds
