"""Two histories: a log that shows a rover one and an auditor another, each with a witness of its own.

The quorum is any one witness, so each history looks witnessed to whoever has only that one. What the rover kept is
enough to convict the log: without the rover, without the auditor, from one file and the trust policy.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from simulator import SEGMENT, Simulator, service_id

from sfrl_secure.audit.fraud import encode_fraud_proof, parse_fraud_proof
from sfrl_secure.audit.fraud_check import verify_fraud
from sfrl_secure.audit.fsck import check_log_folder
from sfrl_secure.audit.receipt_on_log import Comparison, Verdict, compare_with_log
from sfrl_secure.audit.source import FolderLog
from sfrl_secure.audit.verify import verify_log
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.participant.receipt_files import open_receipt_file
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.policy import TrustPolicy, WitnessGroup, format_trust_policy
from sfrl_secure.translog.tiles import bundles_of, encode_bundle, tile_of_tree, tiles_of
from sfrl_secure.translog.tlog_proof import TlogProof, format_tlog_proof
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.entries import encode_entry, parse_entry
from sfrl_secure.wire.receipts import Receipt, ReceiptKind, encode_receipt

STREAM = f"segment/{SEGMENT}"
G1 = service_id("gatekeeper", "g1")


class TwoFacedLog:
    """To the rover, the log says that rover-1 was admitted; to the auditor, that rover-2 was, and not rover-1.

    Attributes:
        policy: any one witness is the quorum.
        proof: rover-1's witnessed `.tlog-proof`; `receipt`, its witnessed receipt; `acknowledged`, what it got at once.
    """

    def __init__(self, sim: Simulator, folder: Path) -> None:
        self.policy: TrustPolicy = replace(sim.policy, groups=(WitnessGroup("quorum", 1, ("w1", "w2", "w3")),))
        sim.open_round()
        forked = len(sim.log.raw)
        others = sim.sign(sim.statement(G1, STREAM, sim.admission("rover-2")))
        index = sim.admit("rover-1")
        self.position = sim.log.fold.state.streams[STREAM].next_seq - 1
        size = len(sim.log.raw)
        logged = sim.log.logged_entry(index, size)
        to_the_rover = sim.log.note(size, sim.log.witnesses[:1])
        self.proof = format_tlog_proof(TlogProof(logged.raw, index, logged.path, to_the_rover))
        self.acknowledged = format_tlog_proof(TlogProof(logged.raw, index, logged.path, sim.log.note(size)))
        digest = sim.log.statement_at(index).body.envelope.digest
        shown: Receipt = sim.gatekeeper().proofs.receipt(SEGMENT, digest, ReceiptKind.WITNESSED)
        self.receipt = encode_receipt(replace(shown, checkpoint=to_the_rover))

        # From the same prefix on, the other story.
        entries = [*sim.log.raw[:forked], again(sim, forked, others)]
        tree = MerkleTree(leaf_hash(entry) for entry in entries)
        self.log = folder / "log"
        to_the_auditor = sim.log.note(tree.size, sim.log.witnesses[1:2], root=tree.root())
        files = {"checkpoint": to_the_auditor}
        files |= {tile.path: tile_of_tree(tree, tile) for tile in tiles_of(tree.size)}
        files |= {bundle.path: encode_bundle(entries) for bundle in bundles_of(tree.size)}
        for path, raw in files.items():
            (self.log / path).parent.mkdir(parents=True, exist_ok=True)
            (self.log / path).write_bytes(raw)
        self.to_the_rover, self.to_the_auditor = to_the_rover, to_the_auditor


def again(sim: Simulator, index: int, envelope: Envelope) -> bytes:
    """The entry that another envelope would be at an index that is taken."""
    return encode_entry(replace(parse_entry(sim.log.raw[index]), envelope=envelope))


@pytest.fixture
def two_faced(sim: Simulator, tmp_path: Path) -> TwoFacedLog:
    return TwoFacedLog(sim, tmp_path)


def compare(two_faced: TwoFacedLog, raw: bytes) -> Comparison:
    proven = open_receipt_file(raw, two_faced.policy)
    return compare_with_log(
        proven.checkpoint, proven.logged, FolderLog(two_faced.log), two_faced.policy, lambda *_stage: None
    )


def test_each_history_alone_looks_right(two_faced: TwoFacedLog, sim: Simulator) -> None:
    for receipt in (two_faced.proof, two_faced.receipt, two_faced.acknowledged):
        assert open_receipt_file(receipt, two_faced.policy)
    assert check_log_folder(two_faced.log, two_faced.policy, lambda *_stage: None).verdict == "sound"
    report = verify_log(two_faced.log, format_trust_policy(two_faced.policy), sim.folder / "objects")
    assert report.verdict == "verified", report.to_text()


@pytest.mark.parametrize("kept", ["proof", "receipt", "acknowledged"])
def test_whatever_the_rover_kept_convicts_the_log_before_anyone(two_faced: TwoFacedLog, kept: str) -> None:
    found = compare(two_faced, getattr(two_faced, kept))
    sentence = f"the log put another entry at position {two_faced.position} of {STREAM}"
    assert (found.verdict, found.sentence) == (Verdict.FRAUD, sentence)
    evidence = encode_fraud_proof(found.proof)
    assert verify_fraud(parse_fraud_proof(evidence), two_faced.policy) == sentence
    # Both signed notes are in it, as they were given out.
    assert found.proof.second.checkpoint == two_faced.to_the_auditor
    if kept != "acknowledged":
        assert found.proof.first.checkpoint == two_faced.to_the_rover
    # Who trusts fewer witnesses is convinced as well: it is the log that has signed twice.
    bare = replace(two_faced.policy, witnesses=(), groups=(), quorum="none")
    assert verify_fraud(parse_fraud_proof(evidence), bare) == sentence


def test_the_auditor_who_is_given_the_rovers_note_sees_it_too(two_faced: TwoFacedLog, sim: Simulator) -> None:
    report = verify_log(
        two_faced.log, format_trust_policy(two_faced.policy), sim.folder / "objects", older=[two_faced.to_the_rover]
    )
    assert (report.verdict, [each.code for each in report.findings]) == ("false", ["equivocation"])
