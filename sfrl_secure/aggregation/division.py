"""The one division: integers, rounded half to even.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import WEIGHT_SUM_MAX


def divide_half_even(numerator: NDArray[np.int64], denominator: int) -> NDArray[np.int64]:
    """Divide and round to the nearest integer, halves to the even one.

    Exact: flooring drifts by half a unit a round (half of the remainders round the wrong way), this does not.

    Args:
        numerator: int64, shape (n,), any values.
        denominator: 1 to `WEIGHT_SUM_MAX`.

    Returns: int64, shape (n,).

    Raises:
        MalformedError: the denominator is out of range.
    """
    if not 1 <= denominator <= WEIGHT_SUM_MAX:
        raise MalformedError(f"a sum of weights is 1 to {WEIGHT_SUM_MAX}")
    quotient = np.floor_divide(numerator, denominator)
    # The remainder is below 2**22, so that doubling it cannot overflow.
    twice = 2 * (numerator - quotient * denominator)
    up = (twice > denominator) | ((twice == denominator) & (quotient & 1 == 1))
    rounded: NDArray[np.int64] = np.add(quotient, up, dtype=np.int64)
    return rounded
