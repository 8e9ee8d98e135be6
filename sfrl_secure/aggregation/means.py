"""Means and counts of a whole cohort, range by range: what `RunningMean` gives, to the last bit.

For updates that are all there, on several threads. One part of one update is held at a time, so that ranges are as
wide as it pays, however many updates there are.

Format: proto/README.md, "Rules".

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sfrl_secure.aggregation.combined import Combined, Combining
from sfrl_secure.aggregation.contribution import Contribution, checked_parts
from sfrl_secure.aggregation.counts import Counts, PresenceCounts
from sfrl_secure.aggregation.large_arrays import zeros
from sfrl_secure.aggregation.parts import moved_part
from sfrl_secure.aggregation.running import RunningMean
from sfrl_secure.aggregation.tiles import Range, StepParts, over_ranges

WIDTH = 2**20
"""Coordinates of a range: 8 MiB of sums stay in the processor's cache while one update after the other is added."""

WIDTH_MAX = 2**24
"""Coordinates of a range at most: 128 MiB of sums."""

PART_VALUES = 2**13
"""Values of one update in a range, if there are so many: to add fewer costs less than to ask for them."""


def combine_mean(combining: Combining, cohort: Sequence[Contribution], *, threads: int = 1) -> Combined:
    """The mean of a cohort, one that `RunningMean` knows, with the counts that somebody wants.

    Args:
        cohort: 1 or more, after the clip.

    Raises:
        MalformedError: a part or a weight is out of bounds.
    """
    coordinates = combining.coordinates

    def work(start: int, stop: int) -> Combined:
        running = RunningMean(replace(combining, coordinates=stop - start, clip=None))
        for update in cohort:
            running.enter(update.weight, update.norm)
            for part in checked_parts(update, start, stop):
                running.add_checked_part(moved_part(part, -start), update.weight, update.norm)
        return running.finish()

    step = StepParts(coordinates)
    carriers = _counts(coordinates) if combining.with_carriers else None
    votes = _counts(coordinates) if combining.with_votes else None
    for start, stop, found in over_ranges(work, wide_ranges(cohort, coordinates, threads), threads=threads):
        step.put(start, found.step)
        if carriers is not None and found.carriers is not None:
            carriers[start:stop] = found.carriers
        if votes is not None and found.votes is not None:
            votes[start:stop] = found.votes
    return Combined(step.step(), carriers, votes)


def count_cohort(
    combining: Combining, cohort: Sequence[Contribution], *, threads: int = 1
) -> tuple[Counts | None, Counts | None]:
    """Carriers and votes of a cohort after the clip, each where somebody wants it.

    Raises:
        MalformedError: a part is out of bounds.
    """
    if not combining.with_carriers and not combining.with_votes:
        return None, None
    coordinates = combining.coordinates

    def work(start: int, stop: int) -> PresenceCounts:
        counts = PresenceCounts(stop - start)
        for update in cohort:
            for part in checked_parts(update, start, stop):
                counts.add_part(moved_part(part, -start))
        return counts

    carriers = _counts(coordinates) if combining.with_carriers else None
    votes = _counts(coordinates) if combining.with_votes else None
    for start, stop, found in over_ranges(work, wide_ranges(cohort, coordinates, threads), threads=threads):
        if carriers is not None:
            carriers[start:stop] = found.carriers()
        if votes is not None:
            votes[start:stop] = found.votes()
    return carriers, votes


def wide_ranges(cohort: Sequence[Contribution], coordinates: int, threads: int) -> list[Range]:
    """Ranges for sums that hold one update at a time: at least one for each thread."""
    carried = max(sum(update.nonzeros for update in cohort), 1)
    width = min(max(WIDTH, PART_VALUES * coordinates * len(cohort) // carried), WIDTH_MAX)
    width = min(width, -(-coordinates // threads))
    return [(start, min(start + width, coordinates)) for start in range(0, coordinates, width)]


def _counts(coordinates: int) -> Counts:
    return zeros(coordinates, np.uint16)
