"""The clip: an update that is longer than a bound is made as long, before any rule sees it.

Its length is the measured norm of its log entry, so that how much it shrinks is known before its payload is read. All
values of one update shrink by one factor, a whole number of 2**20ths, and each is rounded once, half to even. What it
carries it still carries, also where a value has become zero.

Format: proto/README.md, "Clip".

Runs in: aggregator.
Trusts: the measured norms, which the admission took from the payloads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sfrl_secure.aggregation.contribution import Contribution, checked_parts
from sfrl_secure.governance.aggregation_terms import PPM, ClipTerms
from sfrl_secure.ids import Digest
from sfrl_secure.sparse.update import UpdatePart

_FACTOR_BITS = 20


def clip_bound(clip: ClipTerms, norms: Sequence[int]) -> int:
    """The norm that no update keeps more of: fixed, or by the cohort's median, the lower one of an even number.

    Args:
        norms: of all updates of the cohort, in any order; 1 or more where the bound is not fixed.
    """
    if clip.norm is not None:
        return clip.norm
    assert clip.median_ppm is not None, "a clip has a norm or a share of the median"
    median = sorted(norms)[(len(norms) - 1) // 2]
    return median * clip.median_ppm // PPM


def clip_factor(bound: int, norm: int) -> int | None:
    """How many 2**20ths of its values an update of this norm keeps, below 2**20; None where it stays as it is."""
    return None if norm <= bound else (bound << _FACTOR_BITS) // (norm + 1)


def scaled(part: UpdatePart, factor: int) -> UpdatePart:
    """A part with each value times `factor` / 2**20, rounded half to even.

    Args:
        part: one that `check_part` took: of values up to 2**40, products stay below 2**60.
    """
    values = part.values * np.int64(factor)
    # Half a unit less a bit, and that bit where the result would be odd; then down.
    values += (1 << (_FACTOR_BITS - 1)) - 1 + ((values >> _FACTOR_BITS) & 1)
    values >>= _FACTOR_BITS
    return UpdatePart(part.at, values)


@dataclass(frozen=True, slots=True, eq=False)
class ClippedUpdate:
    """An update whose values shrink as they are read. Its norm is still the measured one."""

    update: Contribution
    factor: int

    @property
    def tie(self) -> Digest:
        """See `Contribution`."""
        return self.update.tie

    @property
    def weight(self) -> int:
        """See `Contribution`."""
        return self.update.weight

    @property
    def norm(self) -> int:
        """See `Contribution`."""
        return self.update.norm

    @property
    def nonzeros(self) -> int:
        """See `Contribution`."""
        return self.update.nonzeros

    def parts(self, start: int, stop: int) -> Iterator[UpdatePart]:
        """See `Contribution`.

        Raises:
            MalformedError: a part is not one of this range, or a value is too large.
        """
        for part in checked_parts(self.update, start, stop):
            yield scaled(part, self.factor)


def clipped(clip: ClipTerms | None, cohort: Sequence[Contribution]) -> Sequence[Contribution]:
    """The cohort after the clip."""
    if clip is None or not cohort:
        return cohort
    bound = clip_bound(clip, [update.norm for update in cohort])
    factors = [clip_factor(bound, update.norm) for update in cohort]
    return [
        update if factor is None else ClippedUpdate(update, factor)
        for update, factor in zip(cohort, factors, strict=True)
    ]
