"""Who may bring another's update: a relay of the segment, while it is active and the terms name its group."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simulator import DAY_US, HOUR_US, Simulator, auditor_id, participant_id, service_id

from sfrl_secure.errors import ConflictError, DeniedError
from sfrl_secure.governance.statements import Evidence, PayloadFormat
from sfrl_secure.ids import SpiffeId
from sfrl_secure.rounds.admission import check_header_limits, check_log_steps, is_admitted, is_relay
from sfrl_secure.wire.entries import encode_envelope

from .scenes import G1, STREAM, refused

RELAY = participant_id("rover-4")


@pytest.fixture
def sim(tmp_path: Path) -> Simulator:
    made = Simulator(tmp_path, terms={"relay_groups": ["depots"]})
    made.record("rover-4", groups=["depots", "rovers"])
    made.open_round()
    return made


def relays(sim: Simulator, peer: SpiffeId = RELAY, segment: str = "rocks") -> bool:
    return is_relay(sim.state, peer, segment, sim.clock.now_us())


def brought_by(sim: Simulator, peer: SpiffeId, name: str = "rover-1") -> str:
    """The reason that steps 3 to 8 give."""
    envelope, update, _ = sim.update(name)
    try:
        check_log_steps(sim.state, peer, envelope, update, sim.clock.now_us())
    except DeniedError as denied:
        return denied.reason
    return ""


def test_a_relay_brings_others_updates_and_whoever_is_none_does_not(sim: Simulator) -> None:
    assert relays(sim)
    assert brought_by(sim, RELAY) == brought_by(sim, participant_id("rover-1")) == ""
    assert not relays(sim, participant_id("rover-2"))
    assert brought_by(sim, participant_id("rover-2")) == "wrong_peer"


def test_only_participants_are_relays(sim: Simulator) -> None:
    for spiffe_id in (
        service_id("gatekeeper", "rover-4"), auditor_id("rover-4"), participant_id("nobody"),
    ):  # fmt: skip
        assert not relays(sim, spiffe_id)


def test_a_relay_is_one_in_its_segment_while_it_is_active(sim: Simulator) -> None:
    assert not relays(sim, segment="other")
    sim.record("rover-4", groups=["depots"], state="suspended")
    assert not relays(sim)
    sim.record("rover-4", groups=["depots"], expires_us=sim.clock.now_us() + HOUR_US)
    assert relays(sim)
    sim.clock.advance(HOUR_US)
    assert not relays(sim)


def test_the_terms_in_force_say_who_relays_even_while_a_round_of_older_terms_is_open(sim: Simulator) -> None:
    sim.publish_terms(relay_groups=["others"])
    assert not relays(sim)
    assert brought_by(sim, RELAY) == "wrong_peer"
    sim.publish_terms(relay_groups=["others", "rovers"])
    assert brought_by(sim, participant_id("rover-2")) == ""


def test_a_relay_is_no_other_participant_to_the_steps_that_follow(sim: Simulator) -> None:
    sim.record("rover-1", state="suspended")
    assert brought_by(sim, RELAY) == "participant_inactive"


def test_an_admitted_update_is_answered_to_its_participant_and_to_relays(sim: Simulator) -> None:
    envelope, update, payload = sim.update("rover-1")
    sim.objects.put(payload)
    now_us = sim.clock.now_us()
    assert not is_admitted(sim.state, RELAY, envelope, update, now_us)
    body = sim.admission("rover-1")
    sim.write(G1, STREAM, replace(body, envelope=envelope, update=update, envelope_raw=encode_envelope(envelope)))
    for peer, expected in ((RELAY, True), (participant_id("rover-1"), True), (participant_id("rover-2"), False)):
        assert is_admitted(sim.state, peer, envelope, update, now_us) is expected
    with pytest.raises(DeniedError) as denied:
        check_log_steps(sim.state, participant_id("rover-2"), envelope, update, now_us)
    assert denied.value.reason == "replayed"
    with pytest.raises(DeniedError) as denied:
        check_log_steps(sim.state, RELAY, envelope, update, now_us)
    assert denied.value.reason == "duplicate"


def test_the_log_takes_no_refusal_of_a_relay_as_a_wrong_peer(sim: Simulator) -> None:
    body = refused("wrong_peer", Evidence.LOG)(sim)
    for peer in (RELAY, body.peer):
        with pytest.raises(ConflictError):
            sim.write(G1, STREAM, replace(body, peer=peer))
    index = sim.write(G1, STREAM, replace(body, peer=participant_id("rover-2")))
    assert sim.state.refused_updates[body.envelope.digest, participant_id("rover-2")].index == index


def test_dense_and_agreed_updates_have_the_number_of_values_of_their_mode(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    sim.publish_terms(support_modes=["agreed", "dense", "free"], mask=sim.agree(1, 2, 3))
    sim.clock.advance(DAY_US)
    sim.open_round()

    def reason(support: str, nonzeros: int) -> str:
        _, update, _ = sim.update("rover-1")
        update = replace(update, nonzeros=nonzeros, format=replace(update.format, support=support))
        record = sim.state.participant("rover-1")
        assert record is not None
        try:
            check_header_limits(sim.segment.terms, record, update)
        except DeniedError as denied:
            return denied.reason
        return ""

    assert reason("agreed", 3) == reason("free", 3) == reason("free", 5) == ""
    assert reason("agreed", 2) == reason("agreed", 4) == reason("dense", 3) == "format_not_allowed"
    # All coordinates, and more of them than the terms take.
    assert reason("dense", 24) == "too_dense"
    assert reason("dense", 23) == "format_not_allowed"


def test_a_payload_of_the_first_codec_is_not_allowed(sim: Simulator) -> None:
    for codec in (1, 3):
        envelope, update, _ = sim.update("rover-1", format=PayloadFormat(codec, "free", "int8"))
        with pytest.raises(DeniedError) as denied:
            check_log_steps(sim.state, None, envelope, update, sim.clock.now_us())
        assert denied.value.reason == "format_not_allowed"
