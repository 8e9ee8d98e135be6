"""What a rule is asked for, and what it gives.

Format: proto/README.md, "Aggregation".

Runs in: aggregator.
Trusts: the terms, which were verified.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.aggregation.counts import Counts
from sfrl_secure.governance.aggregation_terms import ClipTerms, RuleTerms
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.sparse.update import UpdatePart

CONTRIBUTIONS_MAX = 65_535
"""Updates that are added up together: each of them is counted in 16 bits. No round has so many."""


@dataclass(frozen=True, slots=True)
class Combining:
    """What of a segment's terms says how updates become one step, before cap and server step.

    Attributes:
        coordinates: of the model.
        cohort_min: fewest members of a cluster.
        with_carriers, with_votes: whether somebody wants these counts.
    """

    coordinates: int
    rule: RuleTerms
    clip: ClipTerms | None = None
    cohort_min: int = 1
    with_carriers: bool = False
    with_votes: bool = False


def combining_of(terms: SegmentTerms) -> Combining:
    """What the terms ask for: carriers for a cap, votes for a mask that changes by them."""
    chosen = None if terms.mask is None else terms.mask.next
    return Combining(
        coordinates=terms.model.manifest.coordinates,
        rule=terms.rule,
        clip=terms.clip,
        cohort_min=terms.round.cohort_min,
        with_carriers=terms.cap is not None,
        with_votes=chosen is not None and chosen.score == "votes",
    )


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """What comes of a cohort's updates.

    Attributes:
        step: a, of the specification: over all coordinates, or with the indices of those where it is not zero.
        carriers: uint16, shape (coordinates,): how many updates carry a coordinate. None where nobody asked.
        votes: the same: how many have a value there that is not 0, after the clip. None where nobody asked.
        clusters: positions of a cluster's members in the cohort, ascending, and what is added to the base for them.
    """

    step: UpdatePart
    carriers: Counts | None = None
    votes: Counts | None = None
    clusters: tuple[tuple[tuple[int, ...], UpdatePart], ...] = ()
