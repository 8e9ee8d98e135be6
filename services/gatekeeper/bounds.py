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
