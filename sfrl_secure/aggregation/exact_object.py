"""Integer vectors as objects: the aggregate of a round and the state of its server step.

Each is a payload of value type exact: free where few values are not zero, else dense. One vector has one object.
Whoever reads one knows its length and its grid, and compares a digest: nothing else says that it is the right one.

Format: proto/README.md, "Models and aggregates", "Server step".

Runs in: aggregator, participant.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfrl_secure.aggregation.parts import SPARSE_FACTOR, check_part, sparse_where_few
from sfrl_secure.errors import MalformedError, PayloadError
from sfrl_secure.sparse.encode import pack_dense, pack_update, payload_root
from sfrl_secure.sparse.expected import ExpectedPayload, check_expected
from sfrl_secure.sparse.header import LEAF_VALUES, Preamble, leaf_byte_bounds, parse_leaf_table, parse_preamble
from sfrl_secure.sparse.leaf import decode_leaf
from sfrl_secure.sparse.reader import read_parts
from sfrl_secure.sparse.update import SparseUpdate, UpdatePart


def encode_exact(coordinates: int, grid_exponent: int, values: NDArray[np.int64] | UpdatePart) -> bytes:
    """Write a vector of so many coordinates.

    Args:
        values: int64, shape (coordinates,), each of magnitude at most 2**40; or a part over the whole vector: all of
            its coordinates, or those that are not zero.

    Raises:
        MalformedError: another shape, or a value that is too large.
    """
    if not isinstance(values, UpdatePart):
        if values.shape != (coordinates,) or values.dtype != np.int64:
            raise MalformedError("a step has one int64 per coordinate of its manifest")
        values = UpdatePart(slice(0, coordinates), values)
    check_part(values, coordinates)
    if isinstance(values.at, slice):
        if values.at != slice(0, coordinates):
            raise MalformedError("a step has one int64 per coordinate of its manifest")
        values = sparse_where_few(values.values)
    elif SPARSE_FACTOR * values.at.size > coordinates:
        raise MalformedError("a step with many coordinates has all of them")
    if isinstance(values.at, slice):
        return pack_dense(values.values, value_type="exact", grid_exponent=grid_exponent)
    update = SparseUpdate(coordinates, values.at, values.values)
    return pack_update(update, value_type="exact", grid_exponent=grid_exponent)


def exact_bytes_max(coordinates: int) -> int:
    """No object of so many coordinates is longer."""
    preamble = Preamble("dense", "exact", 0, coordinates, coordinates)
    return preamble.header_bytes + preamble.leaf_count * leaf_byte_bounds(LEAF_VALUES)[1]


def decode_exact(
    raw: bytes | memoryview, coordinates: int, grid_exponent: int, *, with_digests: bool = True
) -> Iterator[UpdatePart]:
    """Decode an object that must be of so many coordinates and this grid, part by part.

    Args:
        with_digests: False where the caller compares a digest of what comes of it, and cares for no other bytes of
            the same vector. Leaf digests are of whoever made the leaves, and nobody signed them: they say no more.

    Raises:
        PayloadError: the reason of the first rule of the codec that is broken; `format` where no such object has this
            form.
    """
    preamble = parse_preamble(raw)
    touched = 0
    if preamble.support == "agreed" or preamble.value_type != "exact":
        raise PayloadError("format", "a step is a free or a dense payload of value type exact")
    support: Literal["free", "dense"] = "dense" if preamble.support == "dense" else "free"
    if support == "free" and SPARSE_FACTOR * preamble.nonzeros > coordinates:
        raise PayloadError("format", "a step with many coordinates is a dense one")
    expected = ExpectedPayload(
        coordinates=coordinates,
        nonzeros=preamble.nonzeros,
        support=support,
        value_type="exact",
        grid_exponent=grid_exponent,
        payload_bytes=len(raw),
        root=payload_root(raw),
    )
    for part in read_parts([raw], expected) if with_digests else _leaves(raw, preamble, expected):
        touched += int(np.count_nonzero(part.values))
        yield part
    if support == "dense" and SPARSE_FACTOR * touched <= coordinates:
        raise PayloadError("format", "a step with few coordinates is a free one")


def _leaves(raw: bytes | memoryview, preamble: Preamble, expected: ExpectedPayload) -> Iterator[UpdatePart]:
    """What `read_parts` reads, and nothing is hashed."""
    check_expected(preamble, expected)
    starts, base = parse_leaf_table(raw, preamble, len(raw)).leaf_starts, 0
    view = memoryview(raw)
    for leaf_index, (start, end) in enumerate(pairwise(starts)):
        part = decode_leaf(preamble, leaf_index, view[start:end], base=base)
        if not isinstance(part.at, slice):
            base = int(part.at[-1]) + 1
        yield part
