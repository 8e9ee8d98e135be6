"""Arrays of integers that need more than 64 bits: three limbs of 40 bits, in int64.

A value is limb 0 + limb 1 * 2**40 + limb 2 * 2**80. Settled, limbs 0 and 1 are from 0 to 2**40 - 1 and limb 2 has the
sign, so that one value has one form, and that order is the order of limb 2, then 1, then 0. Sums of products of two
updates' values are at most 2**111, distances at most 2**113, and 500 of those below 2**122: limb 2 stays below 2**42.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

LIMBS: Final = 3
LIMB_BITS: Final = 40
SHIFT_MAX: Final = 76
"""Furthest that 64-bit sums are moved: the last of their pieces then still begins in the last limb."""
_LOW: Final = 2**LIMB_BITS - 1
_PIECE_BITS: Final = 21
_PIECE: Final = 2**_PIECE_BITS - 1

Wide = NDArray[np.int64]
"""Limbs: int64, shape (3, ...)."""


def settle(limbs: Wide) -> Wide:
    """Carry in place, so that each value has its one form, and return `limbs`; each is at most 2**62 before."""
    for low in range(LIMBS - 1):
        limbs[low + 1] += limbs[low] >> LIMB_BITS
        limbs[low] &= _LOW
    return limbs


def add_shifted(limbs: Wide, values: NDArray[np.int64], shift: int) -> None:
    """Add `values` * 2**`shift` to settled limbs, and settle them.

    Args:
        values: int64, of the shape of one limb, magnitude at most 2**62.
        shift: 0 to `SHIFT_MAX`.
    """
    assert 0 <= shift <= SHIFT_MAX, "a piece would pass the last limb"
    pieces = (values & _PIECE, (values >> _PIECE_BITS) & _PIECE, values >> (2 * _PIECE_BITS))
    for number, piece in enumerate(pieces):
        # A piece has at most 21 bits and is moved by at most 39: below 2**61 beside a settled limb.
        limb, moved = divmod(shift + number * _PIECE_BITS, LIMB_BITS)
        limbs[limb] += piece << moved
        settle(limbs)


def rank_along(limbs: Wide, *ties: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sort along the last axis by rising value, then by each of `ties`: the positions, as `argsort` gives them.

    Args:
        limbs: settled.
        ties: int64, of the shape of one limb.
    """
    return np.lexsort((*reversed(ties), limbs[0], limbs[1], limbs[2]), axis=-1)


def to_integers(limbs: Wide) -> NDArray[np.object_]:
    """Give the values as Python's integers."""
    whole: NDArray[np.object_] = limbs[LIMBS - 1].astype(object)
    for limb in limbs[LIMBS - 2 :: -1]:
        whole = (whole << LIMB_BITS) + limb.astype(object)
    return whole
