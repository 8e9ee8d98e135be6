"""The mean of some of a cohort's updates over a range of coordinates, and such a result as a part of a step.

Format: proto/README.md, "Aggregation".

Runs in: aggregator.
Trusts: the admission, which decoded the updates; the bounds that make the sums exact are checked again here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.contribution import Contribution, checked_parts
from sfrl_secure.aggregation.parts import SPARSE_FACTOR, moved_part
from sfrl_secure.aggregation.weighted_mean import WeightedMean
from sfrl_secure.sparse.update import UpdatePart


def mean_over(
    cohort: Sequence[Contribution], start: int, stop: int, members: Sequence[int], *, weighted: bool
) -> UpdatePart:
    """The mean of `members`, positions in the cohort, numbered from `start`: by weight, or each with one voice.

    Raises:
        MalformedError: there are no members, or what one gives is out of bounds.
    """
    mean = WeightedMean(stop - start)
    for member in members:
        weight = cohort[member].weight if weighted else 1
        mean.enter(weight)
        for part in checked_parts(cohort[member], start, stop):
            mean.add_part(moved_part(part, -start), weight)
    return mean.step()


def part_of(at: NDArray[np.int64], values: NDArray[np.int64], width: int) -> UpdatePart:
    """A part of a range of `width` coordinates, from values of some of them: of all, where few are 0."""
    kept = np.flatnonzero(values)
    if SPARSE_FACTOR * kept.size <= width:
        return UpdatePart(at[kept], values[kept])
    whole = np.zeros(width, dtype=np.int64)
    whole[at] = values
    return UpdatePart(slice(0, width), whole)
