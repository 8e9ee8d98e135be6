"""What an upload sends and is answered: SubmitUpdate, a stream each way.

The first request is canonical as a whole, so that the participant's envelope in it has the bytes that are later quoted
in the log.

Format: proto/sfrl/gatekeeper/v1/gatekeeper_service.proto; proto/README.md, "Upload".

Runs in: gatekeeper (one side), participant (the other).
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import UpdateStatement
from sfrl_secure.limits import CHUNK_BYTES_MAX, MESSAGE_BYTES_MAX, NOTE_BYTES_MAX, UPDATE_HEADER_BYTES_MAX
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.canonical import build_message, encode_canonical, parse_canonical, parse_message, take_bytes
from sfrl_secure.wire.entries import envelope_message, logged_entry_message, logged_entry_of
from sfrl_secure.wire.framing import encode_varint, take_varint
from sfrl_secure.wire.gatekeeper_service import SERVICE
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2 as messages
from sfrl_secure.wire.statements import parse_update_envelope

SUBMIT_UPDATE = f"/{SERVICE}/SubmitUpdate"

_ENVELOPE_TAG, _OFFSET_TAG, _CHUNK_TAG = b"\x0a", b"\x10", b"\x1a"
"""Fields 2 and 3 of SubmitUpdateRequest, a varint and bytes."""

_FRAME_BYTES = 64
"""Tags, lengths and the offset of a request."""

FIRST_REQUEST_BYTES_MAX = UPDATE_HEADER_BYTES_MAX + CHUNK_BYTES_MAX + _FRAME_BYTES
NEXT_REQUEST_BYTES_MAX = CHUNK_BYTES_MAX + _FRAME_BYTES


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes of a payload, at most 1 MiB, that begin at `offset`."""

    offset: int
    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class UploadStart:
    """The first request as it arrived; neither its signature nor its chunk was looked at.

    Attributes:
        envelope_raw: the envelope's canonical bytes, at most 16 KiB.
        update: the statement in it.
        chunk: None where the first request brings none.
    """

    envelope_raw: bytes
    envelope: Envelope
    update: UpdateStatement
    chunk: Chunk | None


def encode_upload_start(envelope: Envelope, chunk: Chunk | None = None) -> bytes:
    """Write the first request. `chunk.data` has 1 byte to 1 MiB."""
    offset = 0 if chunk is None else chunk.offset
    data = b"" if chunk is None else take_bytes(bytes(chunk.data), "a chunk", CHUNK_BYTES_MAX)
    return encode_canonical(
        build_message(
            lambda: messages.SubmitUpdateRequest(envelope=envelope_message(envelope), offset=offset, chunk=data)
        )
    )


def parse_upload_start(raw: bytes) -> UploadStart:
    """Take the first request, step 2 of "Admission".

    Raises:
        MalformedError: a header over 16 KiB, a chunk over 1 MiB, or not an update in canonical form.
    """
    head, chunk = _split_start(raw)
    message = parse_canonical(messages.SubmitUpdateRequest, head, FIRST_REQUEST_BYTES_MAX)
    if message.envelope.ByteSize() > UPDATE_HEADER_BYTES_MAX:
        raise MalformedError(f"the header of an update is at most {UPDATE_HEADER_BYTES_MAX} bytes")
    # The request is canonical, so writing the part again gives the bytes that arrived.
    envelope_raw = encode_canonical(message.envelope)
    envelope, update = parse_update_envelope(envelope_raw)
    if message.offset and not message.chunk:
        raise MalformedError("an offset is a chunk's")
    if message.chunk:
        chunk = _chunk_of(message)
    return UploadStart(envelope_raw, envelope, update, chunk)


def _split_start(raw: bytes) -> tuple[bytes, Chunk | None]:
    """A first request without its chunk, and the chunk as a view; all of it, and None, where it has another form.

    An envelope in canonical form with a chunk in canonical form behind it is a request in canonical form, and there is
    no other. So protobuf need not see the chunk, which it would copy three times.
    """
    if raw[:1] == _ENVELOPE_TAG:
        length, at = take_varint(raw, 1)
        end = at + length
        chunk = _view_chunk(raw, end) if length <= UPDATE_HEADER_BYTES_MAX and end < len(raw) else None
        if chunk is not None:
            return raw[:end], chunk
    return raw, None


def encode_chunk(chunk: Chunk) -> bytes:
    """Write a later request. `chunk.data` has 1 byte to 1 MiB."""
    return frame_chunk(chunk.offset, chunk.data)


def frame_chunk(offset: int, data: bytes | memoryview) -> bytes:
    """Write a later request, as `encode_chunk`, with one copy of the data.

    By hand: protobuf takes a hundred times as long for 1 MiB.
    """
    if not 0 < len(data) <= CHUNK_BYTES_MAX:
        raise MalformedError(f"a chunk is 1 to {CHUNK_BYTES_MAX} bytes")
    return b"".join((_chunk_head(offset, len(data)), data))


def _chunk_head(offset: int, length: int) -> bytes:
    place = _OFFSET_TAG + encode_varint(offset) if offset else b""
    return place + _CHUNK_TAG + encode_varint(length)


def parse_chunk(raw: bytes) -> Chunk:
    """Take a later request; the chunk's bytes are a view of `raw`.

    Raises:
        MalformedError: not canonical, an envelope in it, no chunk, or one over 1 MiB.
    """
    return _view_chunk(raw, 0) or _parse_other_chunk(raw)


def _view_chunk(raw: bytes, begin: int) -> Chunk | None:
    """The chunk that stands from `begin` to the end, in canonical form; None where there is anything else.

    It has one form: a head that says where it begins and how long it is, and the data. Where the head is the one that
    we would write, nothing else is there; protobuf would copy 1 MiB three times to find out.
    """
    offset, at = (0, begin) if raw[begin : begin + 1] != _OFFSET_TAG else take_varint(raw, begin + 1)
    if raw[at : at + 1] == _CHUNK_TAG:
        length, at = take_varint(raw, at + 1)
        if len(raw) - at == length <= CHUNK_BYTES_MAX and length > 0 and raw[begin:at] == _chunk_head(offset, length):
            return Chunk(offset, memoryview(raw)[at:])
    return None


def _parse_other_chunk(raw: bytes) -> Chunk:
    """Say what is wrong with a request; or take one whose offset is beyond what a sender of ours writes."""
    message = parse_canonical(messages.SubmitUpdateRequest, raw, NEXT_REQUEST_BYTES_MAX)
    if message.HasField("envelope"):
        raise MalformedError("an upload has one envelope, in its first request")
    return _chunk_of(message)


def _chunk_of(message: messages.SubmitUpdateRequest) -> Chunk:
    return Chunk(message.offset, take_bytes(message.chunk, "a chunk", CHUNK_BYTES_MAX))


def encode_durable(durable_bytes: int) -> bytes:
    """Write an answer that is not the last."""
    return encode_canonical(messages.SubmitUpdateResponse(durable_bytes=durable_bytes))


def encode_admitted(admitted: AppendedEntry) -> bytes:
    """Write the last answer: receipt A."""
    return encode_canonical(
        build_message(
            lambda: messages.SubmitUpdateResponse(
                admitted=logged_entry_message(admitted.logged), checkpoint=admitted.checkpoint
            )
        )
    )


def parse_upload_answer(raw: bytes) -> AppendedEntry | int:
    """Take an answer: receipt A, which the caller verifies; or how many bytes are durable.

    Raises:
        MalformedError: not an answer of that form.
    """
    message = parse_message(messages.SubmitUpdateResponse, raw, MESSAGE_BYTES_MAX)
    if not message.HasField("admitted"):
        return message.durable_bytes
    return AppendedEntry(
        logged=logged_entry_of(message.admitted, "the admission"),
        checkpoint=take_bytes(message.checkpoint, "a checkpoint", NOTE_BYTES_MAX),
    )
