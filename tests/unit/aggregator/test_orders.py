"""The aggregator obeys: what orders, withdrawals and revocations leave out, and what is derived again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from simulator import GRID, MANIFEST, SEGMENT, Simulator, SteppedAggregator, service_id
from structlog.testing import capture_logs

from sfrl_secure.aggregation.models import encode_step, parse_model
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.governance.statements import CloseCause, CloseOutcome, ModelPublished
from sfrl_secure.governance.terms import RoundTerms

ALL = ("rover-1", "rover-2", "rover-3")
A1 = service_id("aggregator", "a1")
LONG = {"round_terms": RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=9)}


def forget_payload(sim: Simulator, name: str, round_number: int = 1) -> None:
    """The payload of an admitted update is no longer stored."""
    admission = sim.segment.rounds[round_number].admissions[name]
    sim.objects.path(admission.update.payload_sha256).unlink()


def admit_all(sim: Simulator) -> None:
    """An update of each; no payload is like another."""
    for at, name in enumerate(ALL):
        sim.admit(name, {0: 6 * (at + 1), at + 1: 5, 8: sim.segment.last_round}, weight=1)


def dropped(sim: Simulator, round_number: int = 1) -> list[tuple[str, str]]:
    closed = sim.segment.rounds[round_number].closed
    assert closed is not None
    return [(each.participant, each.reason) for each in closed.dropped]


def model_values(sim: Simulator) -> list[int]:
    return [int(value) for value in parse_model(sim.objects.get(sim.segment.model, 10_000), MANIFEST, GRID).values]


@pytest.mark.parametrize("reason", ["withdrawn", "excluded", "participant_inactive"])
def test_who_is_left_out_by_the_log_holds_nothing_up_with_a_missing_payload(sim: Simulator, reason: str) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    admit_all(sim)
    forget_payload(sim, "rover-1")
    assert aggregator.step() == []
    if reason == "withdrawn":
        sim.withdraw("rover-1")
    elif reason == "excluded":
        sim.exclude("rover-1")
    else:
        sim.record("rover-1", signers=["eve"], state="revoked", reason="stolen")
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    assert dropped(sim) == [("rover-1", reason)]
    assert model_values(sim)[0] == 15  # (12 + 18) / 2, over an initial 0
    assert sim.log.voids == {}


def test_a_round_that_an_order_ends_is_closed_without_a_look_at_its_payloads(tmp_path: Path) -> None:
    sim = Simulator(tmp_path, terms=LONG)
    aggregator = sim.aggregator()
    sim.play_round(*ALL)
    aggregator.step()
    admit_all(sim)
    for name in ALL:
        forget_payload(sim, name, 2)
    sim.roll_back(sim.initial_digest)
    assert aggregator.step() == ["CloseRound"]
    closed = sim.segment.rounds[2].closed
    assert closed is not None
    assert (closed.cause, closed.outcome, closed.counted_count) == (CloseCause.ORDER, CloseOutcome.ABORTED, 3)
    assert aggregator.step() == ["OpenRound"]
    assert sim.segment.rounds[3].base_model == sim.initial_digest
    assert sim.log.voids == {}
    sim.close()


def rederived(sim: Simulator, number: int) -> ModelPublished:
    step = next(step for step in sim.segment.lineage if step.round == number)
    body = sim.log.statement_at(step.index).body
    assert isinstance(body, ModelPublished)
    return body


def run_rounds(sim: Simulator, aggregator: SteppedAggregator, count: int) -> None:
    """Whole rounds by the aggregator itself, all rovers in each."""
    for _ in range(count):
        assert aggregator.step() == ["OpenRound"]
        admit_all(sim)
        assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]


def test_the_rounds_from_the_one_in_question_are_derived_again_in_order(tmp_path: Path) -> None:
    sim = Simulator(tmp_path, terms=LONG)
    aggregator = sim.aggregator()
    run_rounds(sim, aggregator, 3)
    before = list(sim.segment.lineage)
    assert model_values(sim)[:4] == [36, 1 + 6, 2 + 6, 3 + 6]  # 12 each round; 5 / 3 is 2
    sim.record("rover-1", signers=["eve"], state="revoked", reason="stolen")
    sim.reaggregate(2)
    assert [aggregator.step() for _ in range(3)] == [["DeriveAgain"], ["DeriveAgain"], ["OpenRound"]]
    after = sim.segment.lineage
    assert after[0] == before[0]
    assert [rederived(sim, number).supersedes for number in (2, 3)] == [before[1].published, before[2].published]
    assert [after[1].base, after[2].base] == [before[0].model, after[1].model]
    # Rovers 2 and 3 alone: (12 + 18) / 2 in each, 5 / 2 to even.
    assert model_values(sim)[:4] == [12 + 15 + 15, 1 + 2, 2 + 2 + 2 + 2, 3 + 2 + 2 + 2]
    assert sim.segment.rounds[4].base_model == after[2].model
    # Who was counted in round 1 is there still: the order did not ask for it.
    assert sim.log.voids == {}
    sim.close()


def test_of_fewer_than_a_cohort_nothing_is_added_up(tmp_path: Path) -> None:
    sim = Simulator(tmp_path, terms=LONG)
    aggregator = sim.aggregator()
    run_rounds(sim, aggregator, 2)
    first, _ = sim.segment.lineage
    for name in ALL:
        forget_payload(sim, name, 1)
    for name in ALL[:2]:
        sim.exclude(name, 1)
    sim.reaggregate(1)
    assert [aggregator.step(), aggregator.step()] == [["DeriveAgain"], ["DeriveAgain"]]
    body = rederived(sim, 1)
    assert (body.model, body.base_model) == (first.base, first.base)
    zeros = np.zeros(MANIFEST.coordinates, dtype=np.int64)
    assert sim.objects.get(body.aggregate, 10_000) == encode_step(MANIFEST, GRID, zeros)
    # Round 2 counts all three, on what the first step has become: nothing.
    assert sim.segment.lineage[1].base == sim.initial_digest
    assert model_values(sim)[0] == 12
    assert sim.log.voids == {}
    sim.close()


def test_an_aggregator_that_was_killed_between_two_steps_goes_on(tmp_path: Path) -> None:
    sim = Simulator(tmp_path, terms=LONG)
    run_rounds(sim, sim.aggregator(), 3)
    sim.exclude("rover-2", 1)
    sim.reaggregate(1)
    done = [sim.aggregator().step() for _ in range(4)]
    assert done == [["DeriveAgain"], ["DeriveAgain"], ["DeriveAgain"], ["OpenRound"]]
    assert sim.segment.due == []
    assert sim.log.voids == {}
    sim.close()


def test_two_aggregators_derive_each_step_once(tmp_path: Path) -> None:
    sim = Simulator(tmp_path, terms=LONG)
    first, second = sim.aggregator(), sim.aggregator()
    run_rounds(sim, first, 2)
    sim.exclude("rover-2", 1)
    sim.reaggregate(1)
    second._view.is_held = True  # type: ignore[attr-defined]
    assert first.step() == ["DeriveAgain"]
    assert second.step() == []
    assert first.step() == ["DeriveAgain"]
    published = [
        body for index in range(1, len(sim.log.raw))
        if sim.log.envelope_at(index).payload_type.endswith("statement.v1")
        and isinstance(body := sim.log.statement_at(index).body, ModelPublished)
    ]  # fmt: skip
    assert [body.supersedes is not None for body in published] == [False, False, True, True]
    assert sim.log.voids == {}
    sim.close()


def test_an_order_that_comes_while_a_model_is_computed_is_obeyed(tmp_path: Path) -> None:
    """The model that was computed still holds whom the second order leaves out: it is not published."""
    sim = Simulator(tmp_path, terms={"round_terms": RoundTerms(60_000_000, 1, 3, 9)})
    aggregator = sim.aggregator()
    run_rounds(sim, aggregator, 1)
    sim.exclude("rover-1", 1)
    sim.reaggregate(1)
    came: list[int] = []

    def order_first(envelope: Envelope) -> None:
        if not came and envelope.payload_type.endswith("statement.v1"):
            came.append(sim.exclude("rover-2", 1))
            came.append(sim.reaggregate(1))

    sim.log.before_append = order_first
    assert aggregator.step() == []
    assert sim.segment.due == [1]
    assert aggregator.step() == ["DeriveAgain"]
    assert model_values(sim)[0] == 18
    assert sim.log.voids == {}
    sim.close()


def test_a_model_that_an_order_forbids_meanwhile_is_not_published(tmp_path: Path) -> None:
    sim = Simulator(tmp_path, terms=LONG)
    aggregator = sim.aggregator()
    aggregator.step()
    admit_all(sim)
    aggregator.step()
    halted: list[int] = []

    def halt_first(envelope: Envelope) -> None:
        if not halted and envelope.payload_type.endswith("statement.v1"):
            halted.append(0)
            halted[0] = sim.halt()

    sim.log.before_append = halt_first
    assert aggregator.step() == []
    assert aggregator.step() == []
    assert sim.segment.rounds[1].model is None
    sim.resume()
    assert aggregator.step() == ["PublishModel"]
    assert sim.log.voids == {}
    sim.close()


def test_a_round_that_counts_what_its_payload_forbids_gets_no_model_from_us(sim: Simulator) -> None:
    """Another aggregator closed it so. Nothing is published, nothing dies, and a rollback gives the round up."""
    aggregator = sim.aggregator()
    sim.play_round(*ALL)
    sim.open_round()
    lie = sim.admission("rover-1")
    sim.write(service_id("gatekeeper", "g1"), f"segment/{SEGMENT}", _with_other_facts(lie))
    for name in ALL[1:]:
        sim.admit(name)
    sim.close_round()
    with capture_logs() as lines:
        assert aggregator.step() == []
    assert [line["reason"] for line in lines if line["event"] == "model_published_later"] == ["counted_defective"]
    sim.roll_back(sim.initial_digest)
    assert aggregator.step() == ["OpenRound"]
    assert sim.log.voids == {}


def _with_other_facts(body: object) -> object:
    from dataclasses import replace

    return replace(body, facts=replace(body.facts, norm=body.facts.norm + 1))  # type: ignore[type-var, attr-defined]
