"""A model passes through the aggregator; the step, which everybody fetches next, stays in the system's memory."""

from __future__ import annotations

import os

import pytest
from simulator import Simulator

from tests.unit.storage.watching import name_of


def test_the_system_need_not_keep_a_published_model_and_keeps_its_step(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed: list[str] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, *_: passed.append(name_of(descriptor)))
    aggregator = sim.aggregator()
    aggregator.step()
    for at, name in enumerate(("rover-1", "rover-2", "rover-3")):
        sim.admit(name, {0: 6 * (at + 1), at + 1: 5}, weight=1)
    assert aggregator.step() == ["CloseRound"]
    assert aggregator.step() == ["PublishModel"]
    step = sim.segment.lineage[-1]
    assert step.model.hex() in passed
    assert step.aggregate.hex() not in passed
