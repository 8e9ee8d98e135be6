"""A round's mask: the coordinates that all agreed to send, so that no update has to name them.

A mask is a payload in free mode without values, and an object whose name is its SHA-256; the terms hold that name. One
set of coordinates has one mask.

Format: proto/README.md, "Codec".

Runs in: gatekeeper, aggregator, participant, operator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import COORDINATES_MAX, OBJECT_HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX
from sfrl_secure.sparse.header import (
    LEAF_VALUES,
    NO_VALUES,
    Header,
    Preamble,
    parse_leaf_table,
    parse_preamble,
    write_header,
)
from sfrl_secure.sparse.leaf import EncodedLeaf, check_leaf, decode_support, encode_leaf
from sfrl_secure.sparse.update import check_indices


@dataclass(frozen=True, slots=True, eq=False)
class Mask:
    """Coordinates that were agreed on. Made by `decode_mask`. Compared by identity; compare digests for content.

    Attributes:
        digest: SHA-256 of the mask's bytes.
        coordinates: coordinates of the whole model.
        indices: int64, shape (k,), strictly rising, each from 0 to `coordinates` - 1; read-only.
    """

    digest: Digest
    coordinates: int
    indices: NDArray[np.int64]


def mask_bytes_max(nonzeros: int) -> int:
    """No mask of so many coordinates is longer, and no payload: rules S1 and R1."""
    return min(8 * nonzeros + OBJECT_HEADER_BYTES_MAX, PAYLOAD_BYTES_MAX)


def encode_mask(coordinates: int, indices: Sequence[int] | NDArray[np.integer]) -> bytes:
    """Write the mask of `indices`.

    Args:
        coordinates: coordinates of the model, 1 to `COORDINATES_MAX`.
        indices: whole numbers in a sequence or array of one axis, strictly rising, each below `coordinates`.

    Raises:
        PayloadError: `shape`, `not_canonical` or `out_of_range`: the indices break one of these bounds.
    """
    if not 1 <= coordinates <= COORDINATES_MAX:
        raise PayloadError("shape", f"a model has 1 to {COORDINATES_MAX} coordinates")
    at = _whole_numbers(indices)
    check_indices(at, coordinates)
    preamble = Preamble("free", NO_VALUES, 0, coordinates, at.size)
    leaves: list[EncodedLeaf] = []
    for leaf_index in range(preamble.leaf_count):
        base = int(at[leaf_index * LEAF_VALUES - 1]) + 1 if leaf_index else 0
        leaves.append(encode_leaf(preamble, leaf_index, at, base, None))
    header = Header(preamble, tuple(leaf.record for leaf in leaves))
    return write_header(header) + b"".join(field for leaf in leaves for field in leaf.fields)


def _whole_numbers(indices: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
    """The indices as int64, shape (k,)."""
    try:
        found = np.asarray(indices)
    except (TypeError, ValueError, OverflowError):
        raise PayloadError("shape", "indices are whole numbers in a sequence or array of one axis") from None
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise PayloadError("shape", "indices are whole numbers in a sequence or array of one axis")
    if found.dtype == np.uint64 and found.size and int(found.max()) >= COORDINATES_MAX:
        raise PayloadError("out_of_range", "an index is outside the model")
    return found.astype(np.int64, copy=False)


def decode_mask(raw: bytes, coordinates: int) -> Mask:
    """Read a mask strictly.

    The caller compares `Mask.digest` and the number of indices with what the terms say; no root binds a mask.

    Args:
        raw: the whole object.
        coordinates: coordinates of the model that the mask is for.

    Raises:
        PayloadError: the reason of the first rule that is broken.
    """
    preamble = parse_preamble(raw)
    if preamble.value_type != NO_VALUES:
        raise PayloadError("format", "a mask has no values")
    if preamble.coordinates != coordinates:
        raise PayloadError("shape", "the mask is of a model with another number of coordinates")
    header = parse_leaf_table(raw, preamble, len(raw))
    starts = header.leaf_starts
    # At least one bit of each index was seen in the table's lengths, which are those of the bytes at hand.
    indices = np.empty(preamble.nonzeros, dtype=np.int64)
    base, first = 0, 0
    whole = memoryview(raw)
    for leaf_index in range(len(header.leaves)):
        leaf = whole[starts[leaf_index] : starts[leaf_index + 1]]
        check_leaf(header, leaf_index, leaf)
        part, end = decode_support(preamble, leaf_index, np.frombuffer(leaf, dtype=np.uint8), base)
        if end != len(leaf):
            raise PayloadError("length", "nothing follows a leaf's last field")
        indices[first : first + part.size] = part
        base, first = int(part[-1]) + 1, first + part.size
    indices.flags.writeable = False
    return Mask(sha256(raw), coordinates, indices)
