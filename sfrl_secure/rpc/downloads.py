"""The participant's half of a download: a model or a mask, whole or as what is to be added; on where it broke off.

What comes is bounded before it is taken: as many bytes as the first answer announces, and no more than the caller
expects. Nothing is verified here: the caller compares digests before it uses anything.

Format: proto/README.md, "Download".

Runs in: participant, cli.
Trusts: the channel, for who answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

from sfrl_secure.errors import MalformedError, UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.rpc.channel import RpcChannel
from sfrl_secure.rpc.trying import Patience
from sfrl_secure.wire.downloads import (
    FETCH_MODEL,
    ModelRequest,
    ModelSource,
    encode_model_request,
    parse_model_chunk,
    parse_model_source,
)

DownloadProgress = Callable[[int, int], None]
"""Takes the bytes that have arrived, and how many will."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What a fetch brought; nothing of it is verified.

    Attributes:
        base: the model that the objects are to be added to, one of those that the caller has; None where the one object
            is what was asked for.
    """

    base: Digest | None
    objects: tuple[memoryview, ...]


def fetch(
    channel: RpcChannel,
    patience: Patience,
    request: ModelRequest,
    bytes_max: int,
    *,
    deadline_seconds: float,
    on_progress: DownloadProgress | None = None,
) -> Fetched:
    """Fetch what `request` asks for, from its `offset` 0, over as many calls as it takes.

    Raises:
        MalformedError: more than `bytes_max` bytes are announced or sent, or the base is none of `request.has`.
        NotFoundError, DeniedError: the gatekeeper does not have it, or refuses.
        ConflictError, ExhaustedError, UnavailableError: not everything came in time.
    """
    download = _Download(request, bytes_max, on_progress)
    return patience.keep_trying(
        lambda left: download.over(channel, left), deadline_seconds=deadline_seconds, done=lambda: download.taken_bytes
    )


class _Download:
    def __init__(self, request: ModelRequest, bytes_max: int, on_progress: DownloadProgress | None) -> None:
        assert request == replace(request, offset=0, length=0), "the whole is fetched"
        self._request, self._bytes_max, self._on_progress = request, bytes_max, on_progress
        self._source: ModelSource | None = None
        self._taken = bytearray()

    @property
    def taken_bytes(self) -> int:
        """How many bytes have come."""
        return len(self._taken)

    def over(self, channel: RpcChannel, deadline_seconds: float) -> Fetched:
        """Make one call."""
        offset = len(self._taken)
        try:
            return self._over(channel, offset, deadline_seconds)
        except MalformedError:
            if not offset:
                raise
            # Another gatekeeper may send it in another way, and has no such offset.
            self._begin_anew()
            raise UnavailableError("a download that broke off could not be gone on with") from None

    def _over(self, channel: RpcChannel, offset: int, deadline_seconds: float) -> Fetched:
        request = encode_model_request(replace(self._request, offset=offset))
        stream = channel.stream(FETCH_MODEL, request, deadline_seconds=deadline_seconds)
        try:
            answers = iter(stream)
            source = self._check(parse_model_source(next(answers, b"")))
            if source != (self._source or source):
                self._begin_anew()
                raise UnavailableError("what is sent has changed since the download began")
            self._source = source
            total = sum(source.object_bytes)
            for raw in answers:
                chunk = parse_model_chunk(raw)
                if len(self._taken) + len(chunk) > total:
                    raise MalformedError(f"{total} bytes were announced, and more arrived")
                self._taken += chunk
                if self._on_progress is not None:
                    self._on_progress(len(self._taken), total)
        finally:
            stream.cancel()
        if len(self._taken) < total:
            raise UnavailableError("the gatekeeper ended the call before all had come")
        view = memoryview(self._taken).toreadonly()
        places = pairwise(accumulate(source.object_bytes, initial=0))
        return Fetched(source.base, tuple(view[start:end] for start, end in places))

    def _check(self, source: ModelSource) -> ModelSource:
        if sum(source.object_bytes) > self._bytes_max:
            raise MalformedError(f"at most {self._bytes_max} bytes are expected, and more are announced")
        if source.base is not None and source.base not in self._request.has:
            raise MalformedError("what is sent is to be added to a model that was not named")
        return source

    def _begin_anew(self) -> None:
        self._source = None
        self._taken = bytearray()
