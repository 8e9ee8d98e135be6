"""Sums of products against Python's integers: every way in which they are taken, at its bounds."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation import products as products_module
from sfrl_secure.aggregation.contribution import held
from sfrl_secure.aggregation.products import RANGE_MAX, Products, products_over
from sfrl_secure.aggregation.wide_integers import to_integers
from sfrl_secure.ids import sha256
from sfrl_secure.limits import COHORT_MAX, VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart
from tests.unit.aggregation import robust_reference as slow
from tests.unit.aggregation.robust_reference import WIDTH, Plain, all_products, cohorts, contributions, plain


@settings(deadline=None, max_examples=300)
@given(cohorts(14))
def test_products_and_distances_are_exact(cohort: list[Plain]) -> None:
    products = all_products(contributions(cohort))
    assert products.count == len(cohort)
    assert products.integers().tolist() == [[slow.product(one, other) for other in cohort] for one in cohort]
    assert to_integers(products.distances()).tolist() == [
        [slow.distance(one, other) for other in cohort] for one in cohort
    ]


@settings(deadline=None, max_examples=100)
@given(cohorts(14), st.sets(st.integers(1, WIDTH - 1)), st.sets(st.integers(1, WIDTH - 1)))
def test_neither_cuts_nor_threads_change_a_limb(cohort: list[Plain], cuts: set[int], leaves: set[int]) -> None:
    ranges = list(pairwise([0, *sorted(cuts), WIDTH]))
    cut = all_products(contributions(cohort, tuple(sorted(leaves))), ranges, threads=2)
    assert np.array_equal(cut.limbs, all_products(contributions(cohort)).limbs)


@pytest.mark.parametrize("bits", [1, 19, 20, 21, 22, 30, 31, 32, 39, 40])
@pytest.mark.parametrize("zeros", [0, 1, 17, 18, 19, 39])
@pytest.mark.parametrize("carriers", [2, 8, 9, 12])
def test_every_width_of_values_is_exact(bits: int, zeros: int, carriers: int) -> None:
    """Few and many contributors; values of so many bits, and all of them multiples of a power of two."""
    if zeros >= bits:
        return
    rng = np.random.default_rng(bits)
    unit = 2**zeros
    cohort = []
    for number in range(60):
        values = rng.integers(-(2**bits) // unit, 2**bits // unit, WIDTH, endpoint=True) * unit
        values[:2] = (2**bits, -(2**bits))
        cohort.append(plain(number, dict(enumerate(values.tolist())) if number < carriers else {}))
    cohort[0].carried[2] = unit
    products = all_products(contributions(cohort)).integers()
    for one in range(carriers + 1):
        for other in range(carriers + 1):
            assert products[one, other] == slow.product(cohort[one], cohort[other])


@pytest.mark.parametrize("updates", [2, 60])
@pytest.mark.parametrize("value", [VALUE_MAX, VALUE_MAX - 1, 2**31 - 1, 2**21 - 1, 2**20 - 1])
def test_a_whole_range_of_the_largest_values_does_not_wrap(updates: int, value: int) -> None:
    """Two with all coordinates: a matrix alone, and pairs beside many that have nothing. And once more than a range."""
    width = RANGE_MAX + 3
    whole = np.full(width, value)
    given_ones = [
        held(sha256(b"one"), 1, UpdatePart(slice(0, width), whole)),
        held(sha256(b"other"), 1, UpdatePart(slice(0, width), -whole)),
        *(held(sha256(b"%d" % at), 1, ()) for at in range(updates - 2)),
    ]
    found = products_over(given_ones, 0, RANGE_MAX) + products_over(given_ones, RANGE_MAX, width)
    exact = width * value**2
    assert found.integers()[:2, :2].tolist() == [[exact, -exact], [-exact, exact]]


def test_a_wide_range_is_settled_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    cohort = contributions([plain(at, [VALUE_MAX - at] * WIDTH) for at in range(3)])
    expected = all_products(cohort)
    monkeypatch.setattr(products_module, "RANGE_MAX", 4)
    assert np.array_equal(all_products(cohort).limbs, expected.limbs)


def test_the_largest_values_of_the_largest_cohort_are_exact() -> None:
    cohort = contributions([plain(at, [VALUE_MAX, -VALUE_MAX]) for at in range(COHORT_MAX)])
    assert set(all_products(cohort).integers().ravel().tolist()) == {2 * VALUE_MAX**2}


def test_over_no_coordinates_all_is_zero() -> None:
    assert not Products.nothing(3).integers().any()
