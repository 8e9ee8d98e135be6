"""What a segment needs next: open a round, close it, publish its model, derive an earlier one again, or nothing.

A pure function of the state, the witnessed size and the time, so that an aggregator that was killed does after its
start what it would have done. Orders are part of the state: what they forbid is not done, what they ask for comes
first.

Format: proto/README.md, "Orders" and "Re-aggregation".

Runs in: aggregator.
Trusts: the state of the fold.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.ids import Digest
from sfrl_secure.rounds.closing import close_cause
from sfrl_secure.rounds.reaggregation import due_step
from sfrl_secure.rounds.state import FederationState, RoundState, SegmentState


@dataclass(frozen=True, slots=True)
class OpenRound:
    """Open this round on this base."""

    segment: str
    round: int
    base_model: Digest


@dataclass(frozen=True, slots=True)
class CloseRound:
    """Close the open round."""

    segment: str
    round: int


@dataclass(frozen=True, slots=True)
class PublishModel:
    """Compute and publish the closed round's model."""

    segment: str
    round: int


@dataclass(frozen=True, slots=True)
class DeriveAgain:
    """Compute this round's model again, without whom orders leave out, and publish it in the place of another.

    Attributes:
        supersedes: entry hash of the model_published whose place it takes.
    """

    segment: str
    round: int
    supersedes: Digest


Action = OpenRound | CloseRound | PublishModel | DeriveAgain


def next_action(state: FederationState, segment: SegmentState, witnessed_size: int, now_us: int) -> Action | None:
    """Decide what the segment needs now.

    Effects rest on witnessed entries only (PROTOCOL R4): a model is published after its closing is under the quorum,
    a round opens on a model that is, and an order is obeyed by deriving models once it is.
    """
    name, current = segment.terms.segment, segment.current
    if current is not None and current.is_open:
        return CloseRound(name, current.number) if close_cause(current, now_us) is not None else None
    if _newest_index(state, segment) >= witnessed_size:
        return None
    step = due_step(segment)
    if step is not None:
        return DeriveAgain(name, step.round, step.published)
    if segment.is_halted:
        return None
    if current is not None and segment.awaits_model:
        return PublishModel(name, current.number)
    if now_us >= segment.terms.expires_us or segment.last_round >= segment.terms.round.rounds_max:
        return None
    return OpenRound(name, segment.last_round + 1, segment.model)


def _newest_index(state: FederationState, segment: SegmentState) -> int:
    """Leaf index of the newest entry that says what to do next: a closing, a model, an order; the terms at first."""
    current: RoundState | None = segment.current
    order = state.index_of_document(("order", segment.terms.segment))
    if current is None:
        return max(segment.terms_index, order)
    models = (step.index for step in segment.lineage)
    return max(current.closed_index, current.model_index, segment.model_index, order, *models)
