"""Integers of three limbs against Python's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.wide_integers import LIMBS, SHIFT_MAX, add_shifted, rank_along, settle, to_integers

sums = st.integers(-(2**62), 2**62) | st.integers(-3, 3) | st.sampled_from([-(2**62), 2**62, 2**42, 2**21 - 1])


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.lists(sums, min_size=3, max_size=3), st.integers(0, SHIFT_MAX - 26)), max_size=9))
def test_shifted_sums_are_those_of_integers(terms: list[tuple[list[int], int]]) -> None:
    """Shifts here leave room for any sum; what is shifted further is smaller."""
    limbs = np.zeros((LIMBS, 3), dtype=np.int64)
    exact = [0, 0, 0]
    for values, shift in terms:
        add_shifted(limbs, np.array(values, dtype=np.int64), shift)
        exact = [total + (value << shift) for total, value in zip(exact, values, strict=True)]
    assert to_integers(limbs).tolist() == exact
    assert ((limbs[:2] >= 0) & (limbs[:2] < 2**40)).all()


@pytest.mark.parametrize("value", [0, 1, -1, 2**34, -(2**34)])
def test_the_furthest_shift_is_exact(value: int) -> None:
    limbs = np.zeros((LIMBS, 1), dtype=np.int64)
    add_shifted(limbs, np.array([value]), SHIFT_MAX)
    assert to_integers(limbs).tolist() == [value << SHIFT_MAX]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.lists(sums, min_size=LIMBS, max_size=LIMBS), min_size=1, max_size=9))
def test_settled_values_are_ordered_as_integers_are(values: list[list[int]]) -> None:
    limbs = settle(np.array([[each >> 1 for each in value] for value in values], dtype=np.int64).T.copy())
    exact = [sum((each >> 1) << (40 * limb) for limb, each in enumerate(value)) for value in values]
    assert to_integers(limbs).tolist() == exact
    ties = np.array(sorted(range(len(values)), key=lambda at: (at * 7) % 11))
    assert rank_along(limbs, ties).tolist() == sorted(range(len(values)), key=lambda at: (exact[at], ties[at]))
