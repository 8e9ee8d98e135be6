"""Writing counted refusals down, from time to time, and at the end.

Runs in: gatekeeper, audit_log.
Trusts: the counter.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from sfrl_secure.errors import SfrlError
from sfrl_secure.governance.statements import RefusalsCounted
from sfrl_secure.periodic import PeriodicThread
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
        self._look_seconds = min(_LOOK_SECONDS, interval_seconds)
        self._waited_seconds = 0.0
        self._thread = PeriodicThread("refusals", self._look, every_seconds=self._look_seconds)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write the rest, once, and end."""
        self._thread.stop()
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

    def _look(self) -> None:
        self._waited_seconds += self._look_seconds
        if self._waited_seconds >= self._interval_seconds or self._counter.counted >= COUNT_MAX:
            self._waited_seconds = 0.0
            self.flush()
