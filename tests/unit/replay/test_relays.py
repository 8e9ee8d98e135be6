"""Who may bring another's update, as refusals show it: `wrong_peer` and `replayed`, decided again at their index."""

from __future__ import annotations

from typing import Any

import pytest

from sfrl_secure.crypto.keys import SigningKey

from .builder import SECOND, Writer, codes
from .void_rows import terms_with

R4 = "spiffe://rover.example/participant/r4"
OPERATOR = "spiffe://rover.example/operator/ann"


def with_relay(groups: list[str] | None = None, **record: Any) -> Writer:
    """A federation in which r4, an orbiter, may bring the updates of others."""
    writer = Writer().begin()
    writer.record("r4", body={"groups": groups or ["orbiters"]}, **record)
    writer.publish_terms(terms_with(writer, relay_groups=["lorries", "orbiters"]))
    writer.open_round()
    return writer


def last_codes(writer: Writer) -> list[str]:
    replay = writer.replay()
    return [each.code for each in replay.docket.findings if each.index == len(writer.entries) - 1]


def test_a_relay_is_refused_for_the_updates_own_reasons() -> None:
    writer = with_relay()
    writer.refuse("r1", "weight_limit", peer=R4, fields={"weight": 0})
    writer.refuse("r1", "wrong_prefix", peer=R4, fields={"round_opened": b"x" * 32})
    writer.admit("r1", {0: 5})
    writer.refuse("r1", "duplicate", peer=R4)
    assert writer.replay().docket.findings == []


@pytest.mark.parametrize("reason", ["wrong_peer", "replayed"])
def test_to_refuse_a_relay_as_a_stranger_is_false(reason: str) -> None:
    writer = with_relay()
    if reason == "replayed":
        writer.admit("r1", {1: 5})
    writer.refuse("r1", reason, peer=R4)
    assert last_codes(writer) == ["refusal_reason"]


def test_whoever_brings_an_update_is_no_relay_without_a_group_of_the_terms() -> None:
    writer = with_relay(["rovers"])
    writer.refuse("r1", "wrong_peer", peer=R4)
    writer.admit("r1", {1: 5})
    writer.refuse("r1", "replayed", peer=R4)
    assert writer.replay().docket.findings == []


@pytest.mark.parametrize("record", [{"state": "suspended"}, {"state": "revoked"}, {"expires_us": "soon"}])
def test_a_relay_that_is_not_active_is_none(record: dict[str, Any]) -> None:
    writer = with_relay()
    changes = {"expires_us": writer.now + 3 * SECOND} if "expires_us" in record else record
    writer.record("r4", body={"groups": ["orbiters"]}, **changes)
    writer.now += 3 * SECOND
    writer.refuse("r1", "wrong_peer", peer=R4)
    assert writer.replay().docket.findings == []


def test_an_operator_is_no_relay_under_a_participants_name() -> None:
    writer = with_relay()
    writer.participants["ann"] = SigningKey.generate("ed25519")
    writer.record("ann", body={"groups": ["orbiters"]})
    writer.issue(OPERATOR)
    writer.refuse("r1", "wrong_peer", peer=OPERATOR)
    assert writer.replay().docket.findings == []


def test_relays_are_those_of_the_terms_in_force_and_not_of_the_rounds() -> None:
    writer = with_relay()
    writer.publish_terms(terms_with(writer, relay_groups=["lorries"]))
    writer.refuse("r1", "wrong_peer", peer=R4)
    writer.publish_terms(terms_with(writer, relay_groups=["orbiters"]))
    writer.refuse("r1", "weight_limit", peer=R4, fields={"weight": 0})
    assert writer.replay().docket.findings == []


def test_there_is_no_relay_of_a_segment_without_terms() -> None:
    writer = with_relay()
    writer.refuse("r1", "wrong_peer", peer=R4, fields={"segment": "none"}, stream="log")
    assert writer.replay().docket.findings == []


def test_what_is_wrong_with_the_participant_comes_before_the_peer() -> None:
    writer = with_relay(["rovers"])
    writer.record("r1", state="suspended")
    writer.refuse("r1", "participant_inactive", peer=R4)
    assert writer.replay().docket.findings == []


def test_a_refusal_to_a_relay_is_no_answer_to_a_complaint() -> None:
    writer = with_relay()
    writer.complain("r1", {1: 5})
    writer.refuse("r1", "not_received", evidence=3, peer=R4)
    writer.admit("r2", {1: 5})
    writer.admit("r3", {1: 5})
    writer.pass_time(600 * SECOND)
    writer.close()
    assert codes(writer.replay().docket.findings) == ["censorship"]
