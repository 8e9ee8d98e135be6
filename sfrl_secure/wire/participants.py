"""What participants sign beside updates, and what asks for an identity or an object: four statements as bytes.

What is signed has one form, so each is written, read again and compared before anybody signs it: nothing leaves that
its parser would refuse. Which key must have signed, and whether what is asked may be, is decided later; a wrong answer
there has a reason, here it is only `malformed`.

Format: proto/README.md, "What participants sign", "Enrolment" and "Canonical form"; proto/sfrl/update/v1/update.proto,
proto/sfrl/identity/v1/identity_service.proto, proto/sfrl/gatekeeper/v1/gatekeeper_service.proto.

Runs in: participant, auditor, verifier and services (writing), gatekeeper, audit_log, verifier (reading).
Trusts: nothing; no signature is looked at here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from google.protobuf.message import Message

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import (
    DECISION_TYPE,
    IDENTITY_REQUEST_TYPE,
    OBJECT_REQUEST_TYPE,
    WITHDRAWAL_TYPE,
    Attribution,
    DecisionStatement,
    IdentityRequest,
    ObjectRequest,
    WithdrawalStatement,
)
from sfrl_secure.ids import parse_name, parse_segment, parse_spiffe_id
from sfrl_secure.limits import ATTRIBUTIONS_MAX, LATENTS_MAX, UPDATE_HEADER_BYTES_MAX
from sfrl_secure.wire.canonical import (
    build_message,
    check_ascending,
    encode_canonical,
    parse_canonical,
    take_digest,
    take_number,
)
from sfrl_secure.wire.entries import parse_envelope
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2
from sfrl_secure.wire.gen.sfrl.identity.v1 import identity_service_pb2
from sfrl_secure.wire.gen.sfrl.update.v1 import update_pb2

CONFIDENCE_PPM_MAX = 1_000_000
SHARE_PPM_MAX = 1_000_000_000
"""Largest share of one input, either way."""

POSITION_LIMIT = 2**31
"""Classes, features and latent dimensions are numbered below this."""

RECORD_SEQ_LIMIT = 2**63

S = TypeVar("S", WithdrawalStatement, DecisionStatement, IdentityRequest, ObjectRequest)


def encode_withdrawal(withdrawal: WithdrawalStatement) -> bytes:
    """Write a withdrawal as the bytes to sign.

    Raises:
        MalformedError: `parse_withdrawal` would refuse it.
    """
    message = build_message(
        lambda: update_pb2.WithdrawalStatement(
            federation_id=withdrawal.federation_id,
            segment=withdrawal.segment,
            participant=withdrawal.participant,
            key_id=withdrawal.key_id,
            round=withdrawal.round,
            round_opened=withdrawal.round_opened,
            update=withdrawal.update,
            created_us=withdrawal.created_us,
        )
    )
    return _written(message, withdrawal, parse_withdrawal)


def parse_withdrawal(raw: bytes) -> WithdrawalStatement:
    """Take the signed bytes of a withdrawal.

    Raises:
        MalformedError: not a withdrawal in canonical form.
    """
    message = parse_canonical(update_pb2.WithdrawalStatement, raw, UPDATE_HEADER_BYTES_MAX)
    return WithdrawalStatement(
        federation_id=take_digest(message.federation_id, "federation_id"),
        segment=parse_segment(message.segment),
        participant=parse_name(message.participant),
        key_id=take_digest(message.key_id, "key_id"),
        round=take_number(message.round, "round"),
        round_opened=take_digest(message.round_opened, "round_opened"),
        update=take_digest(message.update, "update"),
        created_us=message.created_us,
    )


def parse_withdrawal_envelope(raw: bytes) -> tuple[Envelope, WithdrawalStatement]:
    """Take the binary form of a participant's envelope with the withdrawal in it.

    Raises:
        MalformedError: over 16 KiB, not an envelope in canonical form, or not a withdrawal in it.
    """
    return _opened(raw, WITHDRAWAL_TYPE, "a withdrawal", parse_withdrawal)


def encode_decision(decision: DecisionStatement) -> bytes:
    """Write a decision as the bytes to sign.

    Raises:
        MalformedError: `parse_decision` would refuse it.
    """
    message = build_message(
        lambda: update_pb2.DecisionStatement(
            federation_id=decision.federation_id,
            segment=decision.segment,
            participant=decision.participant,
            key_id=decision.key_id,
            record_seq=decision.record_seq,
            input_commitment=decision.input_commitment,
            model=decision.model,
            predicted_class=decision.predicted_class,
            confidence_ppm=decision.confidence_ppm,
            active_latents=decision.active_latents,
            attributions=[
                update_pb2.Attribution(feature=each.feature, share_ppm=each.share_ppm) for each in decision.attributions
            ],
            created_us=decision.created_us,
        )
    )
    return _written(message, decision, parse_decision)


def parse_decision(raw: bytes) -> DecisionStatement:
    """Take the signed bytes of a decision.

    Raises:
        MalformedError: not a decision in canonical form, or a number or a list outside its range.
    """
    message = parse_canonical(update_pb2.DecisionStatement, raw, UPDATE_HEADER_BYTES_MAX)
    latents = tuple(message.active_latents)
    if len(latents) > LATENTS_MAX or any(latent >= POSITION_LIMIT for latent in latents):
        raise MalformedError(f"a decision names at most {LATENTS_MAX} latent dimensions, each below 2**31")
    check_ascending(latents, "active latents")
    if take_number(message.record_seq, "record_seq") >= RECORD_SEQ_LIMIT:
        raise MalformedError("the number of a record is below 2**63")
    if message.predicted_class >= POSITION_LIMIT:
        raise MalformedError("a class is below 2**31")
    if message.confidence_ppm > CONFIDENCE_PPM_MAX:
        raise MalformedError(f"confidence is at most {CONFIDENCE_PPM_MAX} millionths")
    return DecisionStatement(
        federation_id=take_digest(message.federation_id, "federation_id"),
        segment=parse_segment(message.segment),
        participant=parse_name(message.participant),
        key_id=take_digest(message.key_id, "key_id"),
        record_seq=message.record_seq,
        input_commitment=take_digest(message.input_commitment, "input_commitment"),
        model=take_digest(message.model, "model"),
        predicted_class=message.predicted_class,
        confidence_ppm=message.confidence_ppm,
        active_latents=latents,
        attributions=_attributions_of(message),
        created_us=message.created_us,
    )


def parse_decision_envelope(raw: bytes) -> tuple[Envelope, DecisionStatement]:
    """Take the binary form of a participant's envelope with the decision in it.

    Raises:
        MalformedError: over 16 KiB, not an envelope in canonical form, or not a decision in it.
    """
    return _opened(raw, DECISION_TYPE, "a decision", parse_decision)


def encode_identity_request(request: IdentityRequest) -> bytes:
    """Write a request for a TLS identity as the bytes to sign.

    Raises:
        MalformedError: `parse_identity_request` would refuse it.
    """
    message = build_message(
        lambda: identity_service_pb2.IdentityRequest(
            federation_id=request.federation_id,
            spiffe_id=request.spiffe_id,
            key_id=request.key_id,
            spki_sha256=request.spki_sha256,
            created_us=request.created_us,
        )
    )
    return _written(message, request, parse_identity_request)


def parse_identity_request(raw: bytes) -> IdentityRequest:
    """Take the signed bytes of a request for a TLS identity.

    Raises:
        MalformedError: not a request in canonical form.
    """
    message = parse_canonical(identity_service_pb2.IdentityRequest, raw, UPDATE_HEADER_BYTES_MAX)
    return IdentityRequest(
        federation_id=take_digest(message.federation_id, "federation_id"),
        spiffe_id=parse_spiffe_id(message.spiffe_id),
        key_id=take_digest(message.key_id, "key_id"),
        spki_sha256=take_digest(message.spki_sha256, "spki_sha256"),
        created_us=message.created_us,
    )


def parse_identity_request_envelope(raw: bytes) -> tuple[Envelope, IdentityRequest]:
    """Take the binary form of an envelope with the request for a TLS identity in it.

    Raises:
        MalformedError: over 16 KiB, not an envelope in canonical form, or not such a request in it.
    """
    return _opened(raw, IDENTITY_REQUEST_TYPE, "an identity request", parse_identity_request)


def encode_object_request(request: ObjectRequest) -> bytes:
    """Write a request for an object as the bytes to sign.

    Raises:
        MalformedError: `parse_object_request` would refuse it.
    """
    message = build_message(
        lambda: gatekeeper_service_pb2.ObjectRequest(
            federation_id=request.federation_id,
            reader=request.reader,
            key_id=request.key_id,
            digest=request.digest,
            created_us=request.created_us,
        )
    )
    return _written(message, request, parse_object_request)


def parse_object_request(raw: bytes) -> ObjectRequest:
    """Take the signed bytes of a request for an object. That the reader may read is not a matter of form.

    Raises:
        MalformedError: not a request in canonical form.
    """
    message = parse_canonical(gatekeeper_service_pb2.ObjectRequest, raw, UPDATE_HEADER_BYTES_MAX)
    return ObjectRequest(
        federation_id=take_digest(message.federation_id, "federation_id"),
        reader=parse_spiffe_id(message.reader),
        key_id=take_digest(message.key_id, "key_id"),
        digest=take_digest(message.digest, "digest"),
        created_us=message.created_us,
    )


def parse_object_request_envelope(raw: bytes) -> tuple[Envelope, ObjectRequest]:
    """Take the binary form of a reader's envelope with the request for an object in it.

    Raises:
        MalformedError: over 16 KiB, not an envelope in canonical form, or not such a request in it.
    """
    return _opened(raw, OBJECT_REQUEST_TYPE, "an object request", parse_object_request)


def _attributions_of(message: update_pb2.DecisionStatement) -> tuple[Attribution, ...]:
    if len(message.attributions) > ATTRIBUTIONS_MAX:
        raise MalformedError(f"a decision has at most {ATTRIBUTIONS_MAX} attributions")
    # Feature 0 is one, and so is a share of 0: an attribution that is there and empty says both.
    attributions = tuple(Attribution(each.feature, each.share_ppm) for each in message.attributions)
    if any(each.feature >= POSITION_LIMIT or abs(each.share_ppm) > SHARE_PPM_MAX for each in attributions):
        raise MalformedError(f"a feature is below 2**31, and its share within {SHARE_PPM_MAX} millionths")
    check_ascending([each.feature for each in attributions], "attributions")
    return attributions


def _written(message: Message, statement: S, parse: Callable[[bytes], S]) -> bytes:
    raw = encode_canonical(message)
    if parse(raw) != statement:
        raise MalformedError("the statement does not fit its format")
    return raw


def _opened(raw: bytes, payload_type: str, what: str, parse: Callable[[bytes], S]) -> tuple[Envelope, S]:
    envelope = parse_envelope(raw, UPDATE_HEADER_BYTES_MAX)
    if envelope.payload_type != payload_type:
        raise MalformedError(f"the envelope does not hold {what}")
    return envelope, parse(envelope.statement)
