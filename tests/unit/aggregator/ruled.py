"""Federations whose terms use what a segment may ask of its aggregator, and rounds in them: see `CASES`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from simulator import MANIFEST, Simulator

from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    AdaptiveTerms,
    CapTerms,
    ClipTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.terms import RoundTerms, UpdateLimits

COUNT = MANIFEST.coordinates
AGREED = (0, 3, 7, 17)
NAMES = ("rover-1", "rover-2", "rover-3", "rover-4")
MOMENTUM = MomentumTerms(decay=40_000, rate=50_000)
ADAPTIVE = AdaptiveTerms(decay=40_000, decay_max=60_000, rate=2**12, floor=3)

CASES: dict[str, dict[str, Any]] = {
    "mean": {},
    "mean, capped": {"cap": CapTerms(3, 4), "server": MOMENTUM},
    "mean, clipped": {"clip": ClipTerms(norm=20)},
    "mean, clipped to the median": {"clip": ClipTerms(median_ppm=700_000), "server": ADAPTIVE},
    "mean, a mask by votes": {"next": NextMaskTerms("votes", 2)},
    "union": {"rule": RuleTerms(UNION_MEAN), "server": ADAPTIVE, "next": NextMaskTerms("contribution", 1)},
    "nnm": {"rule": RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=250_000), "cap": CapTerms(2, 2), "server": MOMENTUM},
    "krum": {"rule": RuleTerms(MULTI_KRUM, liars_ppm=250_000, selected_ppm=500_000), "clip": ClipTerms(norm=30)},
    "median": {"rule": RuleTerms(MEDIAN), "server": ADAPTIVE, "next": NextMaskTerms("saliency", 3)},
    "clusters": {"rule": RuleTerms(CLUSTERED_MEAN, alike_ppm=600_000), "next": NextMaskTerms("votes", 4)},
}
"""Terms by what is special about them: every rule is among them, every score, both clips and both server steps."""


def ruled(folder: Path, case: dict[str, Any], *, rovers: Sequence[str] = NAMES) -> Simulator:
    """A federation with such terms, whose rounds are full with all of it; updates are exact, in every support mode."""
    sim = Simulator(folder, rovers=rovers)
    given = dict(case)
    sim.publish_terms(
        tensors=["a.weight", "a.bias"],
        value_types=["exact"],
        support_modes=["agreed", "dense", "free"],
        mask=sim.agree(*AGREED, next=given.pop("next", None)),
        limits=UpdateLimits(4_096, COUNT, 2**45, 2**40, 100),
        round_terms=RoundTerms(60_000_000, 2, len(rovers), 9),
        **given,
    )
    return sim


def send(sim: Simulator, name: str, draw: np.random.Generator) -> None:
    """Admit an update of the open round, in a mode of its own. The first two pull one way, the others another."""
    at = NAMES.index(name)
    support: Any = ("free", "agreed", "dense", "agreed")[at]
    allowed = np.arange(20)
    places: Sequence[int] = {
        "free": sorted({0, 3, *draw.choice(allowed, 6, replace=False).tolist()}),
        "agreed": [] if sim.mask is None else sim.mask.indices.tolist(),
        "dense": list(range(COUNT)),
    }[support]
    pull = 1 if at < 2 else -1
    values = {place: int(pull * draw.integers(1, 40)) if place < 20 else 0 for place in places}
    sim.admit(name, values, support=support, value_type="exact", weight=int(draw.integers(1, 6)))
