"""An upload as whoever attacks makes it: each request when he likes, to the gatekeeper that he likes."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

from sfrl_secure.errors import SfrlError, UnavailableError
from sfrl_secure.wire import uploads
from sfrl_secure.wire.audit_service import AppendedEntry

from .arena import Arena, Signed

Said = int | AppendedEntry


class Sending:
    """One call of SubmitUpdate that is under way.

    Attributes:
        payload: what is sent; the signed one, until the test puts another in its place.
    """

    def __init__(
        self, arena: Arena, peer: str, signed: Signed, *, at: str = "g1", first: uploads.Chunk | None = None
    ) -> None:
        self.payload = signed[2]
        self._sending: queue.SimpleQueue[bytes | SfrlError | None] = queue.SimpleQueue()
        self._sending.put(uploads.encode_upload_start(signed[0], first))
        self._answers: Iterator[bytes] = arena.stream(uploads.SUBMIT_UPDATE, peer, self._requests(), at)

    def _requests(self) -> Iterator[bytes]:
        while (message := self._sending.get(timeout=10)) is not None:
            if isinstance(message, SfrlError):
                raise message
            yield message

    def said(self) -> Said:
        """The next answer."""
        return uploads.parse_upload_answer(next(self._answers))

    def send(self, begin: int, end: int) -> None:
        """Send a range of the payload as a chunk."""
        self._sending.put(uploads.encode_chunk(uploads.Chunk(begin, self.payload[begin:end])))

    def until(self, durable: int) -> None:
        """Wait until so much is durable."""
        while self.said() != durable:
            pass

    def rest(self) -> list[Said]:
        """All answers that still come, once the rest is sent."""
        return [uploads.parse_upload_answer(raw) for raw in self._answers]

    def cut(self) -> SfrlError:
        """Break the connection; give what the call ends with at the gatekeeper."""
        self._sending.put(UnavailableError("the link broke"))
        try:
            self.rest()
        except SfrlError as error:
            return error
        raise AssertionError("a call that is cut does not come to its end")


def leave(arena: Arena, peer: str, signed: Signed, bytes_left: int, **changes: Any) -> None:
    """Send the beginning of a payload, wait until it is durable, and break off."""
    sending = Sending(arena, peer, signed, **changes)
    assert sending.said() == 0
    sending.send(0, bytes_left)
    sending.until(bytes_left)
    sending.cut()
