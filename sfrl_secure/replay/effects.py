"""What each kind of statement does to the state, once its header holds.

Format: proto/README.md, "Statements".

Runs in: verifier.
Trusts: the replay's state.
"""

from __future__ import annotations

from sfrl_secure.replay import closing, enrolment, participants, publishing, refusals, rounds, service
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.segments import Segment
from sfrl_secure.replay.state import State
from sfrl_secure.replay.statements import (
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

_InSegment = (
    RoundOpened
    | UpdateAdmitted
    | RoundClosed
    | ModelPublished
    | ModelsFetched
    | UpdateWithdrawn
    | ComplaintRecorded
    | DecisionRecorded
)


def apply_statement(
    state: State, docket: Docket, origin: str, statement: Statement, segment: Segment | None, at: Position
) -> None:
    """Apply a statement whose header `service.check_header` has passed.

    Args:
        origin: of the log.
        segment: of its stream, None where that is no segment's.

    Raises:
        Void: it has no effect, and has changed nothing.
    """
    body = statement.body
    match body:
        case IdentityIssued():
            enrolment.apply_identity(state, body, at)
        case RefusalsCounted():
            service.apply_counts(docket, body)
        case TimeAnchored():
            service.apply_anchor(state, origin, body, at)
        case UpdateRefused():
            refusals.apply_refusal(state, docket, statement, body, at)
        case _:
            assert segment is not None, "every other kind has a segment's stream"
            name = statement.stream.removeprefix("segment/")
            _apply_in_segment(state, docket, segment, name, body, at)


def _apply_in_segment(
    state: State, docket: Docket, segment: Segment, name: str, body: _InSegment, at: Position
) -> None:
    match body:
        case RoundOpened():
            rounds.apply_opened(state, docket, segment, name, body, at)
        case UpdateAdmitted():
            rounds.apply_admitted(state, docket, name, body, at)
        case RoundClosed():
            closing.apply_closed(state, docket, segment, body, at)
        case ModelPublished():
            publishing.apply_model(docket, segment, name, body, at)
        case ModelsFetched():
            service.apply_fetches(state, segment, body)
        case UpdateWithdrawn():
            participants.apply_withdrawn(state, docket, segment, name, body)
        case ComplaintRecorded():
            participants.apply_complaint(state, docket, segment, name, body, at)
        case DecisionRecorded():
            participants.apply_decision(state, docket, segment, name, body, at)
