"""Putting a complaint on record: what the auditor looks at before it signs, and what it believes of the answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulator import SEGMENT, Simulator, auditor_id

from sfrl_secure.cli.complaints import ATTEMPTS_MAX, RecordedComplaint, record_complaint
from sfrl_secure.crypto.envelope import Envelope, envelope_to_json
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError, DeniedError, MalformedError, VerificationError
from sfrl_secure.governance.statements import ComplaintRecorded, UpdateStatement
from sfrl_secure.ids import sha256
from sfrl_secure.participant.receipt_files import ProvenLogging, open_receipt_file
from sfrl_secure.wire.audit_service import AppendedEntry, FollowBatch

IRIS = auditor_id("iris")


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    made = Simulator(tmp_path)
    made.open_round()
    yield made
    made.close()


class Batches:
    """All that the log has, once; then nothing until it is cancelled."""

    def __init__(self, sim: Simulator, first_index: int) -> None:
        signed = sim.log.signed
        self._batch = FollowBatch(first_index, tuple(sim.log.raw[first_index:]), signed.note)
        self._over = threading.Event()

    def __iter__(self) -> Iterator[FollowBatch]:
        yield self._batch
        self._over.wait(10)

    def cancel(self) -> None:
        self._over.set()


class AuditLog:
    """The simulated log as an auditor sees it.

    Attributes:
        answer: changes what is answered.
    """

    def __init__(self, sim: Simulator) -> None:
        self._sim = sim
        self.answer: Callable[[AppendedEntry], AppendedEntry] = lambda appended: appended

    def follow(self, first_index: int, *, deadline_seconds: float) -> Batches:
        return Batches(self._sim, first_index)

    def append(self, envelope: Envelope) -> AppendedEntry:
        return self.answer(self._sim.log.append(envelope))


def complain(
    sim: Simulator,
    signed: tuple[Envelope, UpdateStatement, bytes],
    *,
    log: AuditLog | None = None,
    key: SigningKey | None = None,
    auditor: Any = IRIS,
) -> RecordedComplaint:
    raw = envelope_to_json(signed[0])
    return record_complaint(raw, log or AuditLog(sim), sim.policy, key or sim.auditors[IRIS], auditor, sim.clock)


def test_a_complaint_goes_on_record_in_the_auditors_name(sim: Simulator) -> None:
    signed = sim.update("rover-1")
    recorded = complain(sim, signed)
    statement = sim.log.statement_at(recorded.index)
    assert isinstance(statement.body, ComplaintRecorded)
    assert (statement.writer, statement.stream) == (IRIS, f"segment/{SEGMENT}")
    assert (statement.body.envelope, recorded.update) == (signed[0], signed[1])
    assert sim.segment.rounds[1].complaints["rover-1"].index == recorded.index
    proven = open_receipt_file(recorded.receipt, sim.policy)
    assert isinstance(proven, ProvenLogging)
    assert proven.logged.index == recorded.index


def test_what_the_log_would_refuse_is_not_signed_and_the_reason_is_said(sim: Simulator) -> None:
    signed = sim.update("rover-1")
    size = len(sim.log.raw)

    def refused(reason: str, say: str, **changes: Any) -> None:
        with pytest.raises(DeniedError, match=say) as denied:
            complain(sim, changes.pop("signed", signed), **changes)
        assert denied.value.reason == reason

    refused("bad_signature", "did not sign it", signed=sim.update("rover-1", key=SigningKey.generate("ed25519")))
    refused("wrong_federation", "right profile", signed=sim.update("rover-1", federation_id=sha256(b"another")))
    refused("unknown_segment", "no such segment", signed=sim.update("rover-1", segment="sand"))
    refused("round_not_open", "is closed", signed=sim.update("rover-1", round=9))
    refused("writer", "does not name this auditor", key=SigningKey.generate("ed25519"))
    refused("writer", "does not name this auditor", auditor=auditor_id("other"))
    assert len(sim.log.raw) == size
    complain(sim, signed)
    refused("complained", "on record already", signed=sim.update("rover-1", weight=3))
    sim.record("rover-2", state="suspended")
    refused("participant_inactive", "nobody owes", signed=sim.update("rover-2"))


def test_what_is_no_complaint_is_refused_before_the_log_is_asked(sim: Simulator) -> None:
    log = AuditLog(sim)
    log.follow = lambda *_, **__: pytest.fail("the log was asked")  # type: ignore[method-assign, assignment]
    with pytest.raises(MalformedError):
        record_complaint(b"{}", log, sim.policy, sim.auditors[IRIS], IRIS, sim.clock)


def test_a_log_that_moved_on_is_read_again_and_not_for_ever(sim: Simulator) -> None:
    signed, moved = sim.update("rover-1"), 0

    def move(envelope: Envelope) -> None:
        nonlocal moved
        if envelope.payload_type.endswith("statement.v1") and moved < limit:
            moved += 1
            sim.record("rover-4", clearance=moved)

    limit = ATTEMPTS_MAX
    sim.log.before_append = move
    with pytest.raises(ConflictError):
        complain(sim, signed)
    limit = ATTEMPTS_MAX + 2
    assert complain(sim, signed).index == len(sim.log.raw) - 1
    assert moved == limit


def test_the_logs_word_is_verified(sim: Simulator) -> None:
    signed, log = sim.update("rover-1"), AuditLog(sim)
    log.answer = lambda appended: replace(appended, checkpoint=sim.log.note(1))
    with pytest.raises(VerificationError):
        complain(sim, signed, log=log)
    other = sim.log.logged_entry(3, len(sim.log.raw))
    log.answer = lambda appended: AppendedEntry(
        sim.log.logged_entry(other.index, len(sim.log.raw)), sim.log.signed.note
    )
    with pytest.raises(VerificationError, match="not the complaint"):
        complain(sim, sim.update("rover-2"), log=log)
