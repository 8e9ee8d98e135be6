"""100 updates in any order and parts, over any ranges, on any threads, compiled or not: one result to the last bit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from sfrl_secure.aggregation import fast, kernels, means
from sfrl_secure.aggregation.clip import clipped
from sfrl_secure.aggregation.combined import Combined, Combining
from sfrl_secure.aggregation.contribution import HeldUpdate, held, tie_of
from sfrl_secure.aggregation.rules import RULES, Work, combine_by
from sfrl_secure.governance.aggregation_terms import PPM, RULE_KEYS, UNION_MEAN, WEIGHTED_MEAN, ClipTerms
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.update import UpdatePart

from .rule_reference import rule_of, seen

LARGE = 30_000
OPENED = sha256(b"a round's opening")


def hundred() -> list[HeldUpdate]:
    """100 updates, most free, some dense, some of one agreed support, one empty."""
    rng = np.random.default_rng(6)
    agreed = np.sort(rng.choice(LARGE, 400, replace=False)).astype(np.int64)
    found = []
    for number in range(100):
        if number % 25 == 7:
            part = UpdatePart(slice(0, LARGE), rng.integers(-(2**38), 2**38, LARGE))
        elif number % 10 == 3:
            part = UpdatePart(agreed, rng.integers(-127, 128, 400) << 20)
        else:
            at = np.union1d(rng.choice(LARGE, 300, replace=False), np.arange(60))[: 400 * (number != 50)]
            part = UpdatePart(at, rng.integers(-127, 128, at.size) << 22)
        found.append(held(tie_of(OPENED, f"rover-{number}"), int(rng.integers(1, 1_000)), part))
    return found


HUNDRED = hundred()


def in_parts(update: HeldUpdate, count: int) -> HeldUpdate:
    edges = [LARGE * number // count for number in range(count + 1)]
    parts = [part for start, stop in pairwise(edges) for part in update.parts(start, stop)]
    return replace(update, held=tuple(parts))


def in_other_ways(
    combining: Combining, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Combined, list[int] | range]]:
    """What comes of the 100 updates in another order, in parts, over other ranges, on threads; and the order."""
    order = np.random.default_rng(7).permutation(100).tolist()
    yield combine_by(combining, [HUNDRED[at] for at in order]), order
    yield combine_by(combining, [in_parts(update, 5) for update in HUNDRED]), range(100)
    yield combine_by(combining, HUNDRED, threads=4), range(100)
    for width in (LARGE // 3 + 1, 4_001):
        monkeypatch.setattr(means, "WIDTH_MAX", width)
        ranges = [(start, min(start + width, LARGE)) for start in range(0, LARGE, width)]
        yield RULES[combining.rule.name](Work(combining, clipped(combining.clip, HUNDRED), ranges, 2)), range(100)
    mixed = [in_parts(HUNDRED[at], 3) for at in reversed(order)]
    yield combine_by(combining, mixed, threads=3), order[::-1]


@pytest.mark.parametrize("name", sorted(RULE_KEYS))
def test_permuting_splitting_sharding_and_threads_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    combining = Combining(LARGE, rule_of(name), ClipTerms(median_ppm=PPM), 3, True, True)
    expected = seen(combine_by(combining, HUNDRED), LARGE)
    assert any(expected.step)
    for found, order in in_other_ways(combining, monkeypatch):
        other = seen(found, LARGE)
        assert (other.step, other.carriers, other.votes) == (expected.step, expected.carriers, expected.votes)
        assert [sorted(order[at] for at in members) for members, _ in other.clusters] == [
            members for members, _ in expected.clusters
        ]
        assert [step for _, step in other.clusters] == [step for _, step in expected.clusters]


@pytest.mark.parametrize("name", sorted(RULE_KEYS))
def test_numba_changes_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    combining = Combining(LARGE, rule_of(name), None, 3, True, True)
    expected = seen(combine_by(combining, HUNDRED), LARGE)
    calls: list[str] = []

    def counted(called: str) -> object:
        def call(*arguments: object) -> None:
            calls.append(called)
            getattr(kernels, called)(*arguments)

        return call

    recording = SimpleNamespace(**{each: counted(each) for each in ("add_at", "add_both_at", "count_at")})
    monkeypatch.setattr(fast._Loaded, "tried", True)
    monkeypatch.setattr(fast._Loaded, "kernels", recording)
    monkeypatch.setattr(fast, "LARGE_PART", 100)
    assert seen(combine_by(combining, HUNDRED), LARGE) == expected
    assert "count_at" in calls
    assert name not in (WEIGHTED_MEAN, UNION_MEAN) or {"add_at", "add_both_at"} & set(calls)
