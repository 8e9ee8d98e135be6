"""The look before sending: what is far within the limits is not decoded again, and nothing else is spared."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import SEGMENT, Simulator

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.terms import LeakageBound, SegmentTerms
from sfrl_secure.participant import first_look
from sfrl_secure.participant.encoding import Encoding
from sfrl_secure.participant.first_look import look_before
from sfrl_secure.sparse.encode import EncodedUpdate, encode_agreed, encode_dense, encode_update
from sfrl_secure.sparse.mask import decode_mask, encode_mask

GRID = 10


@pytest.fixture
def terms(sim: Simulator) -> SegmentTerms:
    found = sim.segment.terms
    assert found.segment == SEGMENT
    every = frozenset(range(len(found.model.manifest.tensors)))
    open_to_all = replace(found.leakage, rows=(), labels=(), noise_std_min=0)
    return replace(found, leakage=open_to_all, allowed_tensor_indices=every)


def encoded(terms: SegmentTerms, values: list[float], value_type: Any = "fp32") -> Encoding:
    numbers = np.array(values)
    update = encode_update(
        terms.model.manifest.coordinates, np.arange(numbers.size), numbers, value_type=value_type,
        grid_exponent=terms.model.grid_exponent, rng=np.random.default_rng(1),
    )  # fmt: skip
    return Encoding(update, max(abs(each) for each in values))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[EncodedUpdate]:
    """Updates that were decoded and measured."""
    found: list[EncodedUpdate] = []
    real = first_look._measure

    def measure(terms: SegmentTerms, update: EncodedUpdate, noise_std: int) -> None:
        found.append(update)
        real(terms, update, noise_std)

    monkeypatch.setattr(first_look, "_measure", measure)
    return found


def test_small_numbers_are_not_decoded_again(terms: SegmentTerms, measured: list[EncodedUpdate]) -> None:
    look_before(terms, encoded(terms, [0.01, -0.02]), 10, 0)
    assert not measured


def test_numbers_near_a_limit_are_measured(terms: SegmentTerms, measured: list[EncodedUpdate]) -> None:
    unit = 2.0**-terms.model.grid_exponent
    limits = replace(terms.limits, magnitude_max=1_000, norm_max=1_200)
    near = replace(terms, limits=limits)
    for values, reason in (
        ([900.0], None), ([1_001.0], "magnitude_limit"), ([-1_001.0], "magnitude_limit"),
        ([700.0, 700.0], None), ([900.0, 900.0], "norm_limit"),
    ):  # fmt: skip
        measured.clear()
        try:
            look_before(near, encoded(near, [each * unit for each in values]), 10, 0)
            refused = None
        except DeniedError as denied:
            refused = denied.reason
        assert (refused, len(measured)) == (reason, 1)
    measured.clear()
    look_before(near, encoded(near, [400.0 * unit]), 10, 0)
    assert not measured


def test_a_limit_and_what_is_found_are_said_in_both_units(terms: SegmentTerms) -> None:
    unit = 2.0**-terms.model.grid_exponent
    near = replace(terms, limits=replace(terms.limits, magnitude_max=1_000, norm_max=1_200))
    for values, most, found in (([2_000.0], 1_200, 2_000), ([1_100.0], 1_000, 1_100)):
        with pytest.raises(DeniedError) as denied:
            look_before(near, encoded(near, [each * unit for each in values]), 10, 0)
        words = f"{most} grid units, which is {most * unit:g} in parameter units; here it is "
        assert words in str(denied.value)
        said = re.search(r"here it is (\d+), which is ([-0-9.e]+): clip it$", str(denied.value))
        assert said is not None
        assert abs(int(said[1]) - found) <= 0.01 * found
        assert said[2] == f"{int(said[1]) * unit:g}"


def test_what_leaks_and_what_is_not_allowed_is_looked_for_in_small_numbers_too(
    terms: SegmentTerms, measured: list[EncodedUpdate]
) -> None:
    tensor = terms.model.manifest.tensors[0].name
    bound = LeakageBound(tensor, 0, 2)
    small = encoded(terms, [0.01])
    for changed, noise in (
        (replace(terms, leakage=replace(terms.leakage, rows=(bound,))), 0),
        (replace(terms, leakage=replace(terms.leakage, labels=(bound,))), 0),
        (replace(terms, allowed_tensor_indices=frozenset({1})), 0),
        (terms, 100_000),
    ):
        measured.clear()
        with pytest.raises(DeniedError) as denied:
            look_before(changed, small, 10, noise)
        assert denied.value.reason in ("leak_rows", "leak_labels", "tensor_not_allowed", "leak_noise")
        assert len(measured) == 1


@pytest.mark.parametrize("support", ["agreed", "dense"])
@pytest.mark.parametrize("touched", [0, 1, 2, 3])
def test_zeros_that_are_carried_are_not_sent_for_coordinates(
    terms: SegmentTerms, measured: list[EncodedUpdate], support: str, touched: int
) -> None:
    least = 2
    floors = replace(terms.leakage, nonzeros_min=least)
    limits = replace(terms.limits, nonzeros_max=terms.model.manifest.coordinates)
    values = np.array([0.01] * touched + [0.0] * (terms.model.manifest.coordinates - touched))
    form: Any = {"value_type": "exact", "grid_exponent": terms.model.grid_exponent, "rng": np.random.default_rng(1)}
    if support == "dense":
        update = encode_dense(values, **form)
    else:
        places = np.arange(5, dtype=np.int64)
        mask = decode_mask(encode_mask(values.size, places), values.size)
        update = encode_agreed(mask, values[:5], **form)
    given = Encoding(update, 0.01)
    bound = replace(terms, limits=limits, leakage=floors)
    if touched >= least:
        look_before(bound, given, 10, 0)
        assert not measured
        return
    with pytest.raises(DeniedError) as denied:
        look_before(bound, given, 10, 0)
    assert (denied.value.reason, len(measured)) == ("leak_coordinates", 1)


magnitudes = st.one_of(st.floats(0.0, 2.0**-8, width=32), st.floats(0.0, 2.0**10, width=32))


@settings(deadline=None, max_examples=300)
@given(st.data(), st.sampled_from(["fp32", "bf16", "int8", "packed", "exact", "sign"]), st.integers(0, 2**32 - 1))
def test_rounding_makes_of_no_number_more_than_twice_the_largest_and_a_unit(
    data: st.DataObject, value_type: Any, seed: int
) -> None:
    """What the look before sending rests on."""
    values = data.draw(st.lists(st.builds(lambda each, sign: each * sign, magnitudes, st.sampled_from([-1.0, 1.0])),
                                min_size=1, max_size=200))
    numbers, rng = np.array(values), np.random.default_rng(seed)
    dense = encode_dense(numbers, value_type=value_type, grid_exponent=GRID, rng=rng)
    free = encode_update(
        numbers.size, np.arange(numbers.size), numbers, value_type=value_type, grid_exponent=GRID, rng=rng
    )
    most = 2.0 * float(np.abs(numbers).max()) * 2.0**GRID + 1.0
    assert max(dense.update.largest_magnitude(), free.update.largest_magnitude()) <= most
