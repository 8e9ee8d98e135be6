"""From a statement's fields to its body: one function for each kind of statement.

Format: proto/README.md, "Canonical form", "Statements"; the schemas beside it.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import parse_digest, parse_name, parse_spiffe_id
from sfrl_secure.limits import CLUSTERS_MAX, COHORT_MAX, TENSORS_MAX
from sfrl_secure.replay.message_fields import (
    check_ascending,
    take_optional_digest,
    take_present,
    take_required,
)
from sfrl_secure.replay.statements import (
    Body,
    Cluster,
    ComplaintRecorded,
    DecisionRecorded,
    Dropped,
    Facts,
    IdentityIssued,
    ModelPublished,
    ModelsFetched,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    TimeAnchored,
    UpdateAdmitted,
    UpdateRefused,
    UpdateWithdrawn,
)
from sfrl_secure.replay.words_reader import (
    parse_decision_envelope,
    parse_identity_request_envelope,
    parse_update_envelope,
    parse_withdrawal_envelope,
)
from sfrl_secure.translog.anchor import parse_anchor

_REASON = re.compile(r"[a-z]+(_[a-z]+)*")
_RULE_ID = re.compile(r"[a-z0-9-]{1,64}")
_COUNTS_MAX = 256
_DROP_REASONS = frozenset({"withdrawn", "excluded", "participant_inactive", "defective"})


def _identity_issued(fields: dict[str, Any]) -> IdentityIssued:
    serial = fields["serial"]
    if not 1 <= len(serial) <= 20 or serial[0] == 0:
        raise MalformedError("a serial number is 1 to 20 bytes without leading zeros")
    envelope, request = parse_identity_request_envelope(fields["request"])
    return IdentityIssued(
        spiffe_id=parse_spiffe_id(fields["spiffe_id"]),
        spki_sha256=parse_digest(fields["spki_sha256"]),
        not_after_us=take_required(fields["not_after_us"]),
        envelope=envelope,
        request=request,
        renews=take_optional_digest(fields["renews"]),
    )


def _round_opened(fields: dict[str, Any]) -> RoundOpened:
    return RoundOpened(
        round=take_required(fields["round"]),
        base_model=parse_digest(fields["base_model"]),
        terms_digest=parse_digest(fields["terms_digest"]),
        server_state=take_optional_digest(fields["server_state"]),
        mask=take_optional_digest(fields["mask"]),
    )


def _facts(fields: dict[str, Any]) -> Facts:
    tensors = fields["tensors"]
    if len(tensors) > TENSORS_MAX or any(position >= TENSORS_MAX for position in tensors):
        raise MalformedError(f"a model has at most {TENSORS_MAX} tensors")
    check_ascending(tensors)
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
        facts=_facts(take_present(fields["facts"])),
        rule_ids=_rule_ids(fields["rule_ids"], 2),
        retain_until_us=take_required(fields["retain_until_us"]),
    )


def _update_refused(fields: dict[str, Any]) -> UpdateRefused:
    envelope, update = parse_update_envelope(fields["envelope"]) if fields["envelope"] else (None, None)
    parse_digest(fields["request_digest"])
    return UpdateRefused(
        peer=parse_spiffe_id(fields["peer"]),
        envelope=envelope,
        update=update,
        reason=_reason(fields["reason"]),
        facts=None if fields["facts"] is None else _facts(fields["facts"]),
        rule_ids=_rule_ids(fields["rule_ids"], 1),
        evidence=take_required(fields["evidence"]),
    )


def _update_withdrawn(fields: dict[str, Any]) -> UpdateWithdrawn:
    return UpdateWithdrawn(*parse_withdrawal_envelope(fields["envelope"]))


def _complaint_recorded(fields: dict[str, Any]) -> ComplaintRecorded:
    return ComplaintRecorded(*parse_update_envelope(fields["envelope"]))


def _decision_recorded(fields: dict[str, Any]) -> DecisionRecorded:
    return DecisionRecorded(*parse_decision_envelope(fields["envelope"]))


def _refusals_counted(fields: dict[str, Any]) -> RefusalsCounted:
    counts = fields["counts"]
    if len(counts) > _COUNTS_MAX:
        raise MalformedError(f"at most {_COUNTS_MAX} counts")
    check_ascending([(_reason(each["reason"]), take_required(each["peer_class"])) for each in counts])
    _check_interval(fields)
    parse_digest(fields["requests_root"])
    return RefusalsCounted(sum(take_required(each["count"]) for each in counts))


def _dropped(fields: dict[str, Any]) -> Dropped:
    if fields["reason"] not in _DROP_REASONS:
        raise MalformedError("an update is dropped as withdrawn, excluded, participant_inactive or defective")
    return Dropped(parse_name(fields["participant"]), parse_digest(fields["statement_digest"]), fields["reason"])


def _round_closed(fields: dict[str, Any]) -> RoundClosed:
    if len(fields["dropped"]) > COHORT_MAX:
        raise MalformedError(f"a cohort is at most {COHORT_MAX}")
    dropped = tuple(_dropped(each) for each in fields["dropped"])
    check_ascending([each.participant for each in dropped])
    return RoundClosed(
        round=take_required(fields["round"]),
        cause=take_required(fields["cause"]),
        outcome=take_required(fields["outcome"]),
        counted_count=fields["counted_count"],
        counted_root=parse_digest(fields["counted_root"]),
        dropped=dropped,
    )


def _model_published(fields: dict[str, Any]) -> ModelPublished:
    rule = fields["rule"]
    if not 1 <= len(rule) <= 64 or not (rule.isascii() and rule.isprintable()):
        raise MalformedError("a rule's name is 1 to 64 printable characters")
    return ModelPublished(
        round=take_required(fields["round"]),
        round_closed=parse_digest(fields["round_closed"]),
        base_model=parse_digest(fields["base_model"]),
        aggregate=parse_digest(fields["aggregate"]),
        model=parse_digest(fields["model"]),
        rule=rule,
        arithmetic=take_required(fields["arithmetic"]),
        supersedes=take_optional_digest(fields["supersedes"]),
        server_state=take_optional_digest(fields["server_state"]),
        next_mask=take_optional_digest(fields["next_mask"]),
        clusters=_clusters(fields["clusters"]),
    )


def _clusters(messages: Sequence[dict[str, Any]]) -> tuple[Cluster, ...]:
    if len(messages) > CLUSTERS_MAX:
        raise MalformedError(f"a round has at most {CLUSTERS_MAX} clusters")
    clusters = tuple(Cluster(each["members"], parse_digest(each["model"])) for each in messages)
    members = [member for cluster in clusters for member in cluster.members]
    if any(member >= COHORT_MAX for member in members) or len(set(members)) != len(members):
        raise MalformedError(f"members are positions below {COHORT_MAX}, and nobody is in two clusters")
    for cluster in clusters:
        if not cluster.members:
            raise MalformedError("a cluster has members")
        check_ascending(cluster.members)
    return clusters


def _models_fetched(fields: dict[str, Any]) -> ModelsFetched:
    if not 1 <= len(fields["fetches"]) <= _COUNTS_MAX:
        raise MalformedError(f"1 to {_COUNTS_MAX} fetches")
    fetches = tuple((parse_name(each["participant"]), parse_digest(each["model"])) for each in fields["fetches"])
    check_ascending(fetches)
    _check_interval(fields)
    return ModelsFetched(fetches)


def _time_anchored(fields: dict[str, Any]) -> TimeAnchored:
    note = fields["checkpoint"]
    return TimeAnchored(note, parse_anchor(note))


def _reason(text: str) -> str:
    if len(text) > 64 or not _REASON.fullmatch(text):
        raise MalformedError("a reason is lower-case words joined by underscores, at most 64 characters")
    return text


def _check_interval(fields: dict[str, Any]) -> None:
    if not 0 < fields["from_us"] <= fields["until_us"]:
        raise MalformedError("an interval begins above 0 and does not end before it begins")


BODIES: dict[str, tuple[int, Callable[[dict[str, Any]], Body]]] = {
    "identity_issued": (4, _identity_issued),
    "round_opened": (5, _round_opened),
    "update_admitted": (6, _update_admitted),
    "update_refused": (7, _update_refused),
    "refusals_counted": (8, _refusals_counted),
    "round_closed": (11, _round_closed),
    "model_published": (12, _model_published),
    "models_fetched": (15, _models_fetched),
    "time_anchored": (14, _time_anchored),
    "update_withdrawn": (9, _update_withdrawn),
    "complaint_recorded": (10, _complaint_recorded),
    "decision_recorded": (16, _decision_recorded),
}
"""The number of each kind, and how its body is read."""
