"""Taking payloads in: what comes is written, hashed, decoded and measured at once, and never held as a whole.

The call's own thread hashes and writes, and `decoders` read the leaves beside it. A call that breaks leaves what is
durable for whoever goes on with it; what is judged and kept becomes the object of its name.

What an earlier call left is hearsay: it lay on a disk, and whoever sent it need not have had the payload. Where it does
not lead to the root that was signed, it is forgotten, and nothing is decided. Where all of it does, it is the signer's,
and is decided like any other.

Format: proto/README.md, "Upload".

Runs in: gatekeeper.
Trusts: nothing that comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from types import TracebackType

from sfrl_secure.errors import ConflictError, DeniedError, MalformedError, UnavailableError
from sfrl_secure.ids import Digest, SpiffeId, sha256
from sfrl_secure.rounds.payloads import MeasuredUpdate, PayloadJudge
from sfrl_secure.services.gatekeeper.admit import Submission
from sfrl_secure.services.gatekeeper.arrivals import Arrivals
from sfrl_secure.services.gatekeeper.bounds import TAKEN_OVER_A_MINUTE_MAX, TAKEN_OVER_TIMES, PeerRate
from sfrl_secure.services.gatekeeper.decoders import Decoders, Lane
from sfrl_secure.services.gatekeeper.upload_bounds import UploadBounds
from sfrl_secure.services.gatekeeper.upload_places import UploadPlace
from sfrl_secure.storage.objects import Objects
from sfrl_secure.storage.uploads import Upload, Uploads
from sfrl_secure.wire.uploads import Chunk, parse_chunk

SAY_BYTES = 4 * 1024 * 1024
"""A sender learns that so much is durable before more than this is not."""

SAY_SECONDS = 0.2
"""A sender that is slower learns how far it has come with what comes this long after it last did, or when nothing
more has come for so long."""

READ_AHEAD_UPLOADS = 4
"""While no more than so many are under way, the next chunk is received while one is worked on."""

RECHECK_SECONDS = 1.0
"""Whether the header would still pass is looked at again with what is said, at most so often."""


def upload_name(statement_digest: Digest, peer: SpiffeId) -> Digest:
    """What an upload is kept under: nobody goes on with bytes that another peer sent."""
    return sha256(statement_digest + peer.encode("ascii"))


class UploadIntake:
    """What all uploads share. Stop it when no call is under way any more."""

    def __init__(
        self,
        uploads: Uploads,
        objects: Objects,
        bounds: UploadBounds,
        decoders: Decoders,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.uploads, self.objects, self.bounds, self.decoders = uploads, objects, bounds, decoders
        self.monotonic = monotonic
        self._taken_over = PeerRate(TAKEN_OVER_A_MINUTE_MAX, 60_000_000, of="bytes of broken uploads copied")

    def check_rate(self, peer: SpiffeId, held: int, size: int) -> None:
        """Count what a call is about to take over of a payload of `size` bytes.

        Raises:
            ExhaustedError: the peer has had too much copied; what is held stays.
        """
        if held:
            now_us = int(self.monotonic() * 1_000_000)
            self._taken_over.take(peer, now_us, held, at_least=TAKEN_OVER_TIMES * size)

    def start(self) -> None:
        """Begin to decode."""
        self.decoders.start()

    def stop(self) -> None:
        """End the threads."""
        self.decoders.stop()

    def payload(self, request: Submission, first: Chunk | None, later: Iterator[bytes]) -> IncomingPayload:
        """The payload of a submission: with the first request's chunk, and the requests that come after it."""
        return IncomingPayload(self, request, first, later)


class IncomingPayload:
    """A payload that comes (`admit.Payload`). Leave it when the call ends: what is durable then stays."""

    def __init__(
        self, intake: UploadIntake, request: Submission, first: Chunk | None, later: Iterator[bytes]
    ) -> None:
        self._intake = intake
        self._request, self._update = request, request.update
        self._first, self._later = first, later
        self._open, self._writing = ExitStack(), ExitStack()
        self._upload: Upload | None = None
        self._place: UploadPlace | None = None
        self._is_kept = False

    def __enter__(self) -> IncomingPayload:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            if self._place is None or not self._place.is_released:
                self._writing.close()

    def receive(
        self, judge: PayloadJudge, recheck: Callable[[], None], leads_to_root: Callable[[], bool] = lambda: False
    ) -> Generator[int, None, MeasuredUpdate]:
        """Let `judge` decide all of it, once as it comes, then from where it was kept; yield how much is durable.

        Raises:
            DeniedError: what the judge finds.
            ExhaustedError: there is no room for it now.
            MalformedError: chunks that do not follow each other, or go on behind the payload's end.
            CallEndedError, UnavailableError, ConflictError: it did not come to its end; nothing was decided.
        """
        if self._is_kept:
            with self._intake.objects.open(self._update.payload_sha256, self._update.payload_bytes) as stored:
                for part in stored.chunks():
                    judge.feed(part)
            return judge.finish()
        if self._upload is not None:
            raise ConflictError("the log moved on while the payload came: try again, it is here")
        place = self._place or self._take_place()
        upload = self._begin(place)
        try:
            yield from self._receive(judge, recheck, place, upload)
            return judge.finish()
        except DeniedError as denied:
            if denied.reason == "digest_mismatch" and upload.held and not leads_to_root():
                self.drop()
                raise UnavailableError("what an earlier call left was another payload: begin again") from None
            raise

    @property
    def _name(self) -> Digest:
        return upload_name(self._request.envelope.digest, self._request.peer)

    def _take_place(self) -> UploadPlace:
        bounds, size = self._intake.bounds, self._update.payload_bytes
        place = self._place = self._open.enter_context(bounds.held_by(self._request.peer, self._name, size))
        if place.had_to_wait:
            raise ConflictError("the call before this one may have decided: look again")
        return place

    def _begin(self, place: UploadPlace) -> Upload:
        upload = self._intake.uploads.begin(self._name, self._update.payload_bytes)
        self._writing.enter_context(upload)
        place.left_bytes = upload.held
        self._intake.check_rate(self._request.peer, upload.held, self._update.payload_bytes)
        self._upload = upload
        return upload

    def _receive(
        self, judge: PayloadJudge, recheck: Callable[[], None], place: UploadPlace, upload: Upload
    ) -> Generator[int, None, None]:
        arrivals = Arrivals(self._later, lambda: self._intake.bounds.count <= READ_AHEAD_UPLOADS)
        lane = self._intake.decoders.lane(judge.read, arrivals.wake)
        receiving = _Receiving(self._intake, place, upload, self._update.payload_bytes, judge, lane, recheck)

        def release() -> None:
            place.left_bytes = receiving.keep()
            self._writing.close()

        try:
            with arrivals:
                place.on_taken(arrivals.end, release)
                yield from receiving.take(self._pop_first(), arrivals)
            lane.finish()
        finally:
            lane.drop()
            if not place.is_released:
                place.left_bytes = receiving.keep()

    def _pop_first(self) -> Chunk | None:
        # Its bytes are given back when they were taken, and not when the call ends.
        first, self._first = self._first, None
        return first

    def keep(self) -> None:
        """Make what was received the object of its name, durably."""
        if not self._is_kept:
            assert self._upload is not None, "what is kept has come"
            assert self._place is not None
            self._upload.commit(self._intake.objects, self._update.payload_sha256)
            self._is_kept, self._place.left_bytes = True, 0

    def drop(self) -> None:
        """Forget what was received, if anything was and it was not kept."""
        if self._upload is not None and self._place is not None and not self._is_kept:
            self._upload.discard()
            self._place.left_bytes = 0


class _Receiving:
    """One call's bytes on their way: skipped where they are here already, hashed, written, handed to a decoder."""

    def __init__(
        self,
        intake: UploadIntake,
        place: UploadPlace,
        upload: Upload,
        size: int,
        judge: PayloadJudge,
        lane: Lane,
        recheck: Callable[[], None],
    ) -> None:
        self._intake, self._place, self._upload, self._size = intake, place, upload, size
        self._judge, self._lane, self._recheck = judge, lane, recheck
        self._here = self._durable = self._said = self._skipped = 0
        self._said_at = self._checked_at = intake.monotonic()

    def take(self, first: Chunk | None, arrivals: Arrivals) -> Generator[int, None, None]:
        """Take all there is and all that comes, to the payload's end."""
        for part in self._upload.take_over():
            self._pass_on(part)
            self._here += len(part)
        if self._here < self._size and not (first is not None and first.offset + len(first.data) == self._size):
            yield from self._say()
        if first is not None:
            self._take_chunk(first)
            del first
            yield from self._say_if_due()
        while self._here < self._size:
            with self._place.resting():
                raw = arrivals.next(SAY_SECONDS if self._said < self._here else None)
            if raw is not None:
                self._take_chunk(parse_chunk(raw))
                del raw  # not kept while the next is waited for
                yield from self._say_if_due()
                continue
            self._lane.check()
            if arrivals.has_ended:
                raise UnavailableError("the upload ended before its payload did: go on with it from what is durable")
            yield from self._say()

    def keep(self) -> int:
        """Make durable what has come; give how much is left where nobody goes on."""
        self._sync()
        return max(self._durable, self._upload.held)

    def _sync(self) -> None:
        if self._durable < self._here:
            self._durable = self._upload.sync()

    def _take_chunk(self, chunk: Chunk) -> None:
        end = chunk.offset + len(chunk.data)
        if chunk.offset > self._here:
            raise MalformedError("a chunk begins at most where the one before it ended")
        if end > self._size:
            raise MalformedError("a chunk goes on behind the end of the payload that was signed for")
        skipped = min(end, self._here) - chunk.offset
        self._skipped += skipped
        if self._skipped > self._size:
            raise MalformedError("an upload repeats at most as many bytes as it has")
        if end > self._here:
            part = memoryview(chunk.data)[skipped:]
            self._pass_on(part)
            self._upload.append(part)
            self._here = end

    def _pass_on(self, part: bytes | memoryview) -> None:
        self._place.check()
        self._lane.put(part)
        self._judge.hash(part)

    def _say_if_due(self) -> Generator[int, None, None]:
        if self._here == self._size:
            return  # what comes next is the answer
        if self._here - self._said >= SAY_BYTES or self._intake.monotonic() - self._said_at >= SAY_SECONDS:
            yield from self._say()

    def _say(self) -> Generator[int, None, None]:
        """Make durable what has come, and say so."""
        self._sync()
        now = self._intake.monotonic()
        if now - self._checked_at >= RECHECK_SECONDS:
            self._recheck()
            self._checked_at = now
        self._said, self._said_at = self._durable, now
        with self._place.resting():
            yield self._durable
