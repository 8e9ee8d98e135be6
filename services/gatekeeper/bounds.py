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

FETCHES_OF_A_MODEL_MAX = 16
"""How often one participant is given one model: each time is an entry, and nobody may fill the log."""

DECISIONS_A_MINUTE_MAX = 120
"""Decisions that one participant may put on record in a minute, for the same reason."""


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

    def __init__(self, count_max: int, window_us: int) -> None:
        """Let each peer have `count_max` in a window that begins with its first."""
        self._count_max = count_max
        self._window_us = window_us
        self._windows: dict[SpiffeId, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def take(self, peer: SpiffeId, now_us: int) -> None:
        """Count one for `peer`.

        Raises:
            ExhaustedError: it has had as many as it may in this window.
        """
        with self._lock:
            begun, count = self._windows.get(peer, (now_us, 0))
            if not 0 <= now_us - begun < self._window_us:
                begun, count = now_us, 0
            if count >= self._count_max:
                seconds = self._window_us // 1_000_000
                raise ExhaustedError(f"one participant has at most {self._count_max} of these calls in {seconds} s")
            self._windows[peer] = begun, count + 1
