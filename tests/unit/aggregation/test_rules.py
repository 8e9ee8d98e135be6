"""Every rule that terms may name: what the specification says, whatever the order, the parts, the ranges."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation import fast, kernels
from sfrl_secure.aggregation.clip import clipped
from sfrl_secure.aggregation.combined import CONTRIBUTIONS_MAX, Combining, combining_of
from sfrl_secure.aggregation.contribution import HeldUpdate
from sfrl_secure.aggregation.rules import RULES, Work, begin_rule_by, combine_by
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import (
    PPM,
    RULE_KEYS,
    UNION_MEAN,
    WEIGHTED_MEAN,
    CapTerms,
    ClipTerms,
    MaskTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.ids import sha256
from sfrl_secure.limits import VALUE_MAX, WEIGHT_SUM_MAX
from sfrl_secure.sparse.update import UpdatePart

from . import rule_reference as slow
from .robust_reference import WIDTH, Plain, cohorts, contributions, plain
from .rule_reference import rule_of, seen, streamed


@contextmanager
def compiled() -> Iterator[None]:
    """Take the compiled path, for parts of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast._Loaded, "tried", True)
        patch.setattr(fast._Loaded, "kernels", kernels)
        patch.setattr(fast, "LARGE_PART", 1)
        yield


def test_every_rule_that_terms_may_name_is_there() -> None:
    assert set(RULES) == set(RULE_KEYS)


@pytest.mark.parametrize("name", sorted(RULE_KEYS))
@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_rule_is_what_the_specification_says(name: str, data: st.DataObject) -> None:
    """With every clip; in any order; from parts and over ranges with any cuts; on threads; streamed; compiled."""
    cohort = data.draw(cohorts())
    combining = Combining(
        WIDTH, data.draw(slow.rules(name)), data.draw(slow.clips), data.draw(st.integers(1, 3)), True, True
    )
    expected = slow.combined(combining.rule, combining.clip, combining.cohort_min, cohort)
    cuts = tuple(sorted(data.draw(st.sets(st.integers(1, WIDTH - 1), max_size=3))))
    updates = contributions(cohort, cuts)
    assert seen(combine_by(combining, updates)) == expected
    running = streamed(combining, updates)
    assert running is None or seen(running) == expected
    with compiled():
        assert seen(combine_by(combining, updates)) == expected
        running = streamed(combining, updates)
        assert running is None or seen(running) == expected
    order = data.draw(st.permutations(range(len(cohort))))
    moved = seen(combine_by(combining, [updates[at] for at in order], threads=3))
    assert (moved.step, moved.carriers, moved.votes) == (expected.step, expected.carriers, expected.votes)
    named = [(sorted(order[at] for at in members), step) for members, step in moved.clusters]
    assert named == expected.clusters
    edges = [0, *sorted(data.draw(st.sets(st.integers(1, WIDTH - 1), max_size=4))), WIDTH]
    ranges = list(pairwise(edges))
    work = Work(combining, clipped(combining.clip, updates), ranges, data.draw(st.sampled_from([1, 2])))
    assert seen(RULES[name](work)) == expected


@pytest.mark.parametrize("name", sorted(RULE_KEYS))
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_values_and_weights_are_exact(name: str, sign: int) -> None:
    """Four updates of the largest values, whose weights are the largest sum; two carry nothing."""
    weights = (WEIGHT_SUM_MAX - 5, 3, 1, 1)
    full = [sign * VALUE_MAX] * WIDTH
    cohort = [plain(0, full, weights[0]), plain(1, full, weights[1]), plain(2, {}, 1), plain(3, {}, 1)]
    combining = Combining(WIDTH, rule_of(name), with_carriers=True, with_votes=True)
    expected = slow.combined(combining.rule, None, 1, cohort)
    assert seen(combine_by(combining, contributions(cohort), threads=2)) == expected
    alone = [replace(cohort[0], weight=WEIGHT_SUM_MAX)]
    assert seen(combine_by(combining, contributions(alone))).step == full


@pytest.mark.parametrize("name", sorted(RULE_KEYS))
def test_of_updates_that_carry_nothing_nothing_comes(name: str) -> None:
    cohort: list[Plain] = [plain(number, {}) for number in range(3)]
    combining = Combining(WIDTH, rule_of(name), cohort_min=2, with_carriers=True)
    found = seen(combine_by(combining, contributions(cohort)))
    assert (found.step, found.carriers, found.clusters) == ([0] * WIDTH, [0] * WIDTH, [])


@pytest.mark.parametrize("name", sorted(RULE_KEYS))
def test_a_cohort_out_of_bounds_is_refused(name: str) -> None:
    combining = Combining(WIDTH, rule_of(name))
    sound = contributions([plain(number, [number] * WIDTH) for number in range(3)])
    too_large = replace(sound[0], held=(UpdatePart(slice(0, 1), np.array([VALUE_MAX + 1])),))
    outside = replace(sound[0], held=(UpdatePart(np.array([WIDTH]), np.array([1])),))
    for cohort in (
        [], [*sound, sound[0]], [replace(sound[0], weight=0)], [replace(sound[0], weight=WEIGHT_SUM_MAX), sound[1]],
        [sound[1], too_large], [sound[1], Leaking(outside)], [sound[1], Twice(sound[0])],
    ):  # fmt: skip
        with pytest.raises(MalformedError):
            combine_by(combining, cohort)
    assert seen(combine_by(combining, sound)).step


class Leaking:
    """An update that gives all that it has, whatever range it is asked for."""

    def __init__(self, update: HeldUpdate) -> None:
        self.tie, self.weight, self.norm, self.nonzeros = update.tie, update.weight, update.norm, update.nonzeros
        self._parts = update.held

    def parts(self, start: int, stop: int) -> Iterator[UpdatePart]:
        yield from self._parts


class Twice(Leaking):
    """An update that gives each part two times."""

    def parts(self, start: int, stop: int) -> Iterator[UpdatePart]:
        yield from self._parts
        yield from self._parts


def test_more_updates_than_are_counted_in_16_bits_are_refused() -> None:
    one = contributions([plain(0, {})])[0]
    many = [replace(one, tie=sha256(number.to_bytes(4, "big"))) for number in range(CONTRIBUTIONS_MAX + 1)]
    with pytest.raises(MalformedError, match="are added up"):
        combine_by(Combining(WIDTH, RuleTerms()), many)
    running = begin_rule_by(Combining(WIDTH, RuleTerms()))
    assert running is not None
    for _ in range(CONTRIBUTIONS_MAX):
        running.enter(1, 1)
    with pytest.raises(MalformedError, match="are added up"):
        running.enter(1, 1)


def test_a_rule_that_nobody_knows_is_refused() -> None:
    with pytest.raises(MalformedError, match="another rule"):
        combine_by(Combining(WIDTH, RuleTerms("oracle/v1")), contributions([plain(0, {})]))


@pytest.mark.parametrize("name", sorted(RULE_KEYS))
@pytest.mark.parametrize("clip", [None, ClipTerms(norm=5), ClipTerms(median_ppm=PPM)])
def test_the_means_stream_unless_the_clip_waits_for_the_median(name: str, clip: ClipTerms | None) -> None:
    streams = name in (WEIGHTED_MEAN, UNION_MEAN) and (clip is None or clip.norm is not None)
    assert (begin_rule_by(Combining(WIDTH, rule_of(name), clip)) is not None) == streams


def test_what_is_asked_for_is_what_the_terms_need() -> None:
    mask = MaskTerms(sha256(b"mask"), 5)
    terms = SimpleNamespace(
        model=SimpleNamespace(manifest=SimpleNamespace(coordinates=9)), rule=RuleTerms(), clip=ClipTerms(norm=3),
        cap=None, mask=None, round=SimpleNamespace(cohort_min=2),
    )  # fmt: skip
    found = combining_of(terms)
    assert found == Combining(9, RuleTerms(), ClipTerms(norm=3), 2, False, False)
    for cap, next_mask, with_carriers, with_votes in (
        (CapTerms(2, 3), None, True, False), (None, NextMaskTerms("votes", 1), False, True),
        (None, NextMaskTerms("saliency", 1), False, False), (CapTerms(2, 3), NextMaskTerms("votes", 1), True, True),
    ):  # fmt: skip
        terms.cap, terms.mask = cap, replace(mask, next=next_mask)
        assert combining_of(terms) == replace(found, with_carriers=with_carriers, with_votes=with_votes)
