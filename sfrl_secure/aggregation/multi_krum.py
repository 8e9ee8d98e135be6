"""Krum and multi-Krum: the mean of the updates whose nearest others are nearest, in exact integers.

Blanchard and others, "Machine Learning with Adversaries", 2017.

Format: proto/README.md, "Aggregation", Rules.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.neighbours import nearest_first, ranks_of
from sfrl_secure.aggregation.products import Products
from sfrl_secure.aggregation.wide_integers import rank_along, settle
from sfrl_secure.governance.aggregation_terms import PPM, RuleTerms


def selected_by(rule: RuleTerms, cohort: Sequence[Contribution], products: Products) -> tuple[int, ...]:
    """Select updates by score, equal ones by tie: positions in the cohort, rising, at least one.

    What is averaged is `members.mean_over` them, unweighted.

    Args:
        products: of the whole cohort, over all coordinates.

    Raises:
        MalformedError: an update is in the cohort twice.
    """
    count = len(cohort)
    assert products.count == count, "these are the cohort's products"
    liars = count * rule.liars_ppm // PPM
    looked_at = min(count - 1, max(1, count - liars - 2))
    distances, ranks = products.distances(), ranks_of(cohort)
    nearest = nearest_first(distances, ranks)[:, :looked_at]
    scores = settle(np.take_along_axis(distances, nearest[np.newaxis], axis=2).sum(axis=2))
    chosen = max(1, count * rule.selected_ppm // PPM)
    return tuple(sorted(rank_along(scores, ranks)[:chosen].tolist()))
