"""The header: prefixes suffice, bounds hold for every support, and a hostile claim costs nothing."""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

from sfrl_secure.errors import PayloadError
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.encode import pack_update
from sfrl_secure.sparse.header import (
    LEAF_NONZEROS,
    Preamble,
    leaf_byte_bounds,
    leaf_fixed_bytes,
    parse_header,
    parse_leaf_table,
    parse_preamble,
    unary_byte_bounds,
    write_header,
)
from sfrl_secure.sparse.support import pack_support
from sfrl_secure.sparse.update import SparseUpdate

PAYLOAD = pack_update(SparseUpdate(1_000, np.array([3, 900]), np.array([5, -6])), value_type="int8", grid_exponent=30)


def preamble(coordinates: int, nonzeros: int, leaf_count: int) -> bytes:
    return struct.pack("<4sBBBBQQI", b"SFRU", 1, 1, 1, 30, coordinates, nonzeros, leaf_count)


def test_a_header_is_read_from_a_prefix_and_written_as_the_same_bytes() -> None:
    header = parse_header(PAYLOAD[:64])
    assert header == parse_header(PAYLOAD)
    assert write_header(header) == PAYLOAD[:64]
    assert header.preamble == Preamble("int8", 30, 1_000, 2)
    assert header.leaf_starts == (64, len(PAYLOAD))


def test_a_leaf_longer_than_any_canonical_one_is_refused_before_it_arrives() -> None:
    _, longest = leaf_byte_bounds(2, "int8")
    changed = bytearray(PAYLOAD[:64])
    changed[28:32] = struct.pack("<I", longest)
    assert parse_header(bytes(changed)).leaves[0].byte_length == longest
    changed[28:32] = struct.pack("<I", longest + 1)
    with pytest.raises(PayloadError) as refusal:
        parse_header(bytes(changed))
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
            decode_update(raw, value_type="int8", grid_exponent=30, **expected)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal.value.reason == reason
    assert peak < 2**20


def test_a_model_without_coordinates_is_refused_even_for_an_empty_update() -> None:
    with pytest.raises(PayloadError) as refusal:
        parse_preamble(preamble(0, 0, 0))
    assert refusal.value.reason == "shape"


def test_a_table_with_less_bytes_behind_it_than_any_leaves_need_is_refused_as_length() -> None:
    raw = preamble(1_000, 5, 1) + struct.pack("<I32x", leaf_byte_bounds(5, "int8")[0] - 1)
    with pytest.raises(PayloadError) as refusal:
        parse_leaf_table(raw, parse_preamble(raw))
    assert refusal.value.reason == "length"


@pytest.mark.parametrize("seed", range(60))
def test_every_support_stays_within_the_stated_bounds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    nonzeros = int(rng.integers(1, 400))
    # Spans just below a power of two times 128 * 1024/985 have the longest unary planes.
    gap = int(2 ** rng.integers(1, 22) * 1024 / 985) + int(rng.integers(-1, 2))
    indices = np.cumsum(np.full(nonzeros, gap + 1, dtype=np.int64)) - 1
    parameters, packed = pack_support(indices, 0)
    unary = len(packed) - 16 * sum(parameters)
    shortest, longest = unary_byte_bounds(nonzeros)
    assert shortest <= unary <= longest
    low, high = leaf_byte_bounds(nonzeros, "int8")
    assert low <= leaf_fixed_bytes(nonzeros, "int8") + len(packed) <= high


def test_a_leaf_that_one_jump_makes_longest_stays_within_the_stated_bounds() -> None:
    indices = np.arange(LEAF_NONZEROS, dtype=np.int64)
    indices[-1] = 2**31 - 1
    parameters, packed = pack_support(indices, 0)
    assert max(parameters) < 30
    assert len(packed) - 16 * sum(parameters) <= unary_byte_bounds(LEAF_NONZEROS)[1]
    alone, _ = pack_support(np.array([2**31 - 1]), 0)
    assert alone == b"\x1e"
