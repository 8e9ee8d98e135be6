"""Rounding onto the grid: unbiased for int8, to nearest for fp32, and strict about what it is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.encode import (
    EncodedUpdate,
    encode_agreed,
    encode_dense,
    encode_update,
    pack_dense,
    pack_update,
)
from sfrl_secure.sparse.mask import decode_mask, encode_mask
from sfrl_secure.sparse.update import SparseUpdate
from tests.unit.sparse.payloads import TYPES, claimed


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
    values = np.random.default_rng(3).uniform(0.5, 1.0, 64)
    error = np.abs(dense(encode(values), 30) - values)
    assert 0 < error.max() < values.max() / 63.5


@given(values=st.lists(st.floats(-1, 1, width=32), max_size=300), value_type=st.sampled_from(TYPES),
       grid_exponent=st.integers(0, 40), seed=st.integers(0, 100))
@settings(max_examples=100, deadline=None)
def test_what_is_encoded_decodes_to_the_update_that_is_returned(
        values: list[float], value_type: Any, grid_exponent: int, seed: int) -> None:
    encoded = encode(np.array(values, dtype=np.float32), value_type, grid_exponent, seed)
    assert encoded.update.nonzeros == encoded.nonzeros
    assert encoded.update.values.all()
    assert pack_update(encoded.update, value_type=value_type, grid_exponent=grid_exponent) == encoded.payload
    unsent = np.delete(np.array(values), encoded.update.indices)
    # What rounds to nothing is less than a step of its block, which is at most 1/64 of the largest, or half a unit.
    assert (np.abs(unsent) <= max(np.abs(values).max(initial=0) / 63.5, 2.0**-grid_exponent)).all()


def test_magnitudes_over_the_whole_range_are_encoded() -> None:
    values = np.ldexp(1.0, np.random.default_rng(2).integers(-30, 41, 5_000))
    encoded = encode(values, grid_exponent=0)
    assert 0 < encoded.nonzeros < 5_000
    assert pack_update(encoded.update, value_type="int8", grid_exponent=0) == encoded.payload


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
    for value_type in TYPES:
        assert encode(np.array([2.0**10, 2.0**10]), value_type).update.values.tolist()[0] == VALUE_MAX
        for beyond in (np.nextafter(2.0**10, 2.0**11), -(2.0**11), 1e300):
            with pytest.raises(PayloadError) as refusal:
                encode(np.array([1.0, beyond]), value_type)
            assert refusal.value.reason == "magnitude"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_what_is_no_number_is_refused(value: float, dtype: Any) -> None:
    for value_type in TYPES:
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
    for value_type, grid_exponent in (("none", 30), ("fp16", 30), ("int8", 41), ("int8", -1)):
        with pytest.raises(PayloadError) as refusal:
            encode(np.ones(3), value_type, grid_exponent)
        assert refusal.value.reason == "format"


@pytest.mark.parametrize(("value_type", "values"), [
    ("int8", [128, 1]), ("int8", [2**30, 127]), ("packed", [128, 1]), ("fp32", [2**24 + 1]), ("bf16", [257]),
    ("sign", [3, -4]), ("sign", [255, 255]),
])
def test_packing_never_rounds(value_type: Any, values: list[int]) -> None:
    update = SparseUpdate(10, np.arange(len(values)), np.array(values, dtype=np.int64))
    with pytest.raises(PayloadError) as refusal:
        pack_update(update, value_type=value_type, grid_exponent=0)
    assert refusal.value.reason == "off_grid"


def test_bf16_rounds_half_to_even_and_then_to_the_grid() -> None:
    encoded = encode(np.array([257.0, 259.0, 255.5, 0.5, 1.5, -258.9]), "bf16", 0)
    assert encoded.update.indices.tolist() == [0, 1, 2, 4, 5]
    assert encoded.update.values.tolist() == [256, 260, 256, 2, -258]


def test_exact_rounds_to_the_nearest_unit_and_keeps_every_bit() -> None:
    encoded = encode(np.array([2.0**39 + 1, -(2.0**24) - 1, 0.5, 1.5]), "exact", 0)
    assert encoded.update.values.tolist() == [2**39 + 1, -(2**24) - 1, 2]


def test_sign_takes_the_mean_magnitude_of_a_block() -> None:
    encoded = encode(np.array([10.0, -20.0, 0.0, 36.0]), "sign", 0)
    assert encoded.update.indices.tolist() == [0, 1, 3]
    assert encoded.update.values.tolist() == [22, -22, 22]


def test_the_sign_of_a_zero_is_drawn_where_it_cannot_be_dropped() -> None:
    encoded = encode_dense(np.concatenate([np.zeros(2_000), np.full(2_000, 8.0)]), value_type="sign", grid_exponent=3,
                           rng=np.random.default_rng(1))
    first = encoded.update.values[1_984:2_000]
    assert set(np.abs(first).tolist()) == {48}
    assert len(set(first.tolist())) == 2
    assert not encoded.update.values[:1_984].any()


@pytest.mark.parametrize("value_type", TYPES)
def test_dense_and_agreed_updates_keep_zeros_and_err_by_less_than_a_step(value_type: Any) -> None:
    rng = np.random.default_rng(6)
    values = (rng.uniform(0.5, 1.0, 70_000) * rng.choice([-1, 1], 70_000)).astype(np.float32)
    values[:64] = 0
    mask = decode_mask(encode_mask(200_000, 2 * np.arange(70_000)), 200_000)
    for encoded in (encode_dense(values, value_type=value_type, grid_exponent=30, rng=rng),
                    encode_agreed(mask, values, value_type=value_type, grid_exponent=30, rng=rng)):
        assert encoded.nonzeros == encoded.update.nonzeros == 70_000
        assert not encoded.update.values[:64].any()
        step = {"int8": 2**-6, "packed": 2**-6, "sign": 0.35, "bf16": 2**-9}.get(value_type, 2**-31)
        assert np.abs(encoded.update.values * 2.0**-30 - values).max() <= step
        assert encoded.root == claimed(encoded.payload, mask).root


def test_grid_units_of_all_coordinates_are_packed_as_they_are() -> None:
    values = np.random.default_rng(2).integers(-(2**35), 2**35, 70_000)
    payload = pack_dense(values, value_type="exact", grid_exponent=30)
    whole = SparseUpdate(values.size, np.arange(values.size), values)
    assert pack_update(whole, value_type="exact", grid_exponent=30, support="dense") == payload
    for bad, reason in ((values.astype(np.float64), "shape"), (values + 2**41, "magnitude"), (values[:0], "shape")):
        with pytest.raises(PayloadError) as refusal:
            pack_dense(bad, value_type="exact", grid_exponent=30)
        assert refusal.value.reason == reason


def test_what_does_not_fit_its_mode_is_refused() -> None:
    mask = decode_mask(encode_mask(10, np.array([1, 2])), 10)
    update, zero = SparseUpdate(10, np.array([1, 3]), np.array([1, 1])), SparseUpdate(10, np.array([1]), np.array([0]))
    form: Any = {"value_type": "int8", "grid_exponent": 3}
    for wrong, support, with_mask, reason in (
            (update, "agreed", mask, "shape"), (update, "dense", None, "shape"), (update, "free", mask, "format"),
            (update, "agreed", None, "format"), (zero, "free", None, "not_canonical")):
        with pytest.raises(PayloadError) as refusal:
            pack_update(wrong, support=support, mask=with_mask, **form)  # type: ignore[arg-type]
        assert refusal.value.reason == reason
    rng = np.random.default_rng(1)
    with pytest.raises(PayloadError):
        encode_agreed(mask, np.ones(3), rng=rng, **form)
    with pytest.raises(PayloadError):
        encode_dense(np.ones((2, 2)), rng=rng, **form)
    with pytest.raises(PayloadError):
        encode_dense(np.ones(3, dtype=np.int64), rng=rng, **form)  # type: ignore[arg-type]
