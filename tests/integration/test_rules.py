"""Rounds under rules that stand liars, cluster, remember and choose masks: real processes, a killed aggregator.

Three segments of one federation. Whatever the aggregator holds between rounds, it begins again from log and objects,
and the verifier derives every model, state, mask and cluster from them alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.clock import SystemClock
from sfrl_secure.governance.aggregation_terms import (
    ADAPTIVE,
    CLUSTERED_MEAN,
    MOMENTUM,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    AdaptiveTerms,
    MomentumTerms,
    NextMaskTerms,
)
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.operating.aggregation_tables import CapTable, ClipTable, NextMaskTable, RuleTable, ServerTable
from sfrl_secure.participant.receipts import open_receipt
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.participant.wishes import Wish
from sfrl_secure.rounds.state import SegmentState
from sfrl_secure.services.federation.create import create_federation
from sfrl_secure.services.federation.plan import FederationPlan
from sfrl_secure.services.federation.supervise import Supervisor
from sfrl_secure.sparse.mask import encode_mask
from sfrl_secure.sparse.topk import ErrorFeedback
from sfrl_secure.wire.receipts import ReceiptKind

from .conftest import COORDINATES, ROVERS, Site, open_number, small_plan, submit

ROUNDS = 3
ROBUST, ALIKE, MASKED = "robust", "alike", "masked"
AGREED = 16
RULES: dict[str, dict[str, Any]] = {
    ROBUST: {
        "rule": RuleTable(name=NNM_TRIMMED_MEAN, liars=Decimal("0.34")),
        "clip": ClipTable(of_median=Decimal("1.2")),
        "cap": CapTable(contributors_below=2, magnitude=Decimal("0.3")),
        "server": ServerTable(name=MOMENTUM, decay=Decimal("0.75"), rate=Decimal("0.6")),
    },
    ALIKE: {
        "rule": RuleTable(name=CLUSTERED_MEAN, alike=Decimal("0.9")),
        "server": ServerTable(
            name=ADAPTIVE, decay=Decimal("0.75"), decay_max=Decimal("0.9"), rate=Decimal("0.03"),
            floor=Decimal("0.0002"),
        ),
    },
    MASKED: {
        "rule": RuleTable(name=UNION_MEAN),
        "support_modes": ["agreed", "free"],
        "mask": "first.mask",
        "mask_next": NextMaskTable(score="contribution", regrow=4, protected=["bias"]),
    },
}  # fmt: skip
"""Keys of each segment in the plan."""


@dataclass(frozen=True)
class Ran:
    """A site that has ended, the masks that a rover was given round by round, and the model of its last cluster."""

    site: Site
    masks: list[Digest]
    cluster_model: ModelSnapshot

    def segment(self, name: str) -> SegmentState:
        return self.site.reading().state.segments[name]


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    plan = small_plan(segments=(ROBUST, ALIKE, MASKED))
    plan = plan.model_copy(update={"segments": [each.model_copy(update=RULES[each.name]) for each in plan.segments]})
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
                sent = _send_alike(rover, number)
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
        found = _cluster_model(rovers[-1], sent)
        site.stop()
        yield Ran(site, masks, found)
    finally:
        site.stop()


def _begin(plan: FederationPlan, folders: pytest.TempPathFactory) -> Site:
    """A federation by this plan, running."""
    first = encode_mask(COORDINATES, np.arange(0, 2 * AGREED, 2))
    folder = folders.mktemp("site") / "federation"
    federation = create_federation(folder, plan, SystemClock(), masks={MASKED: first})
    site = Site(federation, Supervisor(federation.folder))
    site.supervisor.start()
    return site


def _send_alike(rover: Participant, number: int) -> Submitted:
    """All rovers pull one way, each a little otherwise."""
    own = 0.01 * int(rover.name[-1])
    at = np.arange(9, dtype=np.int64)
    values = 1.0 + own * np.arange(9)
    return rover.submit(open_number(rover, number, ALIKE), at, values, 10, rng=np.random.default_rng(number))


def _cluster_model(rover: Participant, sent: Submitted) -> ModelSnapshot:
    """Fetch the model of the cluster that an update was in, while the next round is open."""
    cluster = open_receipt(rover.receipt(sent, ReceiptKind.COUNTED), rover.policy).cluster
    assert cluster is not None
    assert len(cluster.members) == len(ROVERS)
    return rover.cluster_model(open_number(rover, ROUNDS + 1, ALIKE), cluster)


def test_rounds_ran_under_what_the_plan_says(ran: Ran) -> None:
    robust, alike, masked = (ran.segment(name).terms for name in (ROBUST, ALIKE, MASKED))
    assert (robust.rule.name, robust.rule.liars_ppm) == (NNM_TRIMMED_MEAN, 340_000)
    assert robust.clip is not None
    assert robust.cap is not None
    assert isinstance(robust.server, MomentumTerms)
    assert (alike.rule.name, alike.rule.alike_ppm) == (CLUSTERED_MEAN, 900_000)
    assert isinstance(alike.server, AdaptiveTerms)
    assert masked.rule.name == UNION_MEAN
    assert masked.mask is not None
    assert masked.mask.next == NextMaskTerms("contribution", 4, frozenset({"bias"}))


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


def test_the_model_of_those_who_are_alike_is_fetched_by_its_members(ran: Ran) -> None:
    """Each round's cluster is a model of the segment beside the round's own."""
    found = ran.segment(ALIKE)
    fetched = sha256(ran.cluster_model.to_bytes())
    assert found.fetches[ROVERS[-1], fetched] == 1
    assert fetched in found.models
    assert fetched not in {step.model for step in found.lineage}
    # The first model, and of each round its own and that of its one cluster.
    assert len(found.models) == 1 + 2 * ROUNDS
