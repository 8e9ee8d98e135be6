"""Who is judged before anything is waited for, and what is cut that does not come.

gRPC takes a call's one message in on a thread of the server, before it calls anybody: whoever sends none keeps the
thread, though nobody has looked yet at who it is. So our handlers take requests as streams, which costs nothing: the
caller is judged first, then its message is waited for, and not for ever.

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count, takewhile
from typing import Any

import grpc

from sfrl_secure.errors import MalformedError, UnavailableError
from sfrl_secure.periodic import PeriodicThread

_LOOK_SECONDS = 0.5
_NOTHING = object()


class MessageWatch:
    """Waits for calls' messages. Safe for any number of threads; `start`, then `stop` once."""

    def __init__(self, seconds: float, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Cut a call that has not brought its message after so long, or half a second more."""
        self._seconds, self._monotonic = seconds, monotonic
        self._lock = threading.Lock()
        self._numbers = count()
        # By rising number, so by rising end.
        self._waiting: dict[int, tuple[float, grpc.ServicerContext]] = {}
        self._thread = PeriodicThread("message-watch", self.cut_overdue, every_seconds=_LOOK_SECONDS)

    def start(self) -> None:
        """Begin to cut."""
        self._thread.start()

    def stop(self) -> None:
        """Cut no more."""
        self._thread.stop()

    def take(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        """Wait for a call's one message.

        Raises:
            MalformedError: the caller ended its side without one.
            UnavailableError: it did not come in time, or the caller went away; nobody is there to be told.
        """
        message = self._next(requests, context)
        if message is _NOTHING:
            raise MalformedError("the call brought no message")
        return message

    def each(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        """Wait for each of a call's messages; the caller may end its side after any of them.

        Raises:
            UnavailableError: one did not come in time, or the caller went away.
        """
        while (message := self._next(requests, context)) is not _NOTHING:
            yield message
            del message

    def _next(self, requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = (self._monotonic() + self._seconds, context)
        try:
            return next(requests, _NOTHING)
        except grpc.RpcError:
            raise UnavailableError("the call brought no message in time") from None
        finally:
            with self._lock:
                del self._waiting[number]

    def cut_overdue(self) -> None:
        """Cut the calls that are overdue now."""
        now = self._monotonic()
        with self._lock:
            overdue = list(takewhile(lambda each: each[0] <= now, self._waiting.values()))
        for _, context in overdue:
            context.cancel()
