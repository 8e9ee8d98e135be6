"""The rows of the tables: a rule, what stands before and behind it, and how participants send.

Runs in: a developer's machine.
Trusts: its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from benchmarks.robustness import plain_rules
from benchmarks.robustness.plain_rules import TRIMMED_MEAN
from sfrl_secure.aggregation.cap import capped
from sfrl_secure.aggregation.clip import clipped
from sfrl_secure.aggregation.combined import Combined, Combining
from sfrl_secure.aggregation.contribution import Contribution, held
from sfrl_secure.aggregation.rules import combine_by
from sfrl_secure.governance.aggregation_terms import (
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    PPM,
    UNION_MEAN,
    WEIGHTED_MEAN,
    CapTerms,
    ClipTerms,
    MomentumTerms,
    RuleTerms,
    ServerTerms,
)
from sfrl_secure.ids import Digest
from sfrl_secure.sparse.update import UpdatePart

RULE_NAMES = MappingProxyType({
    WEIGHTED_MEAN: "mean",
    UNION_MEAN: "union mean",
    TRIMMED_MEAN: "trimmed mean",
    NNM_TRIMMED_MEAN: "NNM + trimmed mean",
    MULTI_KRUM: "multi-Krum",
    MEDIAN: "median",
})  # fmt: skip

MEDIAN_CLIP = ClipTerms(median_ppm=PPM)
"""The norm gate of the tables: nobody is longer than the round's median."""

SERVER_RATE = MomentumTerms(decay=0, rate=131_072)
"""Twice what the rule gives, no memory: small local steps and a larger one of all lose less where mixtures differ."""

DENSITIES = MappingProxyType({"dense": 1.0, "free": 0.1, "agreed": 0.25})
"""Share of the coordinates that an update of each support carries. A mask that never changes needs more of them."""


@dataclass(frozen=True, slots=True)
class Row:
    """A way to add up, and to send.

    Attributes:
        support: `dense`, `free` or `agreed`.
        participant_momentum: decay of the running mean that is sent; 0 for none.
        told: how many liars the rule is told of, where there are fewer.
        server_top: SparseFed's server top-k (Panda and others 2022): of a step only so large a share is taken, and the
            rest is kept for the next. No part of the protocol, only tried; 0 for none.
        change: what is unlike the other rows, in words.
        is_plain: whether the plain rules add up, and not the library's: the same bits.
    """

    rule: str
    support: str = "dense"
    clip: ClipTerms | None = None
    cap: CapTerms | None = None
    server: ServerTerms | None = SERVER_RATE
    participant_momentum: float = 0.0
    told: int = 0
    server_top: float = 0.0
    change: str = ""
    is_plain: bool = False

    @property
    def is_bare(self) -> bool:
        """Whether the rule stands alone: no momentum, no clip, no cap, and the step that it gives is the server's."""
        return not (self.participant_momentum or self.clip or self.cap or self.server or self.server_top)

    @property
    def label(self) -> str:
        """The row in words."""
        gate = "" if self.clip is None else ", clip to the median" if self.clip == MEDIAN_CLIP else ", other clip"
        rule = f"bare {RULE_NAMES[self.rule]}" if self.is_bare else RULE_NAMES[self.rule]
        return f"{self.support}, {rule}{gate}" + (f", {self.change}" if self.change else "")


def bare(rule: str, support: str, told: int = 0) -> Row:
    """A rule without anything of what the default brings along: no clip, server rate 1."""
    return Row(rule, support, server=None, told=told)


def combined_step(
    row: Row, updates: Sequence[UpdatePart], ties: Sequence[Digest], liars: int, coordinates: int
) -> UpdatePart:
    """What clip, rule and cap make of the updates."""
    liars = max(liars, row.told)
    cohort = [held(tie, 1, update) for tie, update in zip(ties, updates, strict=True)]
    if row.is_plain or row.rule == TRIMMED_MEAN:
        return _plain_step(row, clipped(row.clip, cohort), liars, coordinates)
    rule = RuleTerms(row.rule)
    if row.rule in (NNM_TRIMMED_MEAN, MULTI_KRUM):
        rule = replace(rule, liars_ppm=liars_ppm(liars, len(cohort)))
    if row.rule == MULTI_KRUM:
        rule = replace(rule, selected_ppm=liars_ppm(len(cohort) - liars, len(cohort)))
    combined = combine_by(Combining(coordinates, rule, row.clip, with_carriers=row.cap is not None), cohort)
    return combined.step if row.cap is None else capped(row.cap, combined)


def liars_ppm(liars: int, count: int) -> int:
    """The least share of a cohort that comes down to so many."""
    return -(-liars * PPM // count)


def _plain_step(row: Row, cohort: Sequence[Contribution], liars: int, coordinates: int) -> UpdatePart:
    table, carried = plain_rules.table_of(cohort, coordinates)
    ties = [update.tie for update in cohort]
    match row.rule:
        case plain_rules.TRIMMED_MEAN:
            step = plain_rules.trimmed_mean(table, liars)
        case "weighted_mean/v1":
            step = plain_rules.mean(table)
        case "union_mean/v1":
            step = plain_rules.union_mean(table, carried)
        case "nnm_trimmed_mean/v1":
            step = plain_rules.nnm_trimmed_mean(table, ties, liars)
        case "multi_krum/v1":
            step = plain_rules.multi_krum(table, ties, liars, len(cohort) - liars)
        case _:
            step = plain_rules.median(table)
    part = UpdatePart(slice(0, coordinates), step)
    return part if row.cap is None else capped(row.cap, Combined(part, carried.sum(axis=0, dtype=np.uint16)))
