"""Means and counts of a cohort that is all there: each part is checked, and ranges are as wide as it pays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from sfrl_secure.aggregation import means
from sfrl_secure.aggregation.combined import Combining
from sfrl_secure.aggregation.contribution import HeldUpdate, held
from sfrl_secure.aggregation.means import combine_mean, count_cohort, wide_ranges
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import RuleTerms
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.update import UpdatePart

from .robust_reference import WIDTH

COMBINING = Combining(WIDTH, RuleTerms(), with_carriers=True)


class Leaking:
    """An update that gives these parts, whatever range it is asked for."""

    tie, weight, norm, nonzeros = sha256(b"tie"), 1, 1, 1

    def __init__(self, *parts: UpdatePart) -> None:
        self._parts = parts

    def parts(self, start: int, stop: int) -> Iterator[UpdatePart]:
        yield from self._parts


@pytest.mark.parametrize("work", [combine_mean, count_cohort])
def test_an_update_that_gives_what_it_was_not_asked_for_is_refused(work: object) -> None:
    one = UpdatePart(np.array([3]), np.array([1]))
    outside, before = UpdatePart(np.array([WIDTH]), np.array([1])), UpdatePart(slice(-1, 0), np.array([1]))
    for parts in ([outside], [before], [one, one]):
        with pytest.raises(MalformedError):
            work(COMBINING, [Leaking(*parts)])  # type: ignore[operator]
    work(COMBINING, [Leaking(one)])  # type: ignore[operator]


def update_of(nonzeros: int) -> HeldUpdate:
    return held(sha256(b"tie"), 1, UpdatePart(np.arange(nonzeros), np.ones(nonzeros, dtype=np.int64)))


def test_ranges_are_all_of_the_model_and_wider_where_updates_are_sparser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(means, "WIDTH", 1_000)
    monkeypatch.setattr(means, "WIDTH_MAX", 50_000)
    monkeypatch.setattr(means, "PART_VALUES", 100)
    for nonzeros, threads, width in (
        (100_000, 1, 1_000), (10_000, 1, 1_000), (1_000, 1, 10_000), (1, 1, 50_000), (1, 4, 25_000), (0, 1, 50_000),
    ):  # fmt: skip
        ranges = wide_ranges([update_of(nonzeros)] * 3, 100_000, threads)
        assert ranges == [(start, start + width) for start in range(0, 100_000, width)]


def test_nobody_counts_what_nobody_asked_for() -> None:
    assert count_cohort(Combining(WIDTH, RuleTerms()), [update_of(2)]) == (None, None)
    carriers, votes = count_cohort(COMBINING, [update_of(2)])
    assert votes is None
    assert carriers is not None
    assert carriers.tolist() == [1, 1] + [0] * (WIDTH - 2)
