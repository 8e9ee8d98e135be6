"""Who is near whom in a cohort: by exact squared distance, equal ones by tie.

Format: proto/README.md, "Aggregation", Rules.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.wide_integers import Wide, rank_along
from sfrl_secure.errors import MalformedError


def ranks_of(cohort: Sequence[Contribution]) -> NDArray[np.int64]:
    """Rank each update's tie in the cohort, from 0: int64, shape (n,).

    Raises:
        MalformedError: two have the same.
    """
    ties = [contribution.tie for contribution in cohort]
    if len(set(ties)) < len(ties):
        raise MalformedError("an update is in a cohort once")
    ranks = np.empty(len(ties), dtype=np.int64)
    ranks[sorted(range(len(ties)), key=ties.__getitem__)] = np.arange(len(ties))
    return ranks


def nearest_first(distances: Wide, ranks: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order the others for each update, nearest first: positions in the cohort, int64, shape (n, n - 1).

    Args:
        distances: as `Products.distances` gives them.
        ranks: as `ranks_of` gives them.
    """
    count = ranks.size
    order = rank_along(distances, np.broadcast_to(ranks, (count, count)))
    # Itself an update is not always its first: one that says the same is as near.
    others: NDArray[np.int64] = order[order != np.arange(count)[:, np.newaxis]].reshape(count, count - 1)
    return others
