"""Masks: one for each set of coordinates, named by their SHA-256, and read strictly."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from sfrl_secure.errors import PayloadError
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.header import LEAF_VALUES
from sfrl_secure.sparse.mask import decode_mask, encode_mask


def test_a_mask_of_several_leaves_survives_and_is_read_only() -> None:
    indices = np.sort(np.random.default_rng(1).choice(10**6, 2 * LEAF_VALUES + 7, replace=False)).astype(np.int64)
    raw = encode_mask(10**6, indices)
    mask = decode_mask(raw, 10**6)
    assert np.array_equal(mask.indices, indices)
    assert (mask.coordinates, mask.digest) == (10**6, sha256(raw))
    with pytest.raises(ValueError, match="read-only"):
        mask.indices[0] = 1


@pytest.mark.parametrize(("coordinates", "indices", "reason"), [
    (0, [], "shape"), (2**31 + 1, [], "shape"), (10, [2, 1], "not_canonical"), (10, [1, 1], "not_canonical"),
    (10, [1, 10], "out_of_range"), (10, [-1], "out_of_range"),
])
def test_what_is_no_set_of_coordinates_has_no_mask(coordinates: int, indices: list[int], reason: str) -> None:
    with pytest.raises(PayloadError) as refusal:
        encode_mask(coordinates, np.array(indices, dtype=np.int64))
    assert refusal.value.reason == reason


@pytest.mark.parametrize("indices", [
    [1, 5], (1, 5), range(1, 6, 4), np.array([1, 5], np.uint8), np.array([1, 5], np.int32), np.array([1, 5], np.uint64),
])
def test_any_sequence_of_whole_numbers_gives_the_same_mask(indices: Any) -> None:
    assert encode_mask(10, indices) == encode_mask(10, np.array([1, 5], dtype=np.int64))


@pytest.mark.parametrize(("indices", "reason"), [
    ([1.0], "shape"), ([True], "shape"), (["1"], "shape"), ([[1, 5]], "shape"), ([[1], [1, 5]], "shape"), (5, "shape"),
    ([2**70], "shape"), (None, "shape"), ({1, 5}, "shape"), ([2**63], "out_of_range"),
    (np.array([1, 2**64 - 1], np.uint64), "out_of_range"),
])
def test_what_is_no_sequence_of_whole_numbers_is_refused(indices: Any, reason: str) -> None:
    with pytest.raises(PayloadError) as refusal:
        encode_mask(10, indices)
    assert refusal.value.reason == reason


def test_a_mask_that_claims_all_of_the_largest_model_is_refused_in_little_memory() -> None:
    raw = encode_mask(2**31, np.array([5]))
    claim = raw[:16] + (2**31).to_bytes(8, "little") + (2**15).to_bytes(4, "little") + raw[28:]
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError) as refusal:
            decode_mask(claim, 2**31)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert refusal.value.reason == "length"
    assert peak < 2**20
