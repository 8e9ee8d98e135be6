"""Requests and answers of the gatekeeper's service.

What the gatekeeper takes is canonical as a whole, so the participant's envelope in a request has the bytes that are
later quoted in the log. What a participant takes back may carry fields that it does not know; receipts inside are
canonical again.

Format: proto/sfrl/gatekeeper/v1/gatekeeper_service.proto.

Runs in: gatekeeper (one side), participant (the other).
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import DecisionStatement, ObjectRequest, WithdrawalStatement
from sfrl_secure.ids import Digest, parse_segment
from sfrl_secure.limits import (
    CHUNK_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    NOTE_BYTES_MAX,
    UPDATE_HEADER_BYTES_MAX,
)
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.bodies import take_enum
from sfrl_secure.wire.canonical import (
    build_message,
    encode_canonical,
    parse_canonical,
    parse_message,
    take_bytes,
    take_digest,
)
from sfrl_secure.wire.entries import envelope_message, logged_entry_message, logged_entry_of
from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2 as messages
from sfrl_secure.wire.gen.sfrl.receipt.v1 import receipt_pb2
from sfrl_secure.wire.participants import (
    parse_decision_envelope,
    parse_object_request_envelope,
    parse_withdrawal_envelope,
)
from sfrl_secure.wire.receipts import Receipt, ReceiptKind, parse_receipt, receipt_message, roots_of, services_of

SERVICE = messages.DESCRIPTOR.services_by_name["GatekeeperService"].full_name
GET_ROUND = f"/{SERVICE}/GetRound"
GET_RECEIPT = f"/{SERVICE}/GetReceipt"
WITHDRAW_UPDATE = f"/{SERVICE}/WithdrawUpdate"
RECORD_DECISION = f"/{SERVICE}/RecordDecision"
FETCH_OBJECT = f"/{SERVICE}/FetchObject"

WAIT_MS_MAX = 30_000
_SMALL_REQUEST_BYTES_MAX = 1_024
_ENVELOPE_REQUEST_BYTES_MAX = UPDATE_HEADER_BYTES_MAX + 64


@dataclass(frozen=True, slots=True)
class RoundRequest:
    """Asks for an open round with a number above `after_round`, and waits for one at most `wait_ms`, 0 to 30,000."""

    segment: str
    after_round: int
    wait_ms: int


@dataclass(frozen=True, slots=True)
class RoundAnswer:
    """An open round and its proofs, all leading to one checkpoint under the quorum. Not verified.

    Attributes:
        services: those in force when the base model was published and now, by rising index.
        round_opened: None only where `finished`.
        base_model: the model's entry; None where the terms name the base.
        finished: no further round will open under the terms in force.
        roots: all root documents after genesis, 0 to 64, by rising index, and so by rising version.
    """

    checkpoint: bytes
    genesis: LoggedEntry
    services: tuple[LoggedEntry, ...]
    terms: LoggedEntry
    round_opened: LoggedEntry | None
    base_model: LoggedEntry | None
    finished: bool
    roots: tuple[LoggedEntry, ...] = ()


@dataclass(frozen=True, slots=True)
class WithdrawRequest:
    """A withdrawal as it arrived; its signature was not looked at.

    Attributes:
        envelope_raw: the envelope's canonical bytes, at most 16 KiB.
        withdrawal: the statement in it.
    """

    envelope_raw: bytes
    envelope: Envelope
    withdrawal: WithdrawalStatement


@dataclass(frozen=True, slots=True)
class RecordRequest:
    """A decision as it arrived; its signature was not looked at.

    Attributes:
        envelope_raw: the envelope's canonical bytes, at most 16 KiB.
        decision: the statement in it.
    """

    envelope_raw: bytes
    envelope: Envelope
    decision: DecisionStatement


@dataclass(frozen=True, slots=True)
class ObjectAsk:
    """Asks for an object; the signature was not looked at.

    Attributes:
        digest: which object; the signed request names the same.
        request: the statement in the envelope.
    """

    digest: Digest
    envelope: Envelope
    request: ObjectRequest


@dataclass(frozen=True, slots=True)
class ReceiptRequest:
    """Asks for a receipt, WITNESSED or COUNTED, for the update with a statement digest."""

    segment: str
    statement_digest: Digest
    kind: ReceiptKind


def encode_round_request(request: RoundRequest) -> bytes:
    """Write a GetRound request."""
    return encode_canonical(
        build_message(
            lambda: messages.GetRoundRequest(
                segment=request.segment, after_round=request.after_round, wait_ms=request.wait_ms
            )
        )
    )


def parse_round_request(raw: bytes) -> RoundRequest:
    """Take a GetRound request.

    Raises:
        MalformedError: not canonical, or a wait of more than 30 seconds.
    """
    message = parse_canonical(messages.GetRoundRequest, raw, _SMALL_REQUEST_BYTES_MAX)
    if message.wait_ms > WAIT_MS_MAX:
        raise MalformedError(f"a wait is at most {WAIT_MS_MAX} milliseconds")
    return RoundRequest(parse_segment(message.segment), message.after_round, message.wait_ms)


def encode_round_response(answer: RoundAnswer) -> bytes:
    """Write a GetRound answer."""

    def optional(logged: LoggedEntry | None) -> audit_service_pb2.LoggedEntry | None:
        return None if logged is None else logged_entry_message(logged)

    return encode_canonical(
        build_message(
            lambda: messages.GetRoundResponse(
                checkpoint=answer.checkpoint,
                genesis=logged_entry_message(answer.genesis),
                services=[logged_entry_message(each) for each in answer.services],
                terms=logged_entry_message(answer.terms),
                round_opened=optional(answer.round_opened),
                base_model=optional(answer.base_model),
                finished=answer.finished,
                roots=[logged_entry_message(each) for each in answer.roots],
            )
        )
    )


def parse_round_response(raw: bytes) -> RoundAnswer:
    """Take a GetRound answer; the caller verifies its proofs.

    Raises:
        MalformedError: not an answer of that form, or without a round and not finished.
    """
    message = parse_message(messages.GetRoundResponse, raw, MESSAGE_BYTES_MAX)
    if not message.finished and not message.HasField("round_opened"):
        raise MalformedError("an answer has a round, or says that there will be none")
    return RoundAnswer(
        checkpoint=take_bytes(message.checkpoint, "a checkpoint", NOTE_BYTES_MAX),
        genesis=logged_entry_of(message.genesis, "genesis"),
        services=services_of(message.services),
        terms=logged_entry_of(message.terms, "the terms"),
        round_opened=logged_entry_of(message.round_opened, "the round") if message.HasField("round_opened") else None,
        base_model=logged_entry_of(message.base_model, "the base") if message.HasField("base_model") else None,
        finished=message.finished,
        roots=roots_of(message.roots),
    )


def encode_withdraw_request(envelope: Envelope) -> bytes:
    """Write a WithdrawUpdate request."""
    return encode_canonical(messages.WithdrawUpdateRequest(envelope=envelope_message(envelope)))


def parse_withdraw_request(raw: bytes) -> WithdrawRequest:
    """Take a WithdrawUpdate request.

    Raises:
        MalformedError: over 16 KiB, or not a withdrawal in canonical form.
    """
    message = parse_canonical(messages.WithdrawUpdateRequest, raw, _ENVELOPE_REQUEST_BYTES_MAX)
    envelope_raw = encode_canonical(message.envelope)
    return WithdrawRequest(envelope_raw, *parse_withdrawal_envelope(envelope_raw))


def encode_withdraw_response(withdrawn: AppendedEntry) -> bytes:
    """Write a WithdrawUpdate answer."""
    return encode_canonical(
        build_message(
            lambda: messages.WithdrawUpdateResponse(
                withdrawn=logged_entry_message(withdrawn.logged), checkpoint=withdrawn.checkpoint
            )
        )
    )


def parse_withdraw_response(raw: bytes) -> AppendedEntry:
    """Take a WithdrawUpdate answer; the caller verifies it.

    Raises:
        MalformedError: not an answer of that form.
    """
    message = parse_message(messages.WithdrawUpdateResponse, raw, MESSAGE_BYTES_MAX)
    return AppendedEntry(
        logged=logged_entry_of(message.withdrawn, "the withdrawal"),
        checkpoint=take_bytes(message.checkpoint, "a checkpoint", NOTE_BYTES_MAX),
    )


def encode_record_request(envelope: Envelope) -> bytes:
    """Write a RecordDecision request."""
    return encode_canonical(messages.RecordDecisionRequest(envelope=envelope_message(envelope)))


def parse_record_request(raw: bytes) -> RecordRequest:
    """Take a RecordDecision request.

    Raises:
        MalformedError: over 16 KiB, or not a decision in canonical form.
    """
    message = parse_canonical(messages.RecordDecisionRequest, raw, _ENVELOPE_REQUEST_BYTES_MAX)
    envelope_raw = encode_canonical(message.envelope)
    return RecordRequest(envelope_raw, *parse_decision_envelope(envelope_raw))


def encode_record_response(recorded: AppendedEntry) -> bytes:
    """Write a RecordDecision answer."""
    return encode_canonical(
        build_message(
            lambda: messages.RecordDecisionResponse(
                recorded=logged_entry_message(recorded.logged), checkpoint=recorded.checkpoint
            )
        )
    )


def parse_record_response(raw: bytes) -> AppendedEntry:
    """Take a RecordDecision answer; the caller verifies it.

    Raises:
        MalformedError: not an answer of that form.
    """
    message = parse_message(messages.RecordDecisionResponse, raw, MESSAGE_BYTES_MAX)
    return AppendedEntry(
        logged=logged_entry_of(message.recorded, "the decision"),
        checkpoint=take_bytes(message.checkpoint, "a checkpoint", NOTE_BYTES_MAX),
    )


def encode_receipt_request(request: ReceiptRequest) -> bytes:
    """Write a GetReceipt request."""
    return encode_canonical(
        build_message(
            lambda: messages.GetReceiptRequest(
                segment=request.segment,
                statement_digest=request.statement_digest,
                kind=receipt_pb2.ReceiptKind.ValueType(request.kind),
            )
        )
    )


def parse_receipt_request(raw: bytes) -> ReceiptRequest:
    """Take a GetReceipt request.

    Raises:
        MalformedError: not canonical, or a kind that is not asked for.
    """
    message = parse_canonical(messages.GetReceiptRequest, raw, _SMALL_REQUEST_BYTES_MAX)
    kind = take_enum(ReceiptKind, message.kind, "the kind of a receipt")
    if kind is ReceiptKind.ACKNOWLEDGED:
        raise MalformedError("receipts to ask for are WITNESSED and COUNTED")
    digest = take_digest(message.statement_digest, "statement_digest")
    return ReceiptRequest(parse_segment(message.segment), digest, kind)


def encode_receipt_response(receipt: Receipt) -> bytes:
    """Write a GetReceipt answer."""
    return encode_canonical(messages.GetReceiptResponse(receipt=receipt_message(receipt)))


def parse_receipt_response(raw: bytes) -> Receipt:
    """Take a GetReceipt answer; the caller verifies the receipt.

    Raises:
        MalformedError: not an answer of that form, or not a receipt.
    """
    message = parse_message(messages.GetReceiptResponse, raw, MESSAGE_BYTES_MAX)
    return parse_receipt(encode_canonical(message.receipt))


def encode_object_request(digest: Digest, envelope: Envelope) -> bytes:
    """Write a FetchObject request: the envelope is the reader's, over an ObjectRequest for the same digest.

    Raises:
        MalformedError: `parse_object_request` would refuse it.
    """
    raw = encode_canonical(
        build_message(lambda: messages.FetchObjectRequest(digest=digest, request=envelope_message(envelope)))
    )
    parse_object_request(raw)
    return raw


def parse_object_request(raw: bytes) -> ObjectAsk:
    """Take a FetchObject request.

    Raises:
        MalformedError: over 16 KiB, not canonical, or signed for another object.
    """
    message = parse_canonical(messages.FetchObjectRequest, raw, _ENVELOPE_REQUEST_BYTES_MAX)
    digest = take_digest(message.digest, "digest")
    envelope, request = parse_object_request_envelope(encode_canonical(message.request))
    if request.digest != digest:
        raise MalformedError("the signed request is for another object")
    return ObjectAsk(digest, envelope, request)


def encode_object_chunk(chunk: bytes) -> bytes:
    """Write one chunk of an object, 1 byte to 1 MiB."""
    take_bytes(chunk, "a chunk", CHUNK_BYTES_MAX)
    return encode_canonical(messages.FetchObjectResponse(chunk=chunk))


def parse_object_chunk(raw: bytes) -> bytes:
    """Take one chunk of an object; the caller bounds and hashes the whole.

    Raises:
        MalformedError: not an answer of that form, or an empty chunk.
    """
    message = parse_message(messages.FetchObjectResponse, raw, MESSAGE_BYTES_MAX)
    return take_bytes(message.chunk, "a chunk", CHUNK_BYTES_MAX)
