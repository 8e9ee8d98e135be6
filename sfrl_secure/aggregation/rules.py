"""Aggregation rules: what a round's terms may name, and what each one does with a cohort.

A mean takes an update in when it arrives, and holds none. Every other rule has to see the whole cohort, some of them
twice: first what updates are to each other, over all coordinates; then range by range. What comes of a cohort depends
on the set of its updates alone, whatever their order, the ranges and the threads. A further rule is a further row of
`RULES`.

Format: proto/README.md, "Aggregation": clip and rule. Cap and server step are behind it: see `cap`, `server_step`.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final, NamedTuple

from sfrl_secure.aggregation.clip import clipped
from sfrl_secure.aggregation.clusters import clusters_by
from sfrl_secure.aggregation.combined import CONTRIBUTIONS_MAX, Combined, Combining, combining_of
from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.means import combine_mean, count_cohort, wide_ranges
from sfrl_secure.aggregation.median import median_over
from sfrl_secure.aggregation.members import mean_over
from sfrl_secure.aggregation.multi_krum import selected_by
from sfrl_secure.aggregation.nnm_trimmed_mean import neighbourhoods_by, trimmed_mean_over
from sfrl_secure.aggregation.products import Products, products_over
from sfrl_secure.aggregation.running import MEANS, RunningMean, RunningRule
from sfrl_secure.aggregation.tiles import Range, StepParts, over_ranges, ranges_of
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    WEIGHTED_MEAN,
)
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.limits import WEIGHT_SUM_MAX
from sfrl_secure.sparse.update import UpdatePart


class Work(NamedTuple):
    """A cohort after the clip, and how it is gone through.

    Attributes:
        ranges: of the model, so that each holds a bounded number of values.
    """

    combining: Combining
    cohort: Sequence[Contribution]
    ranges: Sequence[Range]
    threads: int

    def joined(self, over: Callable[[int, int], UpdatePart], ranges: Sequence[Range] | None = None) -> UpdatePart:
        """One step of what `over` makes of each range, which it numbers from the range's start."""
        step = StepParts(self.combining.coordinates)
        for start, _, part in over_ranges(over, self.ranges if ranges is None else ranges, threads=self.threads):
            step.put(start, part)
        return step.step()

    def mean_of(self, members: Sequence[int], *, weighted: bool) -> UpdatePart:
        """The mean of some updates, positions in the cohort."""
        ranges = wide_ranges(self.cohort, self.combining.coordinates, self.threads)
        return self.joined(partial(mean_over, self.cohort, members=members, weighted=weighted), ranges)

    def products(self) -> Products:
        """What updates are to each other, over all coordinates."""
        total = Products.nothing(len(self.cohort))
        for _, _, products in over_ranges(partial(products_over, self.cohort), self.ranges, threads=self.threads):
            total += products
        return total


def combine(terms: SegmentTerms, cohort: Sequence[Contribution], *, threads: int = 1) -> Combined:
    """What clip and rule of the terms make of a round's updates; with carriers and votes where the terms need them.

    Args:
        cohort: at least one, in any order, before the clip.
        threads: at most so many at once; the same result with any.

    Raises:
        MalformedError: an update, a weight or the number of updates is out of bounds, or an update is there twice.
    """
    return combine_by(combining_of(terms), cohort, threads=threads)


def combine_by(combining: Combining, cohort: Sequence[Contribution], *, threads: int = 1) -> Combined:
    """The same for whoever has no terms."""
    _check_cohort(combining, cohort)
    cohort = clipped(combining.clip, cohort)
    work = Work(combining, cohort, ranges_of(cohort, combining.coordinates), threads)
    return RULES[combining.rule.name](work)


def begin_rule(terms: SegmentTerms) -> RunningRule | None:
    """Begin with no updates, and take each in when it arrives; None where the terms want the whole cohort at once.

    What comes of it is what `combine` gives.
    """
    return begin_rule_by(combining_of(terms))


def begin_rule_by(combining: Combining) -> RunningRule | None:
    """The same for whoever has no terms."""
    clip = combining.clip
    if combining.rule.name not in MEANS or (clip is not None and clip.norm is None):
        return None
    return RunningMean(combining)


def _mean(work: Work) -> Combined:
    return combine_mean(work.combining, work.cohort, threads=work.threads)


def _nnm_trimmed_mean(work: Work) -> Combined:
    neighbourhoods = neighbourhoods_by(work.combining.rule, work.cohort, work.products())
    return _counted(work, work.joined(partial(trimmed_mean_over, work.cohort, neighbourhoods=neighbourhoods)))


def _multi_krum(work: Work) -> Combined:
    selected = selected_by(work.combining.rule, work.cohort, work.products())
    return _counted(work, work.mean_of(selected, weighted=False))


def _median(work: Work) -> Combined:
    return _counted(work, work.joined(partial(median_over, work.cohort)))


def _clustered_mean(work: Work) -> Combined:
    found = clusters_by(work.combining.rule, work.combining.cohort_min, work.cohort, work.products())
    clusters = tuple((members, work.mean_of(members, weighted=True)) for members in found)
    return _counted(work, work.mean_of(range(len(work.cohort)), weighted=True), clusters)


def _counted(
    work: Work, step: UpdatePart, clusters: tuple[tuple[tuple[int, ...], UpdatePart], ...] = ()
) -> Combined:
    carriers, votes = count_cohort(work.combining, work.cohort, threads=work.threads)
    return Combined(step, carriers, votes, clusters)


RULES: Final[Mapping[str, Callable[[Work], Combined]]] = MappingProxyType({
    WEIGHTED_MEAN: _mean,
    UNION_MEAN: _mean,
    NNM_TRIMMED_MEAN: _nnm_trimmed_mean,
    MULTI_KRUM: _multi_krum,
    MEDIAN: _median,
    CLUSTERED_MEAN: _clustered_mean,
})  # fmt: skip
"""Each rule by its name in the terms."""


def _check_cohort(combining: Combining, cohort: Sequence[Contribution]) -> None:
    if combining.rule.name not in RULES:
        raise MalformedError("the terms name another rule")
    if not 1 <= len(cohort) <= CONTRIBUTIONS_MAX:
        raise MalformedError(f"1 to {CONTRIBUTIONS_MAX} updates are added up")
    if min(update.weight for update in cohort) < 1 or sum(update.weight for update in cohort) > WEIGHT_SUM_MAX:
        raise MalformedError(f"weights are at least 1 and at most {WEIGHT_SUM_MAX} together")
    if len({update.tie for update in cohort}) < len(cohort):
        raise MalformedError("an update is in a cohort once")
