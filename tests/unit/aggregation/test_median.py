"""The median of each coordinate against a plain one in Python's integers."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.median import median_over
from sfrl_secure.limits import COHORT_MAX, VALUE_MAX
from tests.unit.aggregation import robust_reference as slow
from tests.unit.aggregation.robust_reference import WIDTH, Plain, cohorts, contributions, joined, plain, spread


@settings(deadline=None, max_examples=300)
@given(cohorts())
def test_the_median_is_the_middle_value(cohort: list[Plain]) -> None:
    given_ones = contributions(cohort)
    assert spread(median_over(given_ones, 0, WIDTH)) == slow.median(cohort)


@settings(deadline=None, max_examples=80)
@given(cohorts(), st.sets(st.integers(1, WIDTH - 1)), st.data())
def test_neither_order_nor_cuts_nor_threads_change_a_bit(
    cohort: list[Plain], cuts: set[int], data: st.DataObject
) -> None:
    shuffled = contributions(data.draw(st.permutations(cohort)), tuple(sorted(cuts)))
    ranges = list(pairwise([0, *sorted(cuts), WIDTH]))
    assert joined(lambda start, stop: median_over(shuffled, start, stop), ranges, 2) == slow.median(cohort)


def test_half_of_a_cohort_is_where_a_median_begins_to_move() -> None:
    """Of 40 updates 19, 20 and 21 say 5: the middle two are 0 and 0, 0 and 5, 5 and 5."""
    cohort = [
        plain(at, {0: 5} if at < 19 else {1: 5} if at < 39 else {2: 5}) for at in range(40)
    ]
    assert spread(median_over(contributions(cohort), 0, WIDTH))[:3] == [0, 2, 0]
    more = [plain(at, {2: 5} if at < 21 else {}) for at in range(40)]
    assert spread(median_over(contributions(more), 0, WIDTH))[:3] == [0, 0, 5]


def test_the_largest_values_of_the_largest_cohort_are_exact() -> None:
    cohort = contributions([plain(at, [VALUE_MAX, -VALUE_MAX, VALUE_MAX - at % 2]) for at in range(COHORT_MAX)])
    assert spread(median_over(cohort, 0, WIDTH))[:3] == [VALUE_MAX, -VALUE_MAX, VALUE_MAX]
