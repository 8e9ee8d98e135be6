"""Rounds under rules that stand liars, cluster, remember and choose masks: real processes, a killed aggregator.

Three segments of one federation. Whatever the aggregator holds between rounds, it begins again from log and objects,
and the verifier derives every model, state, mask and cluster from them alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    AdaptiveTerms,
    CapTerms,
    ClipTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.build import build_terms
from sfrl_secure.ids import Digest
from sfrl_secure.participant.encoding import Wish
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.rounds.state import SegmentState
from sfrl_secure.services.federation import documents
from sfrl_secure.services.federation.create import create_federation
from sfrl_secure.services.federation.plan import FederationPlan
from sfrl_secure.services.federation.supervise import Supervisor
from sfrl_secure.sparse.mask import encode_mask
from sfrl_secure.sparse.topk import ErrorFeedback

from .conftest import COORDINATES, ROVERS, Site, open_number, small_plan, submit

ROUNDS = 3
ROBUST, ALIKE, MASKED = "robust", "alike", "masked"
AGREED = 16
RULES: dict[str, dict[str, Any]] = {
    ROBUST: {
        "rule": RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=340_000),
        "clip": ClipTerms(median_ppm=1_200_000),
        "cap": CapTerms(2, 20_000),
        "server": MomentumTerms(decay=50_000, rate=40_000),
    },
    ALIKE: {
        "rule": RuleTerms(CLUSTERED_MEAN, alike_ppm=900_000),
        "server": AdaptiveTerms(decay=50_000, decay_max=60_000, rate=2_000, floor=10),
    },
    MASKED: {"rule": RuleTerms(UNION_MEAN)},
}


@dataclass(frozen=True)
class Ran:
    """A site that has ended, and the masks that a rover was given round by round."""

    site: Site
    masks: list[Digest]

    def segment(self, name: str) -> SegmentState:
        return self.site.reading().state.segments[name]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    plan = small_plan(segments=(ROBUST, ALIKE, MASKED))
    masked = plan.segments[2].model_copy(update={"support_modes": ["agreed", "free"], "mask": "first.mask"})
    plan = plan.model_copy(update={"segments": [*plan.segments[:2], masked]})
    site = _begin(plan, tmp_path_factory)
    try:
        rovers = [site.participant(name) for name in ROVERS]
        feedbacks = [ErrorFeedback(COORDINATES) for _ in rovers]
        masks = []
        for number in range(1, ROUNDS + 1):
            for rover in rovers[:2]:
                submit(rover, number, ROBUST)
            # With two of three updates added up in one segment, or read, and none in the others.
            site.service("aggregator").kill()
            site.service("aggregator").start()
            site.service("aggregator").wait_ready()
            submit(rovers[2], number, ROBUST)
            for rover, feedback in zip(rovers, feedbacks, strict=True):
                _send_alike(rover, number)
                opened = open_number(rover, number, MASKED)
                found = rover.mask(opened)
                if rover is rovers[0]:
                    masks.append(found.digest)
                change = np.random.default_rng(number).normal(0, 0.1, COORDINATES).astype(np.float32)
                # Who sends what it likes shows the others where to look.
                wish = Wish("free" if rover is rovers[0] else "agreed")
                rover.send(rover.prepare(opened, change, 10, feedback, wish=wish))
        site.wait_published(
            lambda log: all(log.state.segments[each].last_round > ROUNDS for each in (ROBUST, ALIKE, MASKED))
        )
        site.stop()
        yield Ran(site, masks)
    finally:
        site.stop()


def _begin(plan: FederationPlan, folders: pytest.TempPathFactory) -> Site:
    """A federation whose segments have the rules above."""

    def with_rules(**given: Any) -> bytes:
        mask = given["mask"]
        # A plan is checked with the smallest mask before it is made.
        if mask is not None and mask.nonzeros == AGREED:
            given["mask"] = replace(mask, next=NextMaskTerms("contribution", 4, frozenset({"bias"})))
        return build_terms(**given | RULES[given["segment"]])

    first = encode_mask(COORDINATES, np.arange(0, 2 * AGREED, 2))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(documents, "build_terms", with_rules)
        folder = folders.mktemp("site") / "federation"
        federation = create_federation(folder, plan, SystemClock(), masks={MASKED: first})
    site = Site(federation, Supervisor(federation.folder))
    site.supervisor.start()
    return site


def _send_alike(rover: Participant, number: int) -> None:
    """All rovers pull one way, each a little otherwise."""
    own = 0.01 * int(rover.name[-1])
    at = np.arange(9, dtype=np.int64)
    values = 1.0 + own * np.arange(9)
    rover.submit(open_number(rover, number, ALIKE), at, values, 10, rng=np.random.default_rng(number))


def test_the_verifier_derives_every_model_state_mask_and_cluster(ran: Ran) -> None:
    report = ran.site.verify()
    assert (report.verdict, report.missing) == ("verified", ()), report.to_text()
    assert report.results_sound
    assert (report.models, report.admitted) == (3 * ROUNDS, 3 * ROUNDS * len(ROVERS))


@pytest.mark.parametrize("segment", [ROBUST, ALIKE])
def test_each_round_begins_with_the_state_that_the_one_before_left(ran: Ran, segment: str) -> None:
    found = ran.segment(segment)
    states = [step.server_state for step in found.lineage]
    assert None not in states
    assert len(set(states)) == ROUNDS
    assert [found.rounds[number].server_state for number in range(1, ROUNDS + 2)] == [None, *states]


def test_rovers_were_given_the_masks_that_the_rounds_chose(ran: Ran) -> None:
    found = ran.segment(MASKED)
    assert found.terms.mask is not None
    chosen = [step.next_mask for step in found.lineage]
    assert ran.masks == [found.terms.mask.digest, *chosen[:-1]]
    assert len(set(ran.masks)) == ROUNDS
    for number in range(1, ROUNDS + 1):
        modes = [admission.update.format.support for admission in found.rounds[number].admissions.values()]
        assert sorted(modes) == ["agreed", "agreed", "free"]


def test_the_model_of_those_who_are_alike_can_be_fetched(ran: Ran) -> None:
    """Each round's cluster is a model of the segment beside the round's own."""
    found = ran.segment(ALIKE)
    # The first model, and of each round its own and that of its one cluster.
    assert len(found.models) == 1 + 2 * ROUNDS
