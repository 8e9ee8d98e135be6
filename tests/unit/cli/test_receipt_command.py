"""`sfrl receipt`: what holds, what does not, what is no receipt."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from simulator import ROVERS, SEGMENT, Simulator, service_id

from sfrl_secure.participant.acknowledgement import acknowledgement_file
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.translog.entries import LogEntry, LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.policy import TrustedLog, format_trust_policy, parse_trust_policy
from sfrl_secure.translog.tlog_proof import open_tlog_proof
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import encode_entry, parse_entry
from sfrl_secure.wire.receipts import ReceiptKind, encode_receipt, parse_receipt

from .conftest import publish

G1 = service_id("gatekeeper", "g1")


@dataclass(frozen=True)
class Lying:
    """A log that told a rover one history and published another.

    Attributes:
        receipt: A, of the rover's history.
        position: of its admission in the segment's stream.
    """

    sim: Simulator
    log: Path
    trust_policy: Path
    receipt: Path
    position: int


def verify(run, published, kind: ReceiptKind, *more: str):
    return run("receipt", "verify", published.receipts[kind], "--trust-policy", published.trust_policy, *more)


def test_a_witnessed_receipt_says_what_it_proves_and_that_counting_is_not_among_it(run, made) -> None:
    ended = verify(run, made, ReceiptKind.WITNESSED)
    assert ended.code == 0
    proven, not_proven = ended.out.split("not proven")
    assert "rover-1, segment rocks, round 1" in proven
    assert "the witness quorum cosigned that history: w1, w2, the last one at 2026-" in proven
    assert "under both its keys" in proven
    assert "published model" not in proven
    assert "was counted" in not_proven
    assert "audit verify" in not_proven


def test_a_counted_receipt_names_the_model_and_how_many_were_counted(run, made) -> None:
    ended = verify(run, made, ReceiptKind.COUNTED)
    assert ended.code == 0
    assert "among the 3 counted" in ended.out
    assert "was counted" not in ended.out.split("not proven")[1]


@pytest.mark.parametrize("kind", [ReceiptKind.WITNESSED, ReceiptKind.COUNTED])
def test_json_is_one_object_on_one_line(run, made, kind: ReceiptKind) -> None:
    ended = verify(run, made, kind, "--json")
    assert ended.code == 0
    assert ended.out.count("\n") == 1
    found = json.loads(ended.out)
    assert (found["holds"], found["kind"], found["participant"]) == (True, kind.name, "rover-1")
    assert (found["counted"] == 3) is (kind is ReceiptKind.COUNTED)
    assert (found["model"] is None) is (kind is ReceiptKind.WITNESSED)


def altered(published) -> None:
    """Change a byte of the checkpoint's last signature: the receipt parses and does not hold."""
    path = published.receipts[ReceiptKind.WITNESSED]
    raw = path.read_bytes()
    note = parse_receipt(raw).checkpoint
    at = raw.index(note) + len(note) - 20
    path.write_bytes(raw[:at] + (b"A" if raw[at : at + 1] != b"A" else b"B") + raw[at + 1 :])


def test_a_receipt_that_does_not_hold_gives_exit_code_1(run, published) -> None:
    altered(published)
    ended = verify(run, published, ReceiptKind.WITNESSED)
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.startswith("error: the receipt does not hold: ")


def test_a_receipt_that_does_not_hold_is_one_json_object_too(run, published) -> None:
    altered(published)
    ended = verify(run, published, ReceiptKind.WITNESSED, "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["holds"] is False


def test_another_federations_trust_policy_gives_exit_code_1(run, published) -> None:
    # The same log under a policy that trusts one witness less than the quorum needs.
    lines = published.trust_policy.read_text().splitlines()
    kept = [line.replace("group quorum 2", "group quorum 3") for line in lines]
    assert kept != lines
    published.trust_policy.write_text("\n".join(kept) + "\n")
    assert verify(run, published, ReceiptKind.WITNESSED).code == 1


@pytest.mark.parametrize("raw", [b"", b"not a receipt", bytes(100)])
def test_what_is_no_receipt_gives_exit_code_2(run, published, raw: bytes) -> None:
    published.receipts[ReceiptKind.WITNESSED].write_bytes(raw)
    ended = verify(run, published, ReceiptKind.WITNESSED)
    assert ended.code == 2
    assert ended.err.startswith(f"error: {published.receipts[ReceiptKind.WITNESSED]} is no receipt: ")


def test_a_receipt_that_is_not_there_gives_exit_code_2_and_its_name(run, made, tmp_path: Path) -> None:
    ended = run("receipt", "verify", tmp_path / "gone", "--trust-policy", made.trust_policy)
    assert ended.code == 2
    assert str(tmp_path / "gone") in ended.err


def test_a_tlog_proof_opens_with_the_generic_verifier_to_the_receipts_entry(run, made, tmp_path: Path) -> None:
    out = tmp_path / "mine.tlog-proof"
    receipt = made.receipts[ReceiptKind.COUNTED]
    assert run("receipt", "tlog-proof", receipt, "--out", out).code == 0
    policy = parse_trust_policy(made.trust_policy.read_bytes())
    opened = open_tlog_proof(out.read_bytes(), policy)
    assert opened.entry == parse_receipt(receipt.read_bytes()).admitted.raw


def test_a_tlog_proof_replaces_no_file(run, made, tmp_path: Path) -> None:
    out = tmp_path / "mine.tlog-proof"
    out.write_text("mine")
    ended = run("receipt", "tlog-proof", made.receipts[ReceiptKind.WITNESSED], "--out", out)
    assert ended.code == 2
    assert out.read_text() == "mine"


def test_an_acknowledgement_is_no_witnessed_proof(run, made, tmp_path: Path) -> None:
    receipt = parse_receipt(made.receipts[ReceiptKind.WITNESSED].read_bytes())
    path = tmp_path / "a.receipt"
    path.write_bytes(encode_receipt(replace(receipt, kind=ReceiptKind.ACKNOWLEDGED)))
    ended = run("receipt", "tlog-proof", path, "--out", tmp_path / "a.tlog-proof")
    assert ended.code == 2
    assert not (tmp_path / "a.tlog-proof").exists()


# Against the log


def test_the_log_of_today_says_what_became_of_the_update(run, made) -> None:
    ended = verify(run, made, ReceiptKind.WITNESSED, "--log", made.log)
    assert ended.code == 0
    today = ended.out.split("the log today")[1]
    assert "consistent: the log of " in today
    assert "counted: round 1 counted it, among 3 updates" in today
    # What the log has shown is no longer open.
    assert "was counted" not in ended.out.split("not proven")[1]


def test_the_log_of_today_is_in_the_json_too(run, made) -> None:
    ended = verify(run, made, ReceiptKind.COUNTED, "--log", made.log, "--json")
    found = json.loads(ended.out)
    assert (ended.code, ended.out.count("\n")) == (0, 1)
    assert (found["log"]["verdict"], found["log"]["update"]) == ("consistent", "counted")
    assert (found["key_generation"], found["key_generations"], found["older_keys_alone"]) == (1, 1, False)
    assert set(found["witness_times"]) == {"w1", "w2"}


def test_a_copy_that_is_not_whole_gives_exit_code_2(run, published) -> None:
    for tile in (published.log / "tile/0/000.p").iterdir():
        tile.unlink()
    ended = verify(run, published, ReceiptKind.WITNESSED, "--log", published.log)
    assert ended.code == 2
    assert "missing: the copy of the log is not whole" in ended.out


def test_evidence_goes_with_a_log_and_replaces_no_file(run, made, tmp_path: Path) -> None:
    ended = verify(run, made, ReceiptKind.WITNESSED, "--evidence", tmp_path / "fraud.json")
    assert (ended.code, ended.out) == (2, "")
    assert "--log" in ended.err
    (tmp_path / "fraud.json").write_text("mine")
    ended = verify(run, made, ReceiptKind.WITNESSED, "--log", made.log, "--evidence", tmp_path / "fraud.json")
    assert ended.code == 2
    assert (tmp_path / "fraud.json").read_text() == "mine"


def test_where_nobody_lied_no_evidence_is_written(run, made, tmp_path: Path) -> None:
    ended = verify(run, made, ReceiptKind.WITNESSED, "--log", made.log, "--evidence", tmp_path / "fraud.json")
    assert ended.code == 0
    assert not (tmp_path / "fraud.json").exists()
    assert f"no fraud: {tmp_path / 'fraud.json'} was not written\n" in ended.err


def test_evidence_that_cannot_be_written_is_said_before_the_log_is_read(run, made) -> None:
    # Nobody makes files there, root included.
    ended = verify(run, made, ReceiptKind.WITNESSED, "--log", made.log, "--evidence", "/proc/self/fraud.json")
    assert (ended.code, ended.out) == (2, "")
    assert "/proc/self/fraud.json cannot be written" in ended.err


def test_a_receipt_is_no_fraud_proof_and_what_verifies_it_is_named(run, made, tmp_path: Path) -> None:
    receipt = made.receipts[ReceiptKind.COUNTED]
    ended = run("receipt", "verify-fraud", receipt, "--trust-policy", made.trust_policy)
    assert ended.code == 2
    assert ended.err == f"error: {receipt} is no fraud proof; for a receipt: `sfrl receipt verify`\n"
    other = tmp_path / "other"
    other.write_text("{}")
    ended = run("receipt", "verify-fraud", other, "--trust-policy", made.trust_policy)
    assert ended.code == 2
    assert f"{other} is no fraud proof: " in ended.err
    assert "for a receipt" not in ended.err


def test_an_address_is_no_log_to_hold_a_receipt_against(run, made) -> None:
    ended = verify(run, made, ReceiptKind.WITNESSED, "--log", "https://log.example")
    assert ended.code == 2
    assert "mirror" in ended.err


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lying]:
    folder = tmp_path_factory.mktemp("lying")
    sim = Simulator(folder)
    sim.open_round()
    entry = len(sim.log.raw)
    envelopes = [sim.sign(sim.statement(G1, f"segment/{SEGMENT}", sim.admission(name))) for name in ROVERS[:2]]
    told = MerkleTree(leaf_hash(raw) for raw in sim.log.raw)
    last = parse_entry(sim.log.raw[-1])
    place = sim.log.fold.place(parse_content(envelopes[0]))
    raw = encode_entry(
        LogEntry(told.leaf(entry - 1), last.log_time_us, place.stream_seq, place.stream_prev, envelopes[0])
    )
    told.append(leaf_hash(raw))
    # To the rover the log says this; what it publishes says that rover-2 was there in its place.
    note = sim.log.note(told.size, root=told.root())
    path = told.inclusion_proof(entry, told.size).path
    (folder / "mine.tlog-proof").write_bytes(acknowledgement_file(AppendedEntry(LoggedEntry(entry, raw, path), note)))
    sim.log.order(envelopes[1])
    publish(sim, folder / "log")
    (folder / "trust-policy.txt").write_bytes(format_trust_policy(sim.policy))
    yield Lying(sim, folder / "log", folder / "trust-policy.txt", folder / "mine.tlog-proof", place.stream_seq)
    sim.close()


def test_an_acknowledgement_alone_holds_and_says_what_it_is(run, lying) -> None:
    ended = run("receipt", "verify", lying.receipt, "--trust-policy", lying.trust_policy)
    assert ended.code == 0
    assert ended.out.startswith("holds    receipt ACKNOWLEDGED of ")
    assert "update of rover-1 admitted: segment rocks, round 1" in ended.out
    assert "witness" not in ended.out
    assert "who wrote the entry" in ended.out.split("not proven")[1]


def test_a_split_view_is_a_fraud_and_its_evidence_convinces_a_stranger(run, lying, tmp_path: Path) -> None:
    evidence = tmp_path / "fraud.json"
    receipt = ("receipt", "verify", lying.receipt, "--trust-policy", lying.trust_policy, "--log", lying.log)
    ended = run(*receipt, "--evidence", evidence)
    assert ended.code == 1
    sentence = f"the log put another entry at position {lying.position} of segment/rocks"
    assert f"fraud: {sentence}" in ended.out
    assert "verify-fraud" in ended.err
    found = json.loads(run(*receipt, "--json").out)
    assert (found["log"]["verdict"], found["log"]["shown_by_evidence"]) == ("fraud", True)

    stranger = ("receipt", "verify-fraud", evidence, "--trust-policy", lying.trust_policy)
    ended = run(*stranger)
    assert (ended.code, ended.out) == (0, f"proven: {sentence}\n")
    assert json.loads(run(*stranger, "--json").out) == {"proven": True, "fraud": sentence}

    fields = json.loads(evidence.read_text())
    fields["second"] = fields["first"]
    evidence.write_text(json.dumps(fields))
    ended = run(*stranger)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: the file proves no fraud: ")
    ended = run(*stranger, "--json")
    assert (ended.code, json.loads(ended.out)["proven"]) == (1, False)
    evidence.write_text("{}")
    assert run(*stranger).code == 2


def test_a_receipt_on_retired_keys_alone_needs_the_log(run, lying, tmp_path: Path) -> None:
    policy = tmp_path / "trust-policy.txt"
    keys = LogKeys.generate()
    new = (keys.note_signer(lying.sim.origin).key, keys.cosigner(lying.sim.origin).key)
    (log,) = lying.sim.policy.logs
    both = replace(lying.sim.policy, logs=(TrustedLog(log.origin, (*log.keys, *new)),))
    policy.write_bytes(format_trust_policy(both))
    index = len(lying.sim.log.raw) - 1
    appended = AppendedEntry(lying.sim.log.logged_entry(index, index + 1), lying.sim.log.note(index + 1))
    receipt = tmp_path / "a.tlog-proof"
    receipt.write_bytes(acknowledgement_file(appended))

    ended = run("receipt", "verify", receipt, "--trust-policy", policy)
    assert ended.code == 2
    assert "under both keys of generation 1 of 2; generation 2 did not sign it" in ended.out
    assert "rests on an older generation's keys alone" in ended.err
    assert json.loads(run("receipt", "verify", receipt, "--trust-policy", policy, "--json").out)["older_keys_alone"]

    kept, lying.sim.log.keys = lying.sim.log.keys, keys
    shutil.copytree(lying.log, tmp_path / "log")
    size = len(lying.sim.log.raw)
    (tmp_path / "log/checkpoint").write_bytes(lying.sim.log.note(size, lying.sim.log.witnesses[:2]))
    lying.sim.log.keys = kept
    ended = run("receipt", "verify", receipt, "--trust-policy", policy, "--log", tmp_path / "log")
    assert ended.code == 0
    assert "consistent" in ended.out
