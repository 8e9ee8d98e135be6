"""Identities: nobody gets one that he did not ask for, and who has one asks over it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulator import DAY_US, HOUR_US, NOW_US, Simulator, auditor_id, operator_id, participant_id, service_id

from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.statements import UPDATE_TYPE, Body
from sfrl_secure.ids import ZERO_DIGEST, SpiffeId, sha256
from sfrl_secure.rounds.identities import LIFETIME_US_MAX, RATE_WINDOW_US, REQUEST_AGE_US_MAX
from sfrl_secure.wire.entries import encode_envelope

from .scenes import A1, G1, Case, Prepare, Send, check_sound, check_void, findings, ids, nothing, revoked, says

FIRST, SECOND, THIRD = (sha256(name) for name in (b"rover-1", b"second", b"third"))
STRANGER = SigningKey.generate("ed25519")


def issued(who: str | SpiffeId = "rover-1", **changes: Any) -> Send:
    """An identity for a new key, asked for over the one before."""
    return says(lambda sim: sim.identity(who, **{"spki": SECOND, **changes}), G1, "identity")


def asked(**changes: Any) -> Send:
    """Rover 1's next identity, with changes to the request, which is signed as it is."""

    def body(sim: Simulator) -> Body:
        signed = sim.identity_request(participant_id("rover-1"), SECOND, **changes)
        return sim.identity("rover-1", spki=SECOND, signed=signed)

    return says(body, G1, "identity")


def forged(sim: Simulator) -> Body:
    body = sim.identity("rover-1", spki=SECOND)
    signature = replace(body.envelope.signatures[0], value=bytes(64))
    envelope = replace(body.envelope, signatures=(signature,))
    return replace(body, envelope=envelope, envelope_raw=encode_envelope(envelope))


def again(off_us: int, spki: Any = FIRST) -> Send:
    """A request for a key that has an identity, made so long after the last one that had effect."""

    def body(sim: Simulator) -> Body:
        created_us = sim.state.last_requests[spki] + off_us
        signed = sim.identity_request(participant_id("rover-1"), spki, created_us=created_us)
        return sim.identity("rover-1", spki=spki, renews=spki, serial=9, signed=signed)

    return says(body, G1, "identity")


def zeros_between(sim: Simulator) -> None:
    """Rover 1 renewed, and then a stolen gatekeeper and signing key had zeros issued."""
    renewed(sim)
    sim.issue("rover-1", spki=ZERO_DIGEST, renews=SECOND)


def renewed(sim: Simulator) -> None:
    sim.issue("rover-1", spki=SECOND)


def first_revoked(sim: Simulator) -> None:
    sim.revoke_key(FIRST)


def second_revoked(sim: Simulator) -> None:
    sim.revoke_key(SECOND)


def short_lived(sim: Simulator) -> None:
    sim.issue("rover-1", spki=SECOND, not_after_us=sim.clock.now_us() + HOUR_US)
    sim.clock.advance(HOUR_US)


def nearly_over(sim: Simulator) -> None:
    short_lived(sim)
    sim.clock.advance(-1)


def rekeyed(sim: Simulator) -> None:
    """A new record of rover-1 after its identity."""
    sim.record("rover-1", reason="moved house")


def rekeyed_and_issued(sim: Simulator) -> None:
    rekeyed(sim)
    sim.issue("rover-1", spki=SECOND, renews=None)


def without_g2(sim: Simulator) -> None:
    g2 = service_id("gatekeeper", "g2")
    sim.issue(g2)
    sim.publish_services(services={who: key for who, key in sim.keys.items() if who != g2})


def named(spiffe_id: str) -> Send:
    return lambda sim: issued(SpiffeId(spiffe_id), key=STRANGER)(sim)


OTHER_KEY = {"key": STRANGER}
VOID: list[Case] = [
    ("unknown_name", nothing, named("spiffe://mars.example/participant/rover-9")),
    ("unknown_name", nothing, named("spiffe://mars.example/operator/zoe")),
    ("unknown_name", nothing, named("spiffe://mars.example/auditor/ada")),
    ("unknown_name", nothing, named("spiffe://mars.example/service/gatekeeper/a1")),
    ("unknown_name", nothing, named("spiffe://venus.example/participant/rover-1")),
    ("unknown_name", without_g2, issued(service_id("gatekeeper", "g2"))),
    ("revoked", revoked("rover-1"), issued()),
    ("revoked", second_revoked, issued()),
    ("revoked", first_revoked, issued(spki=FIRST)),
    ("key_reused", nothing, issued(spki=sha256(b"rover-2"))),
    ("key_reused", revoked("rover-2"), issued(spki=sha256(b"rover-2"))),
    ("expired", nothing, issued(not_after_us=NOW_US)),
    ("lifetime", nothing, issued(not_after_us=NOW_US + LIFETIME_US_MAX + 1)),
    # The request.
    ("bad_signature", nothing, issued(**OTHER_KEY)),
    ("bad_signature", nothing, says(forged, G1, "identity")),
    ("bad_signature", nothing, lambda sim: issued(key=sim.rovers["rover-2"])(sim)),
    ("bad_signature", nothing, lambda sim: issued(key=sim.operators["ann"])(sim)),
    ("bad_signature", nothing, asked(key_id=STRANGER.public_key.key_id)),
    ("wrong_federation", nothing, asked(federation_id=sha256(b"another"))),
    ("wrong_peer", nothing, asked(spiffe_id=participant_id("rover-2"))),
    ("wrong_peer", nothing, asked(spki_sha256=THIRD)),
    ("request_stale", nothing, asked(created_us=NOW_US - REQUEST_AGE_US_MAX - 1)),
    ("request_stale", nothing, asked(created_us=NOW_US + REQUEST_AGE_US_MAX + 1)),
    ("request_used", nothing, again(0)),
    ("request_used", nothing, again(-1)),
    ("request_used", renewed, again(0, SECOND)),
    ("request_used", rekeyed, again(0)),
    # What it renews.
    ("not_renewed", renewed, issued(spki=ZERO_DIGEST, renews=None)),
    ("not_renewed", renewed, issued(spki=THIRD, renews=ZERO_DIGEST)),
    ("not_renewed", zeros_between, issued(spki=ZERO_DIGEST, renews=None)),
    ("not_renewed", zeros_between, issued(spki=THIRD, renews=None)),
    ("not_renewed", nothing, issued(renews=None)),
    ("not_renewed", nothing, issued(renews=SECOND)),
    ("not_renewed", nothing, issued(renews=sha256(b"rover-2"))),
    ("not_renewed", first_revoked, issued(renews=FIRST)),
    ("not_renewed", first_revoked, issued(renews=None)),
    ("not_renewed", short_lived, issued(spki=THIRD, renews=SECOND)),
    ("not_renewed", renewed, issued(spki=FIRST, renews=None)),
    ("not_renewed", renewed, issued(spki=SECOND, renews=None)),
    ("not_renewed", renewed, issued(spki=THIRD, renews=None)),
    ("not_renewed", rekeyed_and_issued, issued(spki=THIRD, renews=None)),
    ("not_renewed", rekeyed_and_issued, issued(spki=FIRST, renews=None)),
    ("not_renewed", nothing, issued(operator_id("ann"), renews=FIRST)),
]  # fmt: skip


@pytest.mark.parametrize("case", VOID, ids=ids(VOID))
def test_an_identity_that_nobody_may_have_is_void(prepare: Prepare, case: Case) -> None:
    reason, scene, send = case
    check_void(prepare(scene), reason, send)


SOUND: list[Case] = [
    ("renewed", nothing, issued()),
    ("renewed-to-the-last-moment", nearly_over, issued(spki=THIRD, renews=SECOND)),
    ("renewed-over-the-older-one", renewed, issued(spki=THIRD, renews=FIRST)),
    ("same-key-again", nothing, issued(spki=FIRST, renews=None)),
    ("same-key-over-itself", nothing, issued(spki=FIRST, renews=FIRST)),
    ("first-one-of-a-new-record", rekeyed, issued(renews=None)),
    ("same-one-of-a-new-record", rekeyed_and_issued, issued(spki=SECOND, renews=None)),
    ("over-one-of-the-record-before", rekeyed_and_issued, issued(spki=THIRD, renews=FIRST)),
    ("same-key-by-a-newer-request", nothing, again(1)),
    ("another-key-at-the-same-time", nothing, asked(created_us=NOW_US)),
    ("zeros-over-the-one-before", nothing, issued(spki=ZERO_DIGEST)),
    ("over-zeros", zeros_between, issued(spki=THIRD, renews=ZERO_DIGEST)),
    ("operator", nothing, issued(operator_id("ann"))),
    ("auditor", nothing, issued(auditor_id("iris"))),
    ("service", nothing, issued(service_id("audit_log", "l1"))),
    ("suspended", lambda sim: sim.record("rover-2", state="suspended"),
     issued("rover-2", renews=sha256(b"rover-2"))),
    ("366-days", nothing, issued(not_after_us=NOW_US + LIFETIME_US_MAX)),
    ("asked-an-hour-ago", nothing, asked(created_us=NOW_US - REQUEST_AGE_US_MAX)),
    ("asked-by-a-clock-an-hour-ahead", nothing, asked(created_us=NOW_US + REQUEST_AGE_US_MAX)),
]  # fmt: skip


@pytest.mark.parametrize("case", SOUND, ids=[case[0] for case in SOUND])
def test_an_identity_that_was_asked_for_has_effect_here_and_in_the_verifier(tmp_path: Path, case: Case) -> None:
    _, scene, send = case
    check_sound(tmp_path, scene, send)


def test_others_than_participants_may_ask_anew_each_time(sim: Simulator) -> None:
    for spiffe_id in (operator_id("ann"), auditor_id("iris"), A1):
        for spki in (sha256(spiffe_id.encode()), sha256(spiffe_id.encode() + b"2")):
            sim.issue(spiffe_id, spki=spki, renews=None)
    assert findings(sim) == set()


@pytest.mark.parametrize("stolen", [b"rover-1", b"second"])
def test_a_stolen_signing_key_alone_gets_no_identity(sim: Simulator, stolen: bytes) -> None:
    """Whatever key it asks for, nothing opens the door but what its owner holds."""
    sim.issue("rover-1", spki=SECOND)
    sim.revoke_key(sha256(stolen))
    for renews in (None, sha256(stolen), sha256(b"rover-2"), THIRD):
        with pytest.raises(DeniedError) as denied:
            sim.issue("rover-1", spki=THIRD, renews=renews)
        assert denied.value.reason == "not_renewed"


def test_a_request_is_no_other_statement(sim: Simulator) -> None:
    """The payload type is part of what is signed: what was signed as an update is no request, whatever it says."""
    body = sim.identity("rover-1", spki=SECOND)
    signed = sign_envelope(UPDATE_TYPE, body.envelope.statement, [sim.rovers["rover-1"]])
    statement = sim.statement(G1, "identity", body)
    changed = replace(statement, body=replace(body, envelope=signed))
    with pytest.raises(DeniedError) as denied:
        sim.log.fold.check(sim.clock.now_us(), sim.sign(statement), changed)
    assert denied.value.reason == "bad_signature"


def test_a_name_gets_so_many_identities_in_a_day_whatever_their_keys(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfrl_secure.rounds.identities.RATE_MAX", 4)
    monkeypatch.setattr("sfrl_secure.replay.enrolment.IDENTITIES_A_DAY_MAX", 4)
    for spki in (FIRST, SECOND, SECOND):
        sim.clock.advance(1)
        sim.issue("rover-1", spki=spki, renews=FIRST)
    for spki in (THIRD, SECOND):
        with pytest.raises(DeniedError) as denied:
            sim.issue("rover-1", spki=spki, renews=FIRST)
        assert denied.value.reason == "identity_rate"
    sim.issue("rover-2")
    # The first of the four was issued a day ago; the second one is a microsecond later.
    first_us = sim.state.issue_times[participant_id("rover-1")][0]
    sim.clock.advance(first_us + RATE_WINDOW_US - 1 - sim.clock.now_us())
    with pytest.raises(DeniedError, match="at most 4"):
        sim.issue("rover-1", spki=THIRD, renews=FIRST)
    sim.clock.advance(1)
    sim.issue("rover-1", spki=THIRD, renews=FIRST)
    with pytest.raises(DeniedError, match="at most 4"):
        sim.issue("rover-1", spki=SECOND, renews=FIRST)
    assert len(sim.state.issue_times[participant_id("rover-1")]) == 4
    assert findings(sim) == set()


def test_a_years_renewals_leave_one_name_a_key(sim: Simulator) -> None:
    spki = FIRST
    for month in range(11):
        sim.clock.advance(30 * DAY_US)
        spki, before = sha256(b"month %d" % month), spki
        sim.issue("rover-1", spki=spki, renews=before, not_after_us=sim.clock.now_us() + 31 * DAY_US)
    assert set(sim.state.issued.values()) == {participant_id(name) for name in sim.rovers}
    assert sim.state.identities[spki].not_after_us == sim.clock.now_us() + 31 * DAY_US
