"""Keeping many envelopes under way: the client's side of StreamEntries.

Requests go out as they are submitted, answers come back in their order, so the oldest request without an answer is
whose the next answer is. When the stream ends, for whatever reason, every request without an answer fails with the
same error: its envelopes may be in the log; submitted again, on another stream, they are found or ordered.

Format: proto/sfrl/audit/v1/audit_service.proto, "StreamEntries".

Runs in: gatekeeper, aggregator.
Trusts: the channel, for who answers.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import ExhaustedError, MalformedError, SfrlError, UnavailableError
from sfrl_secure.rpc.channel import RpcStream
from sfrl_secure.rpc.status import error_of_refusal
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.append_entries import encode_entries_request, parse_entries_response
from sfrl_secure.wire.audit_service import AppendedEntry

UNANSWERED_MAX = 64
"""Requests that a stream keeps without an answer, in memory."""

Results = tuple[AppendedEntry | SfrlError, ...]


class AppendStream:
    """One stream. Safe for several threads; `submit` any number of times, then `close` once."""

    def __init__(self, begin: Callable[[Iterator[bytes]], RpcStream]) -> None:
        """Begin the call: `begin` is given the requests and returns the answers."""
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(UNANSWERED_MAX)
        self._unanswered: deque[tuple[Future[Results], int]] = deque()
        self._ended: SfrlError | None = None
        self._stream = begin(iter(self._requests.get, None))
        self._reader = threading.Thread(target=self._read, name="append-stream", daemon=True)
        self._reader.start()

    def submit(self, envelopes: Sequence[Envelope], *, timeout_seconds: float = 20.0) -> Future[Results]:
        """Send 1 to 256 envelopes; wait while 64 requests are without an answer.

        Returns: for each what `AuditLogClient.append` returns, or the error that it would raise. The future fails with
            an SfrlError where the stream ended before the answer.

        Raises:
            MalformedError: more than one message takes.
            ExhaustedError: 64 requests are still without an answer; nothing was sent.
            SfrlError: the stream has ended; nothing was sent.
        """
        request = encode_entries_request(envelopes)
        if not self._room.acquire(timeout=timeout_seconds):
            raise ExhaustedError(f"{UNANSWERED_MAX} requests are without an answer")
        answer: Future[Results] = Future()
        answer.set_running_or_notify_cancel()  # what was sent cannot be called back
        with self._lock:
            if self._ended is not None:
                self._room.release()
                raise self._ended
            # Under the lock: the order of the futures is the order on the wire.
            self._unanswered.append((answer, len(envelopes)))
            self._requests.put(request)
        return answer

    def close(self, *, timeout_seconds: float = 20.0) -> None:
        """Send nothing more, take the answers that are due, and end the call."""
        with self._lock:
            if self._ended is None:
                self._ended = UnavailableError("the stream is closed")
        self._requests.put(None)
        self._reader.join(timeout_seconds)
        self._stream.cancel()
        self._reader.join()

    def __enter__(self) -> AppendStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _read(self) -> None:
        ended: SfrlError = UnavailableError("the log has ended the stream")
        try:
            for raw in self._stream:
                with self._lock:
                    if not self._unanswered:
                        raise MalformedError("the log answers what was not asked")
                    answer, count = self._unanswered[0]
                results = appended_of(raw, count)
                with self._lock:
                    self._unanswered.popleft()
                self._room.release()
                answer.set_result(results)
        except SfrlError as error:
            ended = error
        finally:
            self._fail(ended)

    def _fail(self, error: SfrlError) -> None:
        with self._lock:
            self._ended = self._ended or error
            failed = tuple(self._unanswered)
            self._unanswered.clear()
        self._stream.cancel()
        self._requests.put(None)  # lets gRPC's thread go
        for answer, _ in failed:
            self._room.release()
            answer.set_exception(error)


def appended_of(raw: bytes, count: int) -> Results:
    """Take the answer to `count` envelopes.

    Raises:
        MalformedError: not an answer, or to another number of envelopes.
    """
    answer = parse_entries_response(raw)
    if len(answer.results) != count:
        raise MalformedError("the log answers another number of envelopes than were sent")
    return tuple(
        AppendedEntry(result, answer.checkpoint) if isinstance(result, LoggedEntry) else error_of_refusal(result)
        for result in answer.results
    )
