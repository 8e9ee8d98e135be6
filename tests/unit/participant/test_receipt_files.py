"""Receipt files years later: whichever form they have, and after the log's keys were replaced."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from simulator import SEGMENT, Simulator

from sfrl_secure.audit.fraud_check import rests_on_retired_keys
from sfrl_secure.errors import MalformedError, SfrlError, SignatureError, VerificationError
from sfrl_secure.participant.acknowledgement import acknowledgement_file, open_acknowledgement
from sfrl_secure.participant.receipt_files import Generation, ProvenLogging, generation_of, open_receipt_file
from sfrl_secure.participant.receipts import ProvenReceipt, open_receipt
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.translog.policy import TrustedLog, TrustPolicy
from sfrl_secure.translog.tlog_proof import TlogProof, format_tlog_proof, open_tlog_proof, parse_tlog_proof
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.receipts import Receipt, ReceiptKind, encode_receipt

ACKNOWLEDGED, WITNESSED, COUNTED = ReceiptKind


class Kept:
    """What rover-2 has kept of its counted update.

    Attributes:
        renewed: a trust policy with the log's next keys; `sim.policy` is the one of that time.
    """

    def __init__(self, sim: Simulator) -> None:
        self.sim = sim
        aggregator = sim.aggregator()
        aggregator.step()
        self.indices = [sim.admit(name) for name in ("rover-1", "rover-2", "rover-3")]
        self.index = self.indices[1]
        self.sent = sim.log.statement_at(self.index).body.envelope
        self.acknowledged = AppendedEntry(
            sim.log.logged_entry(self.index, self.index + 1),
            sim.log.note(self.index + 1, root=sim.log.tree.root(self.index + 1)),
        )
        while aggregator.step():
            pass
        proofs = sim.gatekeeper().proofs
        self.receipts: dict[ReceiptKind, Receipt] = {
            kind: proofs.receipt(SEGMENT, self.sent.digest, kind) for kind in (WITNESSED, COUNTED)
        }
        note = sim.log.note(len(sim.log.raw))
        self.receipts[ACKNOWLEDGED] = replace(
            self.receipts[WITNESSED],
            kind=ACKNOWLEDGED,
            checkpoint=note,
            **{
                name: sim.log.logged_entry(getattr(self.receipts[WITNESSED], name).index, len(sim.log.raw))
                for name in ("genesis", "participant", "admitted")
            },
            services=tuple(
                sim.log.logged_entry(each.index, len(sim.log.raw)) for each in self.receipts[WITNESSED].services
            ),
        )
        keys = LogKeys.generate()
        new = (keys.note_signer(sim.origin).key, keys.cosigner(sim.origin).key)
        (log,) = sim.policy.logs
        self.renewed: TrustPolicy = replace(sim.policy, logs=(TrustedLog(log.origin, (*log.keys, *new)),))

    def raw(self, kind: ReceiptKind) -> bytes:
        return encode_receipt(self.receipts[kind])

    def proof(self, *, witnesses: int) -> bytes:
        """The same entry as a `.tlog-proof`."""
        sim = self.sim
        size = len(sim.log.raw)
        logged = sim.log.logged_entry(self.index, size)
        note = sim.log.note(size, sim.log.witnesses[:witnesses])
        return format_tlog_proof(TlogProof(logged.raw, logged.index, logged.path, note))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    sim = Simulator(tmp_path_factory.mktemp("kept"))
    yield Kept(sim)
    sim.close()


@pytest.mark.parametrize("kind", ReceiptKind)
def test_a_receipt_opens_today_and_after_the_keys_were_replaced(kept: Kept, kind: ReceiptKind) -> None:
    raw = kept.raw(kind)
    assert open_receipt(raw, kept.sim.policy).kind is kind
    with pytest.raises(SignatureError, match="no line"):
        open_receipt(raw, kept.renewed)
    proven = open_receipt_file(raw, kept.renewed)
    assert isinstance(proven, ProvenReceipt)
    assert (proven.kind, proven.logged, proven.index) == (kind, kept.receipts[kind].admitted, kept.index)
    assert generation_of(proven.checkpoint, kept.renewed) == Generation(1, 2)
    assert rests_on_retired_keys(proven.checkpoint, kept.renewed) is (kind is ACKNOWLEDGED)


def test_a_note_under_both_generations_is_one_of_today(kept: Kept) -> None:
    sim = kept.sim
    old, new = sim.log.keys, LogKeys.generate()
    (log,) = sim.policy.logs
    keys = (new.note_signer(sim.origin).key, new.cosigner(sim.origin).key)
    policy = replace(sim.policy, logs=(TrustedLog(log.origin, (*log.keys, *keys)),))
    size = len(sim.log.raw)
    older = sim.log.note(size)
    sim.log.keys = new
    newer = sim.log.note(size)
    sim.log.keys = old
    logged = sim.log.logged_entry(kept.index, size)
    for note, number in ((newer, 2), (older + newer.split(b"\n\n")[1], 2), (older, 1)):
        raw = format_tlog_proof(TlogProof(logged.raw, logged.index, logged.path, note))
        opened = open_receipt_file(raw, policy).checkpoint
        assert generation_of(opened, policy) == Generation(number, 2)
        assert rests_on_retired_keys(opened, policy) is (number == 1)


def test_no_witnesses_in_the_policy_leave_retired_keys_alone(kept: Kept) -> None:
    """Of a policy that asks for no witness, every quorum is met: that vouches for nothing."""
    bare = TrustPolicy(kept.renewed.logs, (), (), "none")
    opened = open_receipt_file(kept.proof(witnesses=0), bare)
    assert opened.kind is ACKNOWLEDGED
    assert opened.checkpoint.quorum_met
    assert rests_on_retired_keys(opened.checkpoint, bare)


@pytest.mark.parametrize(("witnesses", "kind"), [(0, ACKNOWLEDGED), (1, ACKNOWLEDGED), (2, WITNESSED)])
def test_a_tlog_proof_is_a_receipt_of_what_vouches_for_it(kept: Kept, witnesses: int, kind: ReceiptKind) -> None:
    for policy in (kept.sim.policy, kept.renewed):
        proven = open_receipt_file(kept.proof(witnesses=witnesses), policy)
        assert isinstance(proven, ProvenLogging)
        assert (proven.kind, proven.logged.index, proven.admitted.envelope) == (kind, kept.index, kept.sent)


def test_the_acknowledgement_is_kept_as_a_proof_that_others_read_too(kept: Kept) -> None:
    open_acknowledgement(kept.acknowledged, kept.sent, SEGMENT, kept.sim.policy)
    raw = acknowledgement_file(kept.acknowledged)
    assert open_tlog_proof(raw, kept.sim.policy, quorum=False).entry == kept.acknowledged.logged.raw
    proven = open_receipt_file(raw, kept.sim.policy)
    assert (proven.kind, proven.logged) == (ACKNOWLEDGED, kept.acknowledged.logged)
    with pytest.raises(SignatureError, match="no line"):
        open_tlog_proof(raw, kept.renewed, quorum=False)


def test_an_entry_that_is_no_admission_says_so(kept: Kept) -> None:
    sim = kept.sim
    size = len(sim.log.raw)
    logged = sim.log.logged_entry(0, size)
    raw = format_tlog_proof(TlogProof(logged.raw, 0, logged.path, sim.log.note(size)))
    proven = open_receipt_file(raw, sim.policy)
    assert proven.content is not None
    assert proven.admitted is None


def test_every_changed_byte_of_a_proof_is_refused(kept: Kept) -> None:
    raw = kept.proof(witnesses=2)
    opened = open_receipt_file(raw, kept.sim.policy)
    for at in range(0, len(raw), 23):
        damaged = raw[:at] + bytes([raw[at] ^ 0x01]) + raw[at + 1 :]
        try:
            found = open_receipt_file(damaged, kept.sim.policy)
        except (MalformedError, VerificationError):
            continue
        # A line of an unknown key is ignored: then what was proven is the same, by fewer.
        assert found.logged == opened.logged
        assert set(found.checkpoint.witness_times) < set(opened.checkpoint.witness_times)


def test_no_truncated_or_foreign_file_raises_anything_but_a_typed_error(kept: Kept) -> None:
    raw = kept.proof(witnesses=2)
    for each in (b"", b"c2sp.org/tlog-proof@v1", raw[: len(raw) // 2], raw.replace(b"extra", b"extra ")):
        with pytest.raises(SfrlError):
            open_receipt_file(each, kept.sim.policy)
    without = replace(parse_tlog_proof(raw), extra=None)
    with pytest.raises(MalformedError, match="extra"):
        open_receipt_file(format_tlog_proof(without), kept.sim.policy)
