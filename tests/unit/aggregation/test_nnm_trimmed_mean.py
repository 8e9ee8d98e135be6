"""NNM + trimmed mean against a plain one in Python's integers, and what must not change it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.contribution import held
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import LIARS_PPM_MAX
from sfrl_secure.ids import sha256
from sfrl_secure.limits import COHORT_MAX, VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart
from tests.unit.aggregation import robust_reference as slow
from tests.unit.aggregation.robust_reference import WIDTH, Plain, cohorts, contributions, nnm, plain

shares = st.integers(0, LIARS_PPM_MAX) | st.sampled_from([0, 100_000, 250_000, 333_334, LIARS_PPM_MAX])


@settings(deadline=None, max_examples=400)
@given(cohorts(), shares)
def test_nnm_trimmed_mean_is_what_the_specification_says(cohort: list[Plain], liars: int) -> None:
    assert nnm(contributions(cohort), liars) == slow.nnm_trimmed_mean(cohort, liars)


@settings(deadline=None, max_examples=60)
@given(cohorts(40), shares)
def test_nnm_trimmed_mean_of_larger_cohorts_too(cohort: list[Plain], liars: int) -> None:
    assert nnm(contributions(cohort), liars) == slow.nnm_trimmed_mean(cohort, liars)


@settings(deadline=None, max_examples=100)
@given(cohorts(), shares, st.sets(st.integers(1, WIDTH - 1)), st.sets(st.integers(1, WIDTH - 1)), st.data())
def test_neither_order_nor_cuts_nor_threads_change_a_bit(
    cohort: list[Plain], liars: int, cuts: set[int], leaves: set[int], data: st.DataObject
) -> None:
    ranges = list(pairwise([0, *sorted(cuts), WIDTH]))
    shuffled = contributions(data.draw(st.permutations(cohort)), tuple(sorted(leaves)))
    assert nnm(shuffled, liars, ranges, threads=2) == nnm(contributions(cohort), liars)


def test_equal_distances_go_by_tie() -> None:
    """Three updates around a fourth, all as far: of two neighbours, one is left out, and the tie says which."""
    cohort = [plain(at, values) for at, values in enumerate([{0: 8}, {1: 8}, {2: 8}, {}])]
    assert {each.tie for each in cohort[:3]} != {cohort[3].tie}
    found = nnm(contributions(cohort), 250_000)
    assert found == slow.nnm_trimmed_mean(cohort, 250_000)
    others = [Plain(bytes(255 - byte for byte in each.tie), 1, each.carried) for each in cohort]
    assert nnm(contributions(others), 250_000) == slow.nnm_trimmed_mean(others, 250_000) != found


@pytest.mark.parametrize("count", [1, 2, 3, 4, 63, 64, 65, 129])
@pytest.mark.parametrize("liars", [0, 200_000, LIARS_PPM_MAX])
@pytest.mark.parametrize("most", [VALUE_MAX, 3])
def test_every_number_of_contributors_is_counted_right(count: int, liars: int, most: int) -> None:
    """Coordinate c has c contributors at most: counted where they are few, written out where they are many."""
    rng = np.random.default_rng(count)
    cohort = []
    for number in range(count):
        chosen = np.flatnonzero(rng.random(WIDTH) < np.arange(WIDTH) / (count + 1))
        cohort.append(plain(number, {int(at): int(rng.integers(-most, most, endpoint=True)) for at in chosen}))
    assert nnm(contributions(cohort), liars) == slow.nnm_trimmed_mean(cohort, liars)


def test_sums_beyond_floating_point_are_exact_to_the_half() -> None:
    """All mixed values of a coordinate are 498 * q + 249, and their sum is of 58 bits: q + 1/2 goes to the even one."""
    q = [VALUE_MAX - 1 - 3 * at for at in range(WIDTH)]
    cohort = [plain(at, [each + at % 2 for each in q]) for at in range(498)]
    assert nnm(contributions(cohort), 0) == [each + each % 2 for each in q]


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("carried", [1, 2, 7, WIDTH])
def test_the_largest_values_of_the_largest_cohort_are_exact(sign: int, carried: int) -> None:
    cohort = [plain(at, dict.fromkeys(range(carried), sign * VALUE_MAX)) for at in range(COHORT_MAX)]
    given_ones = contributions(cohort)
    assert nnm(given_ones, 0) == nnm(given_ones, 200_000) == cohort[0].values


def test_wide_ranges_are_sorted_in_two_steps() -> None:
    """Coordinates beyond 16 bits, against the same ones closer together."""
    rng = np.random.default_rng(7)
    near, far = [], []
    for number in range(12):
        at = np.sort(rng.choice(300, 40, replace=False))
        values = rng.integers(-VALUE_MAX, VALUE_MAX, 40)
        near.append(held(sha256(b"%d" % number), 1, UpdatePart(at, values)))
        far.append(held(sha256(b"%d" % number), 1, UpdatePart(at * 9_973, values)))
    wide = [(0, 300 * 9_973)]
    assert nnm(far, 250_000, wide)[:: 9_973] == nnm(near, 250_000, [(0, 300)])


def test_an_update_twice_is_refused() -> None:
    with pytest.raises(MalformedError):
        nnm(contributions([plain(1, {0: 1}), plain(1, {0: 1})]), 0)
