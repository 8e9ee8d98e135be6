"""Exact integers: one division, rounded half to even, and cuts to a range.

No floating point. Whoever divides says in which bounds; none is above 2**62, so that 64 bits hold every step.

Format: proto/README.md, "Aggregation".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from sfrl_secure.replay.payload_codes import Integers

VALUE_MAX: Final = 2**40
"""The largest magnitude of a value, of a step and of a server state, in grid units."""
_PIECE: Final = 2**17


def divide_half_even(numerator: Integers, denominator: int | Integers) -> Integers:
    """Divide by positive integers, to the nearest integer and to the even one of two.

    Args:
        numerator: int64, magnitudes at most 2**62.
        denominator: 1 to 2**61; one for all, or one for each.
    """
    quotient = numerator // denominator  # rounds down, also below zero
    remainder = numerator - quotient * denominator  # 0 to denominator - 1
    up = (2 * remainder > denominator) | ((2 * remainder == denominator) & (quotient % 2 == 1))
    result: Integers = quotient + up
    return result


def cut(values: Integers, most: int = VALUE_MAX) -> Integers:
    """Each value, or the end of the range from -most to most that is nearest to it."""
    result: Integers = np.clip(values, -most, most)
    return result


def pieces(end: int, start: int = 0) -> Iterator[slice]:
    """Coordinates in order, in pieces that leave room for what is worked out on the way."""
    for at in range(start, end, _PIECE):
        yield slice(at, min(at + _PIECE, end))
