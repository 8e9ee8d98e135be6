"""The aggregator: believes no gatekeeper, decides nothing on what is missing, goes on after a kill."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from simulator import GRID, MANIFEST, SEGMENT, Simulator, service_id

from sfrl_secure.aggregation.models import encode_step, parse_model
from sfrl_secure.governance.statements import CloseOutcome, ModelPublished, UpdateAdmitted
from sfrl_secure.wire.entries import encode_envelope

G1 = service_id("gatekeeper", "g1")
STREAM = f"segment/{SEGMENT}"


def fill(sim: Simulator, *, first: UpdateAdmitted | None = None) -> None:
    """Admit three updates; rover-1's as given."""
    sim.write(G1, STREAM, first or sim.admission("rover-1", {0: 9, 5: 4}, weight=3))
    sim.admit("rover-2", {0: -1}, weight=2)
    sim.admit("rover-3", {5: 2}, weight=1)


def test_the_model_is_the_weighted_mean_of_the_counted_updates(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    fill(sim)
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    mean = np.zeros(MANIFEST.coordinates, dtype=np.int64)
    mean[0] = 4  # 25 / 6
    mean[5] = 2  # 14 / 6
    raw = sim.objects.get(sim.segment.model, 10_000)
    assert parse_model(raw, MANIFEST, GRID).values.tolist() == (sim.initial.values + mean).tolist()
    body = sim.log.statement_at(sim.segment.model_index).body
    assert isinstance(body, ModelPublished)
    assert sim.objects.get(body.aggregate, 10_000) == encode_step(MANIFEST, GRID, mean)


Lie = Callable[[UpdateAdmitted], UpdateAdmitted]


@pytest.mark.parametrize(
    "lie",
    [
        lambda body: replace(body, facts=replace(body.facts, norm=body.facts.norm + 1)),
        lambda body: replace(body, facts=replace(body.facts, tensors=(0, 1))),
        lambda body: replace(body, rule_ids=body.rule_ids[:1]),
        lambda body: replace(body, rule_ids=()),
    ],
)
def test_a_gatekeepers_lie_makes_the_admission_defective(sim: Simulator, lie: Lie) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    fill(sim, first=lie(sim.admission("rover-1", {0: 9, 5: 4}, weight=3)))
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    closed = sim.segment.rounds[1].closed
    assert closed is not None
    assert [(each.participant, each.reason) for each in closed.dropped] == [("rover-1", "defective")]
    values = parse_model(sim.objects.get(sim.segment.model, 10_000), MANIFEST, GRID).values - sim.initial.values
    assert values[0] == -1  # -2 / 3, half to even and beyond


def test_an_update_that_should_have_been_refused_is_not_counted(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    sound = sim.admission("rover-1", {0: 9, 5: 4}, weight=3)
    envelope, update, payload = sim.update("rover-1", {0: 1, 20: 1}, weight=3)
    sim.objects.put(payload)
    let_in = replace(sound, envelope=envelope, envelope_raw=encode_envelope(envelope), update=update)
    fill(sim, first=let_in)
    aggregator.step()
    closed = sim.segment.rounds[1].closed
    assert closed is not None
    assert [each.reason for each in closed.dropped] == ["defective"]


def test_a_missing_or_altered_object_postpones_the_closing(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    fill(sim)
    path = sim.objects.path(sim.segment.rounds[1].admissions["rover-2"].update.payload_sha256)
    raw = path.read_bytes()
    path.unlink()
    assert aggregator.step() == []
    path.write_bytes(raw[:-1] + b"x")
    assert aggregator.step() == []
    path.write_bytes(raw)
    assert aggregator.step() == ["CloseRound"]


def test_too_many_defects_abort_the_round(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.write(G1, STREAM, replace(sim.admission(name), rule_ids=()))
    assert aggregator.step() == ["CloseRound"]
    closed = sim.segment.rounds[1].closed
    assert closed is not None
    assert (closed.outcome, closed.counted_count) == (CloseOutcome.ABORTED, 0)
    assert aggregator.step() == ["OpenRound"]
    assert sim.segment.rounds[2].base_model == sim.initial_digest


def test_an_aggregator_that_was_killed_goes_on_where_the_log_is(sim: Simulator) -> None:
    done = []
    for _ in range(4):
        done += sim.aggregator().step()  # a new one each time
        if sim.segment.open_round is not None and not sim.segment.open_round.admissions:
            fill(sim)
    assert done == ["OpenRound", "CloseRound", "PublishModel", "OpenRound"]
    assert sim.log.voids == {}


def test_two_aggregators_do_everything_once(sim: Simulator) -> None:
    first, second = sim.aggregator(), sim.aggregator()
    second._view.is_held = True  # type: ignore[attr-defined]
    assert first.step() == ["OpenRound"]
    assert second.step() == []
    fill(sim)
    second._view.is_held = True  # type: ignore[attr-defined]
    assert first.step() == ["CloseRound"]
    assert second.step() == []
    assert first.step() == ["PublishModel"]
    assert len(sim.segment.rounds) == 1
    assert sim.log.voids == {}


def test_an_update_admitted_while_the_cohort_is_decided_is_decided_too(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    sim.admit("rover-1")
    sim.admit("rover-2")
    body = replace(sim.admission("rover-3"), rule_ids=())  # its gatekeeper lies
    sim.clock.advance(59_999_999)
    admission = sim.sign(sim.statement(G1, STREAM, body))
    sim.clock.advance(1)
    appended: list[int] = []

    def slip_in(envelope: object) -> None:
        if not appended:
            appended.append(0)
            sim.clock.advance(-1)
            appended[0] = sim.log.order(admission)
            sim.clock.advance(1)

    sim.log.before_append = slip_in
    aggregator.step()
    sim.log.before_append = lambda envelope: None
    aggregator.step()
    closed = sim.segment.rounds[1].closed
    assert closed is not None
    assert [(each.participant, each.reason) for each in closed.dropped] == [("rover-3", "defective")]
    assert sim.log.voids == {}


def test_the_loop_ends_when_it_is_told(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    stopping = threading.Event()
    thread = threading.Thread(target=aggregator.run, args=(stopping,))
    thread.start()
    while sim.segment.open_round is None:
        threading.Event().wait(0.01)
    fill(sim)
    while len(sim.segment.rounds) < 2:
        threading.Event().wait(0.01)
    stopping.set()
    aggregator._view.wake()
    thread.join(10)
    assert not thread.is_alive()
    assert sim.log.voids == {}
