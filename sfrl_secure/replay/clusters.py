"""Clusters: which updates of a round are alike, under `clustered_mean/v1`.

Format: proto/README.md, "Clusters".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfrl_secure.limits import CLUSTERS_MAX
from sfrl_secure.replay.products import Exact


def clusters_of(products: Exact, ties: Sequence[bytes], alike_ppm: int, cohort_min: int) -> list[list[int]]:
    """Give the clusters in their order, each with its members' numbers, ascending."""
    groups = sorted(
        _connected(products, alike_ppm), key=lambda group: (-len(group), min(ties[member] for member in group))
    )
    kept = [group for group in groups[:CLUSTERS_MAX] if len(group) >= cohort_min]
    rest = len(ties) - sum(map(len, kept))
    while kept and 1 <= rest < cohort_min:
        rest += len(kept.pop())
    return kept


def _connected(products: Exact, alike_ppm: int) -> list[list[int]]:
    """The connected components under "alike"."""
    groups: list[list[int]] = []
    unseen = set(range(len(products)))
    while unseen:
        group, edge = [], [unseen.pop()]
        while edge:
            i = edge.pop()
            group.append(i)
            near = [j for j in unseen if _is_alike(products, i, j, alike_ppm)]
            unseen.difference_update(near)
            edge += near
        groups.append(sorted(group))
    return groups


def _is_alike(products: Exact, i: int, j: int, alike_ppm: int) -> bool:
    p = products[i, j]
    return bool(p > 0 and p**2 * 10**12 >= alike_ppm**2 * products[i, i] * products[j, j])
