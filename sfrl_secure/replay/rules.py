"""The rules: from the updates that are added up to what each coordinate changes by, before cap and server step.

Format: proto/README.md, "Aggregation", clip to cap.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.replay.aggregation_terms import (
    CLUSTERED_MEAN,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    WEIGHTED_MEAN,
    Cap,
)
from sfrl_secure.replay.arithmetic import cut, pieces
from sfrl_secure.replay.columns import Cohort
from sfrl_secure.replay.krum import selected_by_krum
from sfrl_secure.replay.median import median
from sfrl_secure.replay.neighbours import nnm_trimmed_mean
from sfrl_secure.replay.payload_codes import Integers
from sfrl_secure.replay.products import distances_of, products_of
from sfrl_secure.replay.sums import sums_of
from sfrl_secure.replay.terms import Terms

Counts = NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """What a rule gives.

    Attributes:
        a: int64, shape (coordinates,).
        carriers: of each coordinate how many updates carry it; None where the terms have no cap.
        votes: how many have a value there that is not 0; None where no mask is chosen by votes.
    """

    a: Integers
    carriers: Counts | None
    votes: Counts | None


def combine(terms: Terms, cohort: Cohort) -> Combined:
    """Apply the terms' rule to a cohort of one or more; its values are those after the clip.

    Raises:
        Gone: a payload is there no more.
    """
    asks_for_votes = terms.mask is not None and terms.mask.next is not None and terms.mask.next.score == "votes"
    asks_for_carriers = terms.cap is not None
    rule = terms.rule
    if rule.name in (WEIGHTED_MEAN, CLUSTERED_MEAN, UNION_MEAN):
        by_carriers = rule.name == UNION_MEAN
        weighted = ((update, update.weight) for update in cohort.updates)
        sums = sums_of(
            weighted, cohort.coordinates, weights=by_carriers, carriers=asks_for_carriers, votes=asks_for_votes
        )
        return Combined(sums.mean_of_carriers() if by_carriers else sums.mean(), sums.carriers, sums.votes)
    liars = len(cohort.updates) * rule.liars_ppm // 10**6
    if rule.name == NNM_TRIMMED_MEAN:
        a = nnm_trimmed_mean(cohort, liars)
    elif rule.name == MULTI_KRUM:
        a = _multi_krum(cohort, liars, rule.selected_ppm)
    else:
        assert rule.name == MEDIAN, "terms name one of these rules"
        a = median(cohort)
    carriers = np.zeros(cohort.coordinates, np.uint16) if asks_for_carriers else None
    votes = np.zeros(cohort.coordinates, np.uint16) if asks_for_votes else None
    if carriers is not None or votes is not None:
        for columns in cohort.columns():
            if carriers is not None:
                carriers[columns.start : columns.stop] = columns.counts
            if votes is not None:
                votes[columns.start : columns.stop] = columns.votes()
    return Combined(a, carriers, votes)


def _multi_krum(cohort: Cohort, liars: int, selected_ppm: int) -> Integers:
    ties = [update.tie for update in cohort.updates]
    selected = selected_by_krum(distances_of(products_of(cohort)), ties, liars, selected_ppm)
    return sums_of(((cohort.updates[number], 1) for number in selected), cohort.coordinates).mean()


def apply_cap(cap: Cap, combined: Combined) -> None:
    """Cut the steps of the coordinates that few carry, where they stand."""
    assert combined.carriers is not None, "they are counted where there is a cap"
    for piece in pieces(len(combined.a)):
        few = combined.carriers[piece] < cap.contributors_below
        combined.a[piece] = np.where(few, cut(combined.a[piece], cap.magnitude), combined.a[piece])
