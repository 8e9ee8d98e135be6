"""Decisions on record: who may write them, what they must say, and how many a minute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simulator import Context, SimulatedGatekeeper, Simulator, participant_id

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, ExhaustedError
from sfrl_secure.governance.statements import DecisionRecorded, PeerClass
from sfrl_secure.ids import sha256
from sfrl_secure.services.gatekeeper.bounds import DECISIONS_A_MINUTE_MAX, PeerRate
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.audit_service import AppendedEntry


def record(gatekeeper: SimulatedGatekeeper, envelope: Envelope, peer: str = "rover-1") -> AppendedEntry:
    context: Any = Context(peer)
    raw = wire.encode_record_request(envelope)
    return wire.parse_record_response(gatekeeper.servicer.record_decision(raw, context))


def counted(gatekeeper: SimulatedGatekeeper) -> list[tuple[str, int]]:
    taken = gatekeeper.counter.take()
    return [] if taken is None else [(each.reason, each.count) for each in taken.counts]


def test_a_decision_is_in_the_log_before_it_is_answered(sim: Simulator) -> None:
    gatekeeper, said = sim.gatekeeper(), sim.decision("rover-1")
    answer = record(gatekeeper, said.envelope)
    assert answer.logged.index == len(sim.log.raw) - 1
    assert sim.log.statement_at(answer.logged.index).body == said
    assert sim.state.decisions[said.envelope.digest].decided_class == said.decision.predicted_class


def test_the_same_decision_has_one_entry_at_every_gatekeeper(sim: Simulator) -> None:
    first, second, said = sim.gatekeeper("g1"), sim.gatekeeper("g2"), sim.decision("rover-1")
    second.view.is_held = True
    index = record(first, said.envelope).logged.index
    assert record(first, said.envelope).logged.index == index
    assert record(second, said.envelope).logged.index == index
    # It stays so once others have followed, and its number is no longer above the last.
    record(first, sim.decision("rover-1").envelope)
    assert record(second, said.envelope).logged.index == index
    assert len(sim.state.decisions) == 2
    assert sim.log.voids == {}


def test_a_halted_segment_takes_decisions(sim: Simulator) -> None:
    sim.halt()
    record(sim.gatekeeper(), sim.decision("rover-1").envelope)
    assert len(sim.state.decisions) == 1


Say = Callable[[Simulator], DecisionRecorded]


def after(prepare: Callable[[Simulator], object]) -> Say:
    """Rover 1 signs, and something happens before it sends."""

    def say(sim: Simulator) -> DecisionRecorded:
        said = sim.decision("rover-1")
        prepare(sim)
        return said

    return say


@pytest.mark.parametrize(
    ("reason", "say"),
    [
        ("wrong_peer", lambda sim: sim.decision("rover-2")),
        ("unknown_segment", lambda sim: sim.decision("rover-1", segment="sand")),
        ("wrong_federation", lambda sim: sim.decision("rover-1", federation_id=sha256(b"another"))),
        ("bad_signature", lambda sim: sim.decision("rover-1", key=SigningKey.generate("ed25519"))),
        ("participant_inactive", after(lambda sim: sim.record("rover-1", state="suspended"))),
        ("not_granted", after(lambda sim: sim.record("rover-1", groups=["orbiters"]))),
        ("not_granted", after(lambda sim: sim.publish_terms(operations=["fetch", "submit"]))),
        ("record_seq", after(lambda sim: sim.decide("rover-1", predicted_class=9))),
        ("unknown_model", lambda sim: sim.decision("rover-1", model=sha256(b"another model"))),
    ],
)
def test_what_is_refused_is_counted_and_gets_no_entry(sim: Simulator, reason: str, say: Say) -> None:
    said = say(sim)
    gatekeeper, size = sim.gatekeeper(), len(sim.log.raw)
    with pytest.raises(DeniedError) as denied:
        record(gatekeeper, said.envelope)
    assert (denied.value.reason, denied.value.entry_index) == (reason, None)
    assert counted(gatekeeper) == [(reason, 1)]
    assert len(sim.log.raw) == size


def test_a_request_that_does_not_parse_is_counted(sim: Simulator) -> None:
    gatekeeper, context = sim.gatekeeper(), Context("rover-1")
    with pytest.raises(DeniedError) as denied:
        gatekeeper.servicer.record_decision(b"\xff", context)  # type: ignore[arg-type]
    assert denied.value.reason == "malformed"
    taken = gatekeeper.counter.take()
    assert taken is not None
    assert [(each.reason, each.peer_class) for each in taken.counts] == [("malformed", PeerClass.PARTICIPANT)]


def test_a_participant_that_records_without_end_is_held_up_and_nobody_else_is(sim: Simulator) -> None:
    gatekeeper, said = sim.gatekeeper(), sim.decision("rover-1")
    for _ in range(DECISIONS_A_MINUTE_MAX):
        record(gatekeeper, said.envelope)
    with pytest.raises(ExhaustedError, match=f"{DECISIONS_A_MINUTE_MAX} of these calls in 60 s"):
        record(gatekeeper, said.envelope)
    record(gatekeeper, sim.decision("rover-2").envelope, "rover-2")
    sim.clock.advance(60_000_000)
    record(gatekeeper, said.envelope)


def test_a_clock_that_goes_back_gives_no_window_that_never_ends() -> None:
    rate, peer = PeerRate(1, 60_000_000), participant_id("rover-1")
    rate.take(peer, 10**15)
    with pytest.raises(ExhaustedError):
        rate.take(peer, 10**15 + 59_999_999)
    rate.take(peer, 10**15 - 1)
