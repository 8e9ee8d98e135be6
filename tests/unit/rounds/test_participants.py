"""What participants sign beside updates: withdrawals, complaints, decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulator import Simulator, participant_id

from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError, DeniedError
from sfrl_secure.governance.statements import (
    UPDATE_TYPE,
    WITHDRAWAL_TYPE,
    Body,
    ComplaintRecorded,
    DecisionRecorded,
    DroppedUpdate,
    Evidence,
    UpdateWithdrawn,
)
from sfrl_secure.ids import sha256
from sfrl_secure.rounds.admission import check_signed
from sfrl_secure.wire.entries import encode_envelope

from .scenes import (
    G1,
    IRIS,
    STREAM,
    V1,
    Case,
    Prepare,
    check_sound,
    check_void,
    closed,
    complaint,
    decision,
    ended,
    findings,
    full,
    ids,
    nothing,
    of_other_groups,
    one_admitted,
    one_withdrawn,
    open_,
    open_then_halted,
    published,
    refused,
    says,
    suspended,
    two_segments,
    withdrawal,
)  # fmt: skip

STRANGER = SigningKey.generate("ed25519")
NOT_ITS_KEY = {"key": STRANGER, "key_id": STRANGER.public_key.key_id}


def forged(body: Any) -> Any:
    """The same, with a signature of the right key's name that does not hold."""

    def made(sim: Simulator) -> Body:
        said: UpdateWithdrawn | ComplaintRecorded | DecisionRecorded = body(sim)
        signature = replace(said.envelope.signatures[0], value=bytes(64))
        envelope = replace(said.envelope, signatures=(signature,))
        return replace(said, envelope=envelope, envelope_raw=encode_envelope(envelope))

    return made


def admitted_then_revoked(sim: Simulator) -> None:
    one_admitted(sim)
    sim.record("rover-1", state="revoked")


def complained(sim: Simulator) -> None:
    sim.open_round()
    sim.complain("rover-1")


def decided(sim: Simulator) -> None:
    sim.decide("rover-1", record_seq=5)


def not_granted(sim: Simulator) -> None:
    sim.publish_terms(operations=["fetch", "submit"])


def record_only(sim: Simulator) -> None:
    sim.publish_terms(operations=["record"])


def superseded(sim: Simulator) -> None:
    """One step, derived again without rover-1."""
    sim.play_round("rover-1", "rover-2", "rover-3")
    sim.exclude("rover-1")
    sim.reaggregate(1)
    sim.publish_model()


VOID: list[Case] = [
    # update_withdrawn.
    ("bad_signature", one_admitted, says(withdrawal(**NOT_ITS_KEY))),
    ("bad_signature", one_admitted, says(forged(withdrawal()))),
    ("bad_signature", one_admitted, says(withdrawal(key_id=STRANGER.public_key.key_id))),
    ("bad_signature", one_admitted, says(withdrawal("rover-9", key=STRANGER))),
    ("bad_signature", one_admitted, lambda sim: says(withdrawal(key=sim.rovers["rover-2"]))(sim)),
    ("wrong_federation", one_admitted, says(withdrawal(federation_id=sha256(b"another")))),
    ("stream", two_segments, says(withdrawal(), G1, "segment/sand")),
    ("round_not_open", full, says(withdrawal(round=2))),
    ("round_not_open", closed, says(withdrawal())),
    ("wrong_prefix", one_admitted, says(withdrawal(round_opened=sha256(b"another")))),
    ("not_admitted", one_admitted, says(withdrawal("rover-2"))),
    ("not_admitted", full, lambda sim: says(withdrawal(
        update=sim.segment.rounds[1].admissions["rover-2"].statement_digest))(sim)),
    ("withdrawn", one_withdrawn, says(withdrawal(created_us=5))),
    ("duplicate", one_withdrawn, lambda sim: says(lambda _: sim.admission("rover-1", {1: 1}))(sim)),
    # complaint_recorded.
    ("bad_signature", open_, says(complaint(**NOT_ITS_KEY), V1)),
    ("bad_signature", open_, says(forged(complaint()), V1)),
    ("wrong_federation", open_, says(complaint(federation_id=sha256(b"another")), V1)),
    ("stream", two_segments, says(complaint(), V1, "segment/sand")),
    ("participant_inactive", suspended, says(complaint(), V1)),
    ("round_not_open", open_, says(complaint(round=2), V1)),
    ("round_not_open", closed, says(complaint(), V1)),
    ("wrong_prefix", open_, says(complaint(round_opened=sha256(b"another")), V1)),
    ("complained", complained, says(complaint(weight=7), V1)),
    ("complained", complained, says(complaint(weight=7), IRIS)),
    # decision_recorded.
    ("bad_signature", nothing, says(decision(**NOT_ITS_KEY))),
    ("bad_signature", nothing, says(forged(decision()))),
    ("wrong_federation", nothing, says(decision(federation_id=sha256(b"another")))),
    ("stream", two_segments, says(decision(), G1, "segment/sand")),
    ("participant_inactive", suspended, says(decision())),
    ("not_granted", not_granted, says(decision())),
    ("not_granted", of_other_groups, says(decision())),
    ("record_seq", decided, says(decision(record_seq=5))),
    ("record_seq", decided, says(decision(record_seq=4))),
    ("unknown_model", nothing, says(decision(model=sha256(b"another")))),
]  # fmt: skip


@pytest.mark.parametrize("case", VOID, ids=ids(VOID))
def test_a_void_word_changes_nothing_but_the_position(prepare: Prepare, case: Case) -> None:
    reason, scene, send = case
    check_void(prepare(scene), reason, send)


SOUND: list[Case] = [
    ("withdrawn", one_admitted, says(withdrawal())),
    ("withdrawn-by-a-revoked-participant", admitted_then_revoked, says(withdrawal())),
    ("withdrawn-while-halted", lambda sim: (one_admitted(sim), sim.halt()), says(withdrawal())),
    ("withdrawn-from-a-round-that-an-order-ended", ended, says(withdrawal("rover-2"))),
    ("complained-before-a-verifier", open_, says(complaint(), V1)),
    ("complained-before-an-auditor", open_, says(complaint(), IRIS)),
    ("complained-while-halted", open_then_halted, says(complaint(), V1)),
    ("complained-of-what-is-no-update-for-now", open_, says(complaint(weight=101), V1)),
    ("second-complainer", complained, says(complaint("rover-2"), V1)),
    ("decided", nothing, says(decision())),
    ("decided-again", decided, says(decision())),
    ("decided-with-a-gap", decided, says(decision(record_seq=2**63 - 1))),
    ("decided-by-another", decided, says(decision("rover-2"))),
    ("decided-with-the-first-model", published, lambda sim: says(decision(model=sim.initial_digest))(sim)),
    ("decided-with-a-model-that-was-superseded", superseded, lambda sim: says(decision(
        model=(sim.segment.models - {sim.initial_digest, sim.segment.model}).pop()))(sim)),
    ("decided-where-nothing-else-is-allowed", record_only, says(decision())),
]  # fmt: skip


@pytest.mark.parametrize("case", SOUND, ids=[case[0] for case in SOUND])
def test_a_sound_word_has_effect_here_and_in_the_verifier(tmp_path: Path, case: Case) -> None:
    _, scene, send = case
    check_sound(tmp_path, scene, send)


def test_what_was_signed_as_something_else_is_no_withdrawal(sim: Simulator) -> None:
    """The payload type is part of what is signed."""
    one_admitted(sim)
    body = sim.withdrawal("rover-1")
    said = body.withdrawal
    for payload_type in (WITHDRAWAL_TYPE, UPDATE_TYPE):
        envelope = sign_envelope(payload_type, body.envelope.statement, [sim.rovers["rover-1"]])
        if payload_type == WITHDRAWAL_TYPE:
            check_signed(sim.state, envelope, WITHDRAWAL_TYPE, said.participant, said.key_id)
        else:
            with pytest.raises(DeniedError):
                check_signed(sim.state, envelope, WITHDRAWAL_TYPE, said.participant, said.key_id)


def test_a_withdrawn_update_keeps_its_place_and_is_dropped(sim: Simulator) -> None:
    full(sim)
    sim.withdraw("rover-1")
    current = sim.segment.rounds[1]
    assert current.is_full
    sim.record("rover-1", state="suspended")
    sim.exclude("rover-1")
    closed_ = sim.close_round(defective=["rover-1"]).closed
    assert closed_ is not None
    digest = current.admissions["rover-1"].statement_digest
    assert closed_.dropped == (DroppedUpdate("rover-1", digest, "withdrawn"),)


def test_a_complaint_is_kept_with_its_time_until_the_round_is_gone(sim: Simulator) -> None:
    sim.open_round()
    sim.clock.advance(5)
    signed = sim.update("rover-1")
    index = sim.complain("rover-1", signed=signed)
    complaint_ = sim.segment.rounds[1].complaints["rover-1"]
    assert (complaint_.index, complaint_.statement_digest) == (index, signed[0].digest)
    assert complaint_.log_time_us == sim.clock.now_us()
    # It bars nothing: the update may still be admitted.
    sim.admit("rover-1")


def test_what_a_gatekeeper_never_had_stands_in_nobodys_way(sim: Simulator) -> None:
    sim.open_round()
    signed = sim.update("rover-1")
    for reason, is_kept in (("not_received", False), ("digest_mismatch", True)):
        body = replace(
            refused(reason, Evidence.NONE)(sim), envelope=signed[0], envelope_raw=encode_envelope(signed[0]),
            update=signed[1],
        )  # fmt: skip
        sim.write(G1, STREAM, body)
        assert ((signed[0].digest, participant_id("rover-1")) in sim.state.refused_updates) == is_kept


def test_a_decision_is_on_record_and_numbers_rise(sim: Simulator) -> None:
    digest = sim.decide("rover-1", predicted_class=2)
    recorded = sim.state.decisions[digest]
    assert (recorded.segment, recorded.participant, recorded.decided_class) == ("rocks", "rover-1", 2)
    assert recorded.overridden is None
    assert recorded.index == len(sim.log.raw) - 1
    for number in (2, 7, 8):
        sim.decide("rover-1", record_seq=number)
    assert sim.segment.decision_seqs == {"rover-1": 8}
    sim.override(digest, 4)
    assert sim.state.decisions[digest].overridden == 4
    assert findings(sim) == set()


def test_a_round_that_closed_meanwhile_is_a_conflict_and_no_denial(sim: Simulator) -> None:
    full(sim)
    late = sim.withdrawal("rover-1")
    sim.close_round()
    with pytest.raises(ConflictError) as raced:
        sim.write(G1, STREAM, late)
    assert raced.value.reason == "round_not_open"
