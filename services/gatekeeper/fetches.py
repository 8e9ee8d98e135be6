"""Model downloads, logged in batches: the entry stands before the first byte goes out (promise 2).

A participant's fetch of a model is written once, however often he comes for it or for a range of it: so he has none
without a trace, and cannot fill the log. Two gatekeepers that hear of it at the same moment write it twice.

Fetches that come within one interval share an entry. Whoever waits is answered when its entry is durable, or told why
it is not; then nothing goes out.

Format: proto/README.md, "Download".

Runs in: gatekeeper.
Trusts: the view.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress

from sfrl_secure.clock import Clock
from sfrl_secure.errors import SfrlError, UnavailableError
from sfrl_secure.governance.statements import ModelFetch, ModelsFetched
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.services.writer import Proposal, StatementWriter

FETCHES_MAX = 256
"""Fetches in one entry."""

_Key = tuple[str, str, Digest]


class FetchLog:
    """Collects fetches and writes them, one entry a segment and interval."""

    def __init__(self, writer: StatementWriter, clock: Clock, *, interval_seconds: float = 0.02) -> None:
        """Begin with nothing pending.

        Args:
            interval_seconds: how long a fetch waits for others to share its entry.
        """
        self._writer = writer
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._pending: dict[_Key, list[Future[None]]] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="fetches", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def stop(self) -> None:
        """Write what is pending and end."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def record(self, segment: str, participant: str, model: Digest, timeout_seconds: float) -> None:
        """Return when the fetch is in the log; it may be there already.

        Raises:
            UnavailableError: it is not there in time, or we are stopping.
            SfrlError: the log refused it.
        """
        waiting: Future[None] = Future()
        with self._changed:
            if self._stopping:
                raise UnavailableError("the gatekeeper is stopping")
            self._pending.setdefault((segment, participant, model), []).append(waiting)
            self._changed.notify_all()
        try:
            waiting.result(timeout_seconds)
        except TimeoutError:
            raise UnavailableError("the fetch could not be logged in time") from None

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or bool(self._pending))
                if not self._pending:
                    return
                # Each fetch that joins wakes us: the interval goes on until it is over.
                self._changed.wait_for(lambda: self._stopping, self._interval_seconds)
                pending, self._pending = self._pending, {}
            for segment in sorted({key[0] for key in pending}):
                keys = sorted(key for key in pending if key[0] == segment)
                for first in range(0, len(keys), FETCHES_MAX):
                    self._write(segment, keys[first : first + FETCHES_MAX], pending)

    def _write(self, segment: str, keys: list[_Key], pending: dict[_Key, list[Future[None]]]) -> None:

        def decide(state: FederationState, now_us: int) -> Proposal:
            on_record = state.segment(segment).fetches
            fetches = tuple(ModelFetch(*key[1:]) for key in keys if not on_record[key[1:]])
            if not fetches:
                raise _OnRecordError
            from_us = now_us - int(self._interval_seconds * 1_000_000)
            return Proposal(f"segment/{segment}", ModelsFetched(from_us, now_us, fetches))

        waiting = [future for key in keys for future in pending[key]]
        try:
            with suppress(_OnRecordError):
                self._writer.write(decide, attempts=10)
        except SfrlError as error:
            for future in waiting:
                future.set_exception(error)
        except BaseException as error:
            for future in waiting:
                future.set_exception(UnavailableError("the fetch could not be logged"))
            raise error
        else:
            for future in waiting:
                future.set_result(None)


class _OnRecordError(SfrlError):
    """The log has all of it."""
