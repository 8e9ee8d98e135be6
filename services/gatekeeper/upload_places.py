"""Places for uploads: of all calls that would go on with one upload the newest does, when the one before has let go.

A link breaks, and its owner calls again before the old call is known to be dead. The old call ends at once where it
waits for something; where it only rests, for a message or for an answer to be sent, the new one lets go in its name and
waits for nobody. So there is one file of an upload here that somebody writes, however many calls there are.

Format: proto/README.md, "Upload".

Runs in: gatekeeper.
Trusts: nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sfrl_secure.errors import ConflictError, ExhaustedError, SfrlError
from sfrl_secure.services.gatekeeper.arrivals import CallEndedError

WAIT_SECONDS = 5.0
"""How long a call waits for the one before it, which decides, or copies a part of 1 MiB."""


class UploadPlace:
    """One call's place. For the call's thread; other calls take it by way of its slot.

    Attributes:
        left_bytes: what stays on the disk when the call ends; the call sets it.
        is_released: another call has let go of the upload in this one's name: nothing of it is touched any more.
        had_to_wait: the call before came to its own end, and may have decided the update.
    """

    def __init__(self, changed: threading.Condition) -> None:
        """Begin at work. All places of an upload share `changed`."""
        self.left_bytes = 0
        self.is_released = self.had_to_wait = False
        self._changed = changed
        self._is_taken = self._is_resting = False
        self._end: Callable[[SfrlError], None] | None = None
        self._release: Callable[[], None] | None = None

    def on_taken(self, end: Callable[[SfrlError], None], release: Callable[[], None]) -> None:
        """Say what another call does when it takes the place.

        Args:
            end: ends what this call waits for; called at once where the place was taken already.
            release: lets go of the upload and sets `left_bytes`; called while this call rests.
        """
        with self._changed:
            self._end, self._release, was_taken = end, release, self._is_taken
        if was_taken:
            end(_taken())

    @property
    def is_taken(self) -> bool:
        """Whether another call has the place."""
        return self._is_taken

    @property
    def is_resting(self) -> bool:
        """Whether the call touches nothing of the upload now."""
        return self._is_resting

    def check(self) -> None:
        """Check that the place is still this call's.

        Raises:
            CallEndedError: ConflictError, `superseded`.
        """
        if self._is_taken:
            raise CallEndedError(_taken())

    @contextmanager
    def resting(self) -> Iterator[None]:
        """Touch nothing of the upload inside: another call may take it.

        Raises:
            CallEndedError: one has.
        """
        with self._changed:
            self.check()
            self._is_resting = True
        try:
            yield
        finally:
            with self._changed:
                self._is_resting = False
        self.check()

    def take(self) -> None:
        """Another call takes the place."""
        with self._changed:
            self._is_taken, end = True, self._end
            self._changed.notify_all()
        if end is not None:
            end(_taken())

    def release(self) -> None:
        """Let go of the upload in the name of this call, which rested, and which `is_released` tells by now."""
        if self._release is not None:
            self._release()


@dataclass(eq=False, slots=True)
class UploadSlot:
    """One upload under way: who is at it, and who wants to be.

    Attributes:
        inside: whose call is at it.
        newest: whose call came last, and is inside or waits to be; None where it has gone again.
        left_bytes: what lies on the disk while nobody is inside.
    """

    size: int
    inside: UploadPlace | None
    newest: UploadPlace | None
    left_bytes: int

    def move_in(self, place: UploadPlace, changed: threading.Condition, wait_seconds: float) -> None:
        """Wait until the call inside has let go, or let go in its name; then be inside.

        Raises:
            CallEndedError: a newer call came.
            ExhaustedError: it does not let go in time; nothing was decided.
        """
        with changed:
            changed.wait_for(lambda: self.newest is not place or self._is_free, wait_seconds)
            place.check()
            if not self._is_free:
                raise ExhaustedError("another call is still at this upload: try again in some seconds")
            before, self.inside = self.inside, place
            place.had_to_wait = before is None
            if before is not None:
                before.is_released = True
        if before is not None:
            before.release()
            self.left_bytes = before.left_bytes
        place.left_bytes = self.left_bytes

    def leave(self, place: UploadPlace) -> bool:
        """Be neither inside nor the newest any more; whether nobody is now. Under the lock."""
        if self.newest is place:
            self.newest = None
        if self.inside is place:
            self.inside, self.left_bytes = None, place.left_bytes
        return self.inside is None and self.newest is None

    @property
    def _is_free(self) -> bool:
        return self.inside is None or self.inside.is_resting


def _taken() -> ConflictError:
    return ConflictError("another call goes on with this upload: nothing was decided", reason="superseded")
