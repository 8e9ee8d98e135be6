"""Operators' orders: when one has effect, and what it does.

Format: proto/README.md, "Orders", "Re-aggregation".

Runs in: verifier.
Trusts: the replay's state.
"""

from __future__ import annotations

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.aggregation_terms import CLUSTERED_MEAN
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.findings import Void
from sfrl_secure.replay.interventions import (
    Accept,
    Exclude,
    Halt,
    Order,
    Override,
    Reaggregate,
    Resume,
    Rollback,
)
from sfrl_secure.replay.models import model_bytes, parse_model
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.segments import Segment, Step
from sfrl_secure.replay.state import State
from sfrl_secure.replay.terms import Terms


def check_order(state: State, order: Order, at: Position) -> None:
    """Check what an order asks of the segment's state. Its threshold, number and end are the document's."""
    segment = state.segments.get(order.segment)
    if segment is None:
        raise Void("unknown_segment", "a segment with terms", order.segment)
    match order.deed:
        case Halt() if segment.is_halted:
            raise Void("order_state", "a segment that is not halted", "halted")
        case Resume() if not segment.is_halted:
            raise Void("order_state", "a segment that is halted", "not halted")
        case Exclude(update=update):
            admitted = state.admitted.get(update)
            if admitted is None or admitted[0] != order.segment or update in segment.excluded:
                raise Void("order_target", "an admission of the segment that is not excluded", update.hex())
        case Rollback(model=model):
            earlier = {segment.initial, *(step.model for step in _settled(segment))}
            if model not in earlier or model == segment.model:
                raise Void("order_target", "an earlier model of the segment's lineage that is not due", model.hex())
        case Reaggregate() as deed:
            _check_reaggregation(state, segment, deed)
        case Accept(index=index) if index >= at.index:
            raise Void("order_target", f"an index below {at.index}", str(index))
        case Override(decision=decision):
            recorded = state.decisions.get(decision)
            if recorded is None or recorded.segment != order.segment or recorded.overridden is not None:
                raise Void("order_target", "a decision of the segment that is not overridden", decision.hex())
        case _:
            pass


def obey_order(state: State, docket: Docket, order: Order, at: Position) -> None:
    """Let an order that `check_order` has passed take effect."""
    segment = state.segments[order.segment]
    docket.orders[order.action] += 1
    match order.deed:
        case Halt():
            segment.is_halted = True
        case Resume():
            segment.is_halted = False
        case Exclude(update=update):
            segment.excluded.add(update)
        case Rollback(model=model):
            _roll_back(state, docket, order.segment, model, at)
        case Reaggregate(from_round=from_round):
            segment.due = _steps_from(segment, from_round)
            for step in segment.due:
                step.leaving_out = _left_out(state, segment, step)
            _end_round(segment)
        case Accept(index=index, code=code):
            state.accepted.setdefault((index, code), at.index)
        case Override(decision=decision, decided_class=decided_class):
            state.decisions[decision].overridden = decided_class
            docket.overridden += 1


def _check_reaggregation(state: State, segment: Segment, deed: Reaggregate) -> None:
    steps = _steps_from(segment, deed.from_round)
    if not steps:
        raise Void("order_target", "a round of the segment's lineage", f"round {deed.from_round}")
    if segment.due and deed.from_round > segment.due[0].round:
        raise Void("order_target", f"round {segment.due[0].round} or an earlier one", f"round {deed.from_round}")
    newly = {step.round: _left_out(state, segment, step) - step.left_out for step in steps}
    if not any(newly.values()):
        raise Void("nothing_left_out", "an update that is newly left out", "none")
    revealed = {
        admission.update.participant
        for step in steps
        for admission in step.counted
        if _is_given_away(step, newly[step.round], admission.statement_digest)
    }
    if deed.reveals != tuple(sorted(revealed)):
        raise Void("reveals", ", ".join(sorted(revealed)) or "nobody", ", ".join(deed.reveals) or "nobody")


def _is_given_away(step: Step, newly: frozenset[Digest], update: Digest) -> bool:
    """Whether the step's models, the old and the new one, may say what this update was."""
    if step.terms.rule.name == CLUSTERED_MEAN:
        # With the models of the clusters: anyone's.
        return len(newly) > 0
    return update in newly and len(newly) < step.terms.cohort_min


def _settled(segment: Segment) -> list[Step]:
    """The steps that are not to be derived again: those before the first that is."""
    first = segment.due[0].round if segment.due else None
    return [step for step in segment.lineage if first is None or step.round < first]


def _steps_from(segment: Segment, from_round: int) -> list[Step]:
    """The step of that round and those after it; none where the round is no step's."""
    rounds = [step.round for step in segment.lineage]
    return segment.lineage[rounds.index(from_round) :] if from_round in rounds else []


def _left_out(state: State, segment: Segment, step: Step) -> frozenset[Digest]:
    """The counted updates that are excluded, or whose participant is revoked, as things stand."""
    return frozenset(
        each.statement_digest
        for each in step.counted
        if each.statement_digest in segment.excluded or state.is_revoked(each.update.participant)
    )


def _roll_back(state: State, docket: Docket, name: str, model: Digest, at: Position) -> None:
    segment = state.segments[name]
    # Where several steps have this model, the last of them: nothing leaves that the order does not ask for.
    kept = max((number for number, step in enumerate(_settled(segment), 1) if step.model == model), default=0)
    terms = state.terms(name)
    assert terms is not None, "the segment has terms"
    segment.model, segment.values = model, read_model(docket, model, terms, at)
    del segment.lineage[kept:]
    segment.due = []
    _end_round(segment)


def _end_round(segment: Segment) -> None:
    """A round that is open is ended, one that waits for its model never gets it."""
    current = segment.round
    assert current is not None, "a segment with an earlier model has had a round"
    if current.closed is None:
        current.is_ended = True
    elif current.awaits_model:
        current.is_abandoned = True
    current.release()


def read_model(docket: Docket, model: Digest, terms: Terms, at: Position) -> Integers | None:
    """The integers of an earlier model of the segment; None where they are not to be had, which is noted once."""
    raw = docket.read(model, at, model_bytes(terms.manifest), "an earlier model of the segment")
    if raw is None:
        return None
    try:
        return parse_model(raw, terms.manifest, terms.grid_exponent)
    except MalformedError:
        # Found when it was published, or when the terms named it.
        return None
