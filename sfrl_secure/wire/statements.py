"""Statements as bytes: what services and participants sign.

What is signed has one form, so a statement is written, read again and compared before anybody signs it: nothing
leaves that `parse_statement` would refuse. What a statement quotes, such as a participant's envelope with its update,
stands in it verbatim; when the quoted bytes are not in canonical form, the whole statement is malformed.

Format: proto/README.md, "Statements" and "Canonical form"; proto/sfrl/audit/v1/entry.proto,
proto/sfrl/update/v1/update.proto.

Runs in: gatekeeper, aggregator, audit_log, participant, verifier (reading).
Trusts: nothing; no signature is looked at here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import (
    UPDATE_TYPE,
    Body,
    ComplaintRecorded,
    DecisionRecorded,
    EntryKind,
    Evidence,
    IdentityIssued,
    ModelPublished,
    ModelsFetched,
    PayloadFormat,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    Statement,
    TimeAnchored,
    UpdateAdmitted,
    UpdateRefused,
    UpdateStatement,
    UpdateWithdrawn,
)
from sfrl_secure.ids import parse_name, parse_segment, parse_spiffe_id
from sfrl_secure.limits import ENTRY_BYTES_MAX, UPDATE_HEADER_BYTES_MAX, VALUE_MAX
from sfrl_secure.wire import bodies
from sfrl_secure.wire.canonical import (
    build_message,
    encode_canonical,
    parse_canonical,
    take_digest,
    take_number,
    take_reason,
    take_rule_ids,
)
from sfrl_secure.wire.entries import parse_envelope
from sfrl_secure.wire.gen.sfrl.audit.v1 import entry_pb2
from sfrl_secure.wire.gen.sfrl.update.v1 import update_pb2

REQUEST_ID_BYTES = 16
_SEGMENT_STREAM = "segment/"
_SUPPORT_MODES = {
    update_pb2.SUPPORT_MODE_FREE: "free",
    update_pb2.SUPPORT_MODE_AGREED: "agreed",
    update_pb2.SUPPORT_MODE_DENSE: "dense",
}
_VALUE_TYPES = {
    update_pb2.VALUE_TYPE_INT8: "int8",
    update_pb2.VALUE_TYPE_FP32: "fp32",
    update_pb2.VALUE_TYPE_BF16: "bf16",
    update_pb2.VALUE_TYPE_SIGN: "sign",
    update_pb2.VALUE_TYPE_PACKED: "packed",
    update_pb2.VALUE_TYPE_EXACT: "exact",
}


def encode_statement(statement: Statement) -> bytes:
    """Write a service's statement as the bytes to sign.

    Raises:
        MalformedError: `parse_statement` would refuse it.
    """
    field, fill = _FILLERS[type(statement.body)]
    message = build_message(
        lambda: entry_pb2.Statement(
            federation_id=statement.federation_id,
            stream=statement.stream,
            kind=entry_pb2.EntryKind.ValueType(statement.kind),
            writer=statement.writer,
            key_id=statement.key_id,
            reads_governance=statement.reads_governance,
            reads_segment=statement.reads_segment,
            valid_until_us=statement.valid_until_us,
            request_id=statement.request_id,
            **{field: fill(statement.body)},
        )
    )
    raw = encode_canonical(message)
    if parse_statement(raw) != statement:
        raise MalformedError("the statement's values do not agree with each other")
    return raw


def parse_statement(raw: bytes) -> Statement:
    """Take the signed bytes of a service's statement.

    Whether the writer is a service, may write the kind and chose the right stream is not a matter of form: rounds and
    replay decide it.

    Raises:
        MalformedError: not a statement in canonical form, or kind and body disagree.
    """
    message = parse_canonical(entry_pb2.Statement, raw, ENTRY_BYTES_MAX)
    field = message.WhichOneof("body")
    if field is None or int(message.kind) != _KINDS[field]:
        raise MalformedError("the kind does not say what the body is")
    if len(message.request_id) != REQUEST_ID_BYTES:
        raise MalformedError(f"a request id is exactly {REQUEST_ID_BYTES} bytes")
    return Statement(
        federation_id=take_digest(message.federation_id, "federation_id"),
        stream=_parse_stream(message.stream),
        writer=parse_spiffe_id(message.writer),
        key_id=take_digest(message.key_id, "key_id"),
        reads_governance=take_digest(message.reads_governance, "reads_governance"),
        reads_segment=take_digest(message.reads_segment, "reads_segment"),
        valid_until_us=take_number(message.valid_until_us, "valid_until_us"),
        request_id=message.request_id,
        body=_PARSERS[field](getattr(message, field)),
    )


def encode_update(update: UpdateStatement) -> bytes:
    """Write a participant's update statement as the bytes to sign.

    Raises:
        MalformedError: `parse_update` would refuse it.
    """
    supports = {name: number for number, name in _SUPPORT_MODES.items()}
    values = {name: number for number, name in _VALUE_TYPES.items()}
    if update.format.support not in supports or update.format.values not in values:
        raise MalformedError("the format names a support mode or a value type that there is not")
    message = build_message(
        lambda: update_pb2.UpdateStatement(
            federation_id=update.federation_id,
            segment=update.segment,
            participant=update.participant,
            key_id=update.key_id,
            round=update.round,
            round_opened=update.round_opened,
            base_model=update.base_model,
            payload_sha256=update.payload_sha256,
            payload_bytes=update.payload_bytes,
            nonzeros=update.nonzeros,
            format=update_pb2.PayloadFormat(
                codec=update.format.codec,
                support=supports[update.format.support],
                values=values[update.format.values],
            ),
            weight=update.weight,
            created_us=update.created_us,
            noise_std=update.noise_std,
            payload_root=update.payload_root,
        )
    )
    raw = encode_canonical(message)
    if parse_update(raw) != update:
        raise MalformedError("the update statement does not fit its format")
    return raw


def parse_update(raw: bytes) -> UpdateStatement:
    """Take the signed bytes of a participant's update statement.

    Limits that a segment's terms set, the codec's version among them, are decided later, so that each has its reason.

    Raises:
        MalformedError: not an update statement in canonical form.
    """
    message = parse_canonical(update_pb2.UpdateStatement, raw, UPDATE_HEADER_BYTES_MAX)
    support = _SUPPORT_MODES.get(message.format.support)
    values = _VALUE_TYPES.get(message.format.values)
    if support is None or values is None:
        raise MalformedError("the format has a support mode and a value type")
    if message.noise_std > VALUE_MAX:
        raise MalformedError(f"noise is claimed up to {VALUE_MAX} grid units")
    return UpdateStatement(
        federation_id=take_digest(message.federation_id, "federation_id"),
        segment=parse_segment(message.segment),
        participant=parse_name(message.participant),
        key_id=take_digest(message.key_id, "key_id"),
        round=take_number(message.round, "round"),
        round_opened=take_digest(message.round_opened, "round_opened"),
        base_model=take_digest(message.base_model, "base_model"),
        payload_sha256=take_digest(message.payload_sha256, "payload_sha256"),
        payload_root=take_digest(message.payload_root, "payload_root"),
        payload_bytes=message.payload_bytes,
        nonzeros=message.nonzeros,
        format=PayloadFormat(codec=take_number(message.format.codec, "codec"), support=support, values=values),
        weight=message.weight,
        created_us=message.created_us,
        noise_std=message.noise_std,
    )


def parse_update_envelope(raw: bytes) -> tuple[Envelope, UpdateStatement]:
    """Take the binary form of a participant's envelope with the update statement in it.

    Raises:
        MalformedError: over 16 KiB, not an envelope in canonical form, or not an update in it.
    """
    envelope = parse_envelope(raw, UPDATE_HEADER_BYTES_MAX)
    if envelope.payload_type != UPDATE_TYPE:
        raise MalformedError("the envelope does not hold an update")
    return envelope, parse_update(envelope.statement)


def _parse_stream(stream: str) -> str:
    # Stream `governance` holds operators' documents only, so no statement can name it.
    if stream not in ("identity", "log"):
        if not stream.startswith(_SEGMENT_STREAM):
            raise MalformedError("a statement's stream is identity, log or segment/<id>")
        parse_segment(stream.removeprefix(_SEGMENT_STREAM))
    return stream


def _parse_update_admitted(message: entry_pb2.UpdateAdmitted) -> UpdateAdmitted:
    if not message.HasField("facts"):
        raise MalformedError("an admission has measured facts")
    envelope, update = parse_update_envelope(message.envelope)
    return UpdateAdmitted(
        envelope_raw=message.envelope,
        envelope=envelope,
        update=update,
        facts=bodies.parse_facts(message.facts),
        rule_ids=take_rule_ids(message.rule_ids, decisions=2),
        retain_until_us=take_number(message.retain_until_us, "retain_until_us"),
    )


def _update_admitted_message(body: UpdateAdmitted) -> entry_pb2.UpdateAdmitted:
    return entry_pb2.UpdateAdmitted(
        envelope=body.envelope_raw,
        facts=bodies.facts_message(body.facts),
        rule_ids=body.rule_ids,
        retain_until_us=body.retain_until_us,
    )


def _parse_update_refused(message: entry_pb2.UpdateRefused) -> UpdateRefused:
    envelope, update = parse_update_envelope(message.envelope) if message.envelope else (None, None)
    return UpdateRefused(
        peer=parse_spiffe_id(message.peer),
        envelope_raw=message.envelope,
        envelope=envelope,
        update=update,
        request_digest=take_digest(message.request_digest, "request_digest"),
        reason=take_reason(message.reason),
        facts=bodies.parse_facts(message.facts) if message.HasField("facts") else None,
        rule_ids=take_rule_ids(message.rule_ids, decisions=1),
        evidence=bodies.take_enum(Evidence, message.evidence, "the evidence"),
    )


def _update_refused_message(body: UpdateRefused) -> entry_pb2.UpdateRefused:
    return entry_pb2.UpdateRefused(
        peer=body.peer,
        envelope=body.envelope_raw,
        request_digest=body.request_digest,
        reason=body.reason,
        facts=None if body.facts is None else bodies.facts_message(body.facts),
        rule_ids=body.rule_ids,
        evidence=entry_pb2.Evidence.ValueType(body.evidence),
    )


def _parse_complaint_recorded(message: entry_pb2.ComplaintRecorded) -> ComplaintRecorded:
    envelope, update = parse_update_envelope(message.envelope)
    return ComplaintRecorded(message.envelope, envelope, update)


def _complaint_recorded_message(body: ComplaintRecorded) -> entry_pb2.ComplaintRecorded:
    return entry_pb2.ComplaintRecorded(envelope=body.envelope_raw)


_KINDS: dict[str, EntryKind] = {
    "identity_issued": EntryKind.IDENTITY_ISSUED,
    "round_opened": EntryKind.ROUND_OPENED,
    "update_admitted": EntryKind.UPDATE_ADMITTED,
    "update_refused": EntryKind.UPDATE_REFUSED,
    "refusals_counted": EntryKind.REFUSALS_COUNTED,
    "round_closed": EntryKind.ROUND_CLOSED,
    "model_published": EntryKind.MODEL_PUBLISHED,
    "models_fetched": EntryKind.MODELS_FETCHED,
    "time_anchored": EntryKind.TIME_ANCHORED,
    "update_withdrawn": EntryKind.UPDATE_WITHDRAWN,
    "complaint_recorded": EntryKind.COMPLAINT_RECORDED,
    "decision_recorded": EntryKind.DECISION_RECORDED,
}
# Any: each function takes the one message, or the one body, that its key names.
_PARSERS: dict[str, Callable[[Any], Body]] = {
    "identity_issued": bodies.parse_identity_issued,
    "round_opened": bodies.parse_round_opened,
    "update_admitted": _parse_update_admitted,
    "update_refused": _parse_update_refused,
    "refusals_counted": bodies.parse_refusals_counted,
    "round_closed": bodies.parse_round_closed,
    "model_published": bodies.parse_model_published,
    "models_fetched": bodies.parse_models_fetched,
    "time_anchored": bodies.parse_time_anchored,
    "update_withdrawn": bodies.parse_update_withdrawn,
    "complaint_recorded": _parse_complaint_recorded,
    "decision_recorded": bodies.parse_decision_recorded,
}
_FILLERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    IdentityIssued: ("identity_issued", bodies.identity_issued_message),
    RoundOpened: ("round_opened", bodies.round_opened_message),
    UpdateAdmitted: ("update_admitted", _update_admitted_message),
    UpdateRefused: ("update_refused", _update_refused_message),
    RefusalsCounted: ("refusals_counted", bodies.refusals_counted_message),
    RoundClosed: ("round_closed", bodies.round_closed_message),
    ModelPublished: ("model_published", bodies.model_published_message),
    ModelsFetched: ("models_fetched", bodies.models_fetched_message),
    TimeAnchored: ("time_anchored", bodies.time_anchored_message),
    UpdateWithdrawn: ("update_withdrawn", bodies.update_withdrawn_message),
    ComplaintRecorded: ("complaint_recorded", _complaint_recorded_message),
    DecisionRecorded: ("decision_recorded", bodies.decision_recorded_message),
}
