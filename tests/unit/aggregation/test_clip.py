"""The clip: by the measured norm, one factor for one update, rounded once."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation.clip import ClippedUpdate, clip_bound, clip_factor, clipped, scaled
from sfrl_secure.aggregation.contribution import held
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import PPM, ClipTerms
from sfrl_secure.ids import sha256
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart


def update(values: list[int], number: int = 0) -> UpdatePart | object:
    return held(sha256(b"%d" % number), 1, UpdatePart(slice(0, len(values)), np.array(values, dtype=np.int64)))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.integers(-VALUE_MAX, VALUE_MAX), max_size=20), st.integers(0, 2**20 - 1))
def test_values_are_scaled_and_rounded_half_to_even(values: list[int], factor: int) -> None:
    part = UpdatePart(slice(3, 3 + len(values)), np.array(values, dtype=np.int64))
    found = scaled(part, factor)
    assert found.at == part.at
    assert found.values.tolist() == [round(Fraction(value * factor, 2**20)) for value in values]


@pytest.mark.parametrize(("value", "rounded"), [(1, 0), (3, 2), (5, 2), (-1, 0), (-3, -2), (-5, -2), (7, 4), (2, 1)])
def test_halves_go_to_the_even_neighbour(value: int, rounded: int) -> None:
    assert scaled(UpdatePart(slice(0, 1), np.array([value])), 2**19).values.tolist() == [rounded]


@settings(deadline=None, max_examples=200)
@given(st.integers(0, 2**62), st.integers(0, 2**62))
def test_only_what_is_longer_than_the_bound_is_scaled_and_never_up(bound: int, norm: int) -> None:
    factor = clip_factor(bound, norm)
    assert (factor is None) == (norm <= bound)
    assert factor is None or factor == 2**20 * bound // (norm + 1) < 2**20


def test_a_clipped_update_is_no_longer_than_the_bound_but_for_rounding() -> None:
    rng = np.random.default_rng(3)
    for bound in (1_000, 10**6, 10**9):
        long = held(sha256(b"1"), 1, UpdatePart(slice(0, 500), rng.integers(-(2**36), 2**36, 500)))
        (found,) = clipped(ClipTerms(norm=bound), [long])
        values = np.concatenate([part.values for part in found.parts(0, 500)]).astype(object)
        # Each value is at most half a unit off.
        assert int((values**2).sum()) <= (bound + 0.5 * 500**0.5) ** 2
        assert found.norm == long.norm > bound


@pytest.mark.parametrize(
    ("ppm", "norms", "bound"),
    [
        (PPM, [5], 5), (PPM, [9, 1], 1), (PPM, [7, 3, 5], 5), (PPM, [4, 1, 3, 2], 2), (1_500_000, [3, 9, 3], 4),
        (1, [10**6], 1), (1, [10**6 - 1], 0), (PPM, [0, 0, 9], 0),
    ],
)  # fmt: skip
def test_the_bound_is_a_share_of_the_lower_median(ppm: int, norms: list[int], bound: int) -> None:
    assert clip_bound(ClipTerms(median_ppm=ppm), norms) == bound
    assert clip_bound(ClipTerms(median_ppm=ppm), norms[::-1]) == bound
    assert clip_bound(ClipTerms(norm=8), norms) == 8


def test_where_the_median_is_zero_nothing_is_left_of_the_others_and_all_is_carried() -> None:
    (empty, other, full) = clipped(
        ClipTerms(median_ppm=PPM), [update([0, 0], 0), update([0, 0], 1), update([3, -4], 2)]  # type: ignore[list-item]
    )
    assert [(part.at, part.values.tolist()) for part in full.parts(0, 2)] == [(slice(0, 2), [0, 0])]
    assert not isinstance(empty, ClippedUpdate)
    assert not isinstance(other, ClippedUpdate)


def test_without_a_clip_the_cohort_is_the_cohort() -> None:
    cohort = [update([1, 2])]
    assert clipped(None, cohort) is cohort  # type: ignore[arg-type, comparison-overlap]
    assert clipped(ClipTerms(median_ppm=PPM), []) == []


def test_a_value_that_would_wrap_is_refused_before_it_is_scaled() -> None:
    long = held(sha256(b"1"), 1, UpdatePart(slice(0, 1), np.array([VALUE_MAX])))
    broken = replace(long, held=(UpdatePart(slice(0, 1), np.array([2**50])),))
    with pytest.raises(MalformedError):
        list(ClippedUpdate(broken, 2**19).parts(0, 1))
    assert [part.values.tolist() for part in ClippedUpdate(long, 2**19).parts(0, 1)] == [[VALUE_MAX // 2]]


def test_a_clipped_update_is_its_update_but_for_the_values() -> None:
    one = held(sha256(b"tie"), 7, UpdatePart(np.array([2, 9]), np.array([30, 40])))
    found = ClippedUpdate(one, 2**19)
    assert (found.tie, found.weight, found.norm, found.nonzeros) == (sha256(b"tie"), 7, 50, 2)
    assert [(part.indices.tolist(), part.values.tolist()) for part in found.parts(3, 10)] == [([9], [20])]
