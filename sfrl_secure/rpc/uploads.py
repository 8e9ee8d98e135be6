"""The participant's half of an upload: chunks in order, not more under way than the link carries, on where it broke.

Whoever begins sends the envelope and a chunk at once; whoever goes on sends the envelope alone and learns from the
first answer what is durable. A request is handed to gRPC when the window allows (`pace`): gRPC sends what it has. An
answer to what is under way is always due: a gatekeeper that hears nothing more says what is durable after 200 ms.

Format: proto/README.md, "Upload".

Runs in: participant, cli.
Trusts: the channel, for who answers. Receipt A is verified by whoever acts on it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError, UnavailableError
from sfrl_secure.rpc.channel import RpcChannel
from sfrl_secure.rpc.pace import Pace, UnderWay
from sfrl_secure.rpc.sources import BytesSource, PayloadSource
from sfrl_secure.rpc.trying import Patience
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.uploads import (
    SUBMIT_UPDATE,
    Chunk,
    encode_upload_start,
    frame_chunk,
    parse_upload_answer,
)

SILENCE_SECONDS = 60.0
"""A call over which nothing goes either way for so long is given up, and another one made."""

UploadProgress = Callable[[int, int], None]
"""Takes the bytes of a payload that are durable, and how many it has."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """An upload that was admitted.

    Attributes:
        admitted: receipt A, as it came.
        request_bytes: length of all request messages that were handed to gRPC, those of broken calls among them.
    """

    admitted: AppendedEntry
    request_bytes: int


class Uploader:
    """Sends updates over one channel, one at a time, and remembers what its link carries."""

    def __init__(self, channel: RpcChannel, patience: Patience) -> None:
        self._channel, self._patience = channel, patience
        self._pace = Pace()

    def send(
        self,
        envelope: Envelope,
        payload: bytes | memoryview | PayloadSource,
        *,
        deadline_seconds: float,
        on_progress: UploadProgress | None = None,
    ) -> Uploaded:
        """Send an update until it is decided.

        Raises:
            DeniedError: refused, with the reason and, where it has one, the entry's index.
            MalformedError: it is no update, or the answers are none.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided in time; what is durable by then is
                kept until the round's deadline, and sending the same envelope again goes on from there.
        """
        source = BytesSource(payload) if isinstance(payload, bytes | memoryview) else payload
        upload = _Upload(envelope, source, self._pace, self._patience.monotonic, on_progress)

        admitted = self._patience.keep_trying(
            lambda left: upload.over(self._channel, left),
            deadline_seconds=deadline_seconds,
            done=lambda: upload.durable_bytes,
        )
        return Uploaded(admitted, upload.request_bytes)


class _Upload:
    """One update on its way, over as many calls as it takes."""

    def __init__(
        self,
        envelope: Envelope,
        source: PayloadSource,
        pace: Pace,
        monotonic: Callable[[], float],
        on_progress: UploadProgress | None,
    ) -> None:
        self._envelope, self._source, self._pace = envelope, source, pace
        self._monotonic, self._on_progress = monotonic, on_progress
        self.request_bytes = 0
        self.durable_bytes = 0

    def over(self, channel: RpcChannel, deadline_seconds: float) -> AppendedEntry:
        """Make one call."""
        call = _Call(self._envelope, self._source, self._pace, self._monotonic, is_fresh=not self.request_bytes)
        stream = channel.exchange(SUBMIT_UPDATE, self._counted(call.requests()), deadline_seconds=deadline_seconds)
        watch = threading.Thread(target=call.watch, args=(stream.cancel,), name="upload-watch", daemon=True)
        watch.start()
        try:
            for raw in stream:
                answer = parse_upload_answer(raw)
                if isinstance(answer, AppendedEntry):
                    self._tell(self._source.size)
                    return answer
                call.take(answer)
                self._tell(answer)
            call.check_source()
            raise UnavailableError("the gatekeeper ended the call before it had decided")
        except UnavailableError:
            call.check_source()
            call.broke()
            raise
        finally:
            call.end()
            stream.cancel()
            watch.join()

    def _counted(self, requests: Iterator[bytes]) -> Iterator[bytes]:
        for request in requests:
            self.request_bytes += len(request)
            yield request

    def _tell(self, durable_bytes: int) -> None:
        self.durable_bytes = durable_bytes
        if self._on_progress is not None:
            self._on_progress(durable_bytes, self._source.size)


class _Call:
    """One call: gRPC's thread draws `requests`, the caller's hands over the answers."""

    def __init__(
        self, envelope: Envelope, source: PayloadSource, pace: Pace, monotonic: Callable[[], float], *, is_fresh: bool
    ) -> None:
        self._envelope, self._source, self._pace, self._monotonic = envelope, source, pace, monotonic
        self._under_way = UnderWay(pace, source.size, is_fresh=is_fresh)
        self._changed = threading.Condition()
        self._failed: MalformedError | None = None
        self._has_ended = False
        self._heard_at = monotonic()

    def requests(self) -> Iterator[bytes]:
        """Give each request when it may be sent."""
        try:
            with self._changed:
                length = self._under_way.room()
            yield encode_upload_start(self._envelope, self._take_chunk(length) if length else None)
            while (length := self._wait_for_room()) > 0:
                chunk = self._take_chunk(length)
                yield frame_chunk(chunk.offset, chunk.data)
        except MalformedError as error:  # a file that has become shorter; nobody above this thread would hear of it
            with self._changed:
                self._failed = error
                self._changed.notify_all()

    def take(self, durable: int) -> None:
        """Take an answer that is not the last.

        Raises:
            MalformedError: it cannot be true.
        """
        with self._changed:
            self._heard_at = self._monotonic()
            self._under_way.answered(durable, self._heard_at)
            self._changed.notify_all()

    def check_source(self) -> None:
        """Check that the payload could be read.

        Raises:
            MalformedError: it could not.
        """
        with self._changed:
            if self._failed is not None:
                raise self._failed

    def broke(self) -> None:
        """Take it that the connection broke; one that had nothing to carry says nothing of the link."""
        with self._changed:
            if self._under_way.unconfirmed_bytes:
                self._pace.broke()

    def end(self) -> None:
        """Let go whoever waits."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def watch(self, cancel: Callable[[], None]) -> None:
        """End the call where nothing goes over it any more, or the payload cannot be read."""
        with self._changed:
            while not self._has_ended and self._failed is None:
                quiet = self._monotonic() - self._heard_at
                if quiet >= SILENCE_SECONDS:
                    break
                self._changed.wait(SILENCE_SECONDS - quiet)
            if self._has_ended:
                return
        cancel()

    def _wait_for_room(self) -> int:
        """Wait until the next chunk may be sent; give how long it may be, 0 where there is none."""
        with self._changed:
            while not self._has_ended and not self._under_way.is_all_sent:
                if room := self._under_way.room():
                    return room
                self._changed.wait()
            return 0

    def _take_chunk(self, length: int) -> Chunk:
        offset = self._under_way.sent
        data = self._source.read(offset, length)
        with self._changed:
            self._heard_at = self._monotonic()
            self._under_way.hand_over(offset, length, self._heard_at)
        return Chunk(offset, data)
