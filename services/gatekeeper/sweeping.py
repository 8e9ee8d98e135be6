"""What uploads left and nobody went on with, removed: at the start and once an hour, what is older than a day.

Runs in: gatekeeper.
Trusts: nothing.
"""

from __future__ import annotations

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.errors import SfrlError
from sfrl_secure.periodic import PeriodicThread
from sfrl_secure.storage.uploads import Uploads

KEPT_US = 86_400_000_000
"""For so long a broken upload can be gone on with, where its round is open."""

EVERY_SECONDS = 3_600.0

_log = structlog.get_logger()


class UploadSweeper:
    """Sweeps. `start`, then `stop` once."""

    def __init__(self, uploads: Uploads, clock: Clock) -> None:
        self._uploads, self._clock = uploads, clock
        self._thread = PeriodicThread("sweeper", self.sweep, every_seconds=EVERY_SECONDS, at_once=True)

    def start(self) -> None:
        """Begin to sweep."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._thread.stop()

    def sweep(self) -> None:
        """Remove what is too old; what cannot be removed now is tried again."""
        try:
            removed = self._uploads.sweep(self._clock.now_us() - KEPT_US)
        except SfrlError as error:
            _log.warning("uploads_not_swept", error=type(error).__name__)
            return
        if removed:
            _log.info("uploads_swept", count=removed)
