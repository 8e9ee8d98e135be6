"""Freshness: what was said once is said again, elsewhere, later, by somebody else; or is said on an old view.

The attacker has recorded what others sent, or holds the key of a service and says what was true a moment ago.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from simulator import HOUR_US, SEGMENT, UNTIL_US, Simulator, operator_id, participant_id, service_id

from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import ED25519, HYBRID
from sfrl_secure.errors import ConflictError, DeniedError, InclusionError
from sfrl_secure.governance.build import build_rules
from sfrl_secure.governance.documents import ParticipantRecord, RulesDocument, SegmentTerms
from sfrl_secure.governance.statements import (
    PeerClass,
    RefusalCount,
    RefusalsCounted,
    RoundOpened,
    TimeAnchored,
    UpdateRefused,
)
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.participant.acknowledgement import open_acknowledgement
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.entries import encode_envelope

from .arena import LOG, Arena

G1, A1, L1 = service_id("gatekeeper", "g1"), service_id("aggregator", "a1"), service_id("audit_log", "l1")
STREAM = f"segment/{SEGMENT}"
DURATION_US = 60_000_000
COUNTS = RefusalsCounted(1, 2, (RefusalCount("role", PeerClass.UNKNOWN, 1),), sha256(b"requests"))


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    with Arena(tmp_path) as made:
        made.sim.open_round()
        yield made


def close_late(sim: Simulator) -> None:
    sim.clock.advance(DURATION_US)
    sim.close_round()
    if sim.segment.awaits_model:
        sim.publish_model()


# Updates


def test_a_captured_update_is_refused_from_whoever_else_sends_it(arena: Arena) -> None:
    captured = arena.sim.update("rover-1")
    arena.refused("wrong_peer", lambda: arena.send("rover-2", captured))
    index = arena.send("rover-1", captured).logged.index
    arena.refused("replayed", lambda: arena.send("rover-3", captured, at="g2"))
    # The thieves' refusals are no answers to the owner.
    assert arena.send("rover-1", captured, at="g2").logged.index == index


ELSEWHERE: list[tuple[str, str, dict[str, Any]]] = [
    ("another federation", "wrong_federation", {"federation_id": sha256(b"another federation")}),
    ("another history", "wrong_prefix", {"round_opened": sha256(b"another history")}),
    ("no history", "wrong_prefix", {"round_opened": ZERO_DIGEST[:31] + b"\x01"}),
    ("a round to come", "round_not_open", {"round": 2}),
    ("a round at the end of time", "round_not_open", {"round": 2**62}),
    ("another model", "wrong_base", {"base_model": sha256(b"another model")}),
]


@pytest.mark.parametrize(("reason", "changes"), [pytest.param(*row[1:], id=row[0]) for row in ELSEWHERE])
def test_an_update_for_elsewhere_is_refused(arena: Arena, reason: str, changes: dict[str, Any]) -> None:
    signed = arena.sim.update("rover-1", **changes)
    arena.refused(reason, lambda: arena.send("rover-1", signed))


def test_an_update_for_a_segment_that_is_none_is_refused_in_the_logs_stream(arena: Arena) -> None:
    signed = arena.sim.update("rover-1", segment="sand")
    arena.refused("unknown_segment", lambda: arena.send("rover-1", signed))
    assert arena.sim.log.statement_at(len(arena.sim.log.raw) - 1).stream == "log"


def test_last_rounds_update_does_not_count_in_the_next(arena: Arena) -> None:
    late = arena.sim.update("rover-1")
    close_late(arena.sim)
    arena.refused("round_not_open", lambda: arena.send("rover-1", late))
    arena.sim.open_round()
    other = arena.sim.update("rover-2", round=1)
    arena.refused("round_not_open", lambda: arena.send("rover-2", other))
    # With the new number over the old history it fares no better.
    third = arena.sim.update("rover-3", round_opened=arena.sim.segment.rounds[1].opened)
    arena.refused("wrong_prefix", lambda: arena.send("rover-3", third))


def test_a_second_update_in_a_round_is_one_too_many(arena: Arena) -> None:
    arena.send("rover-1", arena.sim.update("rover-1"))
    second = arena.sim.update("rover-1", weight=11)
    arena.refused("duplicate", lambda: arena.send("rover-1", second, at="g2"))
    for name in ("rover-2", "rover-3"):
        arena.send(name, arena.sim.update(name))
    fourth = arena.sim.update("rover-4")
    arena.refused("round_full", lambda: arena.send("rover-4", fourth))


def test_two_seconds_before_its_deadline_a_round_takes_nothing_more(arena: Arena) -> None:
    sim = arena.sim
    signed, body = sim.update("rover-1"), sim.admission("rover-2")
    sim.clock.advance(DURATION_US - 2_000_000)
    arena.refused("deadline", lambda: arena.send("rover-1", signed))
    sim.clock.advance(2_000_000)
    # A stolen gatekeeper is held to the deadline itself.
    arena.denied("deadline", "deadline", sim.sign(sim.statement(G1, STREAM, body)))


def test_a_gatekeeper_calls_no_update_late_that_is_not(arena: Arena) -> None:
    sim = arena.sim
    sim.clock.advance(DURATION_US - 2_000_001)
    envelope, update, _ = sim.update("rover-1")
    raw = encode_envelope(envelope)
    body = UpdateRefused(participant_id("rover-1"), raw, envelope, update, sha256(raw), "deadline", None, (), LOG)
    arena.denied("refusal", "refusal_reason", sim.sign(sim.statement(G1, STREAM, body)))
    sim.clock.advance(1)
    sim.log.order(sim.sign(sim.statement(G1, STREAM, body)))
    arena.verify()


def test_what_was_refused_is_refused_again_from_the_record_and_leaves_no_second_entry(arena: Arena) -> None:
    heavy = arena.sim.update("rover-1", weight=101)
    index = len(arena.sim.log.raw)
    arena.refused("weight_limit", lambda: arena.send("rover-1", heavy))
    for at in ("g1", "g2"):
        with pytest.raises(DeniedError) as again:
            arena.send("rover-1", heavy, at=at)
        assert (again.value.reason, again.value.entry_index) == ("weight_limit", index)
    assert len(arena.sim.log.raw) == index + 1


def test_a_second_signature_over_one_update_is_the_same_update(tmp_path: Path) -> None:
    """ML-DSA signatures of one message differ."""
    with Arena(tmp_path, suites={"rover-1": HYBRID}, terms={"suites": [ED25519, HYBRID]}) as arena:
        arena.sim.open_round()
        sent, again = arena.sim.update("rover-1"), arena.sim.update("rover-1")
        assert encode_envelope(sent[0]) != encode_envelope(again[0])
        index = arena.send("rover-1", sent).logged.index
        size = len(arena.sim.log.raw)
        assert arena.send("rover-1", again).logged.index == index
        with pytest.raises(ConflictError) as refused:
            arena.sim.admit("rover-1")
        assert (refused.value.reason, len(arena.sim.log.raw)) == ("duplicate", size)


def test_a_path_of_one_entry_does_not_carry_another(arena: Arena) -> None:
    sim = arena.sim
    index, other, size = sim.admit("rover-1"), sim.admit("rover-2"), len(sim.log.raw)
    moved = LoggedEntry(index, sim.log.raw[other], sim.log.logged_entry(index, size).path)
    envelope, _, _ = sim.update("rover-2")
    with pytest.raises(InclusionError):
        open_acknowledgement(AppendedEntry(moved, sim.log.note(size)), envelope, SEGMENT, sim.policy)


# What participants sign beside updates


def test_old_words_are_refused_and_counted(arena: Arena) -> None:
    sim = arena.sim
    sim.admit("rover-1")
    sim.admit("rover-2")
    withdrawal, first, second = sim.withdrawal("rover-1"), sim.decision("rover-1"), sim.decision("rover-1")
    other = sim.withdrawal("rover-1", created_us=1)
    sim.decide("rover-1", record_seq=9)
    # A decision under a number that was reached, or passed, is an old one.
    arena.counted("record_seq", lambda: arena.record("rover-1", first.envelope))
    nine = sim.decision("rover-1", record_seq=9, predicted_class=4)
    arena.counted("record_seq", lambda: arena.record("rover-1", nine.envelope))
    arena.withdraw("rover-1", withdrawal.envelope)
    arena.counted("withdrawn", lambda: arena.withdraw("rover-1", other.envelope))
    late = sim.withdrawal("rover-2")
    close_late(sim)
    arena.counted("round_not_open", lambda: arena.withdraw("rover-2", late.envelope))
    sim.open_round()
    sim.admit("rover-2")
    arena.counted("round_not_open", lambda: arena.withdraw("rover-2", late.envelope))
    moved = sim.withdrawal("rover-2", round_opened=sim.segment.rounds[1].opened)
    arena.counted("wrong_prefix", lambda: arena.withdraw("rover-2", moved.envelope))
    assert second.decision.record_seq == first.decision.record_seq


def test_a_stolen_gatekeeper_repeats_no_word_of_a_participants(arena: Arena) -> None:
    sim = arena.sim
    sim.admit("rover-1")
    withdrawal, decision = sim.withdrawal("rover-1"), sim.decision("rover-1")
    sim.write(G1, STREAM, withdrawal)
    sim.write(G1, STREAM, decision)
    arena.denied("withdrawn", "withdrawal", sim.sign(sim.statement(G1, STREAM, withdrawal)))
    arena.denied("record_seq", "record_seq", sim.sign(sim.statement(G1, STREAM, decision)))
    admitted = sim.admission("rover-2")
    sim.write(G1, STREAM, admitted)
    arena.denied("duplicate", "duplicate", sim.sign(sim.statement(G1, STREAM, admitted)))


def test_a_request_for_an_identity_is_good_for_an_hour(arena: Arena) -> None:
    sim = arena.sim
    ann, spki = operator_id("ann"), sha256(b"ann's tls key")
    for created_us in (sim.clock.now_us() - HOUR_US - 1, sim.clock.now_us() + HOUR_US + 1):
        body = sim.identity(ann, spki=spki, signed=sim.identity_request(ann, spki, created_us=created_us))
        arena.denied("request_stale", "request", sim.sign(sim.statement(G1, "identity", body)))
    body = sim.identity(ann, spki=spki, signed=sim.identity_request(ann, spki, federation_id=sha256(b"another")))
    arena.denied("wrong_federation", "request", sim.sign(sim.statement(G1, "identity", body)))


# Statements of services


def test_a_log_that_writes_a_statement_twice_is_found_out(arena: Arena) -> None:
    sim = arena.sim
    said = sim.sign(sim.statement(G1, "log", COUNTS))
    sim.log.order(said)
    arena.repeated("repeated", said)
    admitted = sim.sign(sim.statement(G1, STREAM, sim.admission("rover-1")))
    sim.log.order(admitted)
    arena.repeated("repeated", admitted)


def test_what_was_decided_on_an_old_view_is_void(arena: Arena) -> None:
    sim = arena.sim
    before = sim.sign(sim.statement(G1, STREAM, sim.admission("rover-1")))
    sim.record("rover-4", state="revoked")
    arena.denied("stale", "stale_governance", before)
    said = [
        sim.sign(sim.statement(G1, STREAM, body, valid_until_us=UNTIL_US))
        for body in (sim.admission("rover-1"), sim.decision("rover-1"))
    ]
    close_late(sim)
    for each in said:
        arena.denied("stale", "stale_segment", each)
    counts = sim.statement(G1, "log", COUNTS, reads_segment=sim.segment.control_head)
    arena.denied("stale", "stale_segment", sim.sign(counts))
    nothing_read = sim.statement(G1, "log", COUNTS, reads_governance=ZERO_DIGEST)
    arena.denied("stale", "stale_governance", sim.sign(nothing_read))


def test_a_statement_that_was_held_back_is_void(arena: Arena) -> None:
    sim = arena.sim
    held = sim.sign(sim.statement(G1, STREAM, sim.admission("rover-1"), valid_until_us=sim.clock.now_us() + 1_000))
    sim.clock.advance(1_000)
    arena.denied("expired", "expired", held)


def test_a_statement_of_another_federation_is_void(arena: Arena) -> None:
    sim = arena.sim
    statement = sim.statement(G1, "log", COUNTS, federation_id=sha256(b"another"))
    arena.denied("wrong_federation", "wrong_federation", sim.sign(statement))


def test_an_aggregator_opens_no_round_over_an_old_state(arena: Arena) -> None:
    sim = arena.sim
    first = RoundOpened(1, sim.segment.model, sim.segment.terms.digest)
    arena.denied("round_open", "round_not_due", sim.sign(sim.statement(A1, STREAM, first)))
    for name in ("rover-1", "rover-2"):
        sim.admit(name)
    terms, base = sim.segment.terms.digest, sim.segment.model
    close_late(sim)
    sim.publish_terms(value_types=["fp32", "int8"])
    for code, reason, body in (
        ("round_number", "round", replace(first, base_model=sim.segment.model, terms_digest=sim.segment.terms.digest)),
        ("base_model", "base", RoundOpened(2, base, sim.segment.terms.digest)),
        ("terms", "terms", RoundOpened(2, sim.segment.model, terms)),
    ):
        arena.denied(reason, code, sim.sign(sim.statement(A1, STREAM, body)))


def test_the_log_anchors_no_time_that_it_anchored_before(arena: Arena) -> None:
    sim = arena.sim

    def anchor(size: int, origin: str = sim.origin) -> TimeAnchored:
        note = sim.log.note(size, sim.log.witnesses[:2])
        return TimeAnchored(note.replace(sim.origin.encode(), origin.encode()),
                            Checkpoint(origin, size, sim.log.tree.root(size)))  # fmt: skip

    sim.write(L1, "log", anchor(8))
    for size in (8, 7):
        arena.denied("anchor", "anchor", sim.sign(sim.statement(L1, "log", anchor(size))))
    other = anchor(9, sim.origin.replace("log.", "lag."))
    arena.denied("anchor", "anchor", sim.sign(sim.statement(L1, "log", other)))


# Documents


def test_an_older_document_does_not_come_back(arena: Arena) -> None:
    sim = arena.sim
    old = sim.log.envelope_at(2)
    assert old.payload_type == RulesDocument.payload_type
    sim.publish_rules(cedar="")
    arena.repeated("version", old)
    others = sign_envelope(old.payload_type, old.statement, [sim.operators["bob"], sim.operators["eve"]])
    assert others.digest == old.digest
    arena.repeated("version", others)


Change = Callable[[Simulator], dict[str, Any]]
DOCUMENTS: list[tuple[str, str, Change]] = [
    ("the version in force again", "version", lambda sim: {"version": 1, "previous": ZERO_DIGEST}),
    ("a version skipped", "version", lambda sim: {"version": 3}),
    ("a version of another history", "previous", lambda sim: {"previous": sha256(b"another history")}),
    ("another federation's", "wrong_federation", lambda sim: {"federation_id": sha256(b"another")}),
    ("one that has expired", "expired", lambda sim: {"expires_us": sim.clock.now_us()}),
]


@pytest.mark.parametrize(("code", "change"), [pytest.param(*row[1:], id=row[0]) for row in DOCUMENTS])
def test_documents_follow_each_other_whoever_signed_them(arena: Arena, code: str, change: Change) -> None:
    sim = arena.sim
    changes = change(sim)
    cedar = '@id("all") permit (principal, action, resource);'
    rules = build_rules(**{**sim.succession(("rules", "")), "cedar": cedar, "review": False, **changes})
    for payload_type, raw in (
        (RulesDocument.payload_type, rules),
        (SegmentTerms.payload_type, sim.terms_raw(value_types=["fp32", "int8"], **changes)),
        (ParticipantRecord.payload_type, sim.record_raw("rover-1", clearance=9, **changes)),
    ):
        arena.denied(code, code, sim.sign_document(payload_type, raw, ("ann", "bob", "eve")))


def test_a_revoked_participant_does_not_come_back(arena: Arena) -> None:
    sim = arena.sim
    signed = sim.update("rover-1")
    sim.record("rover-1", state="revoked")
    arena.refused("participant_inactive", lambda: arena.send("rover-1", signed))
    for changes in ({"state": "active"}, {"state": "suspended"}, {"state": "revoked"}):
        raw = sim.record_raw("rover-1", **changes)
        arena.denied("revoked", "revoked", sim.sign_document(ParticipantRecord.payload_type, raw, list(sim.operators)))


def test_a_frozen_federation_decides_nothing_on_old_documents(tmp_path: Path) -> None:
    """Whoever keeps the operators' next documents back gains the time until the old ones end, and no more."""
    with Arena(tmp_path) as arena:
        sim = arena.sim
        sim.open_round()
        end = sim.clock.now_us() + 1_000
        sim.publish_rules(expires_us=end)
        sim.publish_terms(expires_us=end)
        sim.clock.advance(1_000)
        signed = sim.update("rover-1")
        arena.refused("policy_denied", lambda: arena.send("rover-1", signed))
        close_late(sim)
        body = RoundOpened(2, sim.segment.model, sim.segment.terms.digest)
        arena.denied("expired", "expired", sim.sign(sim.statement(A1, STREAM, body)))
        sim.publish_services(expires_us=sim.clock.now_us() + 1_000)
        statement = sim.statement(G1, "log", COUNTS)
        sim.clock.advance(1_000)
        arena.denied("writer", "expired", sim.sign(statement))


def test_a_suspended_participant_is_good_again_when_operators_say_so(arena: Arena) -> None:
    sim = arena.sim
    signed, other = sim.update("rover-1"), sim.update("rover-2")
    sim.record("rover-1", state="suspended")
    arena.refused("participant_inactive", partial(arena.send, "rover-1", signed))
    sim.record("rover-1", state="active")
    # The refusal stands for this update; it is not asked for twice. Another is good.
    with pytest.raises(DeniedError):
        arena.send("rover-1", signed)
    arena.send("rover-1", sim.update("rover-1", weight=9))
    arena.send("rover-2", other)
    arena.verify()
