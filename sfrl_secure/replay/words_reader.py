"""From bytes to what participants sign, and to requests for an identity; no signature is looked at.

Format: proto/README.md, "Canonical form", "What participants sign"; the schemas beside it.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from typing import Any

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import parse_digest, parse_name, parse_segment, parse_spiffe_id
from sfrl_secure.limits import UPDATE_HEADER_BYTES_MAX, VALUE_MAX
from sfrl_secure.replay import schema
from sfrl_secure.replay.message_fields import (
    COUNT_END,
    check_ascending,
    read_message,
    take_bounded,
    take_envelope,
    take_present,
    take_required,
)
from sfrl_secure.replay.payload_header import SUPPORTS, VALUE_TYPES
from sfrl_secure.replay.protobuf import Table
from sfrl_secure.replay.words import (
    DECISION_TYPE,
    IDENTITY_REQUEST_TYPE,
    UPDATE_TYPE,
    WITHDRAWAL_TYPE,
    Decision,
    IdentityRequest,
    Update,
    Withdrawal,
)

_PPM = 1_000_000
_SHARE_MAX = 10**9
_ATTRIBUTIONS_MAX = 64
_LATENTS_MAX = 256
_SEQUENCE_END = 2**63


def parse_update_envelope(raw: bytes) -> tuple[Envelope, Update]:
    """Read a participant's envelope and the update in it.

    Raises:
        MalformedError: longer than a header may be, or either is not in canonical form.
    """
    envelope = _open(raw, UPDATE_TYPE)
    return envelope, parse_update(envelope.statement)


def parse_withdrawal_envelope(raw: bytes) -> tuple[Envelope, Withdrawal]:
    """Read a participant's envelope and the withdrawal in it.

    Raises:
        MalformedError: longer than a header may be, or either is not in canonical form.
    """
    envelope = _open(raw, WITHDRAWAL_TYPE)
    return envelope, parse_withdrawal(envelope.statement)


def parse_decision_envelope(raw: bytes) -> tuple[Envelope, Decision]:
    """Read a participant's envelope and the decision in it.

    Raises:
        MalformedError: longer than a header may be, or either is not in canonical form.
    """
    envelope = _open(raw, DECISION_TYPE)
    return envelope, parse_decision(envelope.statement)


def parse_identity_request_envelope(raw: bytes) -> tuple[Envelope, IdentityRequest]:
    """Read an envelope and the request for an identity in it.

    Raises:
        MalformedError: longer than a header may be, or either is not in canonical form.
    """
    envelope = _open(raw, IDENTITY_REQUEST_TYPE)
    return envelope, parse_identity_request(envelope.statement)


def parse_update(raw: bytes) -> Update:
    """Read an update statement.

    Raises:
        MalformedError: not in canonical form.
    """
    fields = _read(raw, schema.UPDATE_STATEMENT)
    form = take_present(fields["format"])
    return Update(
        federation_id=parse_digest(fields["federation_id"]),
        segment=parse_segment(fields["segment"]),
        participant=parse_name(fields["participant"]),
        key_id=parse_digest(fields["key_id"]),
        round=take_required(fields["round"]),
        round_opened=parse_digest(fields["round_opened"]),
        base_model=parse_digest(fields["base_model"]),
        payload_sha256=parse_digest(fields["payload_sha256"]),
        payload_root=parse_digest(fields["payload_root"]),
        payload_bytes=fields["payload_bytes"],
        nonzeros=fields["nonzeros"],
        codec=take_required(form["codec"]),
        support=SUPPORTS[take_required(form["support"])],
        values=VALUE_TYPES[take_required(form["values"])],
        weight=fields["weight"],
        noise_std=take_bounded(fields["noise_std"], VALUE_MAX),
    )


def parse_withdrawal(raw: bytes) -> Withdrawal:
    """Read a withdrawal statement.

    Raises:
        MalformedError: not in canonical form.
    """
    fields = _read(raw, schema.WITHDRAWAL_STATEMENT)
    return Withdrawal(
        federation_id=parse_digest(fields["federation_id"]),
        segment=parse_segment(fields["segment"]),
        participant=parse_name(fields["participant"]),
        key_id=parse_digest(fields["key_id"]),
        round=take_required(fields["round"]),
        round_opened=parse_digest(fields["round_opened"]),
        update=parse_digest(fields["update"]),
    )


def parse_decision(raw: bytes) -> Decision:
    """Read a decision statement.

    Raises:
        MalformedError: not in canonical form.
    """
    fields = _read(raw, schema.DECISION_STATEMENT)
    parse_digest(fields["input_commitment"])
    take_bounded(fields["confidence_ppm"], _PPM)
    latents = fields["active_latents"]
    if len(latents) > _LATENTS_MAX or any(latent >= COUNT_END for latent in latents):
        raise MalformedError(f"at most {_LATENTS_MAX} active latents, each below {COUNT_END}")
    check_ascending(latents)
    attributions = fields["attributions"]
    if len(attributions) > _ATTRIBUTIONS_MAX:
        raise MalformedError(f"at most {_ATTRIBUTIONS_MAX} attributions")
    for each in attributions:
        take_bounded(each["feature"], COUNT_END - 1)
        if abs(each["share_ppm"]) > _SHARE_MAX:
            raise MalformedError(f"a share is at most {_SHARE_MAX} millionths, in either direction")
    check_ascending([each["feature"] for each in attributions])
    return Decision(
        federation_id=parse_digest(fields["federation_id"]),
        segment=parse_segment(fields["segment"]),
        participant=parse_name(fields["participant"]),
        key_id=parse_digest(fields["key_id"]),
        record_seq=take_bounded(take_required(fields["record_seq"]), _SEQUENCE_END - 1),
        model=parse_digest(fields["model"]),
        predicted_class=take_bounded(fields["predicted_class"], COUNT_END - 1),
    )


def parse_identity_request(raw: bytes) -> IdentityRequest:
    """Read a request for an identity.

    Raises:
        MalformedError: not in canonical form.
    """
    fields = _read(raw, schema.IDENTITY_REQUEST)
    return IdentityRequest(
        federation_id=parse_digest(fields["federation_id"]),
        spiffe_id=parse_spiffe_id(fields["spiffe_id"]),
        key_id=parse_digest(fields["key_id"]),
        spki_sha256=parse_digest(fields["spki_sha256"]),
        created_us=fields["created_us"],
    )


def _read(raw: bytes, table: Table) -> dict[str, Any]:
    return read_message(raw, table, UPDATE_HEADER_BYTES_MAX)


def _open(raw: bytes, payload_type: str) -> Envelope:
    envelope = take_envelope(_read(raw, schema.ENVELOPE))
    if envelope.payload_type != payload_type:
        raise MalformedError("the envelope holds what its place asks for")
    return envelope
