"""StreamEntries, as the log serves it: one thread takes requests in, the call's own thread answers in their order.

So many requests are under way and no more: while the window is full, and while the sequencer's queue has no room, the
stream is not read, and gRPC's flow control holds the caller back. The interceptor judges the caller before each
request; when it no longer admits it, what is under way is answered, and the stream ends with the refusal.

Format: proto/sfrl/audit/v1/audit_service.proto.

Runs in: audit_log.
Trusts: the interceptor, for who calls. Nothing in a request.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from sfrl_secure.errors import ExhaustedError
from sfrl_secure.rpc.identity import Peer
from sfrl_secure.services.audit_log.appending import APPEND_SECONDS, Appending, Pending
from sfrl_secure.wire.append_entries import encode_entries_response, parse_entries_request

WINDOW_REQUESTS = 16
"""Requests of one stream under way."""

_LOOK_SECONDS = 0.25
_PAUSE_SECONDS = 0.002


class EntryExchange:
    """One stream. `answers` is called once."""

    def __init__(self, appending: Appending, peer: Peer, closing: threading.Event) -> None:
        """Serve `peer` until the stream ends or `closing` is set."""
        self._appending = appending
        self._peer = peer
        self._closing = closing
        self._has_ended = threading.Event()
        # What is under way, in order; at the end the error that ended the reading, or None.
        self._window: queue.Queue[Pending | Exception | None] = queue.Queue(WINDOW_REQUESTS)

    def answers(self, requests: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the answer to each request.

        Raises:
            SfrlError: the caller is no longer admitted, a request is malformed as a whole, or the log has failed or is
                too busy; requests before that were answered.
        """
        reader = threading.Thread(target=self._read, args=(requests,), name="append-stream", daemon=True)
        reader.start()
        try:
            while (pending := self._next()) is not None:
                yield encode_entries_response(self._appending.finish(pending, self._peer))
        finally:
            self._has_ended.set()

    def _next(self) -> Pending | None:
        while True:
            try:
                following = self._window.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._closing.is_set():
                    return None
                continue
            if isinstance(following, Exception):
                raise following
            return following

    def _read(self, requests: Iterator[bytes]) -> None:
        end: Exception | None = None
        try:
            for request in requests:
                if self._has_ended.is_set() or not self._put(self._begin(request)):
                    return
        except Exception as error:  # noqa: BLE001 - whatever it is, the call's own thread raises it to the interceptor
            end = error
        self._put(end)

    def _begin(self, request: bytes) -> Pending:
        judged = self._appending.judge(parse_entries_request(request), self._peer)
        until = time.monotonic() + APPEND_SECONDS
        while True:
            try:
                return self._appending.submit(judged)
            except ExhaustedError:
                # The queue's bound is not the caller's fault here: it is not read until there is room.
                if self._has_ended.wait(_PAUSE_SECONDS) or time.monotonic() >= until:
                    raise

    def _put(self, following: Pending | Exception | None) -> bool:
        while not self._has_ended.is_set():
            with suppress(queue.Full):
                self._window.put(following, timeout=_LOOK_SECONDS)
                return True
        return False
