"""Acts of operators: each is what the log would take, or says why not and what there is instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from simulator import SEGMENT, Simulator, participant_id

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError, SfrlError
from sfrl_secure.governance.documents import JoinDocument, KeyRevocation, Order, ParticipantRecord, RootDocument
from sfrl_secure.governance.orders import NoTarget, OrderAction, OverrideTarget, ReaggregateTarget
from sfrl_secure.ids import sha256
from sfrl_secure.limits import JOIN_LIFETIME_US, ORDER_LIFETIME_US
from sfrl_secure.operating.acts import (
    decision_at,
    draft_invitation,
    draft_key_revocation,
    draft_order,
    draft_participant_revocation,
    draft_root,
    model_to_roll_back_to,
    update_to_exclude,
)
from sfrl_secure.operating.signing import SigningRequest
from sfrl_secure.rounds.state import RecordedDecision

KEY = SigningKey.generate("ed25519").public_key
NONE = NoTarget()


def order(sim: Simulator, action: str, target: Any = NONE, hours: float = 24.0, segment: str = SEGMENT) -> Order:
    now_us = sim.clock.now_us()
    request = draft_order(
        sim.state, segment, OrderAction(action), target, reason="why", hours=hours, now_us=now_us
    )
    assert isinstance(request.document, Order)
    return request.document


def put(sim: Simulator, request: SigningRequest) -> int:
    """Publish what was drafted: the log takes it."""
    return sim.publish(request.payload_type, request.payload)


def test_orders_are_numbered_and_follow_each_other(sim: Simulator) -> None:
    first = order(sim, "halt")
    assert (first.version, first.reason, first.series) == (1, "why", ("order", SEGMENT))
    sim.publish(first.payload_type, first.raw)
    second = order(sim, "resume")
    assert (second.version, second.previous) == (2, first.digest)
    sim.publish(second.payload_type, second.raw)
    assert not sim.segment.is_halted


def test_the_longest_order_is_still_taken_by_a_log_whose_clock_is_behind(sim: Simulator) -> None:
    longest = order(sim, "halt", hours=72.0)
    assert longest.expires_us < sim.clock.now_us() + ORDER_LIFETIME_US
    for hours in (0.0, -1.0, 73.0):
        with pytest.raises(MalformedError, match="72 hours"):
            order(sim, "halt", hours=hours)


@pytest.mark.parametrize(
    ("give", "reason"),
    [
        (lambda sim: order(sim, "resume"), "not_halted"),
        (lambda sim: order(sim, "override", OverrideTarget(sha256(b"no"), 1)), "unknown_decision"),
        (lambda sim: order(sim, "reaggregate", ReaggregateTarget(9, ())), "unknown_round"),
    ],
)
def test_an_order_that_could_have_no_effect_is_not_drafted(
    sim: Simulator, give: Callable[[Simulator], object], reason: str
) -> None:
    with pytest.raises(DeniedError) as denied:
        give(sim)
    assert denied.value.reason == reason


def test_an_override_to_the_class_that_the_decision_has_is_not_drafted(sim: Simulator) -> None:
    digest, state = sha256(b"decision"), sim.state
    state.decisions[digest] = RecordedDecision(3, SEGMENT, "rover-1", 3)
    with pytest.raises(MalformedError, match="class 3 already"):
        order(sim, "override", OverrideTarget(digest, 3))
    order(sim, "override", OverrideTarget(digest, 4))


def test_a_segment_that_is_not_there_is_named_with_those_that_are(sim: Simulator) -> None:
    with pytest.raises(NotFoundError, match="it has: rocks"):
        order(sim, "halt", segment="sand")


def test_an_update_is_found_by_round_and_participant(sim: Simulator) -> None:
    played = sim.play_round("rover-1", "rover-2", "rover-3")
    target = update_to_exclude(sim.state, SEGMENT, 1, "rover-2")
    assert target.update == played.admissions["rover-2"].statement_digest
    excluded = order(sim, "exclude", target)
    sim.publish(excluded.payload_type, excluded.raw)
    assert played.excluded == {"rover-2"}
    for number, name in ((1, "rover-4"), (2, "rover-1")):
        with pytest.raises(NotFoundError, match="sfrl round show"):
            update_to_exclude(sim.state, SEGMENT, number, name)


def test_a_model_is_found_by_the_round_that_led_to_it(sim: Simulator) -> None:
    first = sim.play_round("rover-1", "rover-2", "rover-3")
    sim.play_round("rover-1", "rover-2", "rover-3")
    assert model_to_roll_back_to(sim.state, SEGMENT, 1).model == first.model
    assert model_to_roll_back_to(sim.state, SEGMENT, 0).model == sim.initial_digest
    with pytest.raises(NotFoundError, match="the steps are: 1, 2"):
        model_to_roll_back_to(sim.state, SEGMENT, 3)
    back = order(sim, "rollback", model_to_roll_back_to(sim.state, SEGMENT, 1))
    sim.publish(back.payload_type, back.raw)
    assert sim.segment.model == first.model


def test_a_decision_is_found_by_its_entry(sim: Simulator) -> None:
    sim.publish_terms(operations=["fetch", "record", "submit"])
    digest = sim.decide("rover-1")
    index = sim.state.decisions[digest].index
    assert decision_at(sim.state, SEGMENT, index) == digest
    for segment, at in ((SEGMENT, index - 1), ("sand", index)):
        with pytest.raises(NotFoundError):
            decision_at(sim.state, segment, at)


def test_a_revocation_keeps_the_record_and_outlives_its_expiry(sim: Simulator) -> None:
    before = sim.state.participant("rover-1")
    assert before is not None
    sim.clock.advance(before.expires_us - sim.clock.now_us() - 1_000_000)
    request = draft_participant_revocation(sim.state, "rover-1", reason="stolen", now_us=sim.clock.now_us())
    after = request.document
    assert isinstance(after, ParticipantRecord)
    assert (after.state, after.reason, after.key, after.groups) == ("revoked", "stolen", before.key, before.groups)
    assert after.expires_us > before.expires_us


def test_a_revocation_takes_one_operator_and_holds_for_ever(sim: Simulator) -> None:
    now_us = sim.clock.now_us()
    request = draft_participant_revocation(sim.state, "rover-1", reason="", now_us=now_us)
    sim.publish(request.payload_type, request.payload, ["eve"])
    with pytest.raises(DeniedError) as denied:
        draft_participant_revocation(sim.state, "rover-1", reason="", now_us=now_us)
    assert denied.value.reason == "revoked"
    with pytest.raises(DeniedError, match="under another name"):
        invitation(sim, "rover-1")
    with pytest.raises(NotFoundError, match="rover-1, rover-2"):
        draft_participant_revocation(sim.state, "rover-9", reason="", now_us=now_us)


def test_a_tls_key_is_revoked_under_the_name_that_it_was_issued_to(sim: Simulator) -> None:
    spki = sha256(b"rover-1")
    if spki not in sim.state.issued:
        sim.issue("rover-1", spki=spki)
    now_us = sim.clock.now_us()
    request = draft_key_revocation(sim.state, spki, None, reason="copied", now_us=now_us)
    assert isinstance(request.document, KeyRevocation)
    assert request.document.spiffe_id == participant_id("rover-1")
    with pytest.raises(MalformedError, match="somebody else"):
        draft_key_revocation(sim.state, spki, participant_id("rover-2"), reason="", now_us=now_us)
    sim.publish(request.payload_type, request.payload, ["eve"])
    with pytest.raises(DeniedError) as denied:
        draft_key_revocation(sim.state, spki, None, reason="", now_us=now_us)
    assert denied.value.reason == "revoked"


def test_a_key_that_was_never_issued_is_revoked_under_the_name_that_is_given(sim: Simulator) -> None:
    spki, now_us = sha256(b"in a drawer"), sim.clock.now_us()
    with pytest.raises(NotFoundError, match="--spiffe-id"):
        draft_key_revocation(sim.state, spki, None, reason="", now_us=now_us)
    put(sim, draft_key_revocation(sim.state, spki, participant_id("rover-2"), reason="", now_us=now_us))
    assert spki in sim.state.revoked_keys


def invitation(sim: Simulator, name: str, hours: float = 24.0) -> SigningRequest:
    return draft_invitation(
        sim.state, name, KEY, clearance=3, groups=["rovers", "drones"], hours=hours, record_days=30.0,
        now_us=sim.clock.now_us(),
    )  # fmt: skip


def test_an_invitation_says_what_the_record_will(sim: Simulator) -> None:
    request = invitation(sim, "rover-9")
    join = request.document
    assert isinstance(join, JoinDocument)
    assert (join.name, join.join_key, join.clearance, join.groups) == ("rover-9", KEY, 3, {"rovers", "drones"})
    assert join.record_expires_us == sim.clock.now_us() + 30 * 86_400_000_000
    put(sim, request)
    assert sim.state.join("rover-9") == join


def test_the_longest_invitation_is_still_taken_by_a_log_whose_clock_is_behind(sim: Simulator) -> None:
    assert invitation(sim, "rover-9", 744.0).document.expires_us < sim.clock.now_us() + JOIN_LIFETIME_US
    for hours in (0.0, 745.0):
        with pytest.raises(MalformedError, match="744 hours"):
            invitation(sim, "rover-9", hours)


def root(sim: Simulator, **changes: Any) -> RootDocument:
    given: dict[str, Any] = {"add": {}, "remove": [], "thresholds": {}, "days": None, **changes}
    document = draft_root(sim.state, **given, now_us=sim.clock.now_us()).document
    assert isinstance(document, RootDocument)
    return document


def test_the_next_root_changes_what_is_said_and_keeps_the_rest(sim: Simulator) -> None:
    before = sim.state.root
    assert before is not None
    after = root(sim, add={"dora": KEY}, remove=["eve"], thresholds={"governance": 3})
    assert set(after.operators) == {"ann", "bob", "dora"}
    assert after.operators["ann"] == before.operators["ann"]
    assert (after.thresholds.governance, after.thresholds.root) == (3, 2)
    assert (after.version, after.previous, after.expires_us) == (2, before.digest, before.expires_us)
    assert root(sim, days=10.0).expires_us == sim.clock.now_us() + 10 * 86_400_000_000


@pytest.mark.parametrize(
    ("changes", "kind", "reason"),
    [
        ({}, MalformedError, "nothing would change"),
        ({"remove": ["dora"]}, NotFoundError, "dora is no operator of root v1; they are: ann, bob, eve"),
        ({"remove": ["ann"], "add": {"ann": KEY}}, MalformedError, "either removed or given"),
        ({"remove": ["ann", "bob"]}, MalformedError, "1 operator would be left and root takes 2"),
        ({"thresholds": {"root": 4}}, MalformedError, "3 operators would be left and root takes 4"),
    ],
)
def test_a_root_that_could_not_be_is_not_drafted(
    sim: Simulator, changes: dict[str, Any], kind: type[SfrlError], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        root(sim, **changes)


def test_the_next_root_of_an_expired_one_says_how_long_it_holds(sim: Simulator) -> None:
    assert sim.state.root is not None
    sim.clock.advance(sim.state.root.expires_us - sim.clock.now_us())
    with pytest.raises(MalformedError, match="--days"):
        root(sim, add={"dora": KEY})
    assert root(sim, days=1.0).expires_us > sim.clock.now_us()
