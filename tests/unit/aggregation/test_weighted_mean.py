"""The weighted mean: the set of updates decides, exactly."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.division import divide_half_even
from sfrl_secure.aggregation.weighted_mean import WeightedMean
from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import COORDINATES_MAX, VALUE_MAX, WEIGHT_SUM_MAX
from sfrl_secure.sparse.update import UpdatePart

N = 12
Update = tuple[dict[int, int], int]

values_strategy = st.dictionaries(
    st.integers(0, N - 1), st.integers(-VALUE_MAX, VALUE_MAX).filter(bool), max_size=N
)
updates_strategy = st.lists(st.tuples(values_strategy, st.integers(1, 1_000)), min_size=1, max_size=6)


def mean_of(updates: list[Update]) -> list[int]:
    mean = WeightedMean(N)
    for values, weight in updates:
        add(mean, values, weight)
    return mean.result().tolist()


def add(mean: WeightedMean, values: dict[int, int], weight: int) -> None:
    indices = np.array(sorted(values), dtype=np.int64)
    mean.add(indices, np.array([values[index] for index in sorted(values)], dtype=np.int64), weight)


@settings(deadline=None, max_examples=80)
@given(updates_strategy)
def test_it_is_the_rational_mean_rounded_half_to_even(updates: list[Update]) -> None:
    weights = sum(weight for _, weight in updates)
    exact = [Fraction(sum(weight * values.get(n, 0) for values, weight in updates), weights) for n in range(N)]
    assert mean_of(updates) == [round(each) for each in exact]  # Python rounds fractions half to even


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_order_changes_it(data: st.DataObject) -> None:
    updates = data.draw(updates_strategy)
    assert mean_of(data.draw(st.permutations(updates))) == mean_of(updates)


@settings(deadline=None, max_examples=60)
@given(updates_strategy, st.data())
def test_an_update_sent_in_two_parts_of_its_weight_counts_the_same(updates: list[Update], data: st.DataObject) -> None:
    values, weight = updates[0]
    part = data.draw(st.integers(1, weight))
    parts = [(values, part)] + ([(values, weight - part)] if part < weight else [])
    assert mean_of(parts + updates[1:]) == mean_of(updates)


@settings(deadline=None, max_examples=60)
@given(updates_strategy)
def test_disjoint_halves_of_an_update_add_up_to_it_before_the_division(updates: list[Update]) -> None:
    """Support is split, so its weight would count twice: the numerators are what adds up."""
    values, weight = updates[0]
    whole, halves = WeightedMean(N), WeightedMean(N)
    add(whole, values, weight)
    add(halves, {n: value for n, value in values.items() if n % 2}, weight)
    add(halves, {n: value for n, value in values.items() if not n % 2}, weight)
    assert halves._numerator.tolist() == whole._numerator.tolist()
    assert halves.weight_sum == 2 * whole.weight_sum


def test_an_absent_coordinate_is_a_zero_that_weighs() -> None:
    assert mean_of([({0: 10, 1: 10}, 1), ({1: 10}, 1), ({}, 2)]) == [2, 5] + [0] * (N - 2)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sum_is_exact(sign: int) -> None:
    """2**22 weights of 2**40: the numerator is 2**62, and nothing wraps."""
    mean = WeightedMean(2)
    mean.add(np.array([0]), np.array([sign * VALUE_MAX]), WEIGHT_SUM_MAX - 1)
    mean.add(np.array([0]), np.array([sign * VALUE_MAX]), 1)
    assert int(mean._numerator[0]) == sign * 2**62
    assert mean.result().tolist() == [sign * VALUE_MAX, 0]
    assert mean.weight_sum == WEIGHT_SUM_MAX
    with pytest.raises(MalformedError):
        mean.add(np.array([0]), np.array([1]), 1)


@pytest.mark.parametrize(
    ("indices", "values", "weight"),
    [
        ([0], [1], 0),
        ([0], [1], -1),
        ([0], [1], WEIGHT_SUM_MAX + 1),
        ([0, 1], [1], 1),
        ([[0]], [[1]], 1),
        ([-1], [1], 1),
        ([N], [1], 1),
        ([1, 1], [1, 1], 1),
        ([2, 1], [1, 1], 1),
        ([0], [VALUE_MAX + 1], 1),
        ([0], [-VALUE_MAX - 1], 1),
        ([0], [-(2**63)], 1),
    ],
)
def test_what_is_out_of_bounds_adds_nothing(indices: object, values: object, weight: int) -> None:
    mean = WeightedMean(N)
    add(mean, {3: 7}, 2)
    with pytest.raises(MalformedError):
        mean.add(np.array(indices, dtype=np.int64), np.array(values, dtype=np.int64), weight)
    assert mean.weight_sum == 2
    assert mean.result().tolist() == [7 if n == 3 else 0 for n in range(N)]


@pytest.mark.parametrize("coordinates", [0, -1, COORDINATES_MAX + 1])
def test_a_model_has_coordinates_within_the_limit(coordinates: int) -> None:
    with pytest.raises(MalformedError):
        WeightedMean(coordinates)


def test_nothing_has_no_mean() -> None:
    with pytest.raises(MalformedError):
        WeightedMean(N).result()
    with pytest.raises(MalformedError):
        WeightedMean(N).step()


def parts_of(values: dict[int, int], cuts: set[int], *, dense: bool) -> list[UpdatePart]:
    """An update as a reader gives it: leaf by leaf, with indices, or over all coordinates."""
    whole = np.zeros(N, dtype=np.int64)
    whole[list(values)] = list(values.values())
    found = []
    for start, stop in pairwise([0, *sorted(cuts), N]):
        at = np.flatnonzero(whole[start:stop]) + start
        found.append(UpdatePart(slice(start, stop), whole[start:stop]) if dense else UpdatePart(at, whole[at]))
    return found


@settings(deadline=None, max_examples=120)
@given(updates_strategy, st.data())
def test_parts_add_up_to_their_update_and_what_is_taken_out_was_never_there(
    updates: list[Update], data: st.DataObject
) -> None:
    mean = WeightedMean(N)
    entered = []
    for values, weight in updates:
        cuts, dense = data.draw(st.sets(st.integers(1, N - 1))), data.draw(st.booleans())
        entered.append((parts_of(values, cuts, dense=dense), weight))
        mean.enter(weight)
        for part in entered[-1][0]:
            mean.add_part(part, weight)
    assert mean.result().tolist() == mean_of(updates)
    stay = data.draw(st.integers(0, len(updates) - 1))
    for at, (parts, weight) in enumerate(entered):
        if at != stay:
            for part in data.draw(st.permutations(parts)):
                mean.take_out_part(part, weight)
            mean.leave(weight)
    assert mean.weight_sum == updates[stay][1]
    assert mean.result().tolist() == mean_of([updates[stay]])


@settings(deadline=None, max_examples=120)
@given(updates_strategy)
def test_the_step_is_the_mean_with_indices_where_few_are_not_zero(updates: list[Update]) -> None:
    mean = WeightedMean(N)
    for values, weight in updates:
        add(mean, values, weight)
    expected = mean_of(updates)
    step = mean.step()
    found = np.zeros(N, dtype=np.int64)
    found[step.at] = step.values
    assert found.tolist() == expected
    touched = [at for at, value in enumerate(expected) if value]
    assert isinstance(step.at, slice) == (4 * len(touched) > N)
    if not isinstance(step.at, slice):
        assert step.at.tolist() == touched


def test_sums_that_round_to_zero_leave_a_sparse_step() -> None:
    mean = WeightedMean(N)
    add(mean, dict.fromkeys(range(N), 1) | {5: 40}, 1)
    mean.enter(9)
    assert (mean.step().indices.tolist(), WeightedMean(N).weight_sum) == ([5], 0)


def test_a_coordinate_whose_mean_rounds_to_zero_is_not_in_a_sparse_step() -> None:
    mean = WeightedMean(N)
    add(mean, {2: 1, 7: 40}, 1)
    mean.enter(9)
    assert mean.step().indices.tolist() == [7]


def test_a_refused_part_leaves_the_sum_as_it_was() -> None:
    mean = WeightedMean(N)
    mean.enter(2)
    mean.add_part(UpdatePart(slice(0, 2), np.array([3, 4])), 2)
    for at, values in (
        (slice(N - 1, N + 1), [1, 1]), (slice(-2, 0), [1, 1]), (slice(0, 4, 2), [1, 1]), (slice(2, 0), []),
        (slice(0, 2), [1]), (slice(0, 1), [VALUE_MAX + 1]), (slice(0, 1), [-VALUE_MAX - 1]),
    ):  # fmt: skip
        part = UpdatePart(at, np.array(values, dtype=np.int64))
        for act in (mean.add_part, mean.take_out_part):
            with pytest.raises(MalformedError):
                act(part, 2)
    assert mean.result().tolist() == [3, 4] + [0] * (N - 2)


def test_division_in_blocks_is_division() -> None:
    """Over the borders of blocks, into another array and in place."""
    values = np.random.default_rng(5).integers(-(2**62), 2**62, 100_001)
    expected = [round(Fraction(int(value), 97)) for value in values[::997]]
    before = values.copy()
    assert divide_half_even(values, 97)[::997].tolist() == expected
    assert np.array_equal(values, before)
    assert divide_half_even(values, 97, out=values) is values
    assert np.array_equal(values, divide_half_even(before, 97))


def test_adding_takes_no_memory_in_proportion_to_the_participants() -> None:
    count = 1_000_003
    mean = WeightedMean(count)
    leaf = np.full(65_536, 3, dtype=np.int64)
    tracemalloc.start()
    for _ in range(4):
        mean.enter(2)
        for start in range(0, count, 65_536):
            stop = min(start + 65_536, count)
            mean.add_part(UpdatePart(slice(start, stop), leaf[: stop - start]), 2)
    step = mean.step()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20
    assert np.array_equal(step.values, np.full(count, 3))


@pytest.mark.parametrize(
    ("numerator", "denominator", "quotient"),
    [(1, 2, 0), (3, 2, 2), (5, 2, 2), (-1, 2, 0), (-3, 2, -2), (-5, 2, -2), (7, 2, 4), (1, 3, 0), (2, 3, 1),
     (-2, 3, -1), (-1, 3, 0), (0, 5, 0), (9, 6, 2), (15, 6, 2), (-9, 6, -2), (5, 1, 5)],
)  # fmt: skip
def test_halves_go_to_the_even_neighbour(numerator: int, denominator: int, quotient: int) -> None:
    assert divide_half_even(np.array([numerator]), denominator).tolist() == [quotient]


@settings(deadline=None, max_examples=120)
@given(st.integers(-(2**62), 2**62), st.integers(1, WEIGHT_SUM_MAX))
def test_division_is_exact_over_its_whole_range(numerator: int, denominator: int) -> None:
    expected = round(Fraction(numerator, denominator))
    assert divide_half_even(np.array([numerator]), denominator).tolist() == [expected]


@pytest.mark.parametrize("numerator", [-(2**63), -(2**63) + 1, 2**63 - 1, 2**62, -(2**62)])
@pytest.mark.parametrize("denominator", [1, 2, 3, WEIGHT_SUM_MAX - 1, WEIGHT_SUM_MAX])
def test_division_is_exact_at_the_ends(numerator: int, denominator: int) -> None:
    expected = round(Fraction(numerator, denominator))
    assert divide_half_even(np.array([numerator]), denominator).tolist() == [expected]


@pytest.mark.parametrize("denominator", [0, -1, WEIGHT_SUM_MAX + 1])
def test_a_divisor_out_of_range_is_refused(denominator: int) -> None:
    with pytest.raises(MalformedError):
        divide_half_even(np.array([1]), denominator)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.dictionaries(st.integers(0, 39), st.integers(-1_000, 1_000), max_size=12), min_size=2, max_size=6))
def test_after_a_sparse_step_the_sum_is_as_if_just_begun(rounds: list[dict[int, int]]) -> None:
    """Round after round in one sum: what it gives is what a new one gives."""
    again = WeightedMean(40)
    for number, values in enumerate(rounds):
        at = np.array(sorted(values), dtype=np.int64)
        update = UpdatePart(at, np.array([values[each] for each in sorted(values)], dtype=np.int64))
        fresh = WeightedMean(40)
        if not again.is_empty:
            again = WeightedMean(40)
        for mean in (again, fresh):
            mean.enter(number + 1)
            mean.add_part(update, number + 1)
            assert not mean.is_empty
        dense = 4 * np.count_nonzero(fresh._numerator) > 40
        wanted, found = fresh.step(), again.step()
        assert (found.indices.tolist(), found.values.tolist()) == (wanted.indices.tolist(), wanted.values.tolist())
        assert again.is_empty is not dense


def test_what_became_the_mean_is_not_empty() -> None:
    mean = WeightedMean(4)
    mean.enter(1)
    mean.add_part(UpdatePart(slice(0, 4), np.array([1, 2, 3, 4])), 1)
    mean.step()
    assert not mean.is_empty


def test_nonzero_coordinates_are_found_over_blocks() -> None:
    mean = WeightedMean(200_000)
    at = np.array([0, 65_535, 65_536, 131_072, 199_999])
    mean.enter(1)
    mean.add_part(UpdatePart(at, np.array([1, -2, 3, -4, 5])), 1)
    step = mean.step()
    assert (step.indices.tolist(), step.values.tolist()) == (at.tolist(), [1, -2, 3, -4, 5])
