"""What an order is about, by names that people know: whose update, the model of which round, which decision.

The order itself holds digests; the state of the federation tells what they stand for. What the state does not know has
no words here, and the log refuses it.

Runs in: operators' machines, cli.
Trusts: the state that it is given.
"""

from __future__ import annotations

from sfrl_secure.governance.documents import Order
from sfrl_secure.governance.orders import ExcludeTarget, OverrideTarget, RollbackTarget
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.state import FederationState, SegmentState


def meaning_of(order: Order, state: FederationState) -> str:
    """Say what the target's digest stands for; empty where there is none, or nobody knows it."""
    segment = state.segments.get(order.segment)
    if segment is None:
        return ""
    match order.target:
        case ExcludeTarget(update):
            return _update(segment, update)
        case RollbackTarget(model):
            return _model(segment, model)
        case OverrideTarget(decision, decided_class):
            found = state.decisions.get(decision)
            if found is None:
                return ""
            return f"{found.participant}'s decision at entry {found.index}: {found.decided_class} -> {decided_class}"
    return ""


def _update(segment: SegmentState, update: Digest) -> str:
    for number, found in segment.rounds.items():
        for name, admission in found.admissions.items():
            if admission.statement_digest == update:
                return f"the update of {name} in round {number}, admitted by entry {admission.index}"
    return ""


def _model(segment: SegmentState, model: Digest) -> str:
    if model == segment.terms.model.initial:
        return "the initial model"
    steps = [step.round for step in segment.lineage if step.model == model]
    return f"the model of round {steps[-1]}" if steps else ""
