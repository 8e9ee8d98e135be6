"""What is measured while an update comes is what is measured on the whole of it, exactly."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from math import isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from simulator import Simulator

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.rounds.measuring import UpdateMeter, measured
from sfrl_secure.sparse.update import UpdatePart

SHAPES = {"first": (1,), "empty_of_touch": (5,), "middle": (3, 3), "last": (7,)}
COORDINATES = 22


@pytest.fixture(scope="module")
def terms(tmp_path_factory: pytest.TempPathFactory) -> SegmentTerms:
    sim = Simulator(tmp_path_factory.mktemp("measuring"))
    manifest = ModelManifest(tuple(TensorSpec(name, shape, "int64") for name, shape in SHAPES.items()))
    found = sim.segment.terms
    sim.close()
    return replace(found, model=replace(found.model, manifest=manifest))


def cut(values: NDArray[np.int64], cuts: list[int]) -> list[UpdatePart]:
    """A dense update in parts."""
    edges = sorted({0, *cuts, values.size})
    return [UpdatePart(slice(a, b), values[a:b]) for a, b in pairwise(edges)]


def sparse(values: NDArray[np.int64], carried: list[int], cuts: list[int]) -> list[UpdatePart]:
    """The carried coordinates in parts; what is not zero is among them."""
    at = np.array(sorted({*carried, *np.flatnonzero(values).tolist()}), dtype=np.int64)
    edges = sorted({0, *(each for each in cuts if each < at.size), at.size})
    return [UpdatePart(at[a:b], values[at[a:b]]) for a, b in pairwise(edges) if b > a]


VALUE = st.one_of(st.just(0), st.integers(-9, 9), st.sampled_from([VALUE_MAX, -VALUE_MAX, VALUE_MAX - 1]))
CUTS = st.lists(st.integers(1, COORDINATES - 1), max_size=6)


@settings(deadline=None, max_examples=200)
@given(
    listed=st.lists(VALUE, min_size=COORDINATES, max_size=COORDINATES),
    carried=st.lists(st.integers(0, COORDINATES - 1)),
    cuts=CUTS,
    is_dense=st.booleans(),
)
def test_parts_of_any_size_and_form_are_measured_as_the_whole_is(
    terms: SegmentTerms, listed: list[int], carried: list[int], cuts: list[int], is_dense: bool
) -> None:
    values = np.array(listed, dtype=np.int64)
    parts = cut(values, cuts) if is_dense else sparse(values, carried, cuts)
    facts = measured(terms, parts).facts()
    count = sum(part.values.size for part in parts)
    assert facts.nonzeros == count
    assert facts.density_ppm == count * 1_000_000 // COORDINATES
    assert facts.norm == isqrt(sum(each * each for each in listed))
    assert facts.largest_magnitude == max(map(abs, listed))
    offsets = [*terms.model.manifest.offsets, COORDINATES]
    assert facts.tensors == tuple(
        place for place in range(len(SHAPES)) if any(listed[offsets[place] : offsets[place + 1]])
    )


@pytest.mark.parametrize("value", [2**23 - 1, 2**23, VALUE_MAX])
def test_a_whole_leaf_of_large_values_is_summed_exactly(terms: SegmentTerms, value: int) -> None:
    manifest = ModelManifest((TensorSpec("large", (2 * 65_536,), "int64"),))
    meter = UpdateMeter(replace(terms, model=replace(terms.model, manifest=manifest)))
    for at in (0, 65_536):
        meter.add(UpdatePart(slice(at, at + 65_536), np.full(65_536, -value, dtype=np.int64)))
    assert meter.facts().norm == isqrt(2 * 65_536 * value * value)
    assert meter.facts().largest_magnitude == value


def test_an_update_of_nothing_measures_nothing(terms: SegmentTerms) -> None:
    facts = UpdateMeter(terms).facts()
    assert (facts.nonzeros, facts.norm, facts.largest_magnitude, facts.tensors) == (0, 0, 0, ())


def test_zeros_that_are_carried_touch_nothing_and_count_against_the_noise(terms: SegmentTerms) -> None:
    values = np.zeros(COORDINATES, dtype=np.int64)
    facts = measured(terms, [UpdatePart(slice(0, COORDINATES), values)]).facts()
    assert (facts.nonzeros, facts.tensors) == (COORDINATES, ())
    values[1] = 2
    meter = measured(terms, [UpdatePart(slice(0, COORDINATES), values)])
    meter.check_leakage(0)
    # 4 * 2**2 is less than the number of values that are carried.
    with pytest.raises(DeniedError) as denied:
        meter.check_leakage(1)
    assert denied.value.reason == "leak_noise"
