"""The step code: one small number for each block, written as its difference from the block before, in unary.

Neighbouring blocks of an update are alike, so that most numbers take one to three bits. Rules S1 to S4 of the format
are here, in that order.

Format: proto/README.md, "Codec", "Step code". Differences are folded to 0, -1, 1, -2, ... as Elias folded integers.

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError

_NUMBER_MAX = 34
"""The largest number of any step code: a scale's exponent."""
_TOO_FAR = 100
"""A difference that leads from any number allowed to one that is not, and that 1,024 times are still few."""


def _differences() -> NDArray[np.int64]:
    """Give for each number of bits, from 0, the difference that so many bits stand for.

    The last one stands for all longer codes.
    """
    zeros = np.arange(2 * _NUMBER_MAX + 1)
    folded = (zeros >> 1) ^ -(zeros & 1)
    return np.concatenate([[0], folded, [_TOO_FAR]]).astype(np.int64)


_DIFFERENCES = _differences()


def pack_steps(numbers: NDArray[np.int64]) -> bytes:
    """Write `numbers`, int64, shape (blocks,), blocks at least 1, none negative."""
    differences = np.diff(numbers, prepend=0)
    zeros = (differences << 1) ^ (differences >> 63)
    return pack_unary(zeros)


def unpack_steps(raw: NDArray[np.uint8], count: int, largest: int) -> tuple[NDArray[np.int64], list[int]]:
    """Read `count` numbers from exactly the bytes `raw`, strictly. Rules S1 (its bounds) to S4.

    Args:
        raw: as many bytes as the leaf announces and has.
        count: numbers, at least 1.
        largest: the largest number allowed.

    Returns: int64, shape (count,), each from 0 to `largest`; and how many there are of each, up to the largest of them.

    Raises:
        PayloadError: `length`, `declared` or `not_canonical`.
    """
    if not count <= 8 * raw.size <= count * (2 * largest + 1) + 7:
        raise PayloadError("length", "a step code has at least one bit and at most 2 X + 1 bits a number")
    ends = unary_ends(raw, count)
    bits = np.empty(count, np.int64)
    bits[0] = ends.item(0) + 1
    np.subtract(ends[1:], ends[:-1], bits[1:])
    numbers: NDArray[np.int64] = _DIFFERENCES.take(bits, None, None, "clip")
    np.add.accumulate(numbers, 0, None, numbers)
    # Numbers are counted from 0, and a negative one is refused. The first that is not allowed is seen whatever follows.
    try:
        sizes: list[int] = np.bincount(numbers).tolist()
    except ValueError:
        sizes = []
    if not 1 <= len(sizes) <= largest + 1:
        raise PayloadError("not_canonical", f"a number of this step code is from 0 to {largest}")
    return numbers, sizes


def pack_unary(numbers: NDArray[np.int64]) -> bytes:
    """Write each number as so many zero bits and a one bit; zero bits up to the end of the last byte."""
    ends = np.cumsum(numbers + 1)
    bits = np.zeros(int(ends[-1]), dtype=np.uint8)
    bits[ends - 1] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def unary_ends(raw: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Return where the `count` one bits of `raw` stand. Rules S2 and S3, and R2 and R3.

    Raises:
        PayloadError: `declared` for another number of one bits, `length` where whole bytes follow the last one.
    """
    # As bool, which numpy searches many times faster than numbers.
    ends: NDArray[np.int64] = np.unpackbits(raw, None, None, "little").view(np.bool_).nonzero()[0]
    if ends.size != count:
        raise PayloadError("declared", "a unary code holds one 1 for each number")
    if not raw[-1]:
        raise PayloadError("length", "nothing follows the byte of the last 1")
    return ends
