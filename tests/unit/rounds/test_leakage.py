"""Leakage: exactly what the specification says, of every small update; and in its place among the steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulator import Simulator

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.build import DEFAULT_LEAKAGE
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.statements import Evidence, MeasuredFacts
from sfrl_secure.governance.terms import LeakageBound, LeakageTerms, SegmentTerms
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.rounds.leakage import raised_and_lowered
from sfrl_secure.rounds.measuring import measured
from sfrl_secure.rounds.payloads import MeasuredDenial, check_payload
from sfrl_secure.sparse.update import UpdatePart

from .scenes import G1, STREAM, findings, refused

SHAPES = {"first": (3,), "cube": (2, 3, 4), "last": (4, 2)}
COORDINATES = 3 + 24 + 8
STARTS = {"first": 0, "cube": 3, "last": 27}


@pytest.fixture(scope="module")
def terms(tmp_path_factory: pytest.TempPathFactory) -> SegmentTerms:
    """Terms over three tensors; tests put their own bounds in."""
    sim = Simulator(tmp_path_factory.mktemp("leakage"))
    manifest = ModelManifest(tuple(TensorSpec(name, shape, "int64") for name, shape in SHAPES.items()))
    found = sim.segment.terms
    sim.close()
    return replace(found, model=replace(found.model, manifest=manifest))


def verdict(terms: SegmentTerms, values: dict[int, int], noise_std: int = 0, **bounds: Any) -> str:
    """The reason that the meter gives, however the update comes."""
    guarded = replace(terms, leakage=replace(DEFAULT_LEAKAGE, **bounds))
    # Noise is measured against the values that are carried, and a dense update carries all.
    ways = [sparse_parts(values, size) for size in (1, 3, COORDINATES)]
    ways += [] if noise_std else [dense_parts(values, size) for size in (1, 7, COORDINATES)]
    found = {reason_of(guarded, parts, noise_std) for parts in ways}
    assert len(found) == 1
    return found.pop()


def reason_of(terms: SegmentTerms, parts: Iterable[UpdatePart], noise_std: int) -> str:
    try:
        measured(terms, parts).check_leakage(noise_std)
    except DeniedError as denied:
        return denied.reason
    return ""


def sparse_parts(values: dict[int, int], size: int) -> list[UpdatePart]:
    """The values with their indices, `size` at a time."""
    indices = np.array(sorted(values), dtype=np.int64)
    units = np.array([values[at] for at in sorted(values)], dtype=np.int64)
    starts = range(0, indices.size, size)
    return [UpdatePart(indices[at : at + size], units[at : at + size]) for at in starts]


def dense_parts(values: dict[int, int], size: int) -> list[UpdatePart]:
    """All coordinates, `size` at a time."""
    units = np.array([values.get(at, 0) for at in range(COORDINATES)], dtype=np.int64)
    starts = range(0, COORDINATES, size)
    return [UpdatePart(slice(at, min(at + size, COORDINATES)), units[at : at + size]) for at in starts]


def places(tensor: str, axis: int, values: dict[int, int]) -> dict[int, int]:
    """Sum of the touched values by index along the axis, the slow way: through numpy's own indexing."""
    sums: dict[int, int] = {}
    for at, value in values.items():
        offset = at - STARTS[tensor]
        if 0 <= offset < int(np.prod(SHAPES[tensor])):
            index = int(np.unravel_index(offset, SHAPES[tensor])[axis])
            sums[index] = sums.get(index, 0) + value
    return sums


def sides(sums: list[int]) -> tuple[int, int]:
    """How many sums are raised and how many lowered, as the specification says it."""
    largest = max(map(abs, sums), default=0)
    return sum(8 * each > largest for each in sums), sum(-8 * each > largest for each in sums)


AXES = [(name, axis) for name, shape in SHAPES.items() for axis in range(len(shape))]
VALUES = st.dictionaries(
    st.integers(0, COORDINATES - 1),
    st.one_of(st.integers(-3, 3), st.sampled_from([VALUE_MAX, -VALUE_MAX, VALUE_MAX - 1])).filter(bool), max_size=20,
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(values=VALUES, least=st.integers(1, 22))
def test_coordinates_are_counted_where_they_are_touched(
    terms: SegmentTerms, values: dict[int, int], least: int
) -> None:
    assert verdict(terms, values, nonzeros_min=least) == ("leak_coordinates" if len(values) < least else "")


@settings(deadline=None, max_examples=150)
@given(values=VALUES.filter(bool))
def test_rows_and_labels_are_counted_along_every_axis(terms: SegmentTerms, values: dict[int, int]) -> None:
    for tensor, axis in AXES:
        sums = places(tensor, axis, values)
        for least in range(1, SHAPES[tensor][axis] + 1):
            bound = (LeakageBound(tensor, axis, least),)
            assert verdict(terms, values, rows=bound) == ("leak_rows" if 0 < len(sums) < least else "")
            seen = min(sides(list(sums.values())))
            assert verdict(terms, values, labels=bound) == ("leak_labels" if sums and seen < least else "")


@settings(deadline=None, max_examples=200)
@given(values=VALUES.filter(bool), data=st.data())
def test_noise_is_half_believed_and_no_less(terms: SegmentTerms, values: dict[int, int], data: st.DataObject) -> None:
    squares = sum(each**2 for each in values.values())
    edge = isqrt(4 * squares // len(values))
    noise_std = data.draw(st.sampled_from(sorted({0, 1, max(edge - 1, 0), edge, edge + 1, VALUE_MAX})))
    contradicted = noise_std > 0 and 4 * squares < len(values) * noise_std**2
    assert verdict(terms, values, noise_std) == ("leak_noise" if contradicted else "")


@pytest.mark.parametrize("sign", [1, -1])
def test_an_eighth_of_the_largest_is_not_enough_and_one_unit_more_is(terms: SegmentTerms, sign: int) -> None:
    """Both sums carry out of their halves; one unit of either decides."""
    for more, less in product(range(-9, 10), range(-2, 3)):
        one_way = [VALUE_MAX] * 8 + [more] * (more != 0)
        other_way = [-VALUE_MAX + (less < 0)] + [-less - (less < 0)] * (less not in (0, -1))
        assert sum(other_way) == -VALUE_MAX - less
        # Coordinates of the two indices of axis 0 of the cube.
        values = {3 + at: sign * value for at, value in enumerate(one_way)}
        values |= {15 + at: sign * value for at, value in enumerate(other_way) if value}
        passes = 8 * (VALUE_MAX + less) > 8 * VALUE_MAX + more
        assert verdict(terms, values, labels=(LeakageBound("cube", 0, 1),)) == ("" if passes else "leak_labels")


LARGEST_SUM = 2**31 * VALUE_MAX
SUMS = st.one_of(
    st.integers(-LARGEST_SUM, LARGEST_SUM),
    st.builds(
        lambda sign, part, off: sign * (LARGEST_SUM // part + off),
        st.sampled_from([1, -1]), st.sampled_from([1, 8]), st.integers(-9, 0),
    ),
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(sums=st.lists(SUMS, min_size=1, max_size=8), data=st.data())
def test_sums_that_64_bits_do_not_hold_are_compared_exactly(sums: list[int], data: st.DataObject) -> None:
    # What the halves of many values add up to: the low one is not carried yet.
    uncarried = [data.draw(st.integers(0, 2**31)) for _ in sums]
    high = np.array([(each >> 20) - extra for each, extra in zip(sums, uncarried, strict=True)])
    low = np.array([(each & (2**20 - 1)) + (extra << 20) for each, extra in zip(sums, uncarried, strict=True)])
    assert raised_and_lowered((high, low)) == sides(sums)


def test_a_layer_with_fewer_than_twice_the_least_labels_is_never_admitted(terms: SegmentTerms) -> None:
    bound = (LeakageBound("first", 0, 2),)
    for values in product((-1, 1), repeat=3):
        assert verdict(terms, dict(enumerate(values)), labels=bound) == "leak_labels"


def test_coordinates_come_before_rows_rows_before_labels_and_labels_before_noise(terms: SegmentTerms) -> None:
    values = {27: -1}
    rows, labels = (LeakageBound("last", 0, 2),), (LeakageBound("last", 0, 1),)
    assert verdict(terms, values, 100, nonzeros_min=2, rows=rows, labels=labels) == "leak_coordinates"
    assert verdict(terms, values, 100, rows=rows, labels=labels) == "leak_rows"
    assert verdict(terms, values, 100, labels=labels) == "leak_labels"
    assert verdict(terms, values, 100) == "leak_noise"
    assert verdict(terms, values) == ""


def test_each_of_several_bounds_binds(terms: SegmentTerms) -> None:
    bounds = (LeakageBound("cube", 2, 2), LeakageBound("last", 0, 2))
    assert verdict(terms, {3: 1, 4: 1, 27: 1, 29: 1}, rows=bounds) == ""
    assert verdict(terms, {3: 1, 4: 1, 27: 1, 28: 1}, rows=bounds) == "leak_rows"
    assert verdict(terms, {3: 1, 7: 1, 27: 1, 29: 1}, rows=bounds) == "leak_rows"


# In the federation

GUARD = LeakageTerms(
    nonzeros_min=1, weight_min=1, noise_std_min=0,
    rows=(LeakageBound("a.weight", 0, 2),), labels=(LeakageBound("a.bias", 0, 2),),
)  # fmt: skip
CASES = [
    ("leak_rows", {0: 5, 1: 5}, 0),
    ("leak_labels", {16: 5, 17: -5}, 0),
    ("leak_noise", {0: 5, 4: 5}, 11),
]


@pytest.mark.parametrize(("reason", "values", "noise_std"), CASES, ids=[case[0] for case in CASES])
def test_what_would_leak_is_refused_with_its_facts_and_the_verifier_says_the_same(
    tmp_path: Path, reason: str, values: dict[int, int], noise_std: int
) -> None:
    sim = Simulator(tmp_path, terms={"leakage": GUARD})
    sim.open_round()
    _, update, payload = sim.update("rover-1", values, noise_std=noise_std)
    record, rules = sim.state.participant("rover-1"), sim.state.rules(sim.clock.now_us())
    assert record is not None
    with pytest.raises(MeasuredDenial) as denied:
        check_payload(sim.segment.terms, rules, record, update, payload)
    assert (denied.value.reason, denied.value.facts.nonzeros) == (reason, 2)
    sim.objects.put(payload)
    body = refused(reason, Evidence.OBJECT, weight=10, values=values, noise_std=noise_std)(sim)
    sim.write(G1, STREAM, replace(body, facts=denied.value.facts))
    assert findings(sim) == set()


def test_limits_on_what_is_measured_come_before_leakage(tmp_path: Path) -> None:
    sim = Simulator(tmp_path, terms={"leakage": GUARD})
    sim.open_round()
    _, update, payload = sim.update("rover-1", {0: 5, 20: 5})
    record = sim.state.participant("rover-1")
    assert record is not None
    with pytest.raises(MeasuredDenial) as denied:
        check_payload(sim.segment.terms, sim.state.rules(sim.clock.now_us()), record, update, payload)
    assert denied.value.reason == "tensor_not_allowed"
    assert isinstance(denied.value.facts, MeasuredFacts)
