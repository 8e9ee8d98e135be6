"""The median of each coordinate, missing is zero, in exact integers.

A coordinate that at most (n - 1) / 2 of n updates have a value of has the median 0, whatever they say.

Format: proto/README.md, "Aggregation", Rules.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sfrl_secure.aggregation.columns import columns_over
from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.division import divide_half_even
from sfrl_secure.aggregation.members import part_of
from sfrl_secure.sparse.update import UpdatePart


def median_over(cohort: Sequence[Contribution], start: int, stop: int) -> UpdatePart:
    """Take the median of the coordinates from `start` to before `stop`; the part is numbered from `start`.

    Raises:
        MalformedError: what an update gives is out of bounds.
        Overfull: the range has too many values.
    """
    count = len(cohort)
    columns = columns_over(cohort, start, stop)
    sums = np.zeros(columns.at.size, dtype=np.int64)
    for matrix in columns.matrices((count - 1) // 2 + 1):
        ordered = np.ascontiguousarray(matrix.values.T)
        ordered.sort(axis=1)
        # One and the same where their number is odd.
        sums[matrix.at] = ordered[:, (count - 1) // 2] + ordered[:, count // 2]
    return part_of(columns.at - start, divide_half_even(sums, 2, out=sums), stop - start)
