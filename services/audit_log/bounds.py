"""How many long calls there are at once, of one caller and of all: each keeps a thread for as long as it lasts.

Runs in: audit_log.
Trusts: the interceptor, for who calls.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sfrl_secure.errors import ExhaustedError
from sfrl_secure.ids import SpiffeId


class CallBound:
    """Counts the calls of one kind. Safe for any number of threads."""

    def __init__(self, one_max: int, all_max: int) -> None:
        """Allow `one_max` calls of one caller, and `all_max` of all."""
        self._one_max, self._all_max = one_max, all_max
        self._calls: Counter[SpiffeId] = Counter()
        self._lock = threading.Lock()

    def total(self) -> int:
        """Calls at this moment."""
        with self._lock:
            return self._calls.total()

    @contextmanager
    def call_of(self, caller: SpiffeId) -> Iterator[None]:
        """Count one call for as long as the block lasts.

        Raises:
            ExhaustedError: a bound is reached.
        """
        with self._lock:
            if self._calls[caller] >= self._one_max:
                raise ExhaustedError(f"one caller has at most {self._one_max} such calls at once")
            if self._calls.total() >= self._all_max:
                raise ExhaustedError(f"there are at most {self._all_max} such calls at once")
            self._calls[caller] += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls[caller] -= 1
                if not self._calls[caller]:
                    del self._calls[caller]
