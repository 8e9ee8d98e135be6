"""Watching the published checkpoint: when did it first cover an entry?

Runs in: a developer's machine.
Trusts: nothing; the checkpoint's size is read, its signatures are verified elsewhere.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from types import TracebackType

LOOK_SECONDS = 0.005


class PublishedSizes:
    """Looks at the published size until the end of the block, and remembers when it grew."""

    def __init__(self, size: Callable[[], int]) -> None:
        self._size = size
        self._sizes: list[int] = []
        self._times: list[float] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PublishedSizes:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join()

    def wait_for(self, size: int, timeout_seconds: float) -> None:
        """Wait until `size` entries are covered.

        Raises:
            TimeoutError: they are not.
        """
        deadline = time.monotonic() + timeout_seconds
        while not self._sizes or self._sizes[-1] < size:
            if time.monotonic() > deadline:
                raise TimeoutError("the published checkpoint does not cover what was acknowledged")
            time.sleep(LOOK_SECONDS)

    def seen(self, index: int) -> float:
        """When a checkpoint that covers the entry was first seen."""
        return self._times[bisect_right(self._sizes, index)]

    def _watch(self) -> None:
        while not self._ending.is_set():
            size = self._size()
            if not self._sizes or size > self._sizes[-1]:
                self._times.append(time.monotonic())
                self._sizes.append(size)
            time.sleep(LOOK_SECONDS)
