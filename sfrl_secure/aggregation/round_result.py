"""What a round's updates make of its base: the step, the model, and what the next round begins with.

A pure function, from the cap on: the same for whoever has the same updates, base, server state and mask. Nothing is
stored and nothing is named here.

Format: proto/README.md, "Aggregation", "Masks".

Runs in: aggregator.
Trusts: its caller, who decided the updates.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.aggregation.buffers import Room
from sfrl_secure.aggregation.cap import cut
from sfrl_secure.aggregation.combined import Combined
from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.aggregation.next_mask import next_mask, scores_of
from sfrl_secure.aggregation.server_state import ServerState
from sfrl_secure.aggregation.server_step import server_step
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.sparse.mask import Mask, encode_mask
from sfrl_secure.sparse.update import UpdatePart


@dataclass(frozen=True, slots=True, eq=False)
class ClusterResult:
    """Updates of a round that are alike: their positions in the cohort, ascending, and the mean of their values."""

    members: tuple[int, ...]
    step: UpdatePart

    def model_on(self, base: ModelSnapshot, *, room: Room | None = None) -> ModelSnapshot:
        """The cluster's model; one at a time, since each is as large as the round's."""
        return base.add(self.step, room=room)


@dataclass(frozen=True, slots=True, eq=False)
class RoundResult:
    """What a round gives.

    Attributes:
        step: what is added to the base; the aggregate object is of it.
        model: the base and the step.
        server_state: None where the terms have no server step.
        next_mask: the mask object's bytes; None where the terms' mask does not change, or the round's is none.
        clusters: under the clustered rule, in the order in which they are published.
    """

    step: UpdatePart
    model: ModelSnapshot
    server_state: ServerState | None
    next_mask: bytes | None
    clusters: tuple[ClusterResult, ...]


def result_of(
    terms: SegmentTerms,
    round_opened: Digest,
    combined: Combined,
    base: ModelSnapshot,
    state: ServerState | None,
    mask_before: Mask | None,
    *,
    room: Room | None = None,
) -> RoundResult:
    """Work out a round from what its rule made of its updates.

    Args:
        round_opened: entry hash of the round's opening.
        combined: of at least one update, by the same terms.
        state: what the round began with; None stands for zeros.
        mask_before: the round's mask; None where it has none, or where what it began with is no mask.
        room: where the model goes: see `Rooms`.
    """
    coordinates = terms.model.manifest.coordinates
    step, after = server_step(terms.server, cut(terms, combined), state, coordinates)
    following = _next_mask(terms, round_opened, combined, base, mask_before)
    clusters = tuple(ClusterResult(members, mean) for members, mean in combined.clusters)
    return RoundResult(step, base.add(step, room=room), after, following, clusters)


def _next_mask(
    terms: SegmentTerms, round_opened: Digest, combined: Combined, base: ModelSnapshot, before: Mask | None
) -> bytes | None:
    # Nothing can follow from what is no mask: the next round begins with that of the terms again.
    if terms.mask is None or terms.mask.next is None or before is None:
        return None
    scored = scores_of(terms.mask.next, combined.step, combined.votes, base)
    return encode_mask(
        terms.model.manifest.coordinates, next_mask(terms, round_opened, before.indices, scored)
    )
