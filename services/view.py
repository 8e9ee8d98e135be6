"""A service's view of the federation: the log, followed and folded.

The follower verifies chain, tree and checkpoints; the fold says what has effect. One lock guards both, and whoever
waits is woken by each batch. A service that starts takes the same way from entry 0, or from where a fold that went it
was kept (promise 5).

Whom the log admits is known only as long as the log is heard: it says at least once a second that there is nothing new.
A view that has not heard it for `STALE_SECONDS` may have missed a revocation, so it admits nobody, by itself.

Runs in: gatekeeper, aggregator.
Trusts: the log's keys and the witness quorum, from the trust policy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from sfrl_secure.errors import UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.snapshot import freeze_fold
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity import DoorTerms, RecordedIdentity, door_terms_of
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.wire.content import Content

STALE_SECONDS = 4.0
"""A view that has not heard the log for this long admits nobody. What the log says is not older than half a second, so
that a revocation bites within five, whatever happens to the connection."""

_log = structlog.get_logger()


class FederationView:
    """State of the federation up to the newest entry that was read.

    Attributes:
        witnessed_size: entries under the witness quorum.
    """

    def __init__(
        self,
        fold: FederationFold,
        witnessed_size: int = 0,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Go on where `fold` is; `on_entry`, `on_witnessed` and `on_heard` are the follower's callbacks."""
        self._fold = fold
        self._monotonic = monotonic
        self._heard: float | None = None
        self._changed = threading.Condition()
        self.witnessed_size = witnessed_size

    def on_entry(self, index: int, leaf: Digest, entry: LogEntry, content: Content | None) -> None:
        """Take one verified entry in, with its content, or None where that is malformed."""
        with self._changed:
            void = self._fold.apply(index, leaf, entry, content)
            self._changed.notify_all()
        if void is not None:
            _log.warning("void_entry", index=index, reason=void)

    def on_witnessed(self, size: int) -> None:
        """Note that the first `size` entries are under the quorum."""
        with self._changed:
            self.witnessed_size = max(self.witnessed_size, size)
            self._changed.notify_all()

    def on_heard(self) -> None:
        """Note that, a moment ago, the log had nothing that was not read."""
        self._heard = self._monotonic()

    def restart(self, fold: FederationFold) -> None:
        """Forget everything, and begin with another fold."""
        with self._changed:
            self._fold = fold
            self._heard = None
            self.witnessed_size = 0
            self._changed.notify_all()

    def freeze(self) -> Callable[[], bytes]:
        """Give what encodes the state of now, later."""
        with self._changed:
            return freeze_fold(self._fold)

    def lookup(self, spki_sha256: Digest) -> RecordedIdentity | None:
        """The identity that the log records for a TLS public key.

        Raises:
            UnavailableError: the log has not been heard lately.
        """
        self._check_fresh()
        # One look-up of a dictionary, without the lock: every call would wait for the batch that is folded.
        found = self._fold.state.identities.get(spki_sha256)
        return None if found is None else RecordedIdentity(found.spiffe_id, found.serial, found.not_after_us)

    def door_terms(self) -> DoorTerms:
        """What connections must be, by the services document in force.

        Raises:
            UnavailableError: the log has not been heard lately.
        """
        self._check_fresh()
        return door_terms_of(self._fold.state.services())

    def _check_fresh(self) -> None:
        heard = self._heard
        if heard is None or self._monotonic() - heard >= STALE_SECONDS:
            raise UnavailableError("the log has not been heard lately: who is admitted is not known")

    @contextmanager
    def reading(self) -> Iterator[FederationState]:
        """Hold the state still while it is read."""
        with self._changed:
            yield self._fold.state

    def wait_until(self, holds: Callable[[FederationState], bool], timeout_seconds: float) -> bool:
        """Wait until `holds` is true of the state; whether it came true in time."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while not holds(self._fold.state):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def wait_size(self, size: int, timeout_seconds: float) -> None:
        """Wait until `size` entries were read.

        Raises:
            UnavailableError: they were not in time.
        """
        if not self.wait_until(lambda state: state.size >= size, timeout_seconds):
            raise UnavailableError("the log's newest entries have not arrived")

    def wake(self) -> None:
        """Wake whoever waits, for a shutdown."""
        with self._changed:
            self._changed.notify_all()
