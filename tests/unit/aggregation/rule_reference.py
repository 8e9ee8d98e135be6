"""Clip, rules and counts once more, slowly and plainly, with Python's integers, to compare the fast ones with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt

from hypothesis import strategies as st

from sfrl_secure.aggregation.combined import Combined, Combining
from sfrl_secure.aggregation.contribution import Contribution
from sfrl_secure.aggregation.rules import begin_rule_by
from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    LIARS_PPM_MAX,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    PPM,
    RULE_KEYS,
    UNION_MEAN,
    WEIGHTED_MEAN,
    ClipTerms,
    RuleTerms,
)

from . import robust_reference as slow
from .robust_reference import WIDTH, Plain, spread

SOME_PARAMETERS = {"liars_ppm": 200_000, "selected_ppm": 300_000, "alike_ppm": 50_000}


@dataclass(frozen=True)
class Expected:
    """What comes of a cohort: a value for each coordinate, counts, and clusters with their steps."""

    step: list[int]
    carriers: list[int]
    votes: list[int]
    clusters: list[tuple[list[int], list[int]]]


def rules(name: str) -> st.SearchStrategy[RuleTerms]:
    """Rules of this name, at the ends of their parameters and between."""
    bounds = {"liars_ppm": (0, LIARS_PPM_MAX), "selected_ppm": (0, PPM), "alike_ppm": (1, PPM)}
    drawn = {key: st.integers(*bounds[key]) | st.sampled_from(bounds[key]) for key in RULE_KEYS[name]}
    return st.builds(RuleTerms, st.just(name), **drawn)


clips = st.one_of(
    st.none(),
    st.integers(1, 2**62).map(lambda norm: ClipTerms(norm=norm)),
    st.integers(1, 50).map(lambda norm: ClipTerms(norm=norm)),
    st.integers(1, 10 * PPM).map(lambda ppm: ClipTerms(median_ppm=ppm)),
    st.sampled_from([ClipTerms(norm=1), ClipTerms(norm=2**40), ClipTerms(median_ppm=PPM)]),
)


def norm(update: Plain) -> int:
    return isqrt(sum(value * value for value in update.values))


def clipped(cohort: list[Plain], clip: ClipTerms | None) -> list[Plain]:
    if clip is None:
        return cohort
    norms = sorted(norm(update) for update in cohort)
    bound = clip.norm
    if clip.median_ppm is not None:
        bound = norms[(len(cohort) - 1) // 2] * clip.median_ppm // 10**6
    found = []
    for update in cohort:
        if norm(update) > bound:
            q = 2**20 * bound // (norm(update) + 1)
            shrunk = {at: round(Fraction(value * q, 2**20)) for at, value in update.carried.items()}
            update = replace(update, carried=shrunk)
        found.append(update)
    return found


def carries(update: Plain, at: int) -> bool:
    return update.dense or at in update.carried


def union_mean(cohort: list[Plain]) -> list[int]:
    found = []
    for at in range(WIDTH):
        weights = sum(update.weight for update in cohort if carries(update, at))
        total = sum(update.weight * update.values[at] for update in cohort)
        found.append(round(Fraction(total, weights)) if weights else 0)
    return found


def combined(rule: RuleTerms, clip: ClipTerms | None, cohort_min: int, given: list[Plain]) -> Expected:
    """What the specification says comes of a cohort."""
    cohort = clipped(given, clip)
    clusters: list[tuple[list[int], list[int]]] = []
    if rule.name == WEIGHTED_MEAN:
        step = slow.mean(cohort, True)
    elif rule.name == UNION_MEAN:
        step = union_mean(cohort)
    elif rule.name == NNM_TRIMMED_MEAN:
        step = slow.nnm_trimmed_mean(cohort, rule.liars_ppm)
    elif rule.name == MULTI_KRUM:
        selected = slow.krum_selected(cohort, rule.liars_ppm, rule.selected_ppm)
        step = slow.mean([cohort[at] for at in selected], False)
    elif rule.name == MEDIAN:
        step = slow.median(cohort)
    else:
        assert rule.name == CLUSTERED_MEAN
        step = slow.mean(cohort, True)
        for members in slow.clusters(cohort, rule.alike_ppm, cohort_min):
            clusters.append((members, slow.mean([cohort[at] for at in members], True)))
    carriers = [sum(carries(update, at) for update in cohort) for at in range(WIDTH)]
    votes = [sum(update.values[at] != 0 for update in cohort) for at in range(WIDTH)]
    return Expected(step, carriers, votes, clusters)




def rule_of(name: str) -> RuleTerms:
    return RuleTerms(name, **{key: SOME_PARAMETERS[key] for key in RULE_KEYS[name]})


def seen(found: Combined, coordinates: int = WIDTH) -> Expected:
    """What was combined, in the reference's form."""
    return Expected(
        spread(found.step, coordinates),
        [] if found.carriers is None else found.carriers.tolist(),
        [] if found.votes is None else found.votes.tolist(),
        [(list(members), spread(step, coordinates)) for members, step in found.clusters],
    )


def streamed(combining: Combining, cohort: list[Contribution]) -> Combined | None:
    """The same by the rule that takes updates in as they arrive; None where there is none."""
    running = begin_rule_by(combining)
    if running is None:
        return None
    for update in cohort:
        running.enter(update.weight, update.norm)
        for part in update.parts(0, combining.coordinates):
            running.add_part(part, update.weight, update.norm)
    return running.finish()
