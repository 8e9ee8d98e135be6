"""Trying again, where an end to end connection is not to be had: until the work is done or the caller's deadline.

Only what decides nothing is tried again: a service that does not answer, that has too much in work, that lost a race.
Pauses double, less a random part, so that many callers do not come back at once; work that went on since the last
attempt begins with the shortest pause again.

Runs in: participant, cli.
Trusts: its caller.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from sfrl_secure.errors import ClosedError, ConflictError, ExhaustedError, UnavailableError

T = TypeVar("T")

UNDECIDED = (ConflictError, ExhaustedError, UnavailableError)
"""What decides nothing."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How somebody waits.

    Attributes:
        monotonic: seconds of a clock that never goes back.
        sleep: waits so many seconds.
        jitter: a number from 0.5 to 1.0, another one each time.
    """

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    jitter: Callable[[], float] = lambda: random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing

    def keep_trying(
        self, attempt: Callable[[float], T], *, deadline_seconds: float, done: Callable[[], int] = lambda: 0
    ) -> T:
        """Return `attempt(seconds left)`, tried again while nothing is decided and time is left.

        Args:
            done: how much of the work is done; where it grows, the next pause is short again.

        Raises:
            ConflictError, ExhaustedError, UnavailableError: the last one, when no time is left for another attempt.
            SfrlError: any other error of an attempt, at once; `ClosedError` among them.
        """
        end = self.monotonic() + deadline_seconds
        pause, before = FIRST_PAUSE_SECONDS, done()
        while True:
            try:
                return attempt(max(end - self.monotonic(), 0.001))
            except ClosedError:
                raise
            except UNDECIDED:
                if done() > before:
                    pause, before = FIRST_PAUSE_SECONDS, done()
                shortened = pause * self.jitter()
                if self.monotonic() + shortened >= end:
                    raise
                self.sleep(shortened)
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
