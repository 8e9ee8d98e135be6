"""`sfrl receipt`: what holds, what does not, what is no receipt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfrl_secure.translog.policy import parse_trust_policy
from sfrl_secure.translog.tlog_proof import open_tlog_proof
from sfrl_secure.wire.receipts import ReceiptKind, parse_receipt


def verify(run, published, kind: ReceiptKind, *more: str):
    return run("receipt", "verify", published.receipts[kind], "--trust-policy", published.trust_policy, *more)


def test_a_witnessed_receipt_says_what_it_proves_and_that_counting_is_not_among_it(run, made) -> None:
    ended = verify(run, made, ReceiptKind.WITNESSED)
    assert ended.code == 0
    proven, not_proven = ended.out.split("not proven")
    assert "rover-1, segment rocks, round 1" in proven
    assert "the witness quorum cosigned that history: w1, w2" in proven
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
    assert ended.err.startswith("error: ")


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
    from dataclasses import replace

    from sfrl_secure.wire.receipts import encode_receipt

    receipt = parse_receipt(made.receipts[ReceiptKind.WITNESSED].read_bytes())
    path = tmp_path / "a.receipt"
    path.write_bytes(encode_receipt(replace(receipt, kind=ReceiptKind.ACKNOWLEDGED)))
    ended = run("receipt", "tlog-proof", path, "--out", tmp_path / "a.tlog-proof")
    assert ended.code == 2
    assert not (tmp_path / "a.tlog-proof").exists()
