"""From bytes to entries, envelopes, statements and updates, as the replay reads them.

Each `parse_*` wants canonical bytes and checks every length, range and order that the schema states; no signature is
looked at.

Format: proto/README.md, "Canonical form", "Entry", "Statements"; the schemas beside it.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, parse_digest, parse_name, parse_segment, parse_spiffe_id
from sfrl_secure.limits import COHORT_MAX, ENTRY_BYTES_MAX, TENSORS_MAX, UPDATE_HEADER_BYTES_MAX
from sfrl_secure.replay import schema
from sfrl_secure.replay.protobuf import Table, parse_message
from sfrl_secure.replay.statements import (
    DEADLINE,
    FULL,
    UPDATE_TYPE,
    Body,
    Dropped,
    Facts,
    IdentityIssued,
    ModelPublished,
    ModelsFetched,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    Statement,
    TimeAnchored,
    Update,
    UpdateAdmitted,
    UpdateRefused,
)
from sfrl_secure.translog.anchor import parse_anchor
from sfrl_secure.translog.entries import LogEntry

_SUPPORTS = {1: "free"}
_VALUES = {1: "int8", 2: "fp32"}
_REASON = re.compile(r"[a-z]+(_[a-z]+)*")
_RULE_ID = re.compile(r"[a-z0-9-]{1,64}")
_COUNTS_MAX = 256


def parse_entry(raw: bytes) -> LogEntry:
    """Read a leaf of the log.

    Raises:
        MalformedError: not an entry in canonical form.
    """
    fields = _parse(raw, schema.LOG_ENTRY, ENTRY_BYTES_MAX)
    return LogEntry(
        prev=parse_digest(fields["prev"]),
        log_time_us=_required(fields["log_time_us"]),
        stream_seq=fields["stream_seq"],
        stream_prev=parse_digest(fields["stream_prev"]),
        envelope=_envelope(fields),
    )


def parse_update_envelope(raw: bytes) -> tuple[Envelope, Update]:
    """Read a participant's envelope and the update in it.

    Raises:
        MalformedError: longer than a header may be, or either is not in canonical form.
    """
    envelope = _envelope(_parse(raw, schema.ENVELOPE, UPDATE_HEADER_BYTES_MAX))
    if envelope.payload_type != UPDATE_TYPE:
        raise MalformedError("the envelope of an update holds an update")
    return envelope, parse_update(envelope.statement)


def parse_update(raw: bytes) -> Update:
    """Read an update statement.

    Raises:
        MalformedError: not in canonical form.
    """
    fields = _parse(raw, schema.UPDATE_STATEMENT, UPDATE_HEADER_BYTES_MAX)
    form = _present(fields["format"])
    return Update(
        federation_id=parse_digest(fields["federation_id"]),
        segment=parse_segment(fields["segment"]),
        participant=parse_name(fields["participant"]),
        key_id=parse_digest(fields["key_id"]),
        round=_required(fields["round"]),
        round_opened=parse_digest(fields["round_opened"]),
        base_model=parse_digest(fields["base_model"]),
        payload_sha256=parse_digest(fields["payload_sha256"]),
        payload_bytes=fields["payload_bytes"],
        nonzeros=fields["nonzeros"],
        codec=_required(form["codec"]),
        support=_SUPPORTS[_required(form["support"])],
        values=_VALUES[_required(form["values"])],
        weight=fields["weight"],
    )


def parse_statement(raw: bytes) -> Statement:
    """Read a service's statement.

    Raises:
        MalformedError: not in canonical form, or the kind does not say what the body is.
    """
    fields = _parse(raw, schema.STATEMENT, ENTRY_BYTES_MAX)
    bodies = [name for name in _BODIES if fields[name] is not None]
    if len(bodies) != 1:
        raise MalformedError("a statement has one body")
    kind, parse_body = _BODIES[bodies[0]]
    if fields["kind"] != kind:
        raise MalformedError("the kind says what the body is")
    if len(fields["request_id"]) != 16:
        raise MalformedError("a request id is 16 bytes")
    return Statement(
        federation_id=parse_digest(fields["federation_id"]),
        stream=_parse_stream(fields["stream"]),
        kind=kind,
        writer=parse_spiffe_id(fields["writer"]),
        key_id=parse_digest(fields["key_id"]),
        reads_governance=parse_digest(fields["reads_governance"]),
        reads_segment=parse_digest(fields["reads_segment"]),
        valid_until_us=_required(fields["valid_until_us"]),
        body=parse_body(fields[bodies[0]]),
    )


def _parse(raw: bytes, table: Table, bytes_max: int) -> dict[str, Any]:
    if len(raw) > bytes_max:
        raise MalformedError(f"a message of this kind is at most {bytes_max} bytes")
    return parse_message(raw, table)


def _envelope(fields: dict[str, Any]) -> Envelope:
    if not fields["statement"]:
        raise MalformedError("a statement is not empty")
    # Signature and Envelope know suites, lengths, numbers and order.
    signatures = tuple(Signature(Digest(each["key_id"]), each["suite"], each["value"]) for each in fields["signatures"])
    return Envelope(fields["payload_type"], fields["statement"], signatures)


def _parse_stream(stream: str) -> str:
    # `governance` holds operators' documents only, so no statement can name it.
    if stream not in ("identity", "log"):
        if not stream.startswith("segment/"):
            raise MalformedError("a statement's stream is identity, log or segment/<id>")
        parse_segment(stream.removeprefix("segment/"))
    return stream


def _identity_issued(fields: dict[str, Any]) -> IdentityIssued:
    serial = fields["serial"]
    if not 1 <= len(serial) <= 20 or serial[0] == 0:
        raise MalformedError("a serial number is 1 to 20 bytes without leading zeros")
    return IdentityIssued(
        parse_spiffe_id(fields["spiffe_id"]), parse_digest(fields["spki_sha256"]), _required(fields["not_after_us"])
    )


def _round_opened(fields: dict[str, Any]) -> RoundOpened:
    return RoundOpened(
        _required(fields["round"]), parse_digest(fields["base_model"]), parse_digest(fields["terms_digest"])
    )


def _facts(fields: dict[str, Any]) -> Facts:
    tensors = fields["tensors"]
    if len(tensors) > TENSORS_MAX or any(position >= TENSORS_MAX for position in tensors):
        raise MalformedError(f"a model has at most {TENSORS_MAX} tensors")
    _check_ascending(tensors)
    return Facts(fields["nonzeros"], fields["density_ppm"], fields["norm"], fields["largest_magnitude"], tensors)


def _rule_ids(values: Sequence[str], decisions: int) -> tuple[str, ...]:
    if len(values) > 64 or any(not _RULE_ID.fullmatch(value) for value in values):
        raise MalformedError("at most 64 rule ids, each of a-z, 0-9 and '-'")
    falls = sum(later <= earlier for earlier, later in pairwise(values))
    if falls > decisions - 1:
        raise MalformedError("the rule ids of a decision ascend")
    return tuple(values)


def _update_admitted(fields: dict[str, Any]) -> UpdateAdmitted:
    envelope, update = parse_update_envelope(fields["envelope"])
    return UpdateAdmitted(
        envelope=envelope,
        update=update,
        facts=_facts(_present(fields["facts"])),
        rule_ids=_rule_ids(fields["rule_ids"], 2),
        retain_until_us=_required(fields["retain_until_us"]),
    )


def _update_refused(fields: dict[str, Any]) -> UpdateRefused:
    envelope, update = parse_update_envelope(fields["envelope"]) if fields["envelope"] else (None, None)
    parse_digest(fields["request_digest"])
    _rule_ids(fields["rule_ids"], 1)
    return UpdateRefused(
        peer=parse_spiffe_id(fields["peer"]),
        envelope=envelope,
        update=update,
        reason=_reason(fields["reason"]),
        facts=None if fields["facts"] is None else _facts(fields["facts"]),
        evidence=_required(fields["evidence"]),
    )


def _refusals_counted(fields: dict[str, Any]) -> RefusalsCounted:
    counts = fields["counts"]
    if len(counts) > _COUNTS_MAX:
        raise MalformedError(f"at most {_COUNTS_MAX} counts")
    _check_ascending([(_reason(each["reason"]), _required(each["peer_class"])) for each in counts])
    _check_interval(fields)
    parse_digest(fields["requests_root"])
    return RefusalsCounted(sum(_required(each["count"]) for each in counts))


def _dropped(fields: dict[str, Any]) -> Dropped:
    if fields["reason"] not in ("participant_inactive", "defective"):
        raise MalformedError("an update is dropped as participant_inactive or defective")
    return Dropped(parse_name(fields["participant"]), parse_digest(fields["statement_digest"]), fields["reason"])


def _round_closed(fields: dict[str, Any]) -> RoundClosed:
    if len(fields["dropped"]) > COHORT_MAX:
        raise MalformedError(f"a cohort is at most {COHORT_MAX}")
    dropped = tuple(_dropped(each) for each in fields["dropped"])
    _check_ascending([each.participant for each in dropped])
    if fields["cause"] not in (FULL, DEADLINE):
        raise MalformedError("a round ends full or at its deadline")
    return RoundClosed(
        round=_required(fields["round"]),
        cause=fields["cause"],
        outcome=_required(fields["outcome"]),
        counted_count=fields["counted_count"],
        counted_root=parse_digest(fields["counted_root"]),
        dropped=dropped,
    )


def _model_published(fields: dict[str, Any]) -> ModelPublished:
    rule = fields["rule"]
    if not 1 <= len(rule) <= 64 or not (rule.isascii() and rule.isprintable()):
        raise MalformedError("a rule's name is 1 to 64 printable characters")
    return ModelPublished(
        round=_required(fields["round"]),
        round_closed=parse_digest(fields["round_closed"]),
        base_model=parse_digest(fields["base_model"]),
        aggregate=parse_digest(fields["aggregate"]),
        model=parse_digest(fields["model"]),
        rule=rule,
        arithmetic=_required(fields["arithmetic"]),
    )


def _models_fetched(fields: dict[str, Any]) -> ModelsFetched:
    if not 1 <= len(fields["fetches"]) <= _COUNTS_MAX:
        raise MalformedError(f"1 to {_COUNTS_MAX} fetches")
    fetches = tuple((parse_name(each["participant"]), parse_digest(each["model"])) for each in fields["fetches"])
    _check_ascending(fetches)
    _check_interval(fields)
    return ModelsFetched(fetches)


def _time_anchored(fields: dict[str, Any]) -> TimeAnchored:
    note = fields["checkpoint"]
    return TimeAnchored(note, parse_anchor(note))


def _required(number: int) -> int:
    if number == 0:
        raise MalformedError("a required field is there")
    return number


def _present(message: dict[str, Any] | None) -> dict[str, Any]:
    if message is None:
        raise MalformedError("a required message is there")
    return message


def _reason(text: str) -> str:
    if len(text) > 64 or not _REASON.fullmatch(text):
        raise MalformedError("a reason is lower-case words joined by underscores, at most 64 characters")
    return text


def _check_interval(fields: dict[str, Any]) -> None:
    if not 0 < fields["from_us"] <= fields["until_us"]:
        raise MalformedError("an interval begins above 0 and does not end before it begins")


def _check_ascending(keys: Iterable[Any]) -> None:
    if any(not earlier < later for earlier, later in pairwise(keys)):
        raise MalformedError("a list is sorted, and nothing stands in it twice")


_BODIES: dict[str, tuple[int, Callable[[dict[str, Any]], Body]]] = {
    "identity_issued": (4, _identity_issued),
    "round_opened": (5, _round_opened),
    "update_admitted": (6, _update_admitted),
    "update_refused": (7, _update_refused),
    "refusals_counted": (8, _refusals_counted),
    "round_closed": (11, _round_closed),
    "model_published": (12, _model_published),
    "models_fetched": (15, _models_fetched),
    "time_anchored": (14, _time_anchored),
}
"""The number of each kind, and how its body is read."""
