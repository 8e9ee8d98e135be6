"""What a round begins with, and by how much an update is clipped, is named by somebody who may lie.

A gatekeeper writes the norm by which an update is clipped; an aggregator that has lied since, the server state and the
mask that the next round begins with. A false norm moves nobody else's update, and nobody stands on an object that is
none: rounds wait until operators have the step derived again, and go on as if it had never been said.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import SEGMENT, Simulator, service_id

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import (
    NNM_TRIMMED_MEAN,
    CapTerms,
    ClipTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.statements import ModelPublished
from sfrl_secure.ids import sha256
from sfrl_secure.rounds.state import RoundState
from sfrl_secure.services.aggregator.results import Results
from sfrl_secure.sparse.mask import Mask

from ..unit.aggregator.ruled import ADAPTIVE, MOMENTUM, NAMES, ruled, send
from .test_lying_aggregator import verify

G1 = service_id("gatekeeper", "g1")
STREAM = f"segment/{SEGMENT}"

CLIPPED: dict[str, dict[str, Any]] = {
    "added as it comes": {"clip": ClipTerms(norm=20), "cap": CapTerms(4, 3)},
    "by the median": {"clip": ClipTerms(median_ppm=700_000)},
    "read again": {"clip": ClipTerms(norm=20), "rule": RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=250_000)},
}


@pytest.mark.parametrize("name", CLIPPED)
@pytest.mark.parametrize("norm", [0, 1, -1, 2**62], ids=["none", "one more", "one less", "the largest"])
def test_by_a_norm_that_is_false_nobody_is_clipped(tmp_path: Path, name: str, norm: int) -> None:
    """It is an admission that its payload forbids: dropped, and the others' model is theirs alone."""
    sim = ruled(tmp_path / "sim", CLIPPED[name])
    aggregator, draw = sim.aggregator(), np.random.default_rng(3)
    aggregator.step()
    true = sim.admission("rover-1", {0: 300, 5: -41, 19: 7}, weight=90, value_type="exact")
    false = norm if norm in (0, 2**62) else true.facts.norm + norm
    sim.write(G1, STREAM, replace(true, facts=replace(true.facts, norm=false)))
    for other in NAMES[1:]:
        aggregator.work_ahead()
        send(sim, other, draw)
    aggregator.work_ahead()
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]

    current = sim.segment.rounds[1]
    assert current.closed is not None
    assert [(each.participant, each.reason) for each in current.closed.dropped] == [("rover-1", "defective")]
    body = sim.log.statement_at(current.model_index).body
    assert body == sim.model_of(current, current.base_model)
    report = verify(sim, tmp_path / "files")
    assert [finding.code for finding in report.findings] == ["defective"]
    assert report.results_sound
    sim.close()


NO_STATE = b"a server state it is not"
BESIDE: dict[str, tuple[dict[str, Any], str]] = {
    "momentum": ({"server": MOMENTUM}, "server_state"),
    "an adaptive step": ({"server": ADAPTIVE}, "server_state"),
    "a mask": ({"next": NextMaskTerms("votes", 2)}, "next_mask"),
    "what is longer than any mask": ({"next": NextMaskTerms("votes", 2)}, "next_mask"),
    "nothing of that name": ({"server": MOMENTUM}, "server_state"),
}


def mask_or_none(
    mask_of: Callable[[Simulator, RoundState], Mask | None], sim: Simulator, current: RoundState
) -> Mask | None:
    """What the simulation finds; None where it is no mask, or longer than any."""
    try:
        return mask_of(sim, current)
    except MalformedError:
        return None


@pytest.mark.parametrize("name", BESIDE)
def test_nobody_stands_on_an_object_that_is_none_and_the_segment_gets_well(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An aggregator that lied once, and the honest one after it."""
    case, beside = BESIDE[name]
    sim = ruled(tmp_path / "sim", case)
    draw = np.random.default_rng(4)
    aggregator = sim.aggregator()
    assert aggregator.step() == ["OpenRound"]
    for each in NAMES:
        send(sim, each, draw)
    raw = bytes(2**20) if name.startswith("what is longer") else NO_STATE
    named = sha256(b"not stored") if name == "nothing of that name" else sim.objects.put(raw)
    made = Results.of
    monkeypatch.setattr(Results, "of", lambda self, wanted: replace(made(self, wanted), **{beside: named}))
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    monkeypatch.undo()
    mask_of = Simulator.mask_of
    monkeypatch.setattr(Simulator, "mask_of", lambda sim, current: mask_or_none(mask_of, sim, current))

    honest = sim.aggregator()
    assert honest.step() == ["OpenRound"]
    second = sim.segment.rounds[2]
    assert (second.server_state if beside == "server_state" else second.mask) == named
    for each in NAMES:
        sim.admit(each, {0: 5, 3: 2}, weight=2, value_type="exact")
    assert honest.step() == ["CloseRound"]
    if beside == "server_state":
        # There is no model of it; and nothing that anybody else should publish in its place.
        assert honest.step() == []
    else:
        # No mask can follow from what is none: the next round begins with that of the terms again.
        assert honest.step() == ["PublishModel"]
        assert sim.segment.lineage[1].next_mask is None
        # Who verifies reads the same object the same way: one lie, and nothing that comes of it.
        found = verify(sim, tmp_path / "files").findings
        assert [(each.code, each.index) for each in found] == [("next_mask", sim.segment.lineage[0].index)]

    sim.exclude("rover-4", 1)
    sim.reaggregate(1)
    while sim.segment.due:
        expected = sim.due_model()
        assert honest.step() == ["DeriveAgain"]
        body = sim.log.statement_at(sim.segment.rounds[expected.round].model_index).body
        assert isinstance(body, ModelPublished)
        assert body == expected
        assert getattr(body, beside) not in (None, named) or beside == "next_mask"
    assert honest.step() == ["OpenRound"]
    third = sim.segment.rounds[3]
    last = sim.segment.lineage[-1]
    assert third.server_state == last.server_state
    assert third.mask != named
    sim.close()
