"""The messages of a call as they come, waited for with a bound.

gRPC's stream of requests can only be waited on without end. Here a thread of the call's own waits, and whoever handles
the call can look up meanwhile: to say how far it has come, or to make way for another call.

Runs in: gatekeeper.
Trusts: nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import TracebackType

from sfrl_secure.errors import SfrlError, UnavailableError


class CallEndedError(SfrlError):
    """The stream of requests ended in an error, which is the call's and says nothing of its update.

    Attributes:
        error: what ended it.
    """

    def __init__(self, error: SfrlError) -> None:
        super().__init__(str(error))
        self.error = error


class Arrivals:
    """A call's messages. Used by one thread; leave it when the call ends."""

    def __init__(self, requests: Iterator[bytes], reads_ahead: Callable[[], bool] = lambda: True) -> None:
        """Begin to wait with the first `next`.

        Args:
            reads_ahead: whether the message after the one that was taken is received at once; else when it is asked
                for, which is slower and takes less memory.
        """
        self._requests, self._reads_ahead = requests, reads_ahead
        self._is_wanted = True
        self._changed = threading.Condition()
        self._message: bytes | None = None
        self._has_ended = False
        self._error: SfrlError | None = None
        self._is_left = False
        self._has_begun = False
        self._is_woken = False

    def __enter__(self) -> Arrivals:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # gRPC ends the stream with the call: the thread that still waits for it then ends too.
        with self._changed:
            self._is_left = True
            self._message = None
            self._changed.notify_all()

    @property
    def has_ended(self) -> bool:
        """The caller sends nothing more, and all that it sent was taken."""
        with self._changed:
            return self._has_ended and self._message is None

    def next(self, timeout_seconds: float | None) -> bytes | None:
        """Give the next message; None where none has come in time, or `wake` was called, or `has_ended`.

        Raises:
            CallEndedError: the stream ended in an error, or `end` was called.
        """
        if not self._has_begun:
            self._has_begun = True
            threading.Thread(target=self._run, name="arrivals", daemon=True).start()
        with self._changed:
            self._is_wanted = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._message is not None or self._is_over, timeout_seconds)
            self._is_woken = False
            if self._error is not None:
                raise CallEndedError(self._error)
            message, self._message = self._message, None
            self._is_wanted = message is None
            self._changed.notify_all()
            return message

    def end(self, error: SfrlError) -> None:
        """Let the handler's next look end in this error. For any thread."""
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def wake(self) -> None:
        """Let the handler look up, now or when it next would wait. For any thread."""
        with self._changed:
            self._is_woken = True
            self._changed.notify_all()

    def _may_go_on(self) -> bool:
        return self._is_left or (self._message is None and (self._is_wanted or self._reads_ahead()))

    @property
    def _is_over(self) -> bool:
        return self._has_ended or self._is_woken or self._error is not None

    def _run(self) -> None:
        try:
            for message in self._requests:
                with self._changed:
                    if self._is_left:
                        return
                    self._message = message
                    del message
                    self._changed.notify_all()
                    # The next one is received while this one is worked on, at the earliest.
                    self._changed.wait_for(self._may_go_on)
                    if self._is_left:
                        return
        except SfrlError as error:
            self.end(error)
        except Exception:  # noqa: BLE001 - whatever gRPC raises: the caller has gone
            self.end(UnavailableError("the caller has gone"))
        else:
            with self._changed:
                self._has_ended = True
                self._changed.notify_all()
