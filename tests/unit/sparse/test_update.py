"""Sparse updates check themselves once, and measure exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import PayloadError
from sfrl_secure.limits import COORDINATES_MAX, VALUE_MAX
from sfrl_secure.sparse import update as update_module
from sfrl_secure.sparse.update import SparseUpdate, UpdatePart, sum_of_squares


@pytest.mark.parametrize(("coordinates", "indices", "values", "reason"), [
    (0, [], [], "shape"),
    (COORDINATES_MAX + 1, [], [], "shape"),
    (10, [1, 2], [1], "shape"),
    (10, [2, 1], [1, 1], "not_canonical"),
    (10, [2, 2], [1, 1], "not_canonical"),
    (10, [-1, 2], [1, 1], "out_of_range"),
    (10, [2, 10], [1, 1], "out_of_range"),
    (10, [2, 3], [1, VALUE_MAX + 1], "magnitude"),
    (10, [2, 3], [1, -VALUE_MAX - 1], "magnitude"),
    (10, [2, 3], [1, -(2**63)], "magnitude"),
])
def test_an_update_that_breaks_a_bound_does_not_exist(
        coordinates: int, indices: list[int], values: list[int], reason: str) -> None:
    with pytest.raises(PayloadError) as refusal:
        SparseUpdate(coordinates, np.array(indices, dtype=np.int64), np.array(values, dtype=np.int64))
    assert refusal.value.reason == reason


def test_arrays_of_another_type_or_shape_are_refused() -> None:
    good = np.array([1], dtype=np.int64)
    for bad in (good.astype(np.int32), good.astype(np.float64), good.reshape(1, 1)):
        for indices, values in ((bad, good), (good, bad)):
            with pytest.raises(PayloadError) as refusal:
                SparseUpdate(10, indices, values)
            assert refusal.value.reason == "shape"


def test_an_update_does_not_change_with_the_arrays_it_was_made_from() -> None:
    indices, values = np.array([1, 2]), np.array([3, 4])
    update = SparseUpdate(10, indices, values)
    indices[0] = values[0] = 0
    assert (update.indices.tolist(), update.values.tolist()) == ([1, 2], [3, 4])
    for array in (update.indices, update.values):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 9


@given(st.lists(st.integers(-VALUE_MAX, VALUE_MAX), max_size=40), st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_norms_are_exact_in_any_chunks(values: list[int], chunk: int) -> None:
    update = SparseUpdate(100, np.arange(len(values)), np.array(values, dtype=np.int64))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(update_module, "_CHUNK", chunk)
        assert update.norm_squared() == sum(value**2 for value in values)
    assert update.largest_magnitude() == max((abs(value) for value in values), default=0)


def test_a_norm_beyond_64_bits_is_exact() -> None:
    count = update_module._CHUNK + 5
    update = SparseUpdate(count, np.arange(count), np.full(count, 1 - VALUE_MAX))
    assert update.norm_squared() == count * (VALUE_MAX - 1) ** 2


def test_density_is_rounded_down() -> None:
    assert SparseUpdate(3, np.array([0, 2]), np.array([1, 1])).density_ppm == 666_666
    assert SparseUpdate(3, np.array([], dtype=np.int64), np.array([], dtype=np.int64)).density_ppm == 0


@pytest.mark.parametrize("largest", [1, 2**15, 2**18 + 1, 2**26, 2**26 + 1, 2**32 - 1, VALUE_MAX])
def test_norms_are_exact_on_both_sides_of_what_floats_hold(largest: int) -> None:
    values = np.random.default_rng(largest).integers(-largest, largest + 1, 70_000)
    values[:3] = largest, -largest, 0
    assert sum_of_squares(values) == sum(value * value for value in values.tolist())


def test_a_part_of_a_dense_update_knows_its_indices() -> None:
    part = UpdatePart(slice(3, 6), np.array([0, 1, 2]))
    assert (part.count, part.indices.tolist()) == (3, [3, 4, 5])
    assert UpdatePart(np.array([4, 9]), np.array([1, 2])).indices.tolist() == [4, 9]
