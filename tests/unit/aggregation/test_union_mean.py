"""The union mean: whoever carries a coordinate has a voice in it, and nobody else."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.division import divide_each_half_even
from sfrl_secure.aggregation.union_mean import UnionMean
from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import VALUE_MAX, WEIGHT_SUM_MAX
from sfrl_secure.sparse.update import UpdatePart

N = 12
Update = tuple[dict[int, int], int]

carried = st.dictionaries(st.integers(0, N - 1), st.integers(-VALUE_MAX, VALUE_MAX) | st.just(0), max_size=N)
updates_strategy = st.lists(st.tuples(carried, st.integers(1, 1_000)), min_size=1, max_size=6)


def part_of(values: dict[int, int]) -> UpdatePart:
    at = np.array(sorted(values), dtype=np.int64)
    return UpdatePart(at, np.array([values[each] for each in sorted(values)], dtype=np.int64))


def mean_of(updates: list[Update]) -> UnionMean:
    mean = UnionMean(N)
    for values, weight in updates:
        part = part_of(values)
        mean.add(part.indices, part.values, weight)
    return mean


def exact_of(updates: list[Update]) -> list[int]:
    found = []
    for n in range(N):
        weights = sum(weight for values, weight in updates if n in values)
        total = sum(weight * values.get(n, 0) for values, weight in updates)
        found.append(round(Fraction(total, weights)) if weights else 0)
    return found


@settings(deadline=None, max_examples=120)
@given(updates_strategy)
def test_it_is_the_mean_of_those_who_carry_a_coordinate(updates: list[Update]) -> None:
    mean = mean_of(updates)
    assert mean.result().tolist() == exact_of(updates)
    step = mean.step()
    found = np.zeros(N, dtype=np.int64)
    found[step.at] = step.values
    assert found.tolist() == exact_of(updates)
    assert isinstance(step.at, slice) == (4 * np.count_nonzero(found) > N)


def test_who_carries_a_zero_has_a_voice_and_who_carries_nothing_has_none() -> None:
    assert mean_of([({0: 10, 1: 10}, 1), ({1: 0}, 1), ({}, 8)]).result().tolist() == [10, 5] + [0] * (N - 2)


@settings(deadline=None, max_examples=60)
@given(updates_strategy, st.data())
def test_what_is_taken_out_was_never_there(updates: list[Update], data: st.DataObject) -> None:
    mean = mean_of(updates)
    stay = data.draw(st.integers(0, len(updates) - 1))
    for at, (values, weight) in enumerate(updates):
        if at != stay:
            mean.take_out_part(part_of(values), weight)
            mean.leave(weight)
    assert mean.result().tolist() == exact_of([updates[stay]])


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.integers(0, 39), st.integers(-9, 9), max_size=8), min_size=2, max_size=6))
def test_after_a_sparse_step_the_sum_is_as_if_just_begun(rounds: list[dict[int, int]]) -> None:
    again = UnionMean(40)
    for values in rounds:
        fresh = UnionMean(40)
        for mean in (again, fresh):
            mean.enter(2)
            mean.add_part(part_of(values), 2)
        wanted, found = fresh.step(), again.step()
        assert again.is_empty
        assert (found.indices.tolist(), found.values.tolist()) == (wanted.indices.tolist(), wanted.values.tolist())


def test_what_became_the_mean_is_not_empty() -> None:
    mean = mean_of([(dict.fromkeys(range(N), 1), 1)])
    assert isinstance(mean.step().at, slice)
    assert not mean.is_empty


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_are_exact(sign: int) -> None:
    mean = mean_of([({0: sign * VALUE_MAX, 1: sign * VALUE_MAX}, WEIGHT_SUM_MAX - 1), ({0: sign * VALUE_MAX}, 1)])
    assert mean.result().tolist() == [sign * VALUE_MAX, sign * VALUE_MAX] + [0] * (N - 2)
    with pytest.raises(MalformedError):
        mean.enter(1)


def test_nothing_has_no_mean() -> None:
    for act in (UnionMean(N).step, UnionMean(N).result):
        with pytest.raises(MalformedError):
            act()


@settings(deadline=None, max_examples=120)
@given(st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(1, WEIGHT_SUM_MAX)), min_size=1, max_size=20))
def test_division_of_each_by_its_own_is_exact(pairs: list[tuple[int, int]]) -> None:
    numerators = np.array([numerator for numerator, _ in pairs], dtype=np.int64)
    denominators = np.array([denominator for _, denominator in pairs], dtype=np.int32)
    expected = [round(Fraction(numerator, denominator)) for numerator, denominator in pairs]
    assert divide_each_half_even(numerators, denominators).tolist() == expected


def test_division_of_each_in_blocks_and_in_place_is_division() -> None:
    rng = np.random.default_rng(5)
    values, by = rng.integers(-(2**62), 2**62, 100_001), rng.integers(0, 99, 100_001).astype(np.int32)
    values[by == 0] = 0
    expected = [round(Fraction(int(v), int(b))) if b else 0 for v, b in zip(values[::997], by[::997], strict=True)]
    before = values.copy()
    assert divide_each_half_even(values, by)[::997].tolist() == expected
    assert np.array_equal(values, before)
    assert divide_each_half_even(values, by, out=values) is values
    assert values[::997].tolist() == expected
