"""Orders: when one has effect, and what it does to its segment.

Each action has a check that raises and an effect that cannot fail. An order never touches what is closed: an excluded
update of a closed round is counted until the round is derived again.

Format: proto/README.md, "Orders" and "Re-aggregation".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the fold, which checked the operators' threshold, version and expiry.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.documents import Order
from sfrl_secure.governance.orders import (
    AcceptTarget,
    ExcludeTarget,
    NoTarget,
    OrderAction,
    OverrideTarget,
    ReaggregateTarget,
    RollbackTarget,
)
from sfrl_secure.limits import ORDER_LIFETIME_US
from sfrl_secure.rounds.reaggregation import left_out_by, left_out_of, may_begin_at, reveals_of, steps_from
from sfrl_secure.rounds.state import FederationState, RoundState, SegmentState


def check_order(state: FederationState, order: Order, log_time_us: int) -> None:
    """Check what an order asks of its segment; `state.size` is its index.

    Raises:
        DeniedError: `unknown_segment`, `lifetime`; by action `halted`, `not_halted`, `unknown_update`, `excluded`,
            `unknown_model`, `newest_model`, `unknown_round`, `nothing_left_out`, `reveals`, `unknown_entry`,
            `unknown_decision`, `overridden`.
    """
    segment = state.segment(order.segment)
    if order.expires_us > log_time_us + ORDER_LIFETIME_US:
        raise DeniedError("lifetime", f"an order expires at most {ORDER_LIFETIME_US} us after it is logged")
    match order.target:
        case NoTarget():
            _check_halt(segment, order.action)
        case ExcludeTarget() as target:
            _check_exclude(state, order.segment, target)
        case RollbackTarget() as target:
            _check_rollback(segment, target)
        case ReaggregateTarget() as target:
            _check_reaggregate(state, segment, target)
        case AcceptTarget() as target:
            if target.index >= state.size:
                raise DeniedError("unknown_entry", "only findings at earlier entries can be accepted")
        case OverrideTarget() as target:
            _check_override(state, order.segment, target)
        case target:
            assert_never(target)


def take_order(state: FederationState, order: Order) -> None:
    """Let an order that was checked have its effect."""
    segment = state.segments[order.segment]
    match order.target:
        case NoTarget():
            segment.is_halted = order.action is OrderAction.HALT
        case ExcludeTarget() as target:
            update = state.admitted_updates[target.update].update
            segment.rounds[update.round].excluded.add(update.participant)
        case RollbackTarget() as target:
            _roll_back(segment, target)
        case ReaggregateTarget() as target:
            _begin_again(state, segment, target)
        case AcceptTarget() as target:
            state.accepted.append((target.index, target.code))
        case OverrideTarget() as target:
            decision = state.decisions[target.decision]
            state.decisions[target.decision] = replace(decision, overridden=target.decided_class)
        case target:
            assert_never(target)


def _check_halt(segment: SegmentState, action: OrderAction) -> None:
    if action is OrderAction.HALT and segment.is_halted:
        raise DeniedError("halted", "the segment is halted already")
    if action is OrderAction.RESUME and not segment.is_halted:
        raise DeniedError("not_halted", "the segment is not halted")


def _check_exclude(state: FederationState, segment: str, target: ExcludeTarget) -> None:
    admission = state.admitted_updates.get(target.update)
    if admission is None or admission.update.segment != segment:
        raise DeniedError("unknown_update", "no admitted update of the segment has this statement digest")
    if admission.update.participant in _round_of(state, admission.update.segment, admission.update.round).excluded:
        raise DeniedError("excluded", "the update is excluded already")


def _round_of(state: FederationState, segment: str, number: int) -> RoundState:
    return state.segments[segment].rounds[number]


def _check_rollback(segment: SegmentState, target: RollbackTarget) -> None:
    if target.model == segment.model:
        raise DeniedError("newest_model", "this is the segment's newest model already")
    settled = segment.lineage[: len(segment.lineage) - len(segment.due)]
    if target.model != segment.terms.model.initial and all(step.model != target.model for step in settled):
        raise DeniedError("unknown_model", "no step that led to the newest model, and is not due, made this one")


def _roll_back(segment: SegmentState, target: RollbackTarget) -> None:
    # Steps can have the same model, where one added nothing up: the latest is meant.
    settled = segment.lineage[: len(segment.lineage) - len(segment.due)]
    kept = max((at for at, step in enumerate(settled, start=1) if step.model == target.model), default=0)
    for number in segment.due:
        # Its step leaves the lineage; its model stays what it was derived from last.
        segment.rounds[number].left_out = segment.rounds[number].left_out_derived
    del segment.lineage[kept:]
    segment.model = target.model
    segment.model_index = segment.lineage[-1].index if kept else -1
    segment.due = []
    _end_current(segment)


def _check_reaggregate(state: FederationState, segment: SegmentState, target: ReaggregateTarget) -> None:
    if not may_begin_at(segment, target.from_round):
        raise DeniedError("unknown_round", "the round has no step to begin with, or one that is due lies before it")
    newly = left_out_by(state, segment, target.from_round)
    if not newly:
        raise DeniedError("nothing_left_out", "no update would newly be left out")
    if target.reveals != reveals_of(segment, newly):
        raise DeniedError("reveals", "the order names others than those whom the difference of the models betrays")


def _begin_again(state: FederationState, segment: SegmentState, target: ReaggregateTarget) -> None:
    steps = steps_from(segment, target.from_round)
    for step in steps:
        current = segment.rounds[step.round]
        current.left_out = left_out_of(state, current)
    segment.due = [step.round for step in steps]
    _end_current(segment)


def _end_current(segment: SegmentState) -> None:
    """An open round is ended, one that waits for its model is abandoned."""
    current = segment.current
    if current is None:
        return
    if current.is_open:
        current.ended_by_order = True
    elif segment.awaits_model:
        current.is_abandoned = True


def _check_override(state: FederationState, segment: str, target: OverrideTarget) -> None:
    decision = state.decisions.get(target.decision)
    if decision is None or decision.segment != segment:
        raise DeniedError("unknown_decision", "no decision of the segment on record has this statement digest")
    if decision.overridden is not None:
        raise DeniedError("overridden", "the decision is overridden already")
