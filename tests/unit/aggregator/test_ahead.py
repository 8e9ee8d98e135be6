"""What the aggregator does before it has to: nothing of it has effect early, and none of it is done twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from simulator import GRID, MANIFEST, Simulator
from structlog.testing import capture_logs

from sfrl_secure.aggregation.models import decode_step, parse_model
from sfrl_secure.errors import UnavailableError, UncertainStateError
from sfrl_secure.governance.statements import ModelPublished
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.services.aggregator.payloads import RoundPayloads
from sfrl_secure.services.aggregator.results import Result, Results, Wanted
from sfrl_secure.services.view import FederationView

ALL = ("rover-1", "rover-2", "rover-3")


def admit_all(sim: Simulator) -> None:
    for at, name in enumerate(ALL):
        sim.admit(name, {0: 6 * (at + 1), at + 1: 5}, weight=1)


def forbid_reading(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on no object may be read."""
    for name in ("open", "get"):
        monkeypatch.setattr(sim.objects, name, lambda digest, bytes_max: pytest.fail("it was read again"))


def model_values(sim: Simulator) -> list[int]:
    return parse_model(sim.objects.get(sim.segment.model, 10_000), MANIFEST, GRID).values.tolist()


def test_updates_are_decided_and_added_up_while_the_round_is_open(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator = sim.aggregator()
    assert not aggregator.work_ahead()
    aggregator.step()
    admit_all(sim)
    assert [aggregator.work_ahead() for _ in range(4)] == [True, True, True, False]
    assert sim.segment.open_round is not None
    monkeypatch.setattr(RoundPayloads, "open", lambda payloads, admission: pytest.fail("it was read again"))
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    assert model_values(sim)[:4] == [12, 1 + 2, 2 + 2, 3 + 2]


def test_a_model_is_made_while_the_log_takes_its_closing_in(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is stored before the log has answered; it is published once the closing is witnessed."""
    aggregator, made = sim.aggregator(), threading.Event()
    aggregator.step()
    admit_all(sim)
    sim.log.witnessing = False
    given_of = Results.of

    def of(results: Results, wanted: Wanted) -> Result:
        assert sim.segment.open_round is not None
        result = given_of(results, wanted)
        assert sim.objects.is_stored(result.model)
        made.set()
        return result

    with monkeypatch.context() as patched:
        patched.setattr(Results, "of", of)
        patched.setattr(sim.log, "before_append", lambda envelope: made.wait(10) or pytest.fail("nothing was made"))
        assert aggregator.step() == ["CloseRound"]
    size = len(sim.log.raw)
    assert (aggregator.work_ahead(), aggregator.step()) == (False, [])
    assert (len(sim.log.raw), sim.segment.rounds[1].model) == (size, None)
    with monkeypatch.context() as patched:
        forbid_reading(sim, patched)
        sim.log.witness()
        assert aggregator.step() == ["PublishModel"]
    assert model_values(sim)[:4] == [12, 1 + 2, 2 + 2, 3 + 2]


def test_a_closing_that_the_log_does_not_take_is_tried_again_without_reading_or_making_anything(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    admit_all(sim)

    def unreachable(envelope: object) -> None:
        raise UnavailableError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(sim.log, "before_append", unreachable)
        assert (aggregator.step(), aggregator.work_ahead()) == ([], False)
        forbid_reading(sim, patched)
        patched.setattr(sim.objects, "put", lambda data: pytest.fail("it was made again"))
        assert (aggregator.step(), aggregator.work_ahead()) == ([], False)
    forbid_reading(sim, monkeypatch)
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]


def test_who_withdraws_while_the_closing_is_written_is_not_in_the_model(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made ahead is of another cohort: it is left, and the sum begun anew."""
    aggregator = sim.aggregator()
    aggregator.step()
    admit_all(sim)

    def withdraws(envelope: object) -> None:
        monkeypatch.setattr(sim.log, "before_append", lambda envelope: None)
        sim.withdraw("rover-2")

    monkeypatch.setattr(sim.log, "before_append", withdraws)
    while sim.segment.rounds[1].model is None:
        aggregator.step()
    assert model_values(sim)[:4] == [12, 1 + 2, 2, 3 + 2]
    assert sim.log.voids == {}


def test_a_store_whose_state_is_uncertain_ends_the_work_whatever_the_log_says(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    admit_all(sim)

    def refuse(error: Exception) -> Callable[[object], None]:
        def refusing(_: object) -> None:
            raise error

        return refusing

    monkeypatch.setattr(sim.log, "before_append", refuse(UnavailableError("no answer")))
    monkeypatch.setattr(sim.objects, "put", refuse(UncertainStateError("the disk did not confirm")))
    with pytest.raises(UncertainStateError):
        aggregator.step()


def test_a_restarted_aggregator_makes_the_model_while_the_closing_waits_for_the_witnesses(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    admit_all(sim)
    sim.log.witnessing = False
    assert aggregator.step() == ["CloseRound"]
    aggregator = sim.aggregator()
    size = len(sim.log.raw)
    assert [aggregator.work_ahead(), aggregator.work_ahead()] == [True, False]
    assert aggregator.step() == []
    assert (len(sim.log.raw), sim.segment.rounds[1].model) == (size, None)
    forbid_reading(sim, monkeypatch)
    sim.log.witness()
    assert aggregator.step() == ["PublishModel"]


def test_a_model_that_is_derived_again_is_made_ahead_too(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    sim.publish_terms(round_terms=RoundTerms(60_000_000, 2, 3, 9))
    sim.play_round(*ALL)
    sim.exclude("rover-1", 1)
    sim.log.witnessing = False
    sim.reaggregate(1)
    aggregator = sim.aggregator()
    assert [aggregator.work_ahead(), aggregator.work_ahead()] == [True, False]
    assert aggregator.step() == []
    forbid_reading(sim, monkeypatch)
    sim.log.witness()
    assert aggregator.step() == ["DeriveAgain"]


def test_who_is_dropped_after_it_was_added_is_not_in_the_model(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    admit_all(sim)
    assert [aggregator.work_ahead() for _ in range(3)] == [True] * 3
    sim.withdraw("rover-2")
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    assert model_values(sim)[:4] == [12, 1 + 2, 2, 3 + 2]
    assert sim.log.voids == {}


def test_an_object_that_is_not_there_is_left_for_the_closing(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    admit_all(sim)
    path = sim.objects.path(sim.segment.rounds[1].admissions["rover-2"].update.payload_sha256)
    raw = path.read_bytes()
    path.unlink()
    with capture_logs() as lines:
        assert [aggregator.work_ahead() for _ in range(4)] == [True, True, True, False]
    assert [line["event"] for line in lines] == ["update_decided_later"]
    path.write_bytes(raw)
    # It is there by now, and nobody asks until it is needed.
    assert not aggregator.work_ahead()
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]


def test_the_next_round_asks_anew_for_what_was_not_there(sim: Simulator) -> None:
    aggregator = sim.aggregator()
    for _ in range(2):
        aggregator.step()
        admit_all(sim)
        path = sim.objects.path(sim.segment.rounds[sim.segment.last_round].admissions["rover-2"].update.payload_sha256)
        raw = path.read_bytes()
        path.unlink()
        with capture_logs() as lines:
            assert [aggregator.work_ahead() for _ in range(4)] == [True, True, True, False]
        assert len(lines) == 1
        path.write_bytes(raw)
        assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]


def test_what_was_made_is_not_made_again_when_the_log_could_not_be_reached(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    aggregator = sim.aggregator()
    aggregator.step()
    admit_all(sim)
    aggregator.step()

    def unreachable(envelope: object) -> None:
        raise UnavailableError("no answer")

    with monkeypatch.context() as patched:
        patched.setattr(sim.log, "before_append", unreachable)
        assert aggregator.step() == []
    forbid_reading(sim, monkeypatch)
    assert aggregator.step() == ["PublishModel"]


def test_the_base_is_read_once_however_long_an_update_is_missing(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = sim.aggregator()
    first.step()
    admit_all(sim)
    first.step()
    path = sim.objects.path(sim.segment.rounds[1].admissions["rover-2"].update.payload_sha256)
    raw = path.read_bytes()
    path.unlink()
    aggregator = sim.aggregator()
    assert aggregator.step() == []
    with monkeypatch.context() as patched:
        patched.setattr(sim.objects, "get", lambda digest, bytes_max: pytest.fail("the base was read again"))
        assert not aggregator.work_ahead()
        path.write_bytes(raw)
        assert aggregator.step() == ["PublishModel"]


def published(sim: Simulator) -> list[ModelPublished]:
    return [
        body for index in range(1, len(sim.log.raw))
        if sim.log.envelope_at(index).payload_type.endswith("statement.v1")
        and isinstance(body := sim.log.statement_at(index).body, ModelPublished)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
def test_killed_anywhere_it_gives_the_same_bits(tmp_path: Any, seed: int) -> None:
    """One aggregator to the end, and one that is another after every few steps, ahead or not: the same models."""
    draw = np.random.default_rng(seed)
    made: list[list[tuple[bytes, bytes]]] = []
    for kills in (False, True):
        sim = Simulator(tmp_path / str(kills), terms={"round_terms": RoundTerms(60_000_000, 2, 3, 3)})
        aggregator = sim.aggregator()
        for number in (1, 2, 3):
            while sim.segment.open_round is None:
                aggregator.step()
            for at, name in enumerate(ALL):
                if kills and draw.random() < 0.5:
                    aggregator = sim.aggregator()
                sim.admit(name, {0: 6 * (at + number), at + 1: -5 * number}, weight=at + 1)
                for _ in range(draw.integers(0, 3) if kills else 0):
                    aggregator.work_ahead()
            if number == 2:
                sim.withdraw("rover-1")
            while sim.segment.rounds[number].model is None:
                if kills and draw.random() < 0.5:
                    aggregator = sim.aggregator()
                if not kills or draw.random() < 0.5:
                    aggregator.step()
                else:
                    aggregator.work_ahead()
        assert sim.log.voids == {}
        made.append([(body.aggregate, body.model) for body in published(sim)])
        sim.close()
    assert made[0] == made[1]
    assert len(made[0]) == 3


def test_the_aggregate_leads_from_the_base_to_the_model(sim: Simulator) -> None:
    """So that whoever has the base needs nothing else."""
    aggregator = sim.aggregator()
    aggregator.step()
    admit_all(sim)
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    (body,) = published(sim)
    base = parse_model(sim.objects.get(body.base_model, 10_000), MANIFEST, GRID)
    step = decode_step(sim.objects.get(body.aggregate, 10_000), MANIFEST, GRID)
    assert base.add_parts(step).to_bytes() == sim.objects.get(body.model, 10_000)


def test_it_waits_no_longer_than_to_the_next_deadline(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    aggregator, pauses, stopping = sim.aggregator(), [], threading.Event()

    def wait(view: FederationView, holds: object, seconds: float) -> bool:
        pauses.append(seconds)
        stopping.set()
        return True

    monkeypatch.setattr(FederationView, "wait_until", wait)
    for advance in (0, 59_900_000, 99_999):
        sim.clock.advance(advance)
        if not advance:
            sim.open_round()
        stopping.clear()
        aggregator.run(stopping)
    assert pauses == [0.25, pytest.approx(0.1), pytest.approx(0.000_001)]
    # What is over and cannot be closed is no reason to look without a pause.
    sim.admit("rover-1")
    sim.objects.path(sim.segment.rounds[1].admissions["rover-1"].update.payload_sha256).unlink()
    sim.clock.advance(1)
    stopping.clear()
    aggregator.run(stopping)
    assert pauses[3:] == [0.25]


def test_the_base_of_the_next_round_is_the_model_at_hand(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    aggregator = sim.aggregator()
    for _ in range(2):
        aggregator.step()
        admit_all(sim)
        assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
        monkeypatch.setattr(sim.objects, "get", lambda digest, bytes_max: pytest.fail("the base was read"))
    monkeypatch.undo()
    assert model_values(sim)[:2] == [24, 1 + 2 + 2]
