"""The one division: integers, rounded half to even.

No floating point, and no value for which it is not exact. It works through blocks that stay in the processor's cache,
so that a whole model costs few passes over memory.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import WEIGHT_SUM_MAX

_BLOCK = 32_768
"""Values that are divided at a time: 256 KiB in each of three arrays."""


def divide_half_even(
    numerator: NDArray[np.int64], denominator: int, *, out: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """Divide and round to the nearest integer, halves to the even one.

    Exact: flooring drifts by half a unit a round (half of the remainders round the wrong way), this does not.

    Args:
        numerator: int64, shape (n,), any values.
        denominator: 1 to `WEIGHT_SUM_MAX`.
        out: int64, shape (n,), where the result goes; may be `numerator` itself.

    Returns: int64, shape (n,).

    Raises:
        MalformedError: the denominator is out of range.
    """
    if not 1 <= denominator <= WEIGHT_SUM_MAX:
        raise MalformedError(f"a sum of weights is 1 to {WEIGHT_SUM_MAX}")
    result = np.empty_like(numerator) if out is None else out
    quotients, remainders = np.empty(_BLOCK, dtype=np.int64), np.empty(_BLOCK, dtype=np.int64)
    for start in range(0, numerator.size, _BLOCK):
        part, rounded = numerator[start : start + _BLOCK], result[start : start + _BLOCK]
        quotient, remainder = quotients[: part.size], remainders[: part.size]
        np.floor_divide(part, denominator, out=quotient)
        np.multiply(quotient, denominator, out=remainder)
        np.subtract(part, remainder, out=remainder)
        # From 0 to denominator - 1, and so below 2**22: doubling cannot overflow. Up where twice the remainder is more
        # than the denominator, and where it is as much and the quotient is odd.
        np.left_shift(remainder, 1, out=remainder)
        np.add(remainder, quotient & 1, out=remainder)
        np.add(quotient, remainder > denominator, out=rounded)
    return result


def divide_each_half_even(
    numerator: NDArray[np.int64], denominators: NDArray[np.int32], *, out: NDArray[np.int64] | None = None
) -> NDArray[np.int64]:
    """The same with a denominator of its own for each; 0 where that is 0, and so is the numerator.

    Args:
        numerator: int64, shape (n,), any values.
        denominators: int32, shape (n,), 0 to `WEIGHT_SUM_MAX`.
        out: int64, shape (n,), where the result goes; may be `numerator` itself.

    Returns: int64, shape (n,).
    """
    result = np.empty_like(numerator) if out is None else out
    quotients, divisors = np.empty(_BLOCK, dtype=np.int64), np.empty(_BLOCK, dtype=np.int64)
    for start in range(0, numerator.size, _BLOCK):
        part, rounded = numerator[start : start + _BLOCK], result[start : start + _BLOCK]
        quotient, divisor = quotients[: part.size], divisors[: part.size]
        np.maximum(denominators[start : start + _BLOCK], 1, out=divisor)
        np.floor_divide(part, divisor, out=quotient)
        remainder = quotient * divisor
        np.subtract(part, remainder, out=remainder)
        # As above.
        np.left_shift(remainder, 1, out=remainder)
        np.add(remainder, quotient & 1, out=remainder)
        np.add(quotient, remainder > divisor, out=rounded)
    return result
