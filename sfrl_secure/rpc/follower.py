"""Following the log: one call after the other, in a thread, and whoever waits for how far it is.

What arrives is verified by `verified_log`. What does not fit ends the following for good: it never gives out another
entry, and whoever waits gets the error with its evidence. A service that is merely away is asked again, from where we
are.

Until the log has agreed once, with a checkpoint of all that was given out, nobody acts on that: see `wait_agreed`.

Runs in: gatekeeper, aggregator.
Trusts: the trust policy. Of what it goes on from, see `follower_start`. Nothing that arrives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

import structlog

from sfrl_secure.errors import SfrlError, UnavailableError, UncertainStateError
from sfrl_secure.rpc.follower_start import CoveredTree, FollowerStart
from sfrl_secure.rpc.verified_log import OnEntry, VerifiedLog
from sfrl_secure.translog.opened import OpenedCheckpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.audit_service import FollowBatch

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0


class FollowedBatches(Protocol):
    """Batches as they come; `cancel` ends them from another thread."""

    def __iter__(self) -> Iterator[FollowBatch]: ...

    def cancel(self) -> None:
        """End the batches."""
        ...


class FollowSource(Protocol):
    """Where batches come from: `clients.AuditLogClient`, or a log in memory."""

    def follow(self, first_index: int) -> FollowedBatches:
        """Follow the log from an index on."""
        ...


class LogFollower:
    """Follows one log in a thread of its own. Safe for several threads.

    `size` counts the entries that `on_entry` has taken: whoever waits for a size finds them all in its state.
    """

    def __init__(
        self,
        source: FollowSource,
        *,
        origin: str,
        policy: TrustPolicy,
        on_entry: OnEntry,
        on_witnessed: Callable[[int], None] = lambda size: None,
        on_covered: Callable[[], None] = lambda: None,
        on_heard: Callable[[], None] = lambda: None,
        on_failed: Callable[[SfrlError], None] = lambda failure: None,
        start: FollowerStart | None = None,
        floor: CoveredTree | None = None,
        on_restart: Callable[[], None] = lambda: None,
    ) -> None:
        """Prepare to follow.

        Args:
            on_witnessed: told each size that comes under the quorum, after its entries were given out.
            on_covered: called when the log has signed for all that was given out, by the thread that gives it out; it
                may take a `position`.
            on_heard: called when the log says that it has nothing new, and all that it had was given out: at least once
                a second, as long as the call lasts and we keep up.
            on_failed: told once what ended the following for good; the state behind `on_entry` is stale from then on.
            start: where to go on; from the first entry where there is none.
            floor: without `start`, what the log has signed before, verified: it must come to that again.
            on_restart: told that `start` did not fit, by the thread that gives out: all entries come anew.

        Raises:
            MalformedError, VerificationError: `start` is not this log's.
        """
        self._source = source
        self._on_witnessed, self._on_covered, self._on_failed = on_witnessed, on_covered, on_failed
        self._on_heard, self._on_restart = on_heard, on_restart
        self._log = structlog.get_logger()
        # Of the follower's thread alone; what others see of it is below, under `_changed`.
        self._verified = VerifiedLog(origin, policy, on_entry, self._settled, start, floor)
        self._changed = threading.Condition()
        self._signed, self._witnessed = self._verified.signed, self._verified.witnessed
        self._is_agreed, self._taken = False, 0
        self._failure: SfrlError | None = None
        self._stopping = threading.Event()
        self._batches: FollowedBatches | None = None
        self._calls_again = False
        self._thread = threading.Thread(target=self._run, name="log-follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End following; waits for the thread. Whoever waits gets an UnavailableError."""
        with self._changed:
            self._stopping.set()
            batches = self._batches
            self._changed.notify_all()
        if batches is not None:
            batches.cancel()
        if self._thread.ident is not None:
            self._thread.join()

    def call_again(self) -> None:
        """Follow on with another call: under a renewed certificate, before the one of this call expires."""
        with self._changed:
            self._calls_again = True
            batches = self._batches
        if batches is not None:
            batches.cancel()

    @property
    def size(self) -> int:
        """Entries that the log has signed for, and `on_entry` has taken."""
        return self.signed.tree_size

    @property
    def signed(self) -> CoveredTree:
        """The newest size under the log's keys."""
        with self._changed:
            return self._signed

    @property
    def witnessed(self) -> CoveredTree:
        """The newest size under the witness quorum."""
        with self._changed:
            return self._witnessed

    @property
    def witnessed_size(self) -> int:
        """Entries under the witness quorum."""
        return self.witnessed.tree_size

    @property
    def failure(self) -> SfrlError | None:
        """What ended the following for good, or None."""
        with self._changed:
            return self._failure

    def wait_for(self, size: int, timeout_seconds: float) -> None:
        """Wait until at least `size` entries were taken.

        Raises:
            UnavailableError: not in time, or the follower was stopped.
            SfrlError: what ended the following.
        """
        self._wait(lambda: self._signed.tree_size >= size, timeout_seconds)

    def wait_witnessed(self, size: int, timeout_seconds: float) -> None:
        """Wait until at least `size` entries are under the witness quorum.

        Raises:
            UnavailableError: not in time, or the follower was stopped.
            SfrlError: what ended the following.
        """
        self._wait(lambda: self._witnessed.tree_size >= size, timeout_seconds)

    def wait_agreed(self, quiet_seconds: float) -> None:
        """Wait until the log has signed for all that was given out, and for what we went on from.

        Args:
            quiet_seconds: for how long nothing may come; a long log may take longer in all.

        Raises:
            UnavailableError: nothing came for so long, or the follower was stopped.
            SfrlError: what ended the following.
        """
        while True:
            with self._changed:
                before = self._taken
            self._wait(lambda: self._is_agreed or self._taken != before, quiet_seconds)  # noqa: B023 - ends before
            with self._changed:
                if self._is_agreed:
                    return

    def position(self) -> FollowerStart:
        """Where another follower may go on. For `on_covered`, and for after `stop`."""
        return self._verified.position()

    def _wait(self, reached: Callable[[], bool], timeout_seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: reached() or self._failure is not None or self._stopping.is_set(), timeout_seconds
            )
            # A failed log is not acted upon, however far it got.
            if self._failure is not None:
                raise self._failure
            if not reached():
                raise UnavailableError("the log did not get that far in time")

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            begun = self.size
            try:
                self._follow_once()
            except UnavailableError as away:
                if self._is_calling_again():
                    continue
                self._log.warning("log_unavailable", error=type(away).__name__, log_size=self.size)
            except SfrlError as failure:
                if not self._verified.may_begin_anew(failure):
                    self._fail(failure)
                    return
                self._begin_anew(failure)
            except Exception as failure:  # noqa: BLE001 - a fault of ours: nobody may wait for ever on a dead thread
                self._log.error("follower_failed", error=type(failure).__name__, log_size=self.size)
                self._fail(UncertainStateError("following the log failed"))
                return
            pause = FIRST_PAUSE_SECONDS if self.size > begun else min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._stopping.wait(pause)

    def _is_calling_again(self) -> bool:
        with self._changed:
            asked, self._calls_again = self._calls_again, False
        return asked

    def _follow_once(self) -> None:
        batches = self._source.follow(self._verified.begin_call())
        with self._changed:
            self._batches = batches
        if self._stopping.is_set():
            batches.cancel()
            return
        for batch in _received(batches):
            self._verified.take(batch)
            with self._changed:
                self._taken = self._verified.size
                self._changed.notify_all()
            if batch.is_heartbeat and self._verified.is_caught_up:
                self._on_heard()
        batches.cancel()

    def _settled(self, opened: OpenedCheckpoint) -> None:
        with self._changed:
            self._signed, self._witnessed = self._verified.signed, self._verified.witnessed
            self._is_agreed = self._verified.is_agreed
            self._changed.notify_all()
        # Only now: whoever is woken by it finds the checkpoint here.
        if opened.quorum_met:
            self._on_witnessed(opened.checkpoint.size)
        if self._verified.is_agreed:
            self._on_covered()

    def _begin_anew(self, failure: SfrlError) -> None:
        self._log.warning("snapshot_discarded", error=type(failure).__name__, log_size=self.size)
        self._verified.begin_anew()
        with self._changed:
            self._signed, self._witnessed = self._verified.signed, self._verified.witnessed
        self._on_restart()

    def _fail(self, failure: SfrlError) -> None:
        self._log.error("log_contradicts", error=type(failure).__name__, log_size=self.size)
        with self._changed:
            self._failure = failure
            self._changed.notify_all()
        self._on_failed(failure)


def _received(batches: FollowedBatches) -> Iterator[FollowBatch]:
    """Yield the batches; any error of the call itself, whatever it says, only means that the log is away."""
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except SfrlError as error:
            raise UnavailableError(f"the log's stream ended with {type(error).__name__}") from error
        yield batch
