"""Withdrawals, decisions, complaints and the look at one's own update, over a gatekeeper in memory."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import GRID, SEGMENT, DirectChannel, Simulator

from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    MalformedError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from sfrl_secure.governance.statements import Attribution, DecisionRecorded, UpdateWithdrawn
from sfrl_secure.governance.terms import LeakageBound, LeakageTerms
from sfrl_secure.ids import sha256
from sfrl_secure.participant.decisions import Decision, attributions_of, read_opening
from sfrl_secure.participant.receipt_files import ProvenLogging, open_receipt_file
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.sending import ClaimedPayload, SignedUpdate
from sfrl_secure.participant.sent import parse_complaint
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.rpc.channel import RpcStream
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.uploads import SUBMIT_UPDATE, encode_admitted, parse_upload_answer

INDICES = np.array([1, 4, 18], dtype=np.int64)
VALUES = np.array([0.5, -0.25, 0.125])
DECISION = Decision(
    model=sha256(b""), predicted_class=2, confidence=0.75, active_latents=(1, 5),
    attributions=(Attribution(3, -250_000),),
)  # fmt: skip


class Rover:
    """A participant and the channel under it."""

    def __init__(self, sim: Simulator, name: str = "rover-1", **changes: Any) -> None:
        self.channel = DirectChannel(sim.gatekeeper(), name)
        self.receipts = sim.folder / "receipts" / name
        self.sdk = Participant(
            name=name, key=sim.rovers[name], policy=sim.policy, channel=self.channel, receipts=self.receipts,
            clock=sim.clock, sleep=lambda seconds: None, **changes,
        )  # fmt: skip

    def open(self) -> OpenRound:
        opened = self.sdk.open_round(SEGMENT, wait_seconds=0)
        assert isinstance(opened, OpenRound)
        return opened

    def submit(self, **changes: Any) -> Submitted:
        return self.sdk.submit(self.open(), INDICES, VALUES, 10, rng=np.random.default_rng(1), **changes)

    def kept(self) -> list[str]:
        """What lies in the folder, but for the root and the round that the rover was shown."""
        files = [path.relative_to(self.receipts) for path in self.receipts.rglob("*") if path.is_file()]
        return sorted(str(path) for path in files if path.name != "known-root" and path.parts[0] != "rounds")


# Withdrawals


def test_an_update_is_taken_back_and_the_logs_word_is_kept(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    sent = rover.submit()
    taken_back = rover.sdk.withdraw(sent)
    body = sim.log.statement_at(taken_back.index).body
    assert isinstance(body, UpdateWithdrawn)
    assert (body.withdrawal.update, body.envelope.digest) == (sent.statement_digest, taken_back.statement_digest)
    proven = open_receipt_file((rover.receipts / f"{SEGMENT}-1-withdrawn.tlog-proof").read_bytes(), sim.policy)
    assert isinstance(proven, ProvenLogging)
    assert proven.logged.index == taken_back.index
    assert set(sim.segment.rounds[1].withdrawn) == {"rover-1"}


def test_a_withdrawal_that_is_asked_for_again_is_the_same_one(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    sent = rover.submit()
    first = rover.sdk.withdraw(sent)
    sim.clock.advance(1_000)
    # Another process of the same rover, with what was kept.
    other = Rover(sim)
    assert other.sdk.withdraw(other.sdk.submitted(SEGMENT)) == first
    sim.clock.advance(60_000_000)
    sim.close_round()
    assert rover.sdk.withdraw(sent) == first


def test_a_closed_rounds_update_stays(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    sent = rover.submit()
    sim.clock.advance(60_000_000)
    sim.close_round()
    with pytest.raises(DeniedError) as denied:
        rover.sdk.withdraw(sent)
    assert denied.value.reason == "round_not_open"


def _changed(change: Callable[[AppendedEntry], AppendedEntry]) -> Callable[[bytes], bytes]:
    return lambda raw: wire.encode_withdraw_response(change(wire.parse_withdraw_response(raw)))


def test_the_word_for_a_withdrawal_is_verified(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    sent = rover.submit()
    sim.admit("rover-2")
    others = sim.withdraw("rover-2")

    def entry(index: int) -> AppendedEntry:
        return AppendedEntry(sim.log.logged_entry(index, len(sim.log.raw)), sim.log.signed.note)

    lies: list[Callable[[AppendedEntry], AppendedEntry]] = [
        lambda said: entry(others),
        lambda said: entry(sent.index),
        lambda said: replace(said, checkpoint=sim.log.note(len(sim.log.raw), root=sha256(b"another tree"))),
        lambda said: replace(said, logged=replace(said.logged, path=said.logged.path[:-1])),
    ]
    for lie in lies:
        rover.channel.answers[wire.WITHDRAW_UPDATE] = _changed(lie)
        with pytest.raises(VerificationError):
            rover.sdk.withdraw(sent)
    assert f"{SEGMENT}-1-withdrawn.tlog-proof" not in rover.kept()
    rover.channel.answers.clear()
    rover.sdk.withdraw(sent)


def test_a_withdrawal_that_was_kept_for_another_update_or_under_another_key_is_not_sent(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    sent = rover.submit()
    path = rover.receipts / f"{SEGMENT}-1-withdrawal.envelope"
    for kept in (
        sim.withdrawal("rover-1", update=sha256(b"another update")),
        sim.withdrawal("rover-1", key=SigningKey.generate("ed25519")),
    ):
        path.write_bytes(kept.envelope_raw)
        taken_back = rover.sdk.withdraw(sent)
        assert taken_back.statement_digest != kept.envelope.digest
        # Signed at the same time, it is the same statement, which the log knows by then.
        assert set(sim.segment.rounds[1].withdrawn) == {"rover-1"}


def test_the_word_for_a_decision_is_verified(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    decided = replace(DECISION, model=sim.segment.model)
    other = rover.sdk.record_decision(SEGMENT, b"a rock", decided)

    def lie(raw: bytes) -> bytes:
        entry = sim.log.logged_entry(other.index, len(sim.log.raw))
        return wire.encode_record_response(AppendedEntry(entry, sim.log.signed.note))

    rover.channel.answers[wire.RECORD_DECISION] = lie
    with pytest.raises(VerificationError, match="not the record"):
        rover.sdk.record_decision(SEGMENT, b"a rock", decided)
    assert f"decisions/{SEGMENT}/2.tlog-proof" not in rover.kept()


def test_an_update_is_read_back_from_its_receipt(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    with pytest.raises(NotFoundError, match="no receipt"):
        rover.sdk.submitted(SEGMENT)
    sent = rover.submit()
    found = rover.sdk.submitted(SEGMENT, 1)
    assert replace(found, request_bytes=sent.request_bytes, encoded=sent.encoded) == sent
    assert rover.sdk.submitted(SEGMENT) == found
    with pytest.raises(NotFoundError, match="round 2"):
        rover.sdk.submitted(SEGMENT, 2)


def test_a_receipt_of_somebody_elses_update_or_of_another_round_is_not_taken_for_ours(sim: Simulator) -> None:
    sim.open_round()
    rover, other = Rover(sim), Rover(sim, "rover-2")
    rover.submit()
    other.submit()
    name = f"{SEGMENT}-1-acknowledged.tlog-proof"
    mine = (rover.receipts / name).read_bytes()
    (rover.receipts / f"{SEGMENT}-7-acknowledged.tlog-proof").write_bytes(mine)
    with pytest.raises(VerificationError, match="another round"):
        rover.sdk.submitted(SEGMENT)
    (rover.receipts / name).write_bytes((other.receipts / name).read_bytes())
    with pytest.raises(VerificationError, match="this participant's"):
        rover.sdk.submitted(SEGMENT, 1)
    (rover.receipts / name).write_bytes(mine[:-40] + b"A" * 40)
    with pytest.raises((VerificationError, MalformedError)):
        rover.sdk.submitted(SEGMENT, 1)


# Decisions


def test_a_decision_goes_on_record_and_its_salt_is_kept_at_home(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    decided = replace(DECISION, model=sim.segment.model)
    recorded = rover.sdk.record_decision(SEGMENT, b"a rock", decided)
    body = sim.log.statement_at(recorded.index).body
    assert isinstance(body, DecisionRecorded)
    said = body.decision
    assert (said.record_seq, said.predicted_class, said.confidence_ppm) == (1, 2, 750_000)
    assert (said.active_latents, said.attributions, said.model) == ((1, 5), DECISION.attributions, sim.segment.model)
    path = rover.sdk.opening_path(SEGMENT, 1)
    assert path.stat().st_mode & 0o777 == 0o600
    opening = read_opening(path)
    assert opening.commitment == said.input_commitment
    assert opening.matches(b"a rock")
    assert not opening.matches(b"a stone")
    salt = json.loads(path.read_bytes())["salt"]
    assert salt not in repr(opening)
    assert not any(bytes.fromhex(salt) in raw or b"a rock" in raw for raw in sim.log.raw)


def test_records_are_numbered_and_two_of_one_input_look_different(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    decided = replace(DECISION, model=sim.segment.model)
    first, second = (rover.sdk.record_decision(SEGMENT, b"a rock", decided) for _ in range(2))
    assert [first.record_seq, second.record_seq] == [1, 2]
    commitments = {read_opening(rover.sdk.opening_path(SEGMENT, number)).commitment for number in (1, 2)}
    assert len(commitments) == 2
    # Another process goes on where the kept openings end.
    assert Rover(sim).sdk.record_decision(SEGMENT, b"a rock", decided).record_seq == 3
    assert rover.sdk.record_decision(SEGMENT, b"a rock", decided, record_seq=40).record_seq == 40
    assert rover.sdk.record_decision(SEGMENT, b"a rock", decided).record_seq == 41


def test_a_number_that_is_taken_is_refused_here_and_a_low_one_by_the_log(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    decided = replace(DECISION, model=sim.segment.model)
    rover.sdk.record_decision(SEGMENT, b"a rock", decided, record_seq=5)
    with pytest.raises(MalformedError, match=r"5\.opening\.json"):
        rover.sdk.record_decision(SEGMENT, b"a rock", decided, record_seq=5)
    with pytest.raises(DeniedError) as denied:
        rover.sdk.record_decision(SEGMENT, b"a rock", decided, record_seq=4)
    assert denied.value.reason == "record_seq"


def test_a_refused_record_frees_its_number_and_the_salt_is_set_aside(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    with pytest.raises(DeniedError, match="not one of the segment's"):
        rover.sdk.record_decision(SEGMENT, b"a rock", replace(DECISION, model=sha256(b"no model")))
    (kept,) = [name for name in rover.kept() if name.startswith("decisions/")]
    assert kept.endswith(".refused.json")
    decided = replace(DECISION, model=sim.segment.model)
    assert rover.sdk.record_decision(SEGMENT, b"a rock", decided).record_seq == 1


def test_the_salt_is_kept_before_anything_is_sent(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    rover.open()
    rover.channel.broken = [ConflictError("lost")] * 9
    with pytest.raises(ConflictError):
        rover.sdk.record_decision(SEGMENT, b"a rock", replace(DECISION, model=sim.segment.model))
    assert rover.kept() == [f"decisions/{SEGMENT}/1.opening.json"]


def test_the_federation_is_known_from_the_profile_a_receipt_or_a_round(sim: Simulator) -> None:
    decided = replace(DECISION, model=sim.segment.model)
    rover = Rover(sim)
    with pytest.raises(NotFoundError):
        rover.sdk.record_decision(SEGMENT, b"a rock", decided, wait_seconds=0)
    Rover(sim, federation_id=sim.federation_id).sdk.record_decision(SEGMENT, b"a rock", decided)
    sim.open_round()
    rover.submit()
    sim.clock.advance(60_000_000)
    sim.close_round()
    # No round is open, and the receipt knows.
    Rover(sim).sdk.record_decision(SEGMENT, b"a rock", decided, wait_seconds=0)
    assert len(sim.state.decisions) == 2


@pytest.mark.parametrize("confidence", [-0.1, 1.1, float("nan")])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(MalformedError):
        replace(DECISION, confidence=confidence)


def test_shares_become_millionths_in_order() -> None:
    assert attributions_of([(9, 0.5), (2, -0.25)]) == (Attribution(2, -250_000), Attribution(9, 500_000))
    with pytest.raises(MalformedError):
        attributions_of([(1, float("inf"))])


@pytest.mark.parametrize(
    "damage",
    [
        lambda fields: fields | {"type": "another"},
        lambda fields: fields | {"more": 1},
        lambda fields: {key: value for key, value in fields.items() if key != "salt"},
        lambda fields: fields | {"salt": fields["salt"][:-2]},
        lambda fields: fields | {"salt": 7},
        lambda fields: fields | {"record_seq": 0},
        lambda fields: fields | {"record_seq": True},
        lambda fields: fields | {"record_seq": "1"},
        lambda fields: fields | {"segment": "No Segment"},
        lambda fields: fields | {"input_commitment": "00"},
    ],
)
def test_a_damaged_opening_is_refused(sim: Simulator, damage: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    sim.open_round()
    rover = Rover(sim)
    rover.sdk.record_decision(SEGMENT, b"a rock", replace(DECISION, model=sim.segment.model))
    path = rover.sdk.opening_path(SEGMENT, 1)
    path.write_text(json.dumps(damage(json.loads(path.read_bytes()))))
    with pytest.raises(MalformedError):
        read_opening(path)


# Complaints


def test_an_update_that_nobody_acknowledged_is_kept_to_complain_of(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened = rover.open()
    update = rover.sdk.update_of(opened, ClaimedPayload(b"payload", 3, 10, root=sha256(b"root")))
    rover.channel.exchange = _away  # type: ignore[method-assign]
    with pytest.raises(UnavailableError):
        rover.sdk.send(SignedUpdate(update, rover.sdk.sign(update), b"payload"), deadline_seconds=0.01)
    _, envelope, said = parse_complaint(rover.sdk.complaint(SEGMENT))
    assert (said, envelope.digest) == (update, rover.sdk.sign(update).digest)
    assert rover.kept() == [f"{SEGMENT}-1-sent.dsse.json"]
    assert (rover.receipts / f"{SEGMENT}-1-sent.dsse.json").stat().st_mode & 0o777 == 0o600


def _away(path: str, requests: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
    raise UnavailableError("no gatekeeper answers")


def test_an_acknowledged_update_leaves_nothing_to_complain_of(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    rover.submit()
    with pytest.raises(NotFoundError, match="nothing to complain of"):
        rover.sdk.complaint(SEGMENT)


def test_a_gatekeepers_word_that_it_refused_does_not_take_the_complaint_away(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened = rover.open()
    rover.channel.broken = [DeniedError("policy_denied", "no", entry_index=3)]
    with pytest.raises(DeniedError):
        rover.sdk.submit(opened, INDICES, VALUES, 10, rng=np.random.default_rng(1))
    parse_complaint(rover.sdk.complaint(SEGMENT, 1))


def test_an_answer_that_proves_nothing_does_not_take_the_complaint_away(sim: Simulator) -> None:
    sim.open_round()
    rover = Rover(sim)
    opened = rover.open()
    def older(raw: bytes) -> bytes:
        answer = parse_upload_answer(raw)
        return raw if isinstance(answer, int) else encode_admitted(replace(answer, checkpoint=sim.log.note(1)))

    rover.channel.answers[SUBMIT_UPDATE] = older
    with pytest.raises(VerificationError):
        rover.sdk.submit(opened, INDICES, VALUES, 10, rng=np.random.default_rng(1))
    parse_complaint(rover.sdk.complaint(SEGMENT, 1))


def test_what_is_no_update_is_no_complaint(sim: Simulator) -> None:
    from sfrl_secure.crypto.envelope import envelope_to_json

    sim.open_round()
    sim.admit("rover-1")
    for raw in (b"{}", b"\xff", envelope_to_json(sim.withdrawal("rover-1").envelope)):
        with pytest.raises(MalformedError):
            parse_complaint(raw)
    good = envelope_to_json(sim.update("rover-1")[0])
    parse_complaint(good)
    with pytest.raises(MalformedError, match="at most"):
        parse_complaint(good + b" " * 64 * 1024)


# The look at one's own update


def guarded(**bounds: Any) -> LeakageTerms:
    return LeakageTerms(**{"nonzeros_min": 1, "weight_min": 1, "noise_std_min": 0, "rows": (), "labels": (), **bounds})


@pytest.mark.parametrize(
    ("reason", "bounds", "noise_std"),
    [
        ("leak_rows", {"rows": (LeakageBound("a.weight", 0, 3),)}, 0.0),
        ("leak_labels", {"labels": (LeakageBound("a.weight", 0, 2),)}, 0.0),
        ("leak_noise", {}, 2.0),
    ],
)
def test_what_would_betray_examples_stays_here_and_the_gatekeeper_would_have_said_the_same(
    sim: Simulator, reason: str, bounds: dict[str, Any], noise_std: float
) -> None:
    sim.publish_terms(leakage=guarded(**bounds))
    sim.open_round()
    rover, size = Rover(sim), len(sim.log.raw)
    with pytest.raises(DeniedError) as denied:
        rover.submit(noise_std=noise_std)
    assert (denied.value.reason, denied.value.entry_index) == (reason, None)
    assert SUBMIT_UPDATE not in rover.channel.calls
    assert (len(sim.log.raw), rover.kept()) == (size, [])
    encoded = _encoded(rover)
    claimed = ClaimedPayload(encoded.payload, encoded.update.nonzeros, 10, noise_std=int(noise_std * 2**GRID))
    with pytest.raises(DeniedError) as refused:
        rover.sdk.submit_payload(rover.open(), claimed)
    assert (refused.value.reason, refused.value.entry_index) == (reason, size)


def _encoded(rover: Rover) -> Any:
    from sfrl_secure.sparse.encode import encode_update

    terms = rover.open().terms.model
    return encode_update(
        terms.manifest.coordinates, INDICES, VALUES, value_type="int8", grid_exponent=terms.grid_exponent,
        rng=np.random.default_rng(1),
    )  # fmt: skip


def test_noise_is_claimed_in_grid_units_and_never_more_than_was_added(sim: Simulator) -> None:
    sim.open_round()
    assert Rover(sim).submit(noise_std=1.99 * 2.0**-GRID).update.noise_std == 1
    assert sim.segment.rounds[1].admissions["rover-1"].update.noise_std == 1


@pytest.mark.parametrize("noise_std", [-1.0, float("nan"), float("inf"), 2.0**60])
def test_a_noise_that_no_header_holds_is_refused(sim: Simulator, noise_std: float) -> None:
    sim.open_round()
    with pytest.raises(MalformedError):
        Rover(sim).submit(noise_std=noise_std)


def test_openings_and_receipts_are_found_by_segment(sim: Simulator, tmp_path: Path) -> None:
    """A segment whose name begins like another's, and ends with a number."""
    sim.open_round()
    rover = Rover(sim)
    rover.submit()
    (rover.receipts / "rocks-2-9-acknowledged.tlog-proof").write_bytes(b"of the segment rocks-2")
    assert rover.sdk.submitted(SEGMENT).update.round == 1
