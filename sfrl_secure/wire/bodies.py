"""The bodies of statements that quote no update: identities, withdrawals, decisions, rounds, models, counts, anchors.

One pair of functions a body: `parse_x(message)` checks every range of the schema, `x_message(body)` fills the
message. The three bodies that quote an update are in `statements`.

Format: proto/sfrl/audit/v1/entry.proto; proto/README.md, "Statements".

Runs in: gatekeeper, aggregator, audit_log, participant, verifier (reading).
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import IntEnum
from functools import cache
from typing import TypeVar

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import (
    CloseCause,
    CloseOutcome,
    Cluster,
    DecisionRecorded,
    DroppedUpdate,
    IdentityIssued,
    MeasuredFacts,
    ModelFetch,
    ModelPublished,
    ModelsFetched,
    PeerClass,
    RefusalCount,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    TimeAnchored,
    UpdateWithdrawn,
)
from sfrl_secure.ids import Digest, parse_name, parse_spiffe_id
from sfrl_secure.limits import CLUSTERS_MAX, COHORT_MAX, TENSORS_MAX
from sfrl_secure.translog.anchor import parse_anchor
from sfrl_secure.wire.canonical import check_ascending, take_digest, take_number, take_reason, take_text
from sfrl_secure.wire.gen.sfrl.audit.v1 import entry_pb2
from sfrl_secure.wire.participants import (
    parse_decision_envelope,
    parse_identity_request_envelope,
    parse_withdrawal_envelope,
)

SERIAL_BYTES_MAX = 20
COUNTS_MAX = 256
FETCHES_MAX = 256
RULE_CHARACTERS_MAX = 64
DROPPED_REASONS = frozenset({"withdrawn", "excluded", "participant_inactive", "defective"})

E = TypeVar("E", bound=IntEnum)


def take_enum(enum: type[E], number: int, what: str) -> E:
    """Take a required enum number of ours.

    Raises:
        MalformedError: absent, reserved or unknown.
    """
    member: E | None = _members(enum).get(number)
    if member is None:
        raise MalformedError(f"{what} is absent, or not one that may be sent")
    return member


@cache
def _members(enum: type[E]) -> dict[int, E]:
    return {int(member): member for member in enum}


def parse_identity_issued(message: entry_pb2.IdentityIssued) -> IdentityIssued:
    """Take the body of an identity_issued statement."""
    serial = message.serial
    if not 0 < len(serial) <= SERIAL_BYTES_MAX or serial[0] == 0:
        raise MalformedError(f"a serial number is 1 to {SERIAL_BYTES_MAX} bytes without leading zeros")
    envelope, request = parse_identity_request_envelope(message.request)
    return IdentityIssued(
        spiffe_id=parse_spiffe_id(message.spiffe_id),
        spki_sha256=take_digest(message.spki_sha256, "spki_sha256"),
        serial=int.from_bytes(serial, "big"),
        not_after_us=take_number(message.not_after_us, "not_after_us"),
        envelope_raw=message.request,
        envelope=envelope,
        request=request,
        renews=take_digest(message.renews, "renews") if message.renews else None,
    )


def identity_issued_message(body: IdentityIssued) -> entry_pb2.IdentityIssued:
    """Fill the message of an identity_issued body."""
    if body.serial < 0:
        raise MalformedError("a serial number is above 0")
    return entry_pb2.IdentityIssued(
        spiffe_id=body.spiffe_id,
        spki_sha256=body.spki_sha256,
        serial=body.serial.to_bytes((body.serial.bit_length() + 7) // 8, "big"),
        not_after_us=body.not_after_us,
        request=body.envelope_raw,
        renews=body.renews or b"",
    )


def parse_update_withdrawn(message: entry_pb2.UpdateWithdrawn) -> UpdateWithdrawn:
    """Take the body of an update_withdrawn statement, with the withdrawal that it quotes."""
    envelope, withdrawal = parse_withdrawal_envelope(message.envelope)
    return UpdateWithdrawn(message.envelope, envelope, withdrawal)


def update_withdrawn_message(body: UpdateWithdrawn) -> entry_pb2.UpdateWithdrawn:
    """Fill the message of an update_withdrawn body."""
    return entry_pb2.UpdateWithdrawn(envelope=body.envelope_raw)


def parse_decision_recorded(message: entry_pb2.DecisionRecorded) -> DecisionRecorded:
    """Take the body of a decision_recorded statement, with the decision that it quotes."""
    envelope, decision = parse_decision_envelope(message.envelope)
    return DecisionRecorded(message.envelope, envelope, decision)


def decision_recorded_message(body: DecisionRecorded) -> entry_pb2.DecisionRecorded:
    """Fill the message of a decision_recorded body."""
    return entry_pb2.DecisionRecorded(envelope=body.envelope_raw)


def parse_round_opened(message: entry_pb2.RoundOpened) -> RoundOpened:
    """Take the body of a round_opened statement."""
    return RoundOpened(
        round=take_number(message.round, "round"),
        base_model=take_digest(message.base_model, "base_model"),
        terms_digest=take_digest(message.terms_digest, "terms_digest"),
        server_state=_take_digest_or_none(message.server_state, "server_state"),
        mask=_take_digest_or_none(message.mask, "mask"),
    )


def round_opened_message(body: RoundOpened) -> entry_pb2.RoundOpened:
    """Fill the message of a round_opened body."""
    return entry_pb2.RoundOpened(
        round=body.round,
        base_model=body.base_model,
        terms_digest=body.terms_digest,
        server_state=body.server_state or b"",
        mask=body.mask or b"",
    )


def parse_facts(message: entry_pb2.MeasuredFacts) -> MeasuredFacts:
    """Take measured facts; each number may be zero."""
    tensors = tuple(message.tensors)
    if len(tensors) > TENSORS_MAX or any(position >= TENSORS_MAX for position in tensors):
        raise MalformedError(f"a model has at most {TENSORS_MAX} tensors")
    check_ascending(tensors, "tensors")
    return MeasuredFacts(
        nonzeros=message.nonzeros,
        density_ppm=message.density_ppm,
        norm=message.norm,
        largest_magnitude=message.largest_magnitude,
        tensors=tensors,
    )


def facts_message(facts: MeasuredFacts) -> entry_pb2.MeasuredFacts:
    """Fill the message of measured facts."""
    return entry_pb2.MeasuredFacts(
        nonzeros=facts.nonzeros,
        density_ppm=facts.density_ppm,
        norm=facts.norm,
        largest_magnitude=facts.largest_magnitude,
        tensors=facts.tensors,
    )


def parse_refusals_counted(message: entry_pb2.RefusalsCounted) -> RefusalsCounted:
    """Take the body of a refusals_counted statement."""
    if len(message.counts) > COUNTS_MAX:
        raise MalformedError(f"a statement has at most {COUNTS_MAX} counts")
    counts = tuple(
        [
            RefusalCount(
                take_reason(each.reason),
                take_enum(PeerClass, each.peer_class, "a peer class"),
                take_number(each.count, "count"),
            )
            for each in message.counts
        ]
    )
    check_ascending([(each.reason, each.peer_class) for each in counts], "counts")
    from_us, until_us = _parse_interval(message.from_us, message.until_us)
    return RefusalsCounted(
        from_us=from_us,
        until_us=until_us,
        counts=counts,
        requests_root=take_digest(message.requests_root, "requests_root"),
    )


def refusals_counted_message(body: RefusalsCounted) -> entry_pb2.RefusalsCounted:
    """Fill the message of a refusals_counted body."""
    return entry_pb2.RefusalsCounted(
        from_us=body.from_us,
        until_us=body.until_us,
        counts=[
            entry_pb2.RefusalCount(
                reason=each.reason, peer_class=entry_pb2.PeerClass.ValueType(each.peer_class), count=each.count
            )
            for each in body.counts
        ],
        requests_root=body.requests_root,
    )


def parse_round_closed(message: entry_pb2.RoundClosed) -> RoundClosed:
    """Take the body of a round_closed statement."""
    if len(message.dropped) > COHORT_MAX:
        raise MalformedError(f"a round drops at most {COHORT_MAX} updates")
    dropped = tuple(
        DroppedUpdate(
            participant=parse_name(each.participant),
            statement_digest=take_digest(each.statement_digest, "statement_digest"),
            reason=each.reason,
        )
        for each in message.dropped
    )
    if any(each.reason not in DROPPED_REASONS for each in dropped):
        raise MalformedError("an update is dropped as withdrawn, excluded, participant_inactive or defective")
    check_ascending([each.participant for each in dropped], "dropped updates")
    return RoundClosed(
        round=take_number(message.round, "round"),
        cause=take_enum(CloseCause, message.cause, "the cause"),
        outcome=take_enum(CloseOutcome, message.outcome, "the outcome"),
        counted_count=message.counted_count,
        counted_root=take_digest(message.counted_root, "counted_root"),
        dropped=dropped,
    )


def round_closed_message(body: RoundClosed) -> entry_pb2.RoundClosed:
    """Fill the message of a round_closed body."""
    return entry_pb2.RoundClosed(
        round=body.round,
        cause=entry_pb2.CloseCause.ValueType(body.cause),
        outcome=entry_pb2.CloseOutcome.ValueType(body.outcome),
        counted_count=body.counted_count,
        counted_root=body.counted_root,
        dropped=[
            entry_pb2.DroppedUpdate(
                participant=each.participant, statement_digest=each.statement_digest, reason=each.reason
            )
            for each in body.dropped
        ],
    )


def parse_model_published(message: entry_pb2.ModelPublished) -> ModelPublished:
    """Take the body of a model_published statement. Which rule and arithmetic may be is the terms' to say."""
    return ModelPublished(
        round=take_number(message.round, "round"),
        round_closed=take_digest(message.round_closed, "round_closed"),
        base_model=take_digest(message.base_model, "base_model"),
        aggregate=take_digest(message.aggregate, "aggregate"),
        model=take_digest(message.model, "model"),
        rule=take_text(message.rule, "rule", RULE_CHARACTERS_MAX),
        arithmetic=take_number(message.arithmetic, "arithmetic"),
        supersedes=_take_digest_or_none(message.supersedes, "supersedes"),
        server_state=_take_digest_or_none(message.server_state, "server_state"),
        next_mask=_take_digest_or_none(message.next_mask, "next_mask"),
        clusters=_parse_clusters(message.clusters),
    )


def _take_digest_or_none(raw: bytes, what: str) -> Digest | None:
    return take_digest(raw, what) if raw else None


def _parse_clusters(messages: Collection[entry_pb2.Cluster]) -> tuple[Cluster, ...]:
    """Take clusters: each member is in one of them, at most."""
    if len(messages) > CLUSTERS_MAX:
        raise MalformedError(f"a round has at most {CLUSTERS_MAX} clusters")
    clusters: list[Cluster] = []
    seen: set[int] = set()
    for message in messages:
        members = tuple(message.members)
        if not members or any(member >= COHORT_MAX for member in members) or not seen.isdisjoint(members):
            raise MalformedError(f"a cluster has 1 or more members below {COHORT_MAX}, each in no other one")
        check_ascending(members, "members")
        seen.update(members)
        clusters.append(Cluster(members, take_digest(message.model, "model")))
    return tuple(clusters)


def model_published_message(body: ModelPublished) -> entry_pb2.ModelPublished:
    """Fill the message of a model_published body."""
    return entry_pb2.ModelPublished(
        round=body.round,
        round_closed=body.round_closed,
        base_model=body.base_model,
        aggregate=body.aggregate,
        model=body.model,
        rule=body.rule,
        arithmetic=body.arithmetic,
        supersedes=body.supersedes or b"",
        server_state=body.server_state or b"",
        next_mask=body.next_mask or b"",
        clusters=[entry_pb2.Cluster(members=each.members, model=each.model) for each in body.clusters],
    )


def parse_models_fetched(message: entry_pb2.ModelsFetched) -> ModelsFetched:
    """Take the body of a models_fetched statement."""
    if not 0 < len(message.fetches) <= FETCHES_MAX:
        raise MalformedError(f"a statement has 1 to {FETCHES_MAX} fetches")
    fetches = tuple(
        ModelFetch(participant=parse_name(each.participant), model=take_digest(each.model, "model"))
        for each in message.fetches
    )
    check_ascending([(each.participant, each.model) for each in fetches], "fetches")
    from_us, until_us = _parse_interval(message.from_us, message.until_us)
    return ModelsFetched(from_us=from_us, until_us=until_us, fetches=fetches)


def models_fetched_message(body: ModelsFetched) -> entry_pb2.ModelsFetched:
    """Fill the message of a models_fetched body."""
    return entry_pb2.ModelsFetched(
        from_us=body.from_us,
        until_us=body.until_us,
        fetches=[entry_pb2.ModelFetch(participant=each.participant, model=each.model) for each in body.fetches],
    )


def parse_time_anchored(message: entry_pb2.TimeAnchored) -> TimeAnchored:
    """Take the body of a time_anchored statement: its note is one of a checkpoint, of whatever log."""
    return TimeAnchored(message.checkpoint, parse_anchor(message.checkpoint))


def time_anchored_message(body: TimeAnchored) -> entry_pb2.TimeAnchored:
    """Fill the message of a time_anchored body."""
    return entry_pb2.TimeAnchored(checkpoint=body.note)


def _parse_interval(from_us: int, until_us: int) -> tuple[int, int]:
    if not 0 < from_us <= until_us:
        raise MalformedError("an interval has a begin above 0, and an end that is not before it")
    return from_us, until_us
