"""What a segment needs next is a function of the state."""

from __future__ import annotations

import pytest
from simulator import Simulator

from sfrl_secure.services.aggregator.actions import CloseRound, OpenRound, PublishModel, next_action

DURATION_US = 60_000_000


def wanted(sim: Simulator, witnessed: int | None = None) -> object:
    size = len(sim.log.raw) if witnessed is None else witnessed
    return next_action(sim.segment, size, sim.clock.now_us())


def test_the_first_round_waits_for_witnessed_terms(sim: Simulator) -> None:
    assert wanted(sim, sim.segment.terms_index) is None
    assert wanted(sim, sim.segment.terms_index + 1) == OpenRound("rocks", 1, sim.initial_digest)


def test_an_open_round_closes_when_full_or_over(sim: Simulator) -> None:
    current = sim.open_round()
    assert wanted(sim) is None
    sim.clock.advance(DURATION_US - 1)
    assert wanted(sim) is None
    sim.clock.advance(1)
    assert wanted(sim) == CloseRound("rocks", current)
    assert wanted(sim, 0) == CloseRound("rocks", current)


def test_a_model_waits_for_its_witnessed_closing_and_the_next_round_for_the_witnessed_model(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)
    assert isinstance(wanted(sim), CloseRound)
    aggregator.step()
    current = sim.segment.rounds[1]
    assert wanted(sim, current.closed_index) is None
    assert wanted(sim, current.closed_index + 1) == PublishModel("rocks", current)
    aggregator.step()
    assert wanted(sim, current.model_index) is None
    assert wanted(sim, current.model_index + 1) == OpenRound("rocks", 2, sim.segment.model)


def test_expired_terms_and_used_up_rounds_want_nothing(sim: Simulator) -> None:
    sim.publish_terms(expires_us=sim.clock.now_us() + 10)
    assert isinstance(wanted(sim), OpenRound)
    sim.clock.advance(10)
    assert wanted(sim) is None


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_no_more_rounds_than_the_terms_allow(sim: Simulator, rounds: int) -> None:
    for _ in range(rounds):
        sim.open_round()
        sim.clock.advance(DURATION_US)
        sim.close_round()
    assert (wanted(sim) is None) == (rounds == 3)
