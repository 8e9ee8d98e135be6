"""The robust rules once more, slowly and plainly, with Python's integers; and how the fast ones are asked.

The slow ones take `Plain` updates, as `cohorts` draws them: for each its tie, its weight, and its values by coordinate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from hashlib import sha256
from itertools import pairwise

import numpy as np
from hypothesis import strategies as st

from sfrl_secure.aggregation.clusters import clusters_by
from sfrl_secure.aggregation.contribution import Contribution, held
from sfrl_secure.aggregation.multi_krum import selected_by
from sfrl_secure.aggregation.nnm_trimmed_mean import neighbourhoods_by, trimmed_mean_over
from sfrl_secure.aggregation.products import Products, products_over
from sfrl_secure.aggregation.tiles import over_ranges
from sfrl_secure.governance.aggregation_terms import CLUSTERED_MEAN, MULTI_KRUM, NNM_TRIMMED_MEAN, RuleTerms
from sfrl_secure.ids import parse_digest
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart

WIDTH = 14
Ranges = list[tuple[int, int]]
WHOLE: Ranges = [(0, WIDTH)]


@dataclass(frozen=True)
class Plain:
    """One update: what it carries, by coordinate."""

    tie: bytes
    weight: int
    carried: dict[int, int]
    dense: bool = False

    @property
    def values(self) -> list[int]:
        """A value for each coordinate."""
        return [self.carried.get(at, 0) for at in range(WIDTH)]

    def contribution(self, cuts: tuple[int, ...] = ()) -> Contribution:
        """What the rules are given, in parts."""
        edges = [0, *cuts, WIDTH]
        parts = []
        for start, stop in pairwise(edges):
            if self.dense:
                parts.append(UpdatePart(slice(start, stop), np.array(self.values[start:stop], dtype=np.int64)))
            else:
                at = [each for each in sorted(self.carried) if start <= each < stop]
                parts.append(
                    UpdatePart(np.array(at, dtype=np.int64), np.array([self.carried[c] for c in at], dtype=np.int64))
                )
        return held(parse_digest(self.tie), self.weight, parts)


def plain(number: int, carried: dict[int, int] | list[int], weight: int = 1) -> Plain:
    """An update with a tie that its number gives."""
    values = dict(enumerate(carried)) if isinstance(carried, list) else carried
    return Plain(sha256(b"%d" % number).digest(), weight, values)


_values = st.one_of(
    st.integers(-3, 3),
    st.integers(-VALUE_MAX, VALUE_MAX),
    st.sampled_from([VALUE_MAX, -VALUE_MAX]),
    st.integers(-(2**31), 2**31),
    st.integers(-127, 127).map(lambda value: value << 22),
)


@st.composite
def cohorts(draw: st.DrawFn, largest: int = 9) -> list[Plain]:
    """Cohorts with free, shared and dense supports, of small, wide and repeated values."""
    count = draw(st.integers(1, largest))
    kind = draw(st.sampled_from(["free", "agreed", "dense", "mixed", "narrow"]))
    values = st.integers(-3, 3) if kind == "narrow" else _values
    shared = draw(st.sets(st.integers(0, WIDTH - 1), min_size=1))
    found: list[Plain] = []
    for number in range(count):
        how = draw(st.sampled_from(["free", "agreed", "dense"])) if kind == "mixed" else kind
        if found and draw(st.integers(0, 5)) == 0:
            carried, dense = found[0].carried, found[0].dense
        else:
            dense = how == "dense"
            support = {"agreed": shared, "dense": set(range(WIDTH))}.get(how)
            if support is None:
                support = draw(st.sets(st.integers(0, WIDTH - 1), max_size=4))
            carried = {at: draw(values) for at in sorted(support)}
        found.append(Plain(sha256(b"%d" % number).digest(), draw(st.integers(1, 99)), carried, dense))
    return found


def contributions(cohort: list[Plain], cuts: tuple[int, ...] = ()) -> list[Contribution]:
    """The cohort as the rules are given it."""
    return [each.contribution(cuts) for each in cohort]


def all_products(cohort: list[Contribution], ranges: Ranges = WHOLE, threads: int = 1) -> Products:
    """The products over all coordinates, added up range by range."""
    total = Products.nothing(len(cohort))
    for _, _, found in over_ranges(
        lambda start, stop: products_over(cohort, start, stop), ranges, threads=threads
    ):
        total = total + found
    return total


def spread(part: UpdatePart, width: int = WIDTH) -> list[int]:
    """All values of a part of a range."""
    whole = np.zeros(width, dtype=np.int64)
    whole[part.at] = part.values
    return whole.tolist()


def joined(work: Callable[[int, int], UpdatePart], ranges: Ranges, threads: int) -> list[int]:
    return [
        value
        for start, stop, part in over_ranges(work, ranges, threads=threads)
        for value in spread(part, stop - start)
    ]


def nnm(cohort: list[Contribution], liars: int, ranges: Ranges = WHOLE, threads: int = 1) -> list[int]:
    rule = RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=liars)
    near = neighbourhoods_by(rule, cohort, all_products(cohort, ranges, threads))
    return joined(lambda start, stop: trimmed_mean_over(cohort, start, stop, near), ranges, threads)


def krum(cohort: list[Contribution], liars: int, selected: int) -> tuple[int, ...]:
    return selected_by(RuleTerms(MULTI_KRUM, liars_ppm=liars, selected_ppm=selected), cohort, all_products(cohort))


def grouped(cohort: list[Contribution], alike: int, cohort_min: int) -> list[list[int]]:
    found = clusters_by(RuleTerms(CLUSTERED_MEAN, alike_ppm=alike), cohort_min, cohort, all_products(cohort))
    return [list(each) for each in found]


def distance(one: Plain, other: Plain) -> int:
    return sum((a - b) ** 2 for a, b in zip(one.values, other.values, strict=True))


def product(one: Plain, other: Plain) -> int:
    return sum(a * b for a, b in zip(one.values, other.values, strict=True))


def nnm_trimmed_mean(cohort: list[Plain], liars_ppm: int) -> list[int]:
    n = len(cohort)
    f = n * liars_ppm // 10**6
    mixed = []
    for one in cohort:
        others = sorted((other for other in cohort if other is not one), key=lambda o: (distance(one, o), o.tie))
        near = [one, *others[: n - f - 1]]
        mixed.append([sum(each) for each in zip(*(update.values for update in near), strict=True)])
    return [
        round(Fraction(sum(sorted(column)[f : n - f]), (n - f) * (n - 2 * f))) for column in zip(*mixed, strict=True)
    ]


def krum_selected(cohort: list[Plain], liars_ppm: int, selected_ppm: int) -> list[int]:
    n = len(cohort)
    f = n * liars_ppm // 10**6
    k = min(n - 1, max(1, n - f - 2))

    def score(one: Plain) -> int:
        return sum(sorted(distance(one, other) for other in cohort if other is not one)[:k])

    m = max(1, n * selected_ppm // 10**6)
    return sorted(sorted(range(n), key=lambda at: (score(cohort[at]), cohort[at].tie))[:m])


def mean(cohort: list[Plain], weighted: bool) -> list[int]:
    weights = [each.weight if weighted else 1 for each in cohort]
    columns = zip(*(each.values for each in cohort), strict=True)
    return [
        round(Fraction(sum(w * v for w, v in zip(weights, column, strict=True)), sum(weights))) for column in columns
    ]


def median(cohort: list[Plain]) -> list[int]:
    found = []
    for column in zip(*(each.values for each in cohort), strict=True):
        ordered, half = sorted(column), len(cohort) // 2
        found.append(ordered[half] if len(cohort) % 2 else round(Fraction(ordered[half - 1] + ordered[half], 2)))
    return found


def clusters(cohort: list[Plain], alike_ppm: int, cohort_min: int) -> list[list[int]]:
    n = len(cohort)
    group = list(range(n))
    for one in range(n):
        for other in range(one):
            p = product(cohort[one], cohort[other])
            own = product(cohort[one], cohort[one]) * product(cohort[other], cohort[other])
            if p > 0 and p**2 * 10**12 >= alike_ppm**2 * own:
                group = [group[other] if each == group[one] else each for each in group]
    groups = [[at for at in range(n) if group[at] == name] for name in sorted(set(group))]
    groups.sort(key=lambda members: (-len(members), min(cohort[at].tie for at in members)))
    rest = [at for members in groups if len(members) < cohort_min for at in members]
    groups = [members for members in groups if len(members) >= cohort_min]
    for further in groups[8:]:
        rest += further
    groups = groups[:8]
    while groups and 1 <= len(rest) < cohort_min:
        rest += groups.pop()
    return groups
