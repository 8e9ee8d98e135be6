"""The weighted mean: the set of updates decides, exactly."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.division import divide_half_even
from sfrl_secure.aggregation.weighted_mean import WeightedMean
from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import COORDINATES_MAX, VALUE_MAX, WEIGHT_SUM_MAX

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
