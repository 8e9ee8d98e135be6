"""Who learns alike: groups of updates that point the same way, in exact integers.

Updates are alike from a cosine on; groups are connected by it. Groups of fewer than a cohort are not told apart, and
neither are some that would be told by what is left of the whole.

Format: proto/README.md, "Aggregation", Clusters.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.neighbours import ranks_of
from sfrl_secure.aggregation.products import Products
from sfrl_secure.governance.aggregation_terms import PPM, RuleTerms
from sfrl_secure.limits import CLUSTERS_MAX

Cluster = tuple[int, ...]
"""Positions in the cohort, rising."""


def clusters_by(
    rule: RuleTerms, cohort_min: int, cohort: Sequence[Contribution], products: Products
) -> tuple[Cluster, ...]:
    """Group a cohort: the clusters, in their order; none where all are the rest.

    A cluster's step is `members.mean_over` its members, weighted.

    Args:
        cohort_min: at least 1.
        products: of the whole cohort, over all coordinates.

    Raises:
        MalformedError: an update is in the cohort twice.
    """
    assert products.count == len(cohort), "these are the cohort's products"
    ranks = ranks_of(cohort)
    groups = sorted(
        _connected(_alike(products.integers(), rule.alike_ppm)),
        key=lambda group: (-len(group), min(int(ranks[member]) for member in group)),
    )
    clusters = [group for group in groups[:CLUSTERS_MAX] if len(group) >= cohort_min]
    rest = len(cohort) - sum(len(cluster) for cluster in clusters)
    while 1 <= rest < cohort_min and clusters:
        rest += len(clusters.pop())
    return tuple(clusters)


def _alike(products: NDArray[np.object_], alike_ppm: int) -> NDArray[np.bool_]:
    """Whether the cosine is positive and at least so many millionths, as a comparison of whole numbers."""
    own = products.diagonal()
    bound = alike_ppm**2 * np.multiply.outer(own, own)
    is_alike: NDArray[np.bool_] = (products > 0) & (products * products * PPM**2 >= bound)
    return is_alike.astype(np.bool_)


def _connected(is_alike: NDArray[np.bool_]) -> list[Cluster]:
    """The connected components of a symmetric relation."""
    found, left = [], np.ones(len(is_alike), dtype=np.bool_)
    while left.any():
        inside = np.zeros_like(left)
        reached = np.zeros_like(left)
        reached[np.argmax(left)] = True
        while reached.any():
            inside |= reached
            reached = is_alike[reached].any(axis=0) & ~inside
        left &= ~inside
        found.append(tuple(np.flatnonzero(inside).tolist()))
    return found
