"""One leaf's bytes to its part of an update and back.

A leaf passes all its rules before the next one is looked at. Rule L4 is here, and the order of L2 to L4 by what is
called; L1 is with whoever holds the header.

Format: proto/README.md, "Codec", "Leaf".

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse.header import LEAF_VALUES, NO_VALUES, Header, LeafRecord, Preamble, payload_leaf_hash
from sfrl_secure.sparse.support import pack_support, unpack_support
from sfrl_secure.sparse.update import UpdatePart
from sfrl_secure.sparse.values import pack_values, unpack_values

# Arrays of a leaf, of up to 512 KiB, come and go. The C library would give their pages back to the system each time,
# and to get them again costs several times what decoding does; once a larger array has gone, it keeps so much.
np.empty(4 * 2**20, dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class EncodedLeaf:
    """One leaf as the encoder wrote it.

    Attributes:
        record: its line of the leaf table.
        fields: its bytes, in order.
    """

    record: LeafRecord
    fields: list[bytes]


def check_leaf(header: Header, leaf_index: int, raw: bytes | memoryview) -> None:
    """Check that `raw` is the leaf that the header names. Rule L1.

    Raises:
        PayloadError: `digest`.
    """
    record = header.leaves[leaf_index]
    # The length too: equal digests alone would leave the arithmetic behind it to a collision.
    if len(raw) != record.byte_length or payload_leaf_hash([raw]) != record.digest:
        raise PayloadError("digest", "a leaf's bytes are not those that the header names")


def decode_support(preamble: Preamble, leaf_index: int, leaf: NDArray[np.uint8], base: int | None) -> tuple[
        NDArray[np.int64], int]:
    """Read the indices of a leaf in free mode; see `unpack_support`. Rules L2, L3."""
    return unpack_support(leaf, count=preamble.leaf_values(leaf_index), leaf_index=leaf_index, base=base,
                          coordinates=preamble.coordinates)


def decode_leaf(preamble: Preamble, leaf_index: int, raw: bytes | memoryview, *, base: int | None = None,
                mask_indices: NDArray[np.int64] | None = None) -> UpdatePart:
    """Decode one leaf of an update. Rules L2 to L4.

    The caller has checked `raw` with `check_leaf`.

    Args:
        preamble: the payload's preamble, compared with what is expected.
        leaf_index: from 0 to the number of leaves - 1.
        raw: exactly the leaf's bytes.
        base: in free mode the index after the last one of the leaf before; None where the leaf is read alone.
        mask_indices: in agreed mode the mask's indices, all of them.

    Raises:
        PayloadError: the reason of the first rule that is broken.
    """
    leaf = np.frombuffer(memoryview(raw).toreadonly(), dtype=np.uint8)
    count, first = preamble.leaf_values(leaf_index), leaf_index * LEAF_VALUES
    at: NDArray[np.int64] | slice
    start = 0
    if preamble.support == "free":
        at, start = decode_support(preamble, leaf_index, leaf, base)
        at.flags.writeable = False
    elif mask_indices is not None:
        at = mask_indices[first : first + count]
    else:
        at = slice(first, first + count)
    values, end = unpack_values(leaf, start, count=count, value_type=preamble.value_type,
                                grid_exponent=preamble.grid_exponent, free=preamble.support == "free")
    if end != leaf.size:
        raise PayloadError("length", "nothing follows a leaf's last field")
    values.flags.writeable = False
    return UpdatePart(at, values)


def encode_leaf(preamble: Preamble, leaf_index: int, indices: NDArray[np.int64] | None, base: int,
                values: NDArray[np.int64] | None) -> EncodedLeaf:
    """Write one leaf.

    Args:
        preamble: of the payload.
        leaf_index: number of the leaf.
        indices: int64, all indices of the payload, in free mode.
        base: in free mode the index after the last one of the leaf before, 0 in the first leaf.
        values: int64, this leaf's values, grid units; None for a mask.

    Raises:
        PayloadError: `off_grid`.
    """
    first = leaf_index * LEAF_VALUES
    fields: list[bytes] = []
    if indices is not None:
        fields += pack_support(indices[first : first + LEAF_VALUES], base)
    if preamble.value_type != NO_VALUES:
        assert values is not None, "a type other than none has values"
        fields += pack_values(values, preamble.value_type, preamble.grid_exponent)
    length = sum(len(item) for item in fields)
    return EncodedLeaf(LeafRecord(length, payload_leaf_hash(list(fields))), fields)
