"""Many envelopes in one message, and what became of each: AppendEntries and StreamEntries.

Each envelope stands for itself. A request is one repeated field and nothing else, so it is cut at its lengths here and
each piece is parsed on its own: a malformed envelope is refused alone. The cut takes one form only, as canonical
protobuf has it; both methods' messages are the same bytes.

Format: proto/sfrl/audit/v1/audit_service.proto; proto/README.md, "Canonical form".

Runs in: audit_log (one side), gatekeeper, aggregator, operators and auditors (the other).
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import (
    APPEND_BYTES_MAX,
    APPEND_ENTRIES_MAX,
    ENTRY_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    NOTE_BYTES_MAX,
)
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.canonical import build_message, encode_canonical, parse_message
from sfrl_secure.wire.entries import encode_envelope, fill_logged_entry, logged_entry_of, parse_envelope
from sfrl_secure.wire.error_detail import ErrorDetail, error_detail_of, printable_message
from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2

RESULTS_BYTES_MAX = 3 * 1024 * 1024
"""Entries and paths of one answer together. It takes any 256 entries of a request's size; entries that were logged
before may bear more signatures than the envelope that asks for them, and be larger."""

_STATUS_NUMBER_MAX = 16
_TAG = 0x0A  # field 1, length-delimited
_HEAD_BYTES_MAX = 4
_REQUEST_BYTES_MAX = APPEND_BYTES_MAX + APPEND_ENTRIES_MAX * _HEAD_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the status of a call would have said of one envelope.

    Attributes:
        code: number of the gRPC status, 1 to 16.
        detail: the rest.
    """

    code: int
    detail: ErrorDetail

    def __post_init__(self) -> None:
        if not 1 <= self.code <= _STATUS_NUMBER_MAX:
            raise MalformedError(f"the status of a refusal is 1 to {_STATUS_NUMBER_MAX}")


@dataclass(frozen=True, slots=True)
class EntriesAnswer:
    """What became of the envelopes of one request. Not verified.

    Attributes:
        results: one each, in their order.
        checkpoint: a note under the log's keys that all paths lead to; empty where nothing was logged.
    """

    results: tuple[LoggedEntry | Refusal, ...]
    checkpoint: bytes


def encode_entries_request(envelopes: Sequence[Envelope]) -> bytes:
    """Write a request that appends envelopes.

    Raises:
        MalformedError: not 1 to 256, or more than 1 MiB together.
    """
    return join_envelopes([encode_envelope(envelope) for envelope in envelopes])


def join_envelopes(pieces: Sequence[bytes]) -> bytes:
    """Write a request from envelopes in their binary form.

    Raises:
        MalformedError: not 1 to 256, or more than 1 MiB together.
    """
    _check_bounds(len(pieces), sum(map(len, pieces)))
    return b"".join(part for piece in pieces for part in (_head(len(piece)), piece))


def parse_entries_request(raw: bytes) -> tuple[Envelope | MalformedError, ...]:
    """Take the envelopes that shall be appended; the error in place of each that is none.

    Raises:
        MalformedError: not a request in canonical form, or outside its bounds.
    """
    return tuple(_envelope_or_error(piece) for piece in split_envelopes(raw))


def split_envelopes(raw: bytes) -> tuple[bytes, ...]:
    """Cut a request into its envelopes; none of them is parsed.

    Raises:
        MalformedError: not a request in canonical form, or outside its bounds.
    """
    if len(raw) > _REQUEST_BYTES_MAX:
        raise MalformedError(f"the envelopes of one message are at most {APPEND_BYTES_MAX} bytes together")
    pieces: list[bytes] = []
    at = 0
    while at < len(raw):
        if len(pieces) == APPEND_ENTRIES_MAX:
            raise MalformedError(f"a message has 1 to {APPEND_ENTRIES_MAX} envelopes")
        length, begin = _take_head(raw, at)
        at = begin + length
        if at > len(raw):
            raise MalformedError("an envelope is cut off")
        pieces.append(raw[begin:at])
    _check_bounds(len(pieces), sum(map(len, pieces)))
    return tuple(pieces)


def encode_entries_response(answer: EntriesAnswer) -> bytes:
    """Write what became of each envelope.

    Raises:
        MalformedError: outside the bounds of an answer.
    """
    _check_answer(answer)
    return encode_canonical(build_message(lambda: _response_message(answer)))


def parse_entries_response(raw: bytes) -> EntriesAnswer:
    """Take what became of each envelope; entries and note are not parsed, no path is verified.

    Raises:
        MalformedError: not an answer of that form.
    """
    message = parse_message(audit_service_pb2.AppendEntriesResponse, raw, MESSAGE_BYTES_MAX)
    if len(message.results) > APPEND_ENTRIES_MAX:
        raise MalformedError(f"an answer has 1 to {APPEND_ENTRIES_MAX} results")
    answer = EntriesAnswer(tuple(map(_result_of, message.results)), message.checkpoint)
    _check_answer(answer)
    return answer


def result_bytes(logged: LoggedEntry) -> int:
    """How much of `RESULTS_BYTES_MAX` a result takes, or a little less than it was counted with."""
    return len(logged.raw) + 34 * len(logged.path) + 32


def _envelope_or_error(piece: bytes) -> Envelope | MalformedError:
    try:
        return parse_envelope(piece, ENTRY_BYTES_MAX)
    except MalformedError as error:
        return error.with_traceback(None)  # kept as a value: it must not keep frames alive


def _check_bounds(count: int, bytes_together: int) -> None:
    if not 1 <= count <= APPEND_ENTRIES_MAX:
        raise MalformedError(f"a message has 1 to {APPEND_ENTRIES_MAX} envelopes")
    if bytes_together > APPEND_BYTES_MAX:
        raise MalformedError(f"the envelopes of one message are at most {APPEND_BYTES_MAX} bytes together")


def _check_answer(answer: EntriesAnswer) -> None:
    if not 1 <= len(answer.results) <= APPEND_ENTRIES_MAX:
        raise MalformedError(f"an answer has 1 to {APPEND_ENTRIES_MAX} results")
    if len(answer.checkpoint) > NOTE_BYTES_MAX:
        raise MalformedError(f"a signed note is at most {NOTE_BYTES_MAX} bytes")
    if not answer.checkpoint and any(isinstance(result, LoggedEntry) for result in answer.results):
        raise MalformedError("what is logged has a checkpoint")


def _response_message(answer: EntriesAnswer) -> audit_service_pb2.AppendEntriesResponse:
    message = audit_service_pb2.AppendEntriesResponse(checkpoint=answer.checkpoint)
    for result in answer.results:
        _fill_result(message.results.add(), result)
    return message


def _fill_result(message: audit_service_pb2.AppendResult, result: LoggedEntry | Refusal) -> None:
    if isinstance(result, LoggedEntry):
        fill_logged_entry(message.logged, result)
        return
    refusal, detail = message.refusal, result.detail
    refusal.code = result.code
    refusal.reason = detail.reason
    refusal.message = printable_message(detail.message)
    refusal.entry_index_plus_one = 0 if detail.entry_index is None else detail.entry_index + 1
    refusal.log_size = detail.log_size


def _result_of(message: audit_service_pb2.AppendResult) -> LoggedEntry | Refusal:
    match message.WhichOneof("result"):
        case "logged":
            return logged_entry_of(message.logged, "an entry")
        case "refusal":
            refusal = message.refusal
            return Refusal(refusal.code, error_detail_of(refusal))
    raise MalformedError("a result is an entry or a refusal")


def _head(length: int) -> bytes:
    """Tag and length of one envelope, the length as a minimal varint."""
    head = bytearray((_TAG,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head)


def _take_head(raw: bytes, at: int) -> tuple[int, int]:
    """Length of the envelope whose tag is at `at`, and where it begins."""
    length = 0
    for begin in range(at + 1, min(at + _HEAD_BYTES_MAX, len(raw))):
        byte = raw[begin]
        length |= (byte & 0x7F) << (7 * (begin - at - 1))
        if byte < 0x80:
            if raw[at] != _TAG or (byte == 0 and begin > at + 1):  # a trailing zero group: not the shortest form
                break
            return length, begin + 1
    raise MalformedError("the message is not in canonical form")
