"""Requests and answers of the identity service: how somebody gets a TLS identity, and the next one.

What the gatekeeper takes is canonical as a whole, so the envelope in a request has the bytes that the log later
quotes. The PKCS #10 request is bytes here: who issues parses it.

Format: proto/sfrl/identity/v1/identity_service.proto; proto/README.md, "Enrolment".

Runs in: gatekeeper (one side), participant and whoever else has an identity (the other).
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.participants import ParticipantRecord
from sfrl_secure.governance.statements import IdentityRequest
from sfrl_secure.limits import (
    CERTIFICATE_BYTES_MAX,
    CSR_BYTES_MAX,
    DOCUMENT_BYTES_MAX,
    ENTRY_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    NOTE_BYTES_MAX,
    UPDATE_HEADER_BYTES_MAX,
)
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.canonical import build_message, encode_canonical, parse_canonical, parse_message, take_bytes
from sfrl_secure.wire.entries import envelope_message, envelope_of, logged_entry_message, logged_entry_of
from sfrl_secure.wire.gen.sfrl.audit.v1 import entry_pb2
from sfrl_secure.wire.gen.sfrl.identity.v1 import identity_service_pb2 as messages
from sfrl_secure.wire.participants import parse_identity_request_envelope

SERVICE = messages.DESCRIPTOR.services_by_name["IdentityService"].full_name
ENROL = f"/{SERVICE}/Enrol"
RENEW_IDENTITY = f"/{SERVICE}/RenewIdentity"

_HEADS_BYTES = 64  # tags and lengths of a request's fields, and room to spare
_RENEW_BYTES_MAX = UPDATE_HEADER_BYTES_MAX + CSR_BYTES_MAX + _HEADS_BYTES
_ENROL_BYTES_MAX = ENTRY_BYTES_MAX + _RENEW_BYTES_MAX


@dataclass(frozen=True, slots=True)
class EnrolRequest:
    """A newcomer. No signature was looked at; the record in its envelope is not parsed.

    Attributes:
        record: envelope of a participant record; its statement is at most 60,000 bytes. None where somebody asks whom
            root or the services document names.
        request_raw: canonical bytes of `request`, whose parsed statement is `identity`.
        csr: PKCS #10 in DER, 1 to 4,096 bytes.
    """

    record: Envelope | None
    request_raw: bytes
    request: Envelope
    identity: IdentityRequest
    csr: bytes


@dataclass(frozen=True, slots=True)
class EnrolResponse:
    """An identity: entries whose paths lead to one checkpoint, and a certificate. Not verified.

    Attributes:
        recorded: the participant_recorded entry; None where no record was sent.
        issued: the identity_issued entry.
        certificate: PEM, at most 16 KiB.
    """

    recorded: LoggedEntry | None
    issued: LoggedEntry
    checkpoint: bytes
    certificate: bytes


@dataclass(frozen=True, slots=True)
class RenewRequest:
    """Whoever calls wants its next certificate. No signature was looked at.

    Attributes:
        request_raw: canonical bytes of `request`, whose parsed statement is `identity`.
        csr: PKCS #10 in DER, 1 to 4,096 bytes.
    """

    request_raw: bytes
    request: Envelope
    identity: IdentityRequest
    csr: bytes


@dataclass(frozen=True, slots=True)
class RenewResponse:
    """An identity: its identity_issued entry, a checkpoint under the log's keys, and a certificate. Not verified."""

    issued: LoggedEntry
    checkpoint: bytes
    certificate: bytes


def encode_enrol_request(record: Envelope | None, request: Envelope, csr: bytes) -> bytes:
    """Write an Enrol request, without a record where an operator, auditor or service asks.

    Raises:
        MalformedError: `parse_enrol_request` would refuse it.
    """
    raw = encode_canonical(
        build_message(
            lambda: messages.EnrolRequest(
                record=None if record is None else envelope_message(record),
                request=envelope_message(request),
                csr=csr,
            )
        )
    )
    parse_enrol_request(raw)
    return raw


def parse_enrol_request(raw: bytes) -> EnrolRequest:
    """Take an Enrol request.

    Raises:
        MalformedError: not canonical, a part of it over its bounds, or an envelope that holds something else.
    """
    message = parse_canonical(messages.EnrolRequest, raw, _ENROL_BYTES_MAX)
    record = _record_of(message.record) if message.HasField("record") else None
    request_raw, request, identity = _request_of(message.request)
    return EnrolRequest(record, request_raw, request, identity, _csr_of(message.csr))


def encode_enrol_response(answer: EnrolResponse) -> bytes:
    """Write an Enrol answer.

    Raises:
        MalformedError: a certificate over 16 KiB.
    """
    take_bytes(answer.certificate, "a certificate", CERTIFICATE_BYTES_MAX)
    return encode_canonical(
        build_message(
            lambda: messages.EnrolResponse(
                recorded=None if answer.recorded is None else logged_entry_message(answer.recorded),
                issued=logged_entry_message(answer.issued),
                checkpoint=answer.checkpoint,
                certificate=answer.certificate,
            )
        )
    )


def parse_enrol_response(raw: bytes) -> EnrolResponse:
    """Take an Enrol answer; the caller verifies entries and certificate.

    Raises:
        MalformedError: not an answer of that form.
    """
    message = parse_message(messages.EnrolResponse, raw, MESSAGE_BYTES_MAX)
    return EnrolResponse(
        recorded=logged_entry_of(message.recorded, "the record") if message.HasField("recorded") else None,
        issued=logged_entry_of(message.issued, "the identity"),
        checkpoint=take_bytes(message.checkpoint, "a checkpoint", NOTE_BYTES_MAX),
        certificate=take_bytes(message.certificate, "a certificate", CERTIFICATE_BYTES_MAX),
    )


def encode_renew_request(request: Envelope, csr: bytes) -> bytes:
    """Write a RenewIdentity request.

    Raises:
        MalformedError: `parse_renew_request` would refuse it.
    """
    raw = encode_canonical(
        build_message(lambda: messages.RenewIdentityRequest(request=envelope_message(request), csr=csr))
    )
    parse_renew_request(raw)
    return raw


def parse_renew_request(raw: bytes) -> RenewRequest:
    """Take a RenewIdentity request.

    Raises:
        MalformedError: not canonical, a part of it over its bounds, or an envelope that holds something else.
    """
    message = parse_canonical(messages.RenewIdentityRequest, raw, _RENEW_BYTES_MAX)
    request_raw, request, identity = _request_of(message.request)
    return RenewRequest(request_raw, request, identity, _csr_of(message.csr))


def encode_renew_response(answer: RenewResponse) -> bytes:
    """Write a RenewIdentity answer.

    Raises:
        MalformedError: a certificate over 16 KiB.
    """
    take_bytes(answer.certificate, "a certificate", CERTIFICATE_BYTES_MAX)
    return encode_canonical(
        build_message(
            lambda: messages.RenewIdentityResponse(
                issued=logged_entry_message(answer.issued),
                checkpoint=answer.checkpoint,
                certificate=answer.certificate,
            )
        )
    )


def parse_renew_response(raw: bytes) -> RenewResponse:
    """Take a RenewIdentity answer; the caller verifies entry and certificate.

    Raises:
        MalformedError: not an answer of that form.
    """
    message = parse_message(messages.RenewIdentityResponse, raw, MESSAGE_BYTES_MAX)
    return RenewResponse(
        issued=logged_entry_of(message.issued, "the identity"),
        checkpoint=take_bytes(message.checkpoint, "a checkpoint", NOTE_BYTES_MAX),
        certificate=take_bytes(message.certificate, "a certificate", CERTIFICATE_BYTES_MAX),
    )


def _record_of(message: entry_pb2.Envelope) -> Envelope:
    if message.ByteSize() > ENTRY_BYTES_MAX:
        raise MalformedError(f"the envelope of a record is at most {ENTRY_BYTES_MAX} bytes")
    record = envelope_of(message)
    if record.payload_type != ParticipantRecord.payload_type or len(record.statement) > DOCUMENT_BYTES_MAX:
        raise MalformedError(f"a newcomer shows a participant record of at most {DOCUMENT_BYTES_MAX} bytes")
    return record


def _request_of(message: entry_pb2.Envelope) -> tuple[bytes, Envelope, IdentityRequest]:
    # What holds it is canonical, so writing the part again gives the bytes that arrived.
    raw = encode_canonical(message)
    return raw, *parse_identity_request_envelope(raw)


def _csr_of(csr: bytes) -> bytes:
    return take_bytes(csr, "a PKCS #10 request", CSR_BYTES_MAX)
