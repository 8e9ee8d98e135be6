"""Rules that add an update when it arrives: the means, where it is known beforehand how much of it counts.

Such a rule holds sums and no update. One that falls out of a round is taken out again as exactly, by whoever reads it
again.

Format: proto/README.md, "Rules", "Clip".

Runs in: aggregator.
Trusts: the admission, which decoded the updates; bounds are checked again here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Protocol

from sfrl_secure.aggregation.clip import clip_bound, clip_factor, scaled
from sfrl_secure.aggregation.combined import CONTRIBUTIONS_MAX, Combined, Combining
from sfrl_secure.aggregation.counts import PresenceCounts
from sfrl_secure.aggregation.parts import check_part
from sfrl_secure.aggregation.union_mean import UnionMean
from sfrl_secure.aggregation.weighted_mean import WeightedMean
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import UNION_MEAN, WEIGHTED_MEAN
from sfrl_secure.sparse.update import UpdatePart


class RunningRule(Protocol):
    """A rule over the updates that are in it so far.

    Each is entered with its weight and its measured norm, which come with each of its parts again.
    """

    @property
    def is_empty(self) -> bool:
        """Whether it is as if it had just been begun, by its own word: once finished it may be, or be used up."""
        ...

    def enter(self, weight: int, norm: int) -> None:
        """Begin with one more update."""
        ...

    def add_part(self, part: UpdatePart, weight: int, norm: int) -> None:
        """Take a part of it in."""
        ...

    def take_out_part(self, part: UpdatePart, weight: int, norm: int) -> None:
        """Take a part out again."""
        ...

    def leave(self, weight: int, norm: int) -> None:
        """End with an update whose parts were all taken out."""
        ...

    def finish(self, *, threads: int = 1) -> Combined:
        """Give what comes of all that is inside, which is used up; the same with any number of threads."""
        ...


MEANS: Final[Mapping[str, type[WeightedMean] | type[UnionMean]]] = MappingProxyType({
    WEIGHTED_MEAN: WeightedMean,
    UNION_MEAN: UnionMean,
})  # fmt: skip
"""Rules that are a sum and a division."""


class RunningMean:
    """A mean, with the counts that somebody wants. See `RunningRule`.

    Takes 8 bytes a coordinate, 4 more for the union's weights, 2 for counts, and 2 more once zeros are carried
    and counted.
    """

    def __init__(self, combining: Combining) -> None:
        """Begin with no updates; the rule is a mean, and the clip, if there is one, is fixed.

        Raises:
            MalformedError: the number of coordinates is out of range.
        """
        assert combining.clip is None or combining.clip.norm is not None, "a median is known once all are there"
        self._mean = MEANS[combining.rule.name](combining.coordinates)
        self._coordinates = combining.coordinates
        self._bound = None if combining.clip is None else clip_bound(combining.clip, ())
        self._with_carriers, self._with_votes = combining.with_carriers, combining.with_votes
        counted = combining.with_carriers or combining.with_votes
        self._counts = PresenceCounts(combining.coordinates) if counted else None
        self._updates = 0
        self._is_used_up = False

    @property
    def is_empty(self) -> bool:
        """See `RunningRule`."""
        return not self._is_used_up and self._mean.is_empty

    def enter(self, weight: int, norm: int) -> None:
        """See `RunningRule`.

        Raises:
            MalformedError: a bound of weights does not hold, or there are too many updates; nothing was entered.
        """
        if self._updates == CONTRIBUTIONS_MAX:
            raise MalformedError(f"at most {CONTRIBUTIONS_MAX} updates are added up")
        self._mean.enter(weight)
        self._updates += 1

    def add_part(self, part: UpdatePart, weight: int, norm: int) -> None:
        """See `RunningRule`.

        Raises:
            MalformedError: an index or a value is out of bounds; nothing was added.
        """
        check_part(part, self._coordinates)
        self.add_checked_part(part, weight, norm)

    def add_checked_part(self, part: UpdatePart, weight: int, norm: int) -> None:
        """The same for a part that was checked: no overflow, and nothing outside."""
        part = self._after_clip(part, norm)
        self._mean.move(part, weight)
        if self._counts is not None:
            self._counts.add_part(part)

    def take_out_part(self, part: UpdatePart, weight: int, norm: int) -> None:
        """See `RunningRule`.

        Raises:
            MalformedError: an index or a value is out of bounds, so that it never was inside; nothing was taken out.
        """
        check_part(part, self._coordinates)
        part = self._after_clip(part, norm)
        self._mean.move(part, -weight)
        if self._counts is not None:
            self._counts.take_out_part(part)

    def leave(self, weight: int, norm: int) -> None:
        """See `RunningRule`."""
        self._mean.leave(weight)
        self._updates -= 1

    def finish(self, *, threads: int = 1) -> Combined:
        """See `RunningRule`.

        Raises:
            MalformedError: no update is in it.
        """
        step = self._mean.step(threads=threads)
        self._updates = 0
        if self._counts is None:
            return Combined(step)
        # The counts are the caller's now.
        self._is_used_up = True
        return Combined(
            step,
            self._counts.carriers() if self._with_carriers else None,
            self._counts.votes() if self._with_votes else None,
        )

    def _after_clip(self, part: UpdatePart, norm: int) -> UpdatePart:
        factor = None if self._bound is None else clip_factor(self._bound, norm)
        return part if factor is None else scaled(part, factor)
