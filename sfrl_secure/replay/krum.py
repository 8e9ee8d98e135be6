"""`multi_krum/v1`: the mean of the updates whose nearest others are nearest. Blanchard and others 2017.

Format: proto/README.md, "Rules".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from sfrl_secure.replay.products import Exact


def selected_by_krum(distances: Exact, ties: Sequence[bytes], liars: int, selected_ppm: int) -> list[int]:
    """Give the numbers of the updates that are selected.

    Args:
        liars: f, less than half of the updates.
    """
    n = len(ties)
    nearest = min(n - 1, max(1, n - liars - 2))
    ranked = []
    for i in range(n):
        others = sorted(distances[i, j] for j in range(n) if j != i)
        ranked.append((sum(others[:nearest]), ties[i], i))
    count = max(1, n * selected_ppm // 10**6)
    return [i for _, _, i in sorted(ranked)[:count]]
