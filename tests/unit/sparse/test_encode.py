"""Rounding onto the grid: unbiased for int8, to nearest for fp32, and strict about what it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.decode import decode_update
from sfrl_secure.sparse.encode import EncodedUpdate, encode_update, pack_update
from sfrl_secure.sparse.update import SparseUpdate


def encode(values: Any, value_type: Any = "int8", grid_exponent: int = 30, seed: int = 5) -> EncodedUpdate:
    values = np.asarray(values)
    return encode_update(values.size + 1, np.arange(values.size), values, value_type=value_type,
                         grid_exponent=grid_exponent, rng=np.random.default_rng(seed))


def dense(encoded: EncodedUpdate, grid_exponent: int) -> np.ndarray:
    out = np.zeros(encoded.update.coordinates - 1)
    out[encoded.update.indices] = np.ldexp(encoded.update.values.astype(np.float64), -grid_exponent)
    return out


def test_a_value_between_two_scales_takes_the_larger_one() -> None:
    """127.5 may become 128, which does not fit the scale 1 that 127 and the odd values beside it would have."""
    largest = {int(encode(np.array([127.5, 1.0, 3.0]), grid_exponent=0, seed=seed).update.values[0])
               for seed in range(50)}
    assert largest == {126, 128}


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_int8_rounding_is_unbiased(spread: float) -> None:
    """Also where blocks lose zeros and are formed again: with a large spread, most values fall below their scale."""
    rng = np.random.default_rng(11)
    values = rng.uniform(0.5, 1.0, 300) * rng.choice([-1, 1], 300) * np.exp(spread * rng.standard_normal(300)) * 1e-3
    repeats = 3_000
    results = np.stack([dense(encode(values, seed=seed), 30) for seed in range(repeats)])
    assert (results == 0).any() == (spread > 0)
    error = np.abs(results.mean(axis=0) - values)
    deviation = results.std(axis=0) / np.sqrt(repeats)
    # Rare events are far from normal, so eight of the largest scale more are allowed in all repeats together.
    assert (error <= 5.5 * deviation + np.abs(values).max() / 64 * 8 / repeats).all()
    # And all together, where a bias that is small for each would add up: errors are zero-mean and independent.
    assert abs(((results.mean(axis=0) - values) * np.sign(values)).sum()) <= 5 * np.sqrt((deviation**2).sum())


def test_a_block_that_is_rounded_once_errs_by_less_than_its_scale() -> None:
    values = np.random.default_rng(3).uniform(0.5, 1.0, 128)
    error = np.abs(dense(encode(values), 30) - values)
    assert 0 < error.max() < values.max() / 63.5


@given(values=st.lists(st.floats(-1, 1, width=32), max_size=300), value_type=st.sampled_from(["int8", "fp32"]),
       grid_exponent=st.integers(0, 40), seed=st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_what_is_encoded_decodes_to_the_update_that_is_returned(
        values: list[float], value_type: Any, grid_exponent: int, seed: int) -> None:
    encoded = encode(np.array(values, dtype=np.float32), value_type, grid_exponent, seed)
    read = decode_update(encoded.payload, coordinates=len(values) + 1, nonzeros=encoded.update.nonzeros,
                         value_type=value_type, grid_exponent=grid_exponent)
    assert np.array_equal(read.indices, encoded.update.indices)
    assert np.array_equal(read.values, encoded.update.values)


def test_magnitudes_over_the_whole_range_are_encoded() -> None:
    values = np.ldexp(1.0, np.random.default_rng(2).integers(-30, 41, 5_000))
    encoded = encode(values, grid_exponent=0)
    read = decode_update(encoded.payload, coordinates=5_001, nonzeros=encoded.update.nonzeros, value_type="int8",
                         grid_exponent=0)
    assert np.array_equal(read.values, encoded.update.values)
    assert 0 < read.nonzeros < 5_000


def test_fp32_rounds_half_to_even_and_drops_zeros() -> None:
    encoded = encode(np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.25, 3.75, 0.0]), "fp32", 0)
    assert encoded.update.indices.tolist() == [1, 2, 4, 6]
    assert encoded.update.values.tolist() == [2, 2, -2, 4]


def test_fp32_rounds_a_double_to_single_first() -> None:
    encoded = encode(np.array([2.0**24 + 1, 2.0**24 + 3, 2.0**40 - 1]), "fp32", 0)
    assert encoded.update.values.tolist() == [2**24, 2**24 + 4, 2**40]


def test_the_same_generator_gives_the_same_bytes() -> None:
    values = np.random.default_rng(1).standard_normal(500).astype(np.float32)
    assert encode(values, seed=4).payload == encode(values, seed=4).payload
    assert encode(values, seed=4).payload != encode(values, seed=5).payload


def test_the_largest_value_is_encoded_and_nothing_beyond() -> None:
    for value_type in ("int8", "fp32"):
        assert encode(np.array([2.0**10, 1.0]), value_type).update.values.tolist()[0] == VALUE_MAX
        for beyond in (np.nextafter(2.0**10, 2.0**11), -(2.0**11), 1e300):
            with pytest.raises(PayloadError) as refusal:
                encode(np.array([1.0, beyond]), value_type)
            assert refusal.value.reason == "magnitude"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_no_number_is_refused(value: float, dtype: Any) -> None:
    for value_type in ("int8", "fp32"):
        with pytest.raises(PayloadError) as refusal:
            encode(np.array([1.0, value], dtype=dtype), value_type)
        assert refusal.value.reason == "not_finite"


@pytest.mark.parametrize(("indices", "reason"), [
    ([2, 1], "not_canonical"), ([1, 1], "not_canonical"), ([1, 10], "out_of_range"), ([-1, 1], "out_of_range"),
    ([1], "shape"),
])
def test_indices_are_not_sorted_for_the_caller(indices: list[int], reason: str) -> None:
    """Not even where the values round to zero and the indices would vanish."""
    with pytest.raises(PayloadError) as refusal:
        encode_update(10, np.array(indices), np.zeros(2), value_type="fp32", grid_exponent=3,
                      rng=np.random.default_rng(1))
    assert refusal.value.reason == reason


def test_unknown_formats_are_refused() -> None:
    for value_type, grid_exponent in (("bf16", 30), ("int8", 41), ("int8", -1)):
        with pytest.raises(PayloadError) as refusal:
            encode(np.ones(3), value_type, grid_exponent)
        assert refusal.value.reason == "format"


@pytest.mark.parametrize(("value_type", "values"), [("int8", [128, 1]), ("int8", [2**30, 127]), ("fp32", [2**24 + 1])])
def test_packing_never_rounds(value_type: Any, values: list[int]) -> None:
    update = SparseUpdate(10, np.arange(len(values)), np.array(values, dtype=np.int64))
    with pytest.raises(PayloadError) as refusal:
        pack_update(update, value_type=value_type, grid_exponent=0)
    assert refusal.value.reason == "off_grid"
