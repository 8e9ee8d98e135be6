"""What a fetch sends: a model as it is, or what is to be added to one that the caller has; or a mask.

What is sent is a function of the log and the request, so that a call that broke is gone on with at another gatekeeper.
All objects of a request are hashed before a byte of it goes out, and before its entry is written, once; the length of
what was hashed is remembered.

Format: proto/README.md, "Download".

Runs in: gatekeeper.
Trusts: the state of the fold. Nothing in a request, and nothing that is stored.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from threading import Lock

from sfrl_secure.aggregation.models import model_bytes
from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import CHUNK_BYTES_MAX, OBJECT_BYTES_MAX
from sfrl_secure.rounds.lineage import StepsFrom, steps_between
from sfrl_secure.rounds.state import SegmentState
from sfrl_secure.storage.objects import Objects
from sfrl_secure.wire.downloads import ModelRequest, ModelSource

LENGTHS_MAX = 4_096
"""Objects whose length is remembered: a request names up to 64 steps, and each would be opened for it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a segment gives for a request.

    Attributes:
        needs_entry: whether a fetch of it goes on record first: a model that this participant has not fetched yet. A
            mask is nobody's secret.
        bytes_max: longest that the object itself may be.
        ways: what leads to the model from those that the caller has.
    """

    needs_entry: bool
    bytes_max: int
    ways: tuple[StepsFrom, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """A range of an object of `length` bytes."""

    digest: Digest
    length: int
    first: int
    count: int


@dataclass(frozen=True, slots=True)
class Download:
    """What a request is answered with.

    Attributes:
        source: what all of it is.
        pieces: what the request wants of it, in order; none where it wants nothing.
    """

    source: ModelSource
    pieces: tuple[Piece, ...]


def wanted_of(segment: SegmentState, asked: ModelRequest, participant: str) -> Wanted:
    """Say what the segment gives for a participant's request.

    Raises:
        NotFoundError: it is none of the segment's models, nor of its masks.
    """
    if asked.model in segment.models:
        ways = steps_between(segment, asked.has, asked.model)
        needs_entry = not segment.fetches[participant, asked.model]
        return Wanted(needs_entry, model_bytes(segment.terms.model.manifest), ways)
    if asked.model in segment.masks:
        return Wanted(False, OBJECT_BYTES_MAX)
    raise NotFoundError("the model is not one of the segment's")


class Downloads:
    """Prepares what is sent, and sends it. Safe for several threads."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._lengths: OrderedDict[Digest, int] = OrderedDict()
        self._lock = Lock()

    def prepare(self, asked: ModelRequest, wanted: Wanted) -> Download:
        """Choose the shortest of what leads to the model, and check all that the request wants of it.

        The ways to a model are ends of one another: for the lengths, at most 65 objects are opened.

        Raises:
            NotFoundError: nothing that leads there is stored.
            MalformedError: what is stored cannot be it; or the request begins behind the end of what is sent.
            DigestError: an object is not what its name says.
            MissingEvidenceError: the store does not say.
        """
        try:
            return self._prepare(asked, wanted)
        except _ChangedError:
            # What is remembered need not be there any more: look again.
            self._forget({asked.model, *(each for way in wanted.ways for each in way.aggregates)})
        return self._prepare(asked, wanted)

    def chunks(self, download: Download) -> Iterator[bytes]:
        """Give the bytes that a request wants, at most 1 MiB at a time.

        Raises:
            DigestError, MalformedError, NotFoundError, MissingEvidenceError: since it was prepared, an object was
                changed or has gone; nothing of it was given.
        """
        for piece in download.pieces:
            with self._objects.open(piece.digest, piece.length) as reader:
                if reader.size != piece.length:
                    raise MalformedError("an object has changed its length")
                reader.check_digest()
                yield from reader.chunks(piece.first, piece.count, CHUNK_BYTES_MAX)

    def _prepare(self, asked: ModelRequest, wanted: Wanted) -> Download:
        source, digests = self._choose(asked, wanted)
        download = Download(source, tuple(_pieces(asked, source, digests)))
        for piece in download.pieces:
            self._check(piece)
        return download

    def _choose(self, asked: ModelRequest, wanted: Wanted) -> tuple[ModelSource, tuple[Digest, ...]]:
        """The base whose aggregates are shortest, or the model itself."""
        opened: dict[Digest, int | None] = {}
        found: list[tuple[ModelSource, tuple[Digest, ...]]] = []
        for way in wanted.ways:
            lengths = self._lengths_of(way.aggregates, OBJECT_BYTES_MAX, opened)
            if lengths:
                found.append((ModelSource(way.base, lengths), way.aggregates))
        whole = self._lengths_of((asked.model,), wanted.bytes_max, opened)
        if whole:
            found.append((ModelSource(None, whole), (asked.model,)))
        if not found:
            raise NotFoundError("the model is not stored here")
        # Of two that are equally short, the model itself; else the one whose base is first in bytes.
        return min(found, key=lambda each: (sum(each[0].object_bytes), each[0].base or b""))

    def _lengths_of(
        self, digests: tuple[Digest, ...], bytes_max: int, opened: dict[Digest, int | None]
    ) -> tuple[int, ...]:
        """The objects' lengths; nothing where one of them is not there."""
        lengths = []
        for digest in digests:
            if digest not in opened:
                opened[digest] = self._length_of(digest, bytes_max)
            length = opened[digest]
            if length is None:
                return ()
            lengths.append(length)
        return tuple(lengths)

    def _length_of(self, digest: Digest, bytes_max: int) -> int | None:
        with self._lock:
            remembered = self._lengths.get(digest)
            if remembered is not None:
                self._lengths.move_to_end(digest)
                return remembered
        try:
            with self._objects.open(digest, bytes_max) as reader:
                return reader.size
        except NotFoundError:
            return None

    def _check(self, piece: Piece) -> None:
        try:
            with self._objects.open(piece.digest, piece.length) as reader:
                if reader.size != piece.length:
                    raise _ChangedError("an object is shorter than it was")
                reader.check_digest()
        except (NotFoundError, MalformedError):
            raise _ChangedError("an object is not there any more, or is longer than it was") from None
        # Of bytes with this digest there is one length, for ever.
        with self._lock:
            self._lengths[piece.digest] = piece.length
            if len(self._lengths) > LENGTHS_MAX:
                self._lengths.popitem(last=False)

    def _forget(self, digests: Iterable[Digest]) -> None:
        with self._lock:
            for digest in digests:
                self._lengths.pop(digest, None)


class _ChangedError(MissingEvidenceError):
    """An object is not what it was when its length was asked for."""


def _pieces(asked: ModelRequest, source: ModelSource, digests: tuple[Digest, ...]) -> Iterator[Piece]:
    total = sum(source.object_bytes)
    if asked.offset > total:
        raise MalformedError("the request begins behind the end of what is sent")
    end = min(asked.offset + asked.length, total) if asked.length else total
    begin = 0
    for digest, length in zip(digests, source.object_bytes, strict=True):
        first, last = max(asked.offset - begin, 0), min(end - begin, length)
        if first < last:
            yield Piece(digest, length, first, last - first)
        begin += length
