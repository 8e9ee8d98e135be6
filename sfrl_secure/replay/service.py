"""What every statement must be, and the kinds that belong to no round.

Format: proto/README.md, "Statements".

Runs in: verifier.
Trusts: the services document in force, for keys and roles.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.errors import SignatureError
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.findings import Void
from sfrl_secure.replay.segments import Segment
from sfrl_secure.replay.state import State
from sfrl_secure.replay.statements import (
    Body,
    ComplaintRecorded,
    DecisionRecorded,
    IdentityIssued,
    ModelPublished,
    ModelsFetched,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    Statement,
    TimeAnchored,
    UpdateAdmitted,
    UpdateRefused,
    UpdateWithdrawn,
)

_GATEKEEPER, _AGGREGATOR = frozenset({"gatekeeper"}), frozenset({"aggregator"})
_ROLES: dict[type[Body], frozenset[str]] = {
    IdentityIssued: _GATEKEEPER,
    RoundOpened: _AGGREGATOR,
    UpdateAdmitted: _GATEKEEPER,
    UpdateRefused: _GATEKEEPER,
    RefusalsCounted: frozenset({"gatekeeper", "audit_log"}),
    RoundClosed: _AGGREGATOR,
    ModelPublished: _AGGREGATOR,
    ModelsFetched: _GATEKEEPER,
    TimeAnchored: frozenset({"audit_log"}),
    UpdateWithdrawn: _GATEKEEPER,
    ComplaintRecorded: frozenset({"verifier", "auditor"}),
    DecisionRecorded: _GATEKEEPER,
}


def check_header(state: State, statement: Statement, envelope: Envelope, now_us: int) -> Segment | None:
    """Check everything but the body, in the specification's order; give the segment of a segment's stream."""
    if statement.federation_id != state.federation_id:
        raise Void("wrong_federation", state.federation_id.hex(), statement.federation_id.hex())
    check_writer(state, statement, envelope, now_us)
    if statement.writer.role not in _ROLES[type(statement.body)]:
        raise Void("role", " or ".join(sorted(_ROLES[type(statement.body)])), statement.writer.role)
    if now_us >= statement.valid_until_us:
        raise Void("expired", f"log time below {statement.valid_until_us}", str(now_us))
    if envelope.digest in state.statements:
        raise Void("repeated", "a statement is logged once")
    segment = _check_stream(state, statement)
    if statement.reads_governance != state.governance_head:
        raise Void("stale_governance", state.governance_head.hex(), statement.reads_governance.hex())
    control_head = ZERO_DIGEST if segment is None else segment.control_head
    if statement.reads_segment != control_head:
        raise Void("stale_segment", control_head.hex(), statement.reads_segment.hex())
    return segment


def check_writer(state: State, statement: Statement, envelope: Envelope, now_us: int) -> None:
    """Check that a service in force wrote and signed it, or an auditor in force who complains for somebody."""
    found = state.services()
    if found is None:
        raise Void("writer", "a services document in force", "none")
    services, expires_us = found
    if now_us >= expires_us:
        raise Void("expired", f"a services document that has not expired at {now_us}", f"expired at {expires_us}")
    key = services.services.get(statement.writer)
    if isinstance(statement.body, ComplaintRecorded):
        key = key or services.auditors.get(statement.writer)
    if key is None or key.key_id != statement.key_id:
        raise Void("writer", "a service of the services document, with its key", statement.writer)
    try:
        verify_single(envelope, key)
    except SignatureError:
        raise Void("writer_signature", "exactly one signature, by the writer's key", "another") from None


def _check_stream(state: State, statement: Statement) -> Segment | None:
    match statement.body:
        case IdentityIssued():
            allowed = statement.stream == "identity"
        case RefusalsCounted() | TimeAnchored():
            allowed = statement.stream == "log"
        case UpdateRefused(update=update):
            # A refusal that quotes an update stands where the update belongs.
            quoted = update.segment if update is not None and update.segment in state.segments else None
            allowed = statement.stream in ("log", f"segment/{statement.segment}") and (
                update is None or statement.segment == quoted
            )
        case _:
            allowed = statement.segment is not None
    if not allowed:
        raise Void("stream", "the stream of the kind, and of the update that it quotes", statement.stream)
    if statement.segment is None:
        return None
    segment = state.segments.get(statement.segment)
    if segment is None:
        raise Void("unknown_segment", "a segment with terms", statement.segment)
    return segment


def apply_fetches(state: State, segment: Segment, body: ModelsFetched) -> None:
    """models_fetched: recorded participants fetched models of the segment."""
    for participant, model in body.fetches:
        if state.participant(participant) is None:
            raise Void("fetch", "participants with a record", participant)
        if model not in segment.models:
            raise Void("fetch", "the initial model or a published one", model.hex())


def apply_counts(docket: Docket, body: RefusalsCounted) -> None:
    """refusals_counted: its form is all that can be checked."""
    docket.refusals_counted += body.total


def apply_anchor(state: State, origin: str, body: TimeAnchored, at: Position) -> None:
    """time_anchored: the log's past, further than the last one; whether it is true is for who has a trust policy."""
    checkpoint = body.checkpoint
    if checkpoint.origin != origin:
        raise Void("anchor", origin, "another log's checkpoint")
    if not state.anchored_size < checkpoint.size <= at.index:
        raise Void("anchor", f"a size from {state.anchored_size + 1} to {at.index}", str(checkpoint.size))
    state.anchored_size = checkpoint.size
