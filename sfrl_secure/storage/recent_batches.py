"""The batches that were written or read last, in memory: a proof of a new entry fetches nothing.

Runs in: audit_log.
Trusts: whoever put them in.
"""

from __future__ import annotations

import threading
from collections import OrderedDict

RECENT_BYTES_MAX = 32 * 1024 * 1024
"""Records that are kept, where the caller asks for nothing else."""


class RecentBatches:
    """Batches by the index of their first record. Any thread may use it."""

    def __init__(self, bytes_max: int) -> None:
        """Keep records of at most `bytes_max` together."""
        self._bytes_max = bytes_max
        self._bytes = 0
        self._lock = threading.Lock()
        self._batches: OrderedDict[int, tuple[bytes, ...]] = OrderedDict()

    def get(self, first_index: int) -> tuple[bytes, ...] | None:
        """The records of a batch; None where it is not kept."""
        with self._lock:
            records = self._batches.get(first_index)
            if records is not None:
                self._batches.move_to_end(first_index)
            return records

    def keep(self, first_index: int, records: tuple[bytes, ...]) -> None:
        """Keep a batch, and those that were used last before it."""
        with self._lock:
            self._forget(first_index)
            self._batches[first_index] = records
            self._bytes += sum(map(len, records))
            while self._bytes > self._bytes_max and self._batches:
                self._forget(next(iter(self._batches)))

    def forget(self, first_index: int) -> None:
        """Keep a batch no longer."""
        with self._lock:
            self._forget(first_index)

    def _forget(self, first_index: int) -> None:
        self._bytes -= sum(map(len, self._batches.pop(first_index, ())))
