"""How much of a service one peer may hold at once.

A stream keeps a thread for as long as its reader likes; a participant with many slow readers would shut everybody out.

Runs in: gatekeeper.
Trusts: nothing.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sfrl_secure.errors import ExhaustedError
from sfrl_secure.ids import SpiffeId

FETCHES_AT_ONCE_MAX = 4
"""Models that one participant fetches at once."""

DECISIONS_A_MINUTE_MAX = 120
"""Decisions that one participant may put on record in a minute: each is an entry, and nobody may fill the log."""

TAKEN_OVER_A_MINUTE_MAX = 512 * 1024 * 1024
TAKEN_OVER_TIMES = 4
"""Bytes that broken calls of one peer have us copy in a minute: so many, or so many times the payload at hand where
that is more. A call that goes on with an upload costs its sender a few hundred bytes, and the disk all that lies there.
9 MB/s are a few percent of a disk; and a rover hardly feels the bound: an update of 340 kB may break off 25 times a
second, one of 45 MB every five seconds at its very end, one of 1 GiB four times a minute, and whoever is over it waits
for the minute's end and loses nothing."""


class PeerBound:
    """Counts what each peer holds; over the bound it is refused, which is no decision."""

    def __init__(self, count_max: int) -> None:
        """Let each peer hold `count_max` at once."""
        self._count_max = count_max
        self._held: Counter[SpiffeId] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def held_by(self, peer: SpiffeId) -> Iterator[None]:
        """Hold one for `peer`.

        Raises:
            ExhaustedError: it holds as many as it may.
        """
        with self._lock:
            if self._held[peer] >= self._count_max:
                raise ExhaustedError(f"one participant has at most {self._count_max} of these calls at once")
            self._held[peer] += 1
        try:
            yield
        finally:
            with self._lock:
                self._held[peer] -= 1
                if not self._held[peer]:
                    del self._held[peer]


class PeerRate:
    """Counts what each peer asks for in a window of time; over the bound it is refused, which is no decision."""

    def __init__(self, count_max: int, window_us: int, *, of: str = "of these calls") -> None:
        """Let each peer have `count_max` in a window that begins with its first.

        Args:
            of: what is counted, in words.
        """
        self._count_max = count_max
        self._window_us = window_us
        self._of = of
        self._windows: dict[SpiffeId, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def take(self, peer: SpiffeId, now_us: int, amount: int = 1, *, at_least: int = 0) -> None:
        """Count `amount` for `peer`.

        Args:
            at_least: the bound is no lower than this, for this once.

        Raises:
            ExhaustedError: it would have more than it may in this window.
        """
        count_max = max(self._count_max, at_least)
        with self._lock:
            begun, count = self._windows.get(peer, (now_us, 0))
            if not 0 <= now_us - begun < self._window_us:
                begun, count = now_us, 0
            if count + amount > count_max:
                seconds = self._window_us // 1_000_000
                raise ExhaustedError(f"one participant has at most {count_max} {self._of} in {seconds} s")
            self._windows[peer] = begun, count + amount
