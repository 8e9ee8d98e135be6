"""Multi-Krum's selection against a plain one in Python's integers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import LIARS_PPM_MAX, PPM
from sfrl_secure.limits import COHORT_MAX, VALUE_MAX
from tests.unit.aggregation import robust_reference as slow
from tests.unit.aggregation.robust_reference import Plain, cohorts, contributions, krum, plain

shares = st.integers(0, LIARS_PPM_MAX) | st.sampled_from([0, 100_000, 250_000, 333_334, LIARS_PPM_MAX])


@settings(deadline=None, max_examples=300)
@given(cohorts(), shares, st.integers(0, PPM))
def test_multi_krum_selects_whom_the_specification_selects(cohort: list[Plain], liars: int, selected: int) -> None:
    assert list(krum(contributions(cohort), liars, selected)) == slow.krum_selected(cohort, liars, selected)


@settings(deadline=None, max_examples=80)
@given(cohorts(), shares, st.integers(0, PPM), st.data())
def test_no_order_selects_others(cohort: list[Plain], liars: int, selected: int, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(cohort))
    first, second = (
        {each[at].tie for at in krum(contributions(each), liars, selected)} for each in (cohort, shuffled)
    )
    assert first == second


def test_krum_selects_one_from_the_middle() -> None:
    """Scores of one neighbour each: 1, 1, 1 and 49; of the equal ones the tie decides."""
    cohort = [plain(at, {0: value}) for at, value in enumerate([0, 1, 2, 9])]
    (found,) = krum(contributions(cohort), 250_000, 0)
    assert cohort[found].tie == min(each.tie for each in cohort[:3])


def test_of_three_with_a_liar_the_nearest_one_counts() -> None:
    """n - f - 2 is 0: a score is of one neighbour all the same, or the tie alone would select."""
    far, one, other = sorted((plain(at, {0: 0}) for at in range(3)), key=lambda each: each.tie)
    cohort = [Plain(far.tie, 1, {0: 9}), Plain(one.tie, 1, {0: 0}), Plain(other.tie, 1, {0: 1})]
    assert krum(contributions(cohort), LIARS_PPM_MAX, 0) == (1,)


def test_equal_updates_of_the_largest_cohort_are_all_selected() -> None:
    cohort = contributions([plain(at, {3: VALUE_MAX, 5: -VALUE_MAX}) for at in range(COHORT_MAX)])
    assert krum(cohort, 200_000, PPM) == tuple(range(COHORT_MAX))


def test_the_largest_scores_are_exact() -> None:
    """One unit beside sums of 498 squares of 2**41."""
    cohort = [plain(at, [(-1) ** at * VALUE_MAX] * 14) for at in range(COHORT_MAX - 1)]
    near = plain(COHORT_MAX, [VALUE_MAX] * 13 + [VALUE_MAX - 1])
    found = krum(contributions([*cohort, near]), 0, 0)
    assert list(found) == slow.krum_selected([*cohort, near], 0, 0)


def test_an_update_twice_is_refused() -> None:
    with pytest.raises(MalformedError):
        krum(contributions([plain(1, {0: 1}), plain(1, {0: 1})]), 0, 0)
