"""The two codes inside a leaf: steps from one number to the next, and Rice codes of many small numbers in blocks.

The rules bear their names in the specification (S1 to S4, R1 to R5) and stand in its order. What is announced is there,
and possible for what it must hold, before it is unpacked.

Format: proto/README.md, "Codec", leaf and decoding.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.replay.payload_header import BLOCK, refuse

Integers = NDArray[np.int64]

_PLANE_BYTES = BLOCK // 8


class Fields:
    """A leaf's bytes, taken field by field."""

    def __init__(self, raw: memoryview) -> None:
        """Begin with the first."""
        self._raw = raw

    @property
    def left(self) -> int:
        """Bytes that nobody has taken."""
        return len(self._raw)

    def take(self, length: int, rule: str) -> memoryview:
        """Take a field of that many bytes.

        Raises:
            PayloadError: they are not there, which breaks `rule`.
        """
        if length > len(self._raw):
            refuse(rule, "length", "the leaf has all its fields")
        field, self._raw = self._raw[:length], self._raw[length:]
        return field


def blocks_of(count: int) -> int:
    """Blocks that hold so many values."""
    return -(-count // BLOCK)


def spread(of_blocks: Integers, count: int) -> Integers:
    """Give each of `count` values what its block has."""
    return np.repeat(of_blocks, BLOCK)[:count]


def unpack_bits(raw: memoryview) -> NDArray[np.uint8]:
    """The bits of a field, bit 0 of the first byte first."""
    return np.unpackbits(np.frombuffer(raw, np.uint8), bitorder="little")


def read_steps(fields: Fields, count: int, largest: int) -> Integers:
    """Read a step code of `count` numbers from 0 to `largest`, with its length before it: S1 to S4."""
    length = int.from_bytes(fields.take(2, "S1"), "little")
    return _decode_steps(fields.take(length, "S1"), count, largest)


def _decode_steps(raw: memoryview, count: int, largest: int) -> Integers:
    if not -(-count // 8) <= len(raw) <= -(-count * (2 * largest + 1) // 8):
        refuse("S1", "length", "a step code has a possible length")
    zeros = _decode_unary(raw, count, "S2", "S3")
    # 2 d for a step up or none, -2 d - 1 for a step down.
    numbers = np.cumsum(np.where(zeros % 2 == 0, zeros // 2, -(zeros + 1) // 2))
    if (numbers < 0).any() or (numbers > largest).any():
        refuse("S4", "not_canonical", f"each number is from 0 to {largest}")
    return numbers


def _decode_unary(raw: memoryview, count: int, declared: str, length: str) -> Integers:
    """How many zeros stand before each of `count` one bits; the names of the rules that they number and end."""
    ones = np.flatnonzero(unpack_bits(raw).view(np.bool_))
    if len(ones) != count:
        refuse(declared, "declared", "there is one bit for each number")
    if int(ones[-1]) // 8 != len(raw) - 1:
        refuse(length, "length", "the code ends with its last number")
    return np.diff(ones, prepend=-1) - 1


def read_rice(fields: Fields, count: int, largest: int) -> tuple[Integers, Integers]:
    """Read a Rice code of `count` numbers in blocks: R1 to R4. `check_parameters` is the caller's.

    Returns: the numbers, each below 2**49, and each block's parameter, at most `largest`.
    """
    lengths = fields.take(6, "S1")
    steps_bytes, unary_bytes = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
    parameters = _decode_steps(fields.take(steps_bytes, "S1"), blocks_of(count), largest)
    planes = fields.take(_PLANE_BYTES * int(parameters.sum()), "R1")
    unary = fields.take(unary_bytes, "R1")
    if not -(-count // 8) <= unary_bytes <= -(-count // 2):
        refuse("R1", "length", "a unary plane has a possible length")
    quotients = _decode_unary(unary, count, "R2", "R3")
    low_bits = _decode_planes(planes, parameters)
    if low_bits[count:].any():
        refuse("R4", "not_canonical", "bits that belong to no number are zero")
    return (quotients << spread(parameters, count)) + low_bits[:count], parameters


def _decode_planes(planes: memoryview, parameters: Integers) -> Integers:
    """The low bits of each number, 64 to a block, also of those that the last block does not have."""
    low_bits = np.zeros((len(parameters), BLOCK), np.int64)
    falling = np.argsort(-parameters, kind="stable")
    # In that order the blocks of a plane come first, since those of larger parameters have it too.
    in_order = np.zeros((len(parameters), BLOCK), np.int32)
    at = 0
    for bit in range(int(parameters.max())):
        members = int((parameters > bit).sum())
        end = at + _PLANE_BYTES * members
        in_order[:members] |= unpack_bits(planes[at:end]).reshape(-1, BLOCK).astype(np.int32) << bit
        at = end
    low_bits[falling] = in_order
    return low_bits.reshape(-1)


def check_parameters(numbers: Integers, parameters: Integers) -> None:
    """Check that each parameter is the function's value for its block's numbers: R5."""
    starts = np.arange(0, len(numbers), BLOCK)
    sizes = np.diff(starts, append=len(numbers))
    means = np.add.reduceat(numbers, starts) * 985 // (1024 * sizes)
    # floor(log2 m) is b when m shifted by b is 1; b is 0 also for m = 0.
    if not ((means >> parameters == 1) | ((parameters == 0) & (means == 0))).all():
        refuse("R5", "not_canonical", "a parameter is the function's value for its block")
