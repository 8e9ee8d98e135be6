"""Receipts against their log: consistent, a fraud that anyone can verify, or more evidence is needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from simulator import Simulator

from sfrl_secure.audit.counting import Fate
from sfrl_secure.audit.fraud import (
    LeftOut,
    ProvenEntry,
    TwoEntries,
    TwoHistories,
    encode_fraud_proof,
    parse_fraud_proof,
)
from sfrl_secure.audit.fraud_check import verify_fraud
from sfrl_secure.audit.receipt_on_log import Comparison, Verdict, compare_with_log
from sfrl_secure.audit.source import FolderLog
from sfrl_secure.errors import ConflictError, DeniedError, MalformedError, MissingEvidenceError
from sfrl_secure.governance.statements import CloseCause, CloseOutcome, DroppedUpdate
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.participant.receipt_files import ProvenLogging, open_receipt_file
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.bodies import DROPPED_REASONS
from sfrl_secure.wire.entries import encode_envelope

from .histories import G1, STREAM, History, Round, Stories, with_new_keys

CONSISTENT, FRAUD, MISSING = Verdict


def compare(receipt: bytes, log: Path, policy: TrustPolicy) -> Comparison:
    opened = open_receipt_file(receipt, policy)
    assert isinstance(opened, ProvenLogging)
    told: list[tuple[str, int, int]] = []
    found = compare_with_log(
        opened.checkpoint, opened.logged, FolderLog(log), policy, lambda *stage: told.append(stage)
    )
    assert all(0 < done <= total for _, done, total in told)
    return found


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    sim = Simulator(tmp_path_factory.mktemp("begun"))
    yield sim
    sim.close()


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    sim = Simulator(tmp_path_factory.mktemp("full"))
    sim.open_round()
    for name in ("rover-1", "rover-2", "rover-3"):
        sim.admit(name)
    yield sim
    sim.close()


@pytest.fixture
def stories(begun: Simulator) -> Iterator[Stories]:
    keys = begun.log.keys
    yield Stories(begun)
    begun.log.keys = keys


@pytest.fixture
def round_(full: Simulator) -> Round:
    return Round(full)


def test_a_log_that_goes_on_from_the_receipt_is_consistent(stories: Stories, tmp_path: Path) -> None:
    first, policy = stories.first, stories.sim.policy
    receipt = first.receipt(stories.index, witnesses=0)
    assert compare(receipt, first.write(tmp_path / "same"), policy).verdict is CONSISTENT
    stories.pad(first, 300)
    found = compare(receipt, first.write(tmp_path / "log"), policy)
    assert (found.verdict, found.counting.fate, found.proof) == (CONSISTENT, Fate.OPEN, None)
    assert f"at index {stories.index}" in found.sentence
    assert found.log.checkpoint.size == first.size


def test_a_log_that_put_another_entry_in_its_place_is_a_fraud_that_anyone_can_verify(
    stories: Stories, tmp_path: Path
) -> None:
    """The split view: the participant has one history, the auditor another."""
    policy = stories.sim.policy
    stories.pad(stories.second, 40)
    found = compare(stories.first.receipt(stories.index, witnesses=0), stories.second.write(tmp_path / "log"), policy)
    sentence = f"the log put another entry at position {stories.position} of segment/rocks"
    assert (found.verdict, found.sentence) == (FRAUD, sentence)
    assert isinstance(found.proof, TwoEntries)
    proof = parse_fraud_proof(encode_fraud_proof(found.proof))
    assert proof == found.proof
    assert verify_fraud(proof, policy) == sentence


def test_a_position_that_moved_to_another_index_is_the_same_fraud(stories: Stories, tmp_path: Path) -> None:
    second = History(stories.sim, stories.sim.log.raw)
    stories.pad(second, 5)
    second.add(stories.admission("rover-2"))
    found = compare(
        stories.first.receipt(stories.index), second.write(tmp_path / "log"), stories.sim.policy
    )
    assert found.sentence == f"the log put another entry at position {stories.position} of segment/rocks"
    assert found.proof.second.logged.index == stories.index + 5
    assert verify_fraud(found.proof, stories.sim.policy) == found.sentence


def test_an_entry_of_another_stream_at_its_index_is_a_fraud(stories: Stories, tmp_path: Path) -> None:
    second = History(stories.sim, stories.sim.log.raw)
    stories.pad(second, 5)
    found = compare(
        stories.first.receipt(stories.index), second.write(tmp_path / "log"), stories.sim.policy
    )
    assert found.sentence == f"the log put another entry at index {stories.index}"
    assert verify_fraud(found.proof, stories.sim.policy) == found.sentence


@pytest.mark.parametrize("more", [0, 1, 40])
def test_two_roots_without_the_entries_are_two_histories(stories: Stories, tmp_path: Path, more: int) -> None:
    stories.pad(stories.second, more)
    log = stories.second.write(tmp_path / "log")
    for bundle in (log / "tile/entries").rglob("*"):
        if bundle.is_file():
            bundle.unlink()
    found = compare(stories.first.receipt(stories.index), log, stories.sim.policy)
    assert found.verdict is FRAUD
    assert isinstance(found.proof, TwoHistories)
    assert "two histories" in found.sentence
    proof = parse_fraud_proof(encode_fraud_proof(found.proof))
    assert verify_fraud(proof, stories.sim.policy) == found.sentence


def test_a_copy_that_ends_before_the_entry_is_missing_something(stories: Stories, tmp_path: Path) -> None:
    log = stories.first.write(tmp_path / "log", stories.index)
    found = compare(stories.first.receipt(stories.index), log, stories.sim.policy)
    assert (found.verdict, found.proof) == (MISSING, None)
    assert found.sentence == f"the copy ends before the receipt's entry {stories.index}"


def test_a_copy_that_ends_after_the_entry_and_before_the_checkpoint_says_so(stories: Stories, tmp_path: Path) -> None:
    stories.pad(stories.first, 10)
    log = stories.first.write(tmp_path / "log", stories.index + 3)
    found = compare(stories.first.receipt(stories.index), log, stories.sim.policy)
    assert found.verdict is MISSING
    assert "it has the entry itself" in found.sentence


def test_a_shorter_copy_with_another_entry_is_a_fraud_all_the_same(stories: Stories, tmp_path: Path) -> None:
    stories.pad(stories.first, 10)
    log = stories.second.write(tmp_path / "log")
    receipt = stories.first.receipt(stories.index)
    found = compare(receipt, log, stories.sim.policy)
    assert (found.verdict, verify_fraud(found.proof, stories.sim.policy)) == (FRAUD, found.sentence)
    for bundle in (log / "tile/entries").rglob("[0-9]*"):
        if bundle.is_file():
            bundle.unlink()
    found = compare(receipt, log, stories.sim.policy)
    assert found.verdict is MISSING
    assert "another entry" in found.sentence


def test_a_copy_that_nobody_witnessed_shows_nothing(stories: Stories, tmp_path: Path) -> None:
    log = stories.first.write(tmp_path / "log", witnesses=1)
    found = compare(stories.first.receipt(stories.index), log, stories.sim.policy)
    assert found.verdict is MISSING
    assert "not under the witness quorum" in found.sentence
    # A lie is one, whoever looked on.
    log = stories.second.write(tmp_path / "other", witnesses=0)
    assert compare(stories.first.receipt(stories.index), log, stories.sim.policy).verdict is FRAUD


@pytest.mark.parametrize("path", ["checkpoint", "tile/0/000.p"])
@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_damaged_copy_accuses_nobody(stories: Stories, tmp_path: Path, path: str, damage: str) -> None:
    log = stories.second.write(tmp_path / "log")
    file = log / path
    if file.is_dir():
        (file,) = file.iterdir()
    raw = bytearray(file.read_bytes())
    raw[-20] ^= 1
    file.unlink()
    if damage == "changed":
        file.write_bytes(raw)
    found = compare(stories.first.receipt(stories.index), log, stories.sim.policy)
    assert (found.verdict, found.proof) == (MISSING, None)


def test_a_damaged_bundle_of_a_consistent_log_is_no_fraud(stories: Stories, tmp_path: Path) -> None:
    log = stories.first.write(tmp_path / "log")
    (bundle,) = (log / "tile/entries/000.p").iterdir()
    bundle.write_bytes(bundle.read_bytes()[:-1] + b"x")
    found = compare(stories.first.receipt(stories.index), log, stories.sim.policy)
    assert found.verdict is MISSING
    assert "fsck" in found.sentence


def test_another_log_is_the_callers_mistake(stories: Stories, tmp_path: Path) -> None:
    other = Simulator(tmp_path / "other")
    other.close()
    log = History(other, other.log.raw).write(tmp_path / "log")
    policy = replace(stories.sim.policy, logs=stories.sim.policy.logs + other.policy.logs)
    receipt = stories.first.receipt(stories.index)
    with pytest.raises(MalformedError, match="another log"):
        compare(receipt, log, policy)


# Keys that the log no longer uses


def test_a_receipt_under_retired_keys_is_consistent_with_todays_log(stories: Stories, tmp_path: Path) -> None:
    first = stories.first
    receipts = [first.receipt(stories.index, witnesses=count) for count in (0, 2)]
    policy = with_new_keys(stories.sim)
    stories.pad(first, 20)
    log = first.write(tmp_path / "log")
    for receipt in receipts:
        assert compare(receipt, log, policy).verdict is CONSISTENT


def test_a_log_that_still_signs_with_retired_keys_alone_is_no_log_of_today(stories: Stories, tmp_path: Path) -> None:
    log = stories.first.write(tmp_path / "log")
    receipt = stories.first.receipt(stories.index)
    policy = with_new_keys(stories.sim)
    found = compare(receipt, log, policy)
    assert (found.verdict, found.log) == (MISSING, None)


def test_retired_keys_alone_accuse_nobody_and_with_the_quorum_they_do(stories: Stories, tmp_path: Path) -> None:
    """Whoever steals a retired key makes receipts for a history that never was."""
    stolen, witnessed = (stories.first.receipt(stories.index, witnesses=count) for count in (0, 2))
    policy = with_new_keys(stories.sim)
    log = stories.second.write(tmp_path / "log")
    found = compare(stolen, log, policy)
    assert (found.verdict, found.proof) == (MISSING, None)
    assert "retired keys" in found.sentence
    found = compare(witnessed, log, policy)
    assert (found.verdict, verify_fraud(found.proof, policy)) == (FRAUD, found.sentence)


def test_a_proof_that_rests_on_retired_keys_alone_is_none(stories: Stories) -> None:
    first, second = stories.first, stories.second
    old = TwoEntries(*(proven(history, stories.index, witnesses=0) for history in (first, second)))
    assert verify_fraud(old, stories.sim.policy)
    policy = with_new_keys(stories.sim)
    with pytest.raises(MissingEvidenceError, match="retired"):
        verify_fraud(old, policy)


def proven(history: History, index: int, *, witnesses: int) -> ProvenEntry:
    return ProvenEntry(history.note(witnesses=witnesses), history.logged(index))


# Was it counted?


def fate(round_: Round, name: str, log: Path) -> Comparison:
    """What became of an update, by receipt A that was given with its admission."""
    index = round_.indices[name]
    receipt = round_.history.receipt(index, index + 1, witnesses=0)
    return compare(receipt, round_.history.write(log), round_.sim.policy)


def test_an_update_of_an_open_round_is_open(round_: Round, tmp_path: Path) -> None:
    found = fate(round_, "rover-2", tmp_path)
    assert (found.verdict, found.counting.fate) == (CONSISTENT, Fate.OPEN)


def test_an_update_that_its_closing_counts_is_counted(round_: Round, tmp_path: Path) -> None:
    round_.check(round_.close("rover-1", "rover-2", "rover-3"))
    for name in round_.indices:
        found = fate(round_, name, tmp_path)
        assert (found.verdict, found.counting.fate) == (CONSISTENT, Fate.COUNTED)
        assert "among 3 updates" in found.counting.sentence


def test_an_update_that_is_named_as_dropped_is_dropped(round_: Round, tmp_path: Path) -> None:
    drop = DroppedUpdate("rover-2", round_.admitted("rover-2").envelope.digest, "defective")
    round_.check(round_.close("rover-1", "rover-3", dropped=(drop,)))
    found = fate(round_, "rover-2", tmp_path)
    assert (found.verdict, found.counting.fate) == (CONSISTENT, Fate.DROPPED)
    assert found.counting.sentence.startswith("round 1 closed without it: defective, ")
    assert fate(round_, "rover-1", tmp_path).counting.fate is Fate.COUNTED


@pytest.mark.parametrize("reason", sorted(DROPPED_REASONS))
def test_every_reason_for_which_an_update_falls_out_is_said_in_words(
    round_: Round, tmp_path: Path, reason: str
) -> None:
    round_.close("rover-1", "rover-3", dropped=(
        DroppedUpdate("rover-2", round_.admitted("rover-2").envelope.digest, reason),
    ))  # fmt: skip
    found = fate(round_, "rover-2", tmp_path).counting
    assert found.fate is Fate.DROPPED
    assert found.sentence.startswith(f"round 1 closed without it: {reason}, ")


def test_a_round_that_an_order_ended_says_so(round_: Round, tmp_path: Path) -> None:
    names = ("rover-1", "rover-2", "rover-3")
    round_.close(*names, cause=CloseCause.ORDER, outcome=CloseOutcome.ABORTED)
    found = fate(round_, "rover-1", tmp_path).counting
    assert (found.fate, "by an order" in found.sentence) == (Fate.ABORTED, True)


def test_an_aborted_round_counts_and_has_no_model(round_: Round, tmp_path: Path) -> None:
    round_.close("rover-1", "rover-2", "rover-3", outcome=CloseOutcome.ABORTED)
    assert fate(round_, "rover-1", tmp_path).counting.fate is Fate.ABORTED


def test_an_update_that_a_closing_leaves_out_is_a_fraud_that_anyone_can_verify(
    round_: Round, tmp_path: Path
) -> None:
    with pytest.raises((ConflictError, DeniedError)):
        round_.check(round_.close("rover-1", "rover-3"))
    found = fate(round_, "rover-2", tmp_path)
    assert (found.verdict, found.counting.fate) == (FRAUD, Fate.LEFT_OUT)
    assert isinstance(found.proof, LeftOut)
    proof = parse_fraud_proof(encode_fraud_proof(found.proof))
    assert proof == found.proof
    assert "left out the update of rover-2" in verify_fraud(proof, round_.sim.policy)
    # The others see that the closing is false, and not whom it left out.
    found = fate(round_, "rover-1", tmp_path)
    assert (found.verdict, found.counting.fate, found.proof) == (FRAUD, Fate.UNEXPLAINED, None)


def test_retired_keys_do_not_weaken_what_todays_log_shows(round_: Round, tmp_path: Path) -> None:
    """The receipt only points at the admission; the log of today holds it, under today's keys."""
    index = round_.indices["rover-2"]
    receipt = round_.history.receipt(index, index + 1, witnesses=0)
    keys = round_.sim.log.keys
    policy = with_new_keys(round_.sim)
    round_.close("rover-1", "rover-3")
    found = compare(receipt, round_.history.write(tmp_path / "log"), policy)
    round_.sim.log.keys = keys
    assert (found.verdict, found.counting.fate) == (FRAUD, Fate.LEFT_OUT)
    assert verify_fraud(found.proof, policy)


def test_a_void_admission_beside_it_hides_no_omission(round_: Round, tmp_path: Path) -> None:
    """A log that sequences an admission without effect must not make the counted root unexplainable."""
    sim = round_.sim
    envelope, update, _ = sim.update("rover-4")
    void = replace(
        round_.admitted("rover-1"), envelope=envelope, envelope_raw=encode_envelope(envelope), update=update
    )
    signed = sim.sign(sim.statement(G1, STREAM, void))
    with pytest.raises((ConflictError, DeniedError)):
        round_.check(signed)
    round_.indices["rover-4"] = round_.history.add(signed)
    round_.close("rover-1", "rover-3")
    found = fate(round_, "rover-2", tmp_path)
    assert (found.verdict, found.counting.fate) == (FRAUD, Fate.LEFT_OUT)
    assert "rover-2" in verify_fraud(found.proof, sim.policy)
    found = fate(round_, "rover-4", tmp_path)
    assert (found.verdict, found.counting.fate, found.proof) == (FRAUD, Fate.VOID, None)
    assert found.sentence.endswith("round_full")


def test_a_second_admission_of_one_participant_that_is_left_out_is_shown(round_: Round, tmp_path: Path) -> None:
    envelope, update, _ = round_.sim.update("rover-2", {1: 9})
    again = replace(
        round_.admitted("rover-2"), envelope=envelope, envelope_raw=encode_envelope(envelope), update=update
    )
    index = round_.history.add(round_.sim.sign(round_.sim.statement(G1, STREAM, again)))
    round_.close("rover-1", "rover-2", "rover-3")
    assert fate(round_, "rover-2", tmp_path / "log").counting.fate is Fate.COUNTED
    round_.indices["rover-2"] = index
    found = fate(round_, "rover-2", tmp_path / "log")
    assert (found.verdict, found.counting.fate) == (FRAUD, Fate.LEFT_OUT)
    assert verify_fraud(found.proof, round_.sim.policy)


def test_a_closing_that_counts_what_nobody_sent_is_a_fraud_without_a_short_proof(
    round_: Round, tmp_path: Path
) -> None:
    round_.close("rover-1", counted_count=2)
    found = fate(round_, "rover-2", tmp_path)
    assert (found.verdict, found.counting.fate, found.proof) == (FRAUD, Fate.UNEXPLAINED, None)


def test_an_update_that_was_signed_for_another_history_is_no_honest_admission(
    stories: Stories, tmp_path: Path
) -> None:
    first = stories.first
    index = first.add(stories.admission("rover-3", round_opened=ZERO_DIGEST))
    found = compare(first.receipt(index), first.write(tmp_path / "log"), stories.sim.policy)
    assert (found.verdict, found.counting.fate) == (FRAUD, Fate.VOID)


def test_an_entry_that_is_no_admission_is_compared_and_not_asked_for_its_counting(
    stories: Stories, tmp_path: Path
) -> None:
    found = compare(stories.first.receipt(2), stories.first.write(tmp_path / "log"), stories.sim.policy)
    assert (found.verdict, found.counting) == (CONSISTENT, None)
