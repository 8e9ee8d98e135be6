"""What a download asks and is answered: FetchModel.

Format: proto/sfrl/gatekeeper/v1/gatekeeper_service.proto; proto/README.md, "Download".

Runs in: gatekeeper (one side), participant (the other).
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, parse_segment
from sfrl_secure.limits import BASES_MAX, CHUNK_BYTES_MAX, MESSAGE_BYTES_MAX, OBJECT_BYTES_MAX, STEPS_MAX
from sfrl_secure.wire.canonical import (
    build_message,
    encode_canonical,
    parse_canonical,
    parse_message,
    take_bytes,
    take_digest,
)
from sfrl_secure.wire.framing import frame_bytes, view_bytes
from sfrl_secure.wire.gatekeeper_service import SERVICE
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2 as messages

FETCH_MODEL = f"/{SERVICE}/FetchModel"

_CHUNK_TAG = b"\x12"
"""Field 2 of FetchModelResponse, bytes."""

_REQUEST_BYTES_MAX = 1_024


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """Asks for a model, or a mask, of a segment.

    Attributes:
        has: models that the caller has, at most 8, none twice.
        offset: first byte to send, of all that would be sent; `length` bytes at most, 0 for the rest.
    """

    segment: str
    model: Digest
    has: tuple[Digest, ...] = ()
    offset: int = 0
    length: int = 0


@dataclass(frozen=True, slots=True)
class ModelSource:
    """What is sent: a model, or aggregates to be added one after the other to `base`.

    Attributes:
        base: None where the model itself is sent.
        object_bytes: the objects' lengths, in order, 1 to 64.
    """

    base: Digest | None
    object_bytes: tuple[int, ...]


def encode_model_request(request: ModelRequest) -> bytes:
    """Write a FetchModel request."""
    return encode_canonical(
        build_message(
            lambda: messages.FetchModelRequest(
                segment=request.segment,
                model=request.model,
                has=request.has,
                offset=request.offset,
                length=request.length,
            )
        )
    )


def parse_model_request(raw: bytes) -> ModelRequest:
    """Take a FetchModel request.

    Raises:
        MalformedError: not a request in canonical form.
    """
    message = parse_canonical(messages.FetchModelRequest, raw, _REQUEST_BYTES_MAX)
    has = tuple(take_digest(each, "has") for each in message.has)
    if len(has) > BASES_MAX or len(set(has)) != len(has):
        raise MalformedError(f"a caller names at most {BASES_MAX} models that it has, none twice")
    return ModelRequest(
        parse_segment(message.segment), take_digest(message.model, "model"), has, message.offset, message.length
    )


def encode_model_source(source: ModelSource) -> bytes:
    """Write the first answer."""
    base = b"" if source.base is None else bytes(source.base)
    return encode_canonical(
        build_message(
            lambda: messages.FetchModelResponse(
                source=messages.ModelSource(base=base, object_bytes=source.object_bytes)
            )
        )
    )


def encode_model_chunk(chunk: bytes | memoryview) -> bytes:
    """Write a later answer, 1 byte to 1 MiB, with one copy of it."""
    if not 0 < len(chunk) <= CHUNK_BYTES_MAX:
        raise MalformedError(f"a chunk is 1 to {CHUNK_BYTES_MAX} bytes")
    return frame_bytes(_CHUNK_TAG, chunk)


def parse_model_source(raw: bytes) -> ModelSource:
    """Take the first answer; the caller bounds the lengths by the terms.

    Raises:
        MalformedError: not an answer of that form.
    """
    message = parse_message(messages.FetchModelResponse, raw, MESSAGE_BYTES_MAX)
    if not message.HasField("source") or message.chunk:
        raise MalformedError("the first answer says what will be sent, and nothing else")
    lengths = tuple(message.source.object_bytes)
    if not 1 <= len(lengths) <= STEPS_MAX or not all(1 <= each <= OBJECT_BYTES_MAX for each in lengths):
        raise MalformedError(f"a fetch sends 1 to {STEPS_MAX} objects, none longer than {OBJECT_BYTES_MAX} bytes")
    base = take_digest(message.source.base, "base") if message.source.base else None
    if base is None and len(lengths) != 1:
        raise MalformedError("without a base one object is sent, the model")
    return ModelSource(base, lengths)


def parse_model_chunk(raw: bytes) -> bytes | memoryview:
    """Take a later answer, mostly a view of `raw`; the caller bounds and hashes the whole.

    Raises:
        MalformedError: not an answer of that form, a second source, or a chunk that is empty or over 1 MiB.
    """
    chunk = view_bytes(_CHUNK_TAG, raw)
    if chunk is not None and len(chunk) <= CHUNK_BYTES_MAX:
        return chunk
    message = parse_message(messages.FetchModelResponse, raw, MESSAGE_BYTES_MAX)
    if message.HasField("source"):
        raise MalformedError("what will be sent is said once, in the first answer")
    return take_bytes(message.chunk, "a chunk", CHUNK_BYTES_MAX)
