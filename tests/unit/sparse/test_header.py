"""The header: prefixes suffice, bounds hold for every support, and a hostile claim costs nothing."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.encode import pack_update
from sfrl_secure.sparse.expected import ExpectedPayload
from sfrl_secure.sparse.header import (
    LEAF_VALUES,
    Preamble,
    leaf_byte_bounds,
    parse_leaf_table,
    parse_preamble,
    write_header,
)
from sfrl_secure.sparse.support import pack_support
from sfrl_secure.sparse.update import SparseUpdate

PAYLOAD = pack_update(SparseUpdate(1_000, np.array([3, 900]), np.array([5, -6])), value_type="int8", grid_exponent=30)


def preamble(coordinates: int, nonzeros: int, leaf_count: int) -> bytes:
    return struct.pack("<4sBBBBQQI", b"SFRU", 2, 1, 1, 30, coordinates, nonzeros, leaf_count)


def test_a_header_is_read_from_a_prefix_and_written_as_the_same_bytes() -> None:
    header = parse_leaf_table(PAYLOAD[:64], parse_preamble(PAYLOAD[:28]), len(PAYLOAD))
    assert header == parse_leaf_table(PAYLOAD, parse_preamble(PAYLOAD), len(PAYLOAD))
    assert write_header(header) == PAYLOAD[:64]
    assert header.preamble == Preamble("free", "int8", 30, 1_000, 2)
    assert header.leaf_starts == (64, len(PAYLOAD))


def test_a_leaf_longer_than_any_canonical_one_is_refused_before_it_arrives() -> None:
    _, longest = leaf_byte_bounds(2)
    changed = bytearray(PAYLOAD[:64])
    changed[28:32] = struct.pack("<I", longest)
    claimed = parse_preamble(bytes(changed))
    assert parse_leaf_table(bytes(changed), claimed, 64 + longest).leaves[0].byte_length == longest
    changed[28:32] = struct.pack("<I", longest + 1)
    with pytest.raises(PayloadError) as refusal:
        parse_leaf_table(bytes(changed), claimed, 64 + longest + 1)
    assert refusal.value.reason == "length"


@pytest.mark.parametrize(("raw", "expected", "reason"), [
    (preamble(2**40, 2**40, 2**24), {"coordinates": 1_000, "nonzeros": 5}, "shape"),
    (preamble(2**40, 2**40, 2**24), {"coordinates": 2**40, "nonzeros": 2**40}, "shape"),
    (preamble(2**31, 2**31, 2**15), {"coordinates": 1_000, "nonzeros": 5}, "shape"),
    (preamble(2**31, 2**31, 2**15), {"coordinates": 2**31, "nonzeros": 5}, "declared"),
    (preamble(2**31, 2**31, 2**15), {"coordinates": 2**31, "nonzeros": 2**31}, "length"),
    (preamble(2**31, 2**31, 2**15) + bytes(36 * 2**15), {"coordinates": 2**31, "nonzeros": 2**31}, "length"),
    (preamble(2**31, 2**20, 16) + struct.pack("<I32x", 2**17) * 16,
     {"coordinates": 2**31, "nonzeros": 2**20}, "length"),
])
def test_a_hostile_header_is_refused_in_little_memory(raw: bytes, expected: dict[str, Any], reason: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError) as refusal:
            decode_update(raw, ExpectedPayload(support="free", value_type="int8", grid_exponent=30,
                                               payload_bytes=len(raw), root=ZERO_DIGEST, **expected))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal.value.reason == reason
    # Of a table that came in whole, two copies are held for a moment.
    assert peak < 2**20 + 2 * len(raw)


def test_a_model_without_coordinates_is_refused_even_for_an_empty_update() -> None:
    with pytest.raises(PayloadError) as refusal:
        parse_preamble(preamble(0, 0, 0))
    assert refusal.value.reason == "shape"


def test_a_table_whose_leaves_have_less_bytes_than_any_leaf_needs_is_refused_as_length() -> None:
    raw = preamble(1_000, 9, 1) + struct.pack("<I32x", leaf_byte_bounds(9)[0] - 1)
    with pytest.raises(PayloadError) as refusal:
        parse_leaf_table(raw, parse_preamble(raw), len(raw) + leaf_byte_bounds(9)[0] - 1)
    assert refusal.value.reason == "length"


@pytest.mark.parametrize("seed", range(60))
def test_every_support_stays_within_the_stated_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nonzeros = int(rng.integers(1, 400))
    # Sums just below a power of two times 64 * 1024/985 have the longest unary planes.
    gap = int(2 ** rng.integers(1, 22) * 1024 / 985) + int(rng.integers(-1, 2))
    indices = np.cumsum(np.full(nonzeros, gap + 1, dtype=np.int64)) - 1
    fields = pack_support(indices, 0)
    assert -(-nonzeros // 8) <= len(fields[-1]) <= -(-nonzeros // 2)
    # Six bytes a value are the longest that any type has beside the support.
    assert sum(map(len, fields)) + 6 * nonzeros + 1 <= leaf_byte_bounds(nonzeros)[1]


def test_a_leaf_that_one_jump_makes_longest_stays_within_the_stated_bounds() -> None:
    indices = np.arange(LEAF_VALUES, dtype=np.int64)
    indices[-1] = 2**31 - 1
    assert len(pack_support(indices, 0)[-1]) <= LEAF_VALUES // 2
    _, _, steps, *planes, unary = pack_support(np.array([2**31 - 1]), 0)
    # The largest parameter: 60 zero bits and a one, thirty planes.
    assert (len(steps), len(planes), len(unary)) == (8, 30, 1)
