"""What a segment needs next is a function of the state."""

from __future__ import annotations

import pytest
from simulator import Simulator

from sfrl_secure.services.aggregator.actions import CloseRound, DeriveAgain, OpenRound, PublishModel, next_action

DURATION_US = 60_000_000


def wanted(sim: Simulator, witnessed: int | None = None) -> object:
    size = len(sim.log.raw) if witnessed is None else witnessed
    return next_action(sim.state, sim.segment, size, sim.clock.now_us())


def test_the_first_round_waits_for_witnessed_terms(sim: Simulator) -> None:
    assert wanted(sim, sim.segment.terms_index) is None
    assert wanted(sim, sim.segment.terms_index + 1) == OpenRound("rocks", 1, sim.initial_digest)


def test_an_open_round_closes_when_full_or_over(sim: Simulator) -> None:
    sim.open_round()
    assert wanted(sim) is None
    sim.clock.advance(DURATION_US - 1)
    assert wanted(sim) is None
    sim.clock.advance(1)
    assert wanted(sim) == CloseRound("rocks", 1)
    assert wanted(sim, 0) == CloseRound("rocks", 1)


def test_a_model_waits_for_its_witnessed_closing_and_the_next_round_for_the_witnessed_model(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)
    assert isinstance(wanted(sim), CloseRound)
    aggregator.step()
    current = sim.segment.rounds[1]
    assert wanted(sim, current.closed_index) is None
    assert wanted(sim, current.closed_index + 1) == PublishModel("rocks", 1)
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


# Orders

ALL = ("rover-1", "rover-2", "rover-3")


def closed_round(sim: Simulator) -> None:
    """A round that waits for its model."""
    sim.open_round()
    for name in ALL:
        sim.admit(name)
    sim.close_round()


def test_a_halted_segment_opens_nothing_and_publishes_nothing_and_closes(sim: Simulator) -> None:
    sim.halt()
    assert wanted(sim) is None
    sim.resume()
    sim.open_round()
    sim.halt()
    sim.clock.advance(DURATION_US)
    assert wanted(sim) == CloseRound("rocks", 1)
    sim.resume()
    sim.close_round()
    closed_round(sim)
    sim.halt()
    assert wanted(sim) is None
    sim.resume()
    assert wanted(sim) == PublishModel("rocks", 2)


def test_what_an_order_allows_waits_until_the_order_is_witnessed(sim: Simulator) -> None:
    sim.halt()
    order = sim.resume()
    assert wanted(sim, order) is None
    assert wanted(sim, order + 1) == OpenRound("rocks", 1, sim.initial_digest)


def test_models_are_derived_again_once_the_order_is_witnessed(sim: Simulator) -> None:
    sim.play_round(*ALL)
    sim.exclude("rover-1", 1)
    order = sim.reaggregate(1)
    (step,) = sim.segment.lineage
    assert wanted(sim, order) is None
    assert wanted(sim, order + 1) == DeriveAgain("rocks", 1, step.published)


def test_a_round_that_an_order_ends_is_closed_at_once(sim: Simulator) -> None:
    sim.play_round(*ALL)
    sim.open_round()
    assert wanted(sim) is None
    order = sim.roll_back(sim.initial_digest)
    assert wanted(sim, order) == CloseRound("rocks", 2)
    sim.close_round()
    assert wanted(sim) == OpenRound("rocks", 3, sim.initial_digest)


def test_a_round_that_was_given_up_gets_no_model(sim: Simulator) -> None:
    sim.play_round(*ALL)
    closed_round(sim)
    assert wanted(sim) == PublishModel("rocks", 2)
    sim.roll_back(sim.initial_digest)
    assert wanted(sim) == OpenRound("rocks", 3, sim.initial_digest)


def test_what_is_due_comes_first_and_each_step_waits_for_the_step_before(sim: Simulator) -> None:
    for _ in range(2):
        sim.play_round(*ALL)
    sim.open_round()
    sim.exclude("rover-1", 1)
    sim.halt()
    order = sim.reaggregate(1)
    first, second = sim.segment.lineage
    assert wanted(sim) == CloseRound("rocks", 3)
    sim.close_round()
    assert wanted(sim, sim.segment.rounds[3].closed_index) is None
    assert sim.segment.rounds[3].closed_index > order
    # A halted segment derives again: the order says so.
    assert wanted(sim) == DeriveAgain("rocks", 1, first.published)
    again = sim.publish_model()
    assert wanted(sim, again) is None
    assert wanted(sim, again + 1) == DeriveAgain("rocks", 2, second.published)
    last = sim.publish_model()
    assert wanted(sim) is None
    # The segment has no fourth round; with a fourth it would begin from what was derived last.
    resumed = sim.resume()
    assert last < resumed
    assert wanted(sim) is None
