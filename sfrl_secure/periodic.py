"""What is done again and again, in a thread of its own, until it is told to end.

An error that gets out of it ends the thread: what may fail handles its own errors.

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class PeriodicThread:
    """Does one thing every so many seconds. `start` once or not, then `stop` once."""

    def __init__(self, name: str, do: Callable[[], object], *, every_seconds: float, at_once: bool = False) -> None:
        """Prepare; nothing is done yet.

        Args:
            name: of the thread.
            every_seconds: from the end of one time to the begin of the next.
            at_once: whether the first time is at the start, and not `every_seconds` after it.
        """
        self._do, self._every_seconds, self._at_once = do, every_seconds, at_once
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what is being done now is done to its end."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        if self._at_once:
            self._do()
        while not self._stopping.wait(self._every_seconds):
            self._do()
