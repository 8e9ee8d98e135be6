"""Payload bytes to a sparse update, strictly.

One update has one encoding of each value type, and nothing else is taken: what `decode_update` returns, `pack_update`
writes as the same bytes again. The rules stand in a fixed order, and the first that is broken gives the reason, so
that two decoders refuse alike. Memory is taken only after the preamble was compared with what the signed statement
declares and the payload was seen to have at least the bytes that so many nonzeros need.

Format: proto/README.md, "Codec"; this module holds rule T3, the order of all steps, L1 and L2.

Runs in: gatekeeper, aggregator, participant.
Trusts: the declared facts that its caller passes. Nothing in the payload.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.header import (
    LEAF_NONZEROS,
    Header,
    block_count,
    check_preamble,
    leaf_fixed_bytes,
    parse_leaf_table,
    parse_preamble,
)
from sfrl_secure.sparse.support import unpack_support
from sfrl_secure.sparse.update import SparseUpdate
from sfrl_secure.sparse.values import unpack_values


@dataclass(frozen=True, slots=True, eq=False)
class DecodedLeaf:
    """One leaf's part of an update.

    Attributes:
        base: the index after the last one of the leaf before; 0 in the first leaf.
        indices: int64, shape (count,), strictly rising, from `base` on.
        values: int64, shape (count,), grid units.
    """

    base: int
    indices: NDArray[np.int64]
    values: NDArray[np.int64]


def decode_update(payload: bytes, *, coordinates: int, nonzeros: int, value_type: str,
                  grid_exponent: int) -> SparseUpdate:
    """Decode a whole payload and refuse whatever is not canonical.

    The caller has compared the payload's length and SHA-256 with the update's signed statement.

    Args:
        payload: the whole payload.
        coordinates: coordinates of the round's base model.
        nonzeros: what the signed statement declares.
        value_type: what the signed statement declares and the terms allow.
        grid_exponent: the terms' grid is 2**-grid_exponent.

    Raises:
        PayloadError: the reason of the first rule that is broken.
    """
    preamble = parse_preamble(payload)
    check_preamble(preamble, coordinates=coordinates, nonzeros=nonzeros, value_type=value_type,
                   grid_exponent=grid_exponent)
    header = parse_leaf_table(payload, preamble)
    starts = header.leaf_starts
    if starts[-1] != len(payload):
        raise PayloadError("length", "the payload ends with its last leaf")
    indices = np.empty(nonzeros, dtype=np.int64)
    values = np.empty(nonzeros, dtype=np.int64)
    base = 0
    for leaf_index in range(len(header.leaves)):
        leaf = decode_leaf(header, leaf_index, payload[starts[leaf_index] : starts[leaf_index + 1]], base=base)
        base = int(leaf.indices[-1]) + 1
        first = leaf_index * LEAF_NONZEROS
        indices[first : first + leaf.indices.size] = leaf.indices
        values[first : first + leaf.values.size] = leaf.values
    indices.flags.writeable = values.flags.writeable = False
    return SparseUpdate(coordinates, indices, values)


def decode_leaf(header: Header, leaf_index: int, raw: bytes, *, base: int | None = None) -> DecodedLeaf:
    """Decode one leaf. Rules L1 to L9, then V1 to V4.

    The caller has authenticated `header`, or compares the whole payload's SHA-256. Without `base` the leaf is read
    alone, and that its base continues the leaf before is left unchecked; the returned `base` lets the caller check it.

    Args:
        header: the payload's header.
        leaf_index: from 0 to the number of leaves - 1.
        raw: exactly the leaf's bytes.
        base: the index after the last one of the leaf before, where it is known; 0 for the first leaf.

    Raises:
        PayloadError: the reason of the first rule that is broken.
    """
    record, preamble = header.leaves[leaf_index], header.preamble
    # The length too: equal digests alone would leave the arithmetic below to a collision.
    if len(raw) != record.byte_length or sha256(raw) != record.digest:
        raise PayloadError("digest", "a leaf's bytes are not those that the header names")
    stored_base = int.from_bytes(raw[:4], "little")
    if leaf_index == 0:
        base = 0
    if stored_base != base if base is not None else stored_base < leaf_index * LEAF_NONZEROS:
        raise PayloadError("not_canonical", "a leaf's base continues the leaf before")
    count = preamble.leaf_nonzeros(leaf_index)
    values_start, values_end = 4 + block_count(count), leaf_fixed_bytes(count, preamble.value_type)
    parameters = np.frombuffer(raw, dtype=np.uint8, count=block_count(count), offset=4)
    indices = unpack_support(parameters, raw[values_end:], count=count, base=stored_base,
                             coordinates=preamble.coordinates)
    values = unpack_values(raw[values_start:values_end], preamble.value_type, preamble.grid_exponent, count)
    return DecodedLeaf(stored_base, indices, values)
