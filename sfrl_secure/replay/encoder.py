"""Aggregates, server states and masks as objects, written so that their names can be compared with published ones.

The one encoding of what a round adds to its base, and of a server state: type exact, free where at most a quarter of
the coordinates have a value that is not zero, else dense. Leaf by leaf; the bytes of all leaves are kept, since their
hashes stand before them.

Format: proto/README.md, "Codec"; "Models and aggregates".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sfrl_secure.replay.payload_codes import Integers, blocks_of, spread
from sfrl_secure.replay.payload_header import BLOCK, LEAF, VERSION
from sfrl_secure.replay.payload_values import exact_width
from sfrl_secure.translog.merkle import leaf_hash

_FREE, _DENSE = 1, 3
_NONE, _EXACT = 0, 6


def encode_aggregate(values: Integers, grid_exponent: int) -> bytes:
    """Bytes of an aggregate object.

    Args:
        values: of every coordinate of the model, each of magnitude 2**40 at most.
    """
    indices = np.flatnonzero(values != 0)
    if is_sparse(len(indices), len(values)):
        leaves = [indexed + _exact(values[here]) for here, indexed in _indexed(indices)]
        return _assemble(_FREE, _EXACT, grid_exponent, len(values), len(indices), leaves)
    leaves = [_exact(values[at : at + LEAF]) for at in range(0, len(values), LEAF)]
    return _assemble(_DENSE, _EXACT, grid_exponent, len(values), len(values), leaves)


def encode_mask(indices: Integers, coordinates: int) -> bytes:
    """Bytes of a mask object, of rising coordinates."""
    return _assemble(_FREE, _NONE, 0, coordinates, len(indices), [indexed for _, indexed in _indexed(indices)])


def is_sparse(nonzeros: int, coordinates: int) -> bool:
    """Whether an aggregate object with so many values that are not zero is in free mode."""
    return 4 * nonzeros <= coordinates


def _indexed(indices: Integers) -> Iterator[tuple[Integers, bytes]]:
    """Of each leaf its coordinates, and how it names them."""
    base = 0
    for at in range(0, len(indices), LEAF):
        here = indices[at : at + LEAF]
        yield here, base.to_bytes(4, "little") + _rice(np.diff(here, prepend=base - 1) - 1)
        base = int(here[-1]) + 1


def _assemble(
    support: int, value_type: int, grid_exponent: int, coordinates: int, nonzeros: int, leaves: list[bytes]
) -> bytes:
    preamble = b"SFRU" + bytes([VERSION, support, value_type, grid_exponent])
    preamble += coordinates.to_bytes(8, "little") + nonzeros.to_bytes(8, "little") + len(leaves).to_bytes(4, "little")
    table = b"".join(len(leaf).to_bytes(4, "little") + leaf_hash(leaf) for leaf in leaves)
    return b"".join([preamble, table, *leaves])


def _exact(values: Integers) -> bytes:
    width = exact_width(values)
    return bytes([width]) + values.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes()


def _rice(numbers: Integers) -> bytes:
    """The Rice code of a leaf's skips."""
    parameters = _parameters(numbers)
    steps = _steps(parameters)
    planes = _planes(numbers, parameters)
    unary = _unary(numbers >> spread(parameters, len(numbers)))
    return len(steps).to_bytes(2, "little") + len(unary).to_bytes(4, "little") + steps + planes + unary


def _parameters(numbers: Integers) -> Integers:
    """Each block's parameter: the bit length of m, minus 1, and 0 for m = 0."""
    starts = np.arange(0, len(numbers), BLOCK)
    means = np.add.reduceat(numbers, starts) * 985 // (1024 * np.diff(starts, append=len(numbers)))
    return np.array([max(0, int(mean).bit_length() - 1) for mean in means], np.int64)


def _steps(numbers: Integers) -> bytes:
    """The step code of numbers, the first counted from 0."""
    steps = np.diff(numbers, prepend=0)
    return _unary(np.where(steps >= 0, 2 * steps, -2 * steps - 1))


def _unary(zeros: Integers) -> bytes:
    """So many zeros before each one bit."""
    ones = np.cumsum(zeros + 1) - 1
    bits = np.zeros(int(ones[-1]) + 1, np.uint8)
    bits[ones] = 1
    return np.packbits(bits, bitorder="little").tobytes()


def _planes(numbers: Integers, parameters: Integers) -> bytes:
    """The low bits of each block's numbers, bit by bit, blocks of larger parameters first."""
    in_blocks = np.zeros((blocks_of(len(numbers)), BLOCK), np.int64)
    in_blocks.reshape(-1)[: len(numbers)] = numbers
    falling = np.argsort(-parameters, kind="stable")
    planes = [np.zeros(0, np.uint8)]
    for bit in range(int(parameters.max())):
        members = falling[parameters[falling] > bit]
        planes.append(np.packbits((in_blocks[members] >> bit & 1).reshape(-1).astype(np.uint8), bitorder="little"))
    return np.concatenate(planes).tobytes()
