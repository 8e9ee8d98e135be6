"""Complaints are answered on record, in time, and once by each gatekeeper."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from simulator import SEGMENT, SimulatedGatekeeper, Simulator, auditor_id, participant_id, submission
from structlog.testing import capture_logs

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import UnavailableError
from sfrl_secure.governance.statements import Evidence, UpdateRefused
from sfrl_secure.ids import sha256
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.entries import encode_envelope

PATIENCE_US = 3_000_000


def answers(sim: Simulator) -> list[UpdateRefused]:
    found: list[Any] = [
        sim.log.statement_at(index).body
        for index in range(sim.segment.terms_index + 1, len(sim.log.raw))
        if sim.log.envelope_at(index).payload_type.endswith("statement.v1")
    ]
    return [body for body in found if isinstance(body, UpdateRefused)]


def look_late(sim: Simulator, gatekeeper: SimulatedGatekeeper) -> int:
    """The first look sees the complaint; the second comes when its time is over."""
    gatekeeper.complaints.look()
    sim.clock.advance(PATIENCE_US)
    return gatekeeper.complaints.look()


def test_an_update_that_nobody_had_is_said_not_to_be_received(sim: Simulator) -> None:
    sim.open_round()
    signed = sim.update("rover-1")
    sim.complain("rover-1", signed=signed)
    gatekeeper = sim.gatekeeper()
    assert gatekeeper.complaints.look() == 0
    sim.clock.advance(PATIENCE_US - 1)
    assert gatekeeper.complaints.look() == 0
    assert answers(sim) == []
    sim.clock.advance(1)
    assert gatekeeper.complaints.look() == 1
    (said,) = answers(sim)
    envelope, update, _ = signed
    assert (said.peer, said.reason, said.evidence) == (participant_id("rover-1"), "not_received", Evidence.NONE)
    assert (said.envelope, said.update, said.request_digest) == (envelope, update, sha256(encode_envelope(envelope)))
    assert sim.log.statement_at(len(sim.log.raw) - 1).stream == f"segment/{SEGMENT}"
    assert gatekeeper.complaints.look() == 0
    assert sim.log.voids == {}


def test_an_auditors_complaint_is_answered_like_a_verifiers(sim: Simulator) -> None:
    sim.open_round()
    sim.complain("rover-1", writer=auditor_id("iris"))
    assert look_late(sim, sim.gatekeeper()) == 1


def test_what_was_said_not_to_be_received_may_still_come_and_be_admitted(sim: Simulator) -> None:
    sim.open_round()
    signed = sim.update("rover-1")
    sim.complain("rover-1", signed=signed)
    gatekeeper = sim.gatekeeper()
    assert look_late(sim, gatekeeper) == 1
    assert isinstance(gatekeeper.admitter.submit(submission("rover-1", signed)), AppendedEntry)


def test_an_update_that_was_admitted_or_refused_meanwhile_has_its_answer(sim: Simulator) -> None:
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    admitted, refused = sim.update("rover-1"), sim.update("rover-2", weight=101)
    sim.complain("rover-1", signed=admitted)
    sim.complain("rover-2", signed=refused)
    gatekeeper.complaints.look()
    gatekeeper.admitter.submit(submission("rover-1", admitted))
    with pytest.raises(Exception, match="weight"):
        gatekeeper.admitter.submit(submission("rover-2", refused))
    sim.clock.advance(PATIENCE_US)
    assert gatekeeper.complaints.look() == 0
    assert [said.reason for said in answers(sim)] == ["weight_limit"]


def test_another_update_of_the_participant_is_no_answer(sim: Simulator) -> None:
    sim.open_round()
    sim.complain("rover-1", signed=sim.update("rover-1", weight=3))
    sim.admit("rover-1")
    assert look_late(sim, sim.gatekeeper()) == 1


def test_a_round_that_is_closed_gets_no_answer_any_more(sim: Simulator) -> None:
    sim.open_round()
    sim.complain("rover-1")
    gatekeeper = sim.gatekeeper()
    gatekeeper.complaints.look()
    sim.clock.advance(60_000_000)
    sim.close_round()
    assert gatekeeper.complaints.look() == 0
    assert answers(sim) == []


def test_an_update_that_comes_while_the_answer_is_written_is_not_said_to_be_missing(sim: Simulator) -> None:
    sim.open_round()
    signed = sim.update("rover-1")
    sim.complain("rover-1", signed=signed)
    slow = sim.gatekeeper("g2")
    slow.complaints.look()
    sim.clock.advance(PATIENCE_US)
    prove = slow.proofs.acknowledged

    def admitted_meanwhile(index: int) -> AppendedEntry:
        sim.gatekeeper("g1").admitter.submit(submission("rover-1", signed))
        return prove(index)

    slow.proofs.acknowledged = admitted_meanwhile  # type: ignore[method-assign]
    assert slow.complaints.look() == 0
    assert answers(sim) == []


def test_each_gatekeeper_answers_once_and_no_more_than_the_log_takes(sim: Simulator) -> None:
    sim.open_round()
    sim.complain("rover-1")
    gatekeepers = [sim.gatekeeper("g1"), sim.gatekeeper("g2"), sim.gatekeeper("g1"), sim.gatekeeper("g2")]
    with capture_logs() as lines:
        assert [look_late(sim, each) for each in gatekeepers] == [1, 1, 1, 0]
        assert [each.complaints.look() for each in gatekeepers] == [0, 0, 0, 0]
    assert len(answers(sim)) == 3
    assert {line["event"] for line in lines} == {"complaint_answered"}
    assert sim.log.voids == {}


def test_of_a_participant_without_an_identity_nothing_can_be_said(sim: Simulator) -> None:
    """No refusal of it is an entry; it is not tried again and again."""
    sim.rovers["rover-9"] = SigningKey.generate("ed25519")
    sim.record("rover-9")
    sim.open_round()
    sim.complain("rover-9")
    gatekeeper = sim.gatekeeper()
    with capture_logs() as lines:
        assert look_late(sim, gatekeeper) == 0
    assert lines == []
    assert answers(sim) == []


def test_an_answer_that_could_not_be_written_is_tried_again(sim: Simulator) -> None:
    sim.open_round()
    sim.complain("rover-1")
    gatekeeper = sim.gatekeeper()
    prove = gatekeeper.proofs.acknowledged

    def away(index: int) -> AppendedEntry:
        raise UnavailableError("away")

    gatekeeper.proofs.acknowledged = away  # type: ignore[method-assign]
    assert look_late(sim, gatekeeper) == 0
    gatekeeper.proofs.acknowledged = prove  # type: ignore[method-assign]
    assert gatekeeper.complaints.look() == 1


def test_the_thread_answers_by_itself_and_ends_when_it_is_told(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.services.gatekeeper.complaints.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("sfrl_secure.services.gatekeeper.complaints.PATIENCE_SECONDS", 0.0)
    sim.open_round()
    gatekeeper = sim.gatekeeper()
    gatekeeper.complaints.start()
    sim.complain("rover-1")
    size = len(sim.log.raw)
    assert gatekeeper.view.wait_until(lambda state: state.size > size, 10)
    gatekeeper.complaints.stop()
    assert "complaints" not in {thread.name for thread in threading.enumerate()}
    assert [said.reason for said in answers(sim)] == ["not_received"]
