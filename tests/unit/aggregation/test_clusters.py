"""Clusters against plain ones in Python's integers, their rest, and the mean of some updates."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.members import mean_over
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import PPM
from sfrl_secure.limits import COHORT_MAX, VALUE_MAX
from tests.unit.aggregation import robust_reference as slow
from tests.unit.aggregation.robust_reference import WIDTH, Plain, cohorts, contributions, grouped, plain, spread


@settings(deadline=None, max_examples=300)
@given(cohorts(), st.sampled_from([1, 300_000, 700_000, 999_999, PPM]) | st.integers(1, PPM), st.integers(1, 5))
def test_clusters_are_those_of_the_specification(cohort: list[Plain], alike: int, cohort_min: int) -> None:
    assert grouped(contributions(cohort), alike, cohort_min) == slow.clusters(cohort, alike, cohort_min)


@settings(deadline=None, max_examples=80)
@given(cohorts(), st.integers(1, PPM), st.integers(1, 5), st.data())
def test_no_order_groups_otherwise(
    cohort: list[Plain], alike: int, cohort_min: int, data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(cohort))
    first, second = (
        [{each[at].tie for at in group} for group in grouped(contributions(each), alike, cohort_min)]
        for each in (cohort, shuffled)
    )
    assert first == second


def test_the_rest_is_never_smaller_than_a_cohort() -> None:
    """Groups of 4, 3, 3 and 1: the one alone takes one of 3 with it, and those are enough."""
    pointing = [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    cohort = contributions([plain(at, {where: 5}) for at, where in enumerate(pointing)])
    found = grouped(cohort, 900_000, 3)
    assert [len(each) for each in found] == [4, 3]
    first_tie = {where: min(cohort[at].tie for at in range(11) if pointing[at] == where) for where in (1, 2)}
    assert pointing[found[1][0]] == min(first_tie, key=first_tie.__getitem__)
    assert [len(each) for each in grouped(cohort, 900_000, 4)] == [4]
    assert grouped(cohort, 900_000, 5) == []
    assert [len(each) for each in grouped(cohort[:10], 900_000, 3)] == [4, 3, 3]


def test_the_ninth_group_is_the_rest() -> None:
    cohort = contributions([plain(at, {at // 2: 5}) for at in range(20)])
    assert [len(each) for each in grouped(cohort, PPM, 2)] == [2] * 8
    assert [len(each) for each in grouped(cohort[:18], PPM, 2)] == [2] * 8
    assert [len(each) for each in grouped(cohort[:18], PPM, 1)] == [2] * 8


def test_alike_is_decided_at_the_last_unit() -> None:
    """3-4-5: the cosine is exactly 0.6."""
    cohort = contributions([plain(0, {0: 5 << 37}), plain(1, {0: 3 << 37, 1: 4 << 37})])
    assert grouped(cohort, 600_000, 2) == [[0, 1]]
    assert grouped(cohort, 600_001, 2) == []
    opposed = contributions([plain(0, {0: 5}), plain(1, {0: -3, 1: 4})])
    assert grouped(opposed, 1, 2) == []


def test_a_chain_of_alike_updates_is_one_group() -> None:
    """Each is alike with the next one only."""
    cohort = contributions([plain(at, {at: 5, at + 1: 5}) for at in range(6)])
    assert grouped(cohort, 500_000, 2) == [[0, 1, 2, 3, 4, 5]]
    assert grouped(cohort, 500_001, 2) == []


def test_the_largest_products_of_the_largest_cohort_are_exact() -> None:
    cohort = [plain(at, [VALUE_MAX] * WIDTH) for at in range(COHORT_MAX)]
    assert grouped(contributions(cohort), PPM, 3) == [list(range(COHORT_MAX))]
    cohort[7] = plain(7, [VALUE_MAX] * (WIDTH - 1) + [VALUE_MAX - 1])
    assert grouped(contributions(cohort), PPM, 1) == [[*range(7), *range(8, COHORT_MAX)], [7]]


@settings(deadline=None, max_examples=150)
@given(cohorts(), st.data())
def test_the_mean_of_some_is_theirs_alone(cohort: list[Plain], data: st.DataObject) -> None:
    members = sorted(data.draw(st.sets(st.integers(0, len(cohort) - 1), min_size=1)))
    for weighted in (False, True):
        found = mean_over(contributions(cohort), 0, WIDTH, members, weighted=weighted)
        assert spread(found) == slow.mean([cohort[member] for member in members], weighted)


def test_of_nobody_there_is_no_mean() -> None:
    with pytest.raises(MalformedError):
        mean_over([], 0, WIDTH, [], weighted=True)


def test_an_update_twice_is_refused() -> None:
    with pytest.raises(MalformedError):
        grouped(contributions([plain(1, {0: 1}), plain(1, {0: 1})]), 1, 1)
