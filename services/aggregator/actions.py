"""What a segment needs next: open a round, close it, publish its model, or nothing.

A pure function of the state, the witnessed size and the time, so that an aggregator that was killed does after its
start what it would have done.

Runs in: aggregator.
Trusts: the state of the fold.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.ids import Digest
from sfrl_secure.rounds.closing import close_cause
from sfrl_secure.rounds.state import RoundState, SegmentState


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
    current: RoundState


@dataclass(frozen=True, slots=True)
class PublishModel:
    """Compute and publish the closed round's model."""

    segment: str
    current: RoundState


Action = OpenRound | CloseRound | PublishModel


def next_action(segment: SegmentState, witnessed_size: int, now_us: int) -> Action | None:
    """Decide what the segment needs now.

    Effects rest on witnessed entries only (PROTOCOL R4): a model is published after its closing is under the quorum,
    and a round opens on a model that is.
    """
    name, current = segment.terms.segment, segment.current
    if current is not None and current.is_open:
        return CloseRound(name, current) if close_cause(current, now_us) is not None else None
    if current is not None and segment.awaits_model:
        return PublishModel(name, current) if current.closed_index < witnessed_size else None
    last_index = segment.terms_index if current is None else max(current.closed_index, current.model_index)
    if last_index >= witnessed_size or now_us >= segment.terms.expires_us:
        return None
    if segment.last_round >= segment.terms.round.rounds_max:
        return None
    return OpenRound(name, segment.last_round + 1, segment.model)
