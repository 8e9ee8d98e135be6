"""Taking an update back: who may, when, and what is answered the second time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simulator import Context, SimulatedGatekeeper, Simulator, auditor_id, participant_id, service_id

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError, DeniedError
from sfrl_secure.governance.statements import PeerClass, UpdateWithdrawn
from sfrl_secure.ids import sha256
from sfrl_secure.services.gatekeeper.words import check_speaker
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.canonical import encode_canonical
from sfrl_secure.wire.entries import envelope_message
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2


def withdraw(gatekeeper: SimulatedGatekeeper, envelope: Envelope, peer: str = "rover-1") -> AppendedEntry:
    context: Any = Context(peer)
    raw = wire.encode_withdraw_request(envelope)
    return wire.parse_withdraw_response(gatekeeper.servicer.withdraw_update(raw, context))


def counted(gatekeeper: SimulatedGatekeeper) -> list[tuple[str, PeerClass, int]]:
    taken = gatekeeper.counter.take()
    return [] if taken is None else [(each.reason, each.peer_class, each.count) for each in taken.counts]


def test_a_withdrawal_is_in_the_log_before_it_is_answered_and_drops_the_update(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")
    gatekeeper, said = sim.gatekeeper(), sim.withdrawal("rover-1")
    answer = withdraw(gatekeeper, said.envelope)
    assert answer.logged.index == len(sim.log.raw) - 1
    assert sim.log.statement_at(answer.logged.index).body == said
    for name in ("rover-2", "rover-3"):
        sim.admit(name)
    closed = sim.close_round().closed
    assert closed is not None
    assert [(drop.participant, drop.reason) for drop in closed.dropped] == [("rover-1", "withdrawn")]
    assert counted(gatekeeper) == []


def test_the_same_withdrawal_has_one_entry_at_every_gatekeeper_and_after_the_close(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")
    first, second, said = sim.gatekeeper("g1"), sim.gatekeeper("g2"), sim.withdrawal("rover-1")
    second.view.is_held = True
    index = withdraw(first, said.envelope).logged.index
    size = len(sim.log.raw)
    assert withdraw(first, said.envelope).logged.index == index
    # The other has not heard of it: the log tells it.
    assert withdraw(second, said.envelope).logged.index == index
    sim.clock.advance(60_000_000)
    sim.close_round()
    assert withdraw(second, said.envelope).logged.index == index
    assert len(sim.log.raw) == size + 1
    assert sim.log.voids == {}


def test_an_inactive_participant_may_take_its_update_back(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")
    sim.record("rover-1", state="suspended")
    withdraw(sim.gatekeeper(), sim.withdrawal("rover-1").envelope)
    assert set(sim.segment.rounds[1].withdrawn) == {"rover-1"}


def test_a_halted_segment_takes_withdrawals(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")
    sim.halt()
    withdraw(sim.gatekeeper(), sim.withdrawal("rover-1").envelope)
    assert set(sim.segment.rounds[1].withdrawn) == {"rover-1"}


Say = Callable[[Simulator], UpdateWithdrawn]


def closed(sim: Simulator) -> UpdateWithdrawn:
    said = sim.withdrawal("rover-1")
    sim.clock.advance(60_000_000)
    sim.close_round()
    return said


def again(sim: Simulator) -> UpdateWithdrawn:
    """The same in other words: signed later."""
    sim.withdraw("rover-1")
    return sim.withdrawal("rover-1", created_us=1)


@pytest.mark.parametrize(
    ("reason", "say"),
    [
        ("wrong_peer", lambda sim: sim.withdrawal("rover-2")),
        ("bad_signature", lambda sim: sim.withdrawal("rover-1", key=SigningKey.generate("ed25519"))),
        ("wrong_federation", lambda sim: sim.withdrawal("rover-1", federation_id=sha256(b"another"))),
        ("unknown_segment", lambda sim: sim.withdrawal("rover-1", segment="sand")),
        ("round_not_open", lambda sim: sim.withdrawal("rover-1", round=2)),
        ("round_not_open", closed),
        ("wrong_prefix", lambda sim: sim.withdrawal("rover-1", round_opened=sha256(b"another history"))),
        ("not_admitted", lambda sim: sim.withdrawal("rover-1", update=sha256(b"another update"))),
        ("not_admitted", lambda sim: replace_update(sim)),
        ("withdrawn", again),
    ],
)
def test_what_is_refused_is_counted_and_changes_nothing(sim: Simulator, reason: str, say: Say) -> None:
    sim.open_round()
    sim.admit("rover-1")
    sim.admit("rover-2")
    said = say(sim)
    gatekeeper, size, before = sim.gatekeeper(), len(sim.log.raw), dict(sim.segment.rounds[1].withdrawn)
    with pytest.raises(DeniedError) as denied:
        withdraw(gatekeeper, said.envelope)
    assert (denied.value.reason, denied.value.entry_index) == (reason, None)
    assert counted(gatekeeper) == [(reason, PeerClass.PARTICIPANT, 1)]
    assert (len(sim.log.raw), sim.segment.rounds[1].withdrawn) == (size, before)


def replace_update(sim: Simulator) -> UpdateWithdrawn:
    """Rover 1 names rover 2's update."""
    return sim.withdrawal("rover-1", update=sim.segment.rounds[1].admissions["rover-2"].statement_digest)


def test_a_request_that_does_not_parse_is_counted(sim: Simulator) -> None:
    gatekeeper, context = sim.gatekeeper(), Context("rover-1")
    sim.open_round()
    update = gatekeeper_service_pb2.WithdrawUpdateRequest(envelope=envelope_message(sim.update("rover-1")[0]))
    for raw in (b"\xff", encode_canonical(update)):
        with pytest.raises(DeniedError) as denied:
            gatekeeper.servicer.withdraw_update(raw, context)  # type: ignore[arg-type]
        assert denied.value.reason == "malformed"
    assert counted(gatekeeper) == [("malformed", PeerClass.PARTICIPANT, 2)]


def test_a_log_that_takes_nothing_decides_nothing(sim: Simulator) -> None:
    """No services document is in force: that is no fault of the participant."""
    sim.open_round()
    sim.admit("rover-1")
    gatekeeper, said = sim.gatekeeper(), sim.withdrawal("rover-1")
    sim.publish_services(expires_us=sim.clock.now_us() + 1_000)
    sim.clock.advance(1_000)
    with pytest.raises(ConflictError, match="does not take it yet"):
        withdraw(gatekeeper, said.envelope)
    assert counted(gatekeeper) == []


def test_a_withdrawal_that_races_with_the_close_is_refused(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")
    said, gatekeeper = sim.withdrawal("rover-1"), sim.gatekeeper()
    gatekeeper.view.is_held = True
    sim.clock.advance(60_000_000)
    sim.close_round()
    with pytest.raises(DeniedError) as denied:
        withdraw(gatekeeper, said.envelope)
    assert denied.value.reason == "round_not_open"
    assert sim.segment.rounds[1].withdrawn == {}


def test_a_namesake_with_another_role_speaks_for_no_participant() -> None:
    check_speaker(participant_id("rover-1"), "rover-1")
    for peer in (auditor_id("rover-1"), service_id("gatekeeper", "rover-1"), participant_id("rover-2")):
        with pytest.raises(DeniedError) as denied:
            check_speaker(peer, "rover-1")
        assert denied.value.reason == "wrong_peer"


def test_a_withdrawal_is_for_one_segment(sim: Simulator) -> None:
    sim.publish_terms(segment="sand")
    sim.open_round()
    sim.admit("rover-1")
    with pytest.raises(DeniedError) as denied:
        withdraw(sim.gatekeeper(), sim.withdrawal("rover-1", segment="sand").envelope)
    assert denied.value.reason == "round_not_open"
