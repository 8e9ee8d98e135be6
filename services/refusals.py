"""Writing counted refusals down, from time to time, and at the end.

Runs in: gatekeeper, audit_log.
Trusts: the counter.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from sfrl_secure.errors import SfrlError
from sfrl_secure.governance.statements import RefusalsCounted
from sfrl_secure.rounds.refusals import RefusalCounter

_log = structlog.get_logger()

COUNT_MAX = 1_000
"""So many refusals are written before their time."""

_LOOK_SECONDS = 0.5


class RefusalWriter:
    """Writes what a counter has counted. `start`, then `stop` once, while the log still takes entries."""

    def __init__(
        self, counter: RefusalCounter, write: Callable[[RefusalsCounted], object], *, interval_seconds: float
    ) -> None:
        """Begin with nothing written.

        Args:
            write: returns when the body is in the log, or raises an SfrlError; then it gets the same body again.
            interval_seconds: from one entry to the next.
        """
        self._counter = counter
        self._write = write
        self._interval_seconds = interval_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="refusals", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write the rest, once, and end."""
        self._stopping.set()
        self._thread.join()
        self.flush()

    def flush(self) -> bool:
        """Write what there is; whether all of it is in the log."""
        while (body := self._counter.take()) is not None:
            try:
                self._write(body)
            except SfrlError as error:
                _log.warning("refusals_not_written", error=type(error).__name__)
                return False
            self._counter.confirm(body)
        return True

    def _run(self) -> None:
        waited = 0.0
        step = min(_LOOK_SECONDS, self._interval_seconds)
        while not self._stopping.wait(step):
            waited += step
            if waited >= self._interval_seconds or self._counter.counted >= COUNT_MAX:
                waited = 0.0
                self.flush()
