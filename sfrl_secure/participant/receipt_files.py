"""Receipt files, whichever form they have: ours with all that they rest on, or a `.tlog-proof` with the entry alone.

A `.tlog-proof` is what the log hands out when it acknowledges (A), and what other people's tools verify (W): that the
entry is in the log, and not who wrote it. Ours proves the operators, the services and the participant's key, too.

Format: proto/README.md, "Receipts"; c2sp.org/tlog-proof v1.

Runs in: participant, cli.
Trusts: the trust policy. Nothing in the file.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import Statement, UpdateAdmitted
from sfrl_secure.participant.receipts import ProvenReceipt, open_receipt
from sfrl_secure.translog.entries import LogEntry, LoggedEntry
from sfrl_secure.translog.note import parse_note
from sfrl_secure.translog.opened import OpenedCheckpoint
from sfrl_secure.translog.policy import NO_QUORUM, TrustPolicy
from sfrl_secure.translog.tlog_proof import is_tlog_proof, open_tlog_proof
from sfrl_secure.wire.content import Content, parse_content
from sfrl_secure.wire.entries import parse_entry
from sfrl_secure.wire.receipts import ReceiptKind


@dataclass(frozen=True, slots=True)
class ProvenLogging:
    """What a `.tlog-proof` proves: this entry is in the log.

    Attributes:
        kind: WITNESSED under the quorum, else ACKNOWLEDGED.
        checkpoint: the one that the proof leads to.
        logged: the entry, as it is in the log.
        entry: the same, parsed.
        content: what was signed; None where it does not parse.
    """

    kind: ReceiptKind
    checkpoint: OpenedCheckpoint
    logged: LoggedEntry
    entry: LogEntry
    content: Content | None

    @property
    def admitted(self) -> UpdateAdmitted | None:
        """The admission, where the entry is one."""
        body = self.content.body if isinstance(self.content, Statement) else None
        return body if isinstance(body, UpdateAdmitted) else None


@dataclass(frozen=True, slots=True)
class Generation:
    """Which of a log's keys signed: the newest generation that did.

    Attributes:
        number: from 1, the oldest.
        count: generations in the trust policy.
    """

    number: int
    count: int


def open_receipt_file(raw: bytes, policy: TrustPolicy) -> ProvenReceipt | ProvenLogging:
    """Verify a receipt file that may be years old.

    Keys that the log no longer uses are enough: `audit.fraud_check.rests_on_retired_keys` says where nothing else
    vouches for it.

    Raises:
        MalformedError: it is no receipt.
        VerificationError: it does not prove what it says.
    """
    if not is_tlog_proof(raw):
        return open_receipt(raw, policy, archived=True)
    opened = open_tlog_proof(raw, policy, quorum=False, archived=True)
    entry = parse_entry(opened.entry)
    content: Content | None = None
    with suppress(MalformedError):
        content = parse_content(entry.envelope)
    is_witnessed = opened.checkpoint.quorum_met and policy.quorum != NO_QUORUM
    return ProvenLogging(
        ReceiptKind.WITNESSED if is_witnessed else ReceiptKind.ACKNOWLEDGED,
        opened.checkpoint,
        LoggedEntry(opened.leaf_index, opened.entry, opened.path),
        entry,
        content,
    )


def generation_of(opened: OpenedCheckpoint, policy: TrustPolicy) -> Generation:
    """Name the newest generation of the log's keys that signed a checkpoint; its lines were verified as it opened."""
    log = policy.log(opened.checkpoint.origin)
    assert log is not None, "the checkpoint was opened with it"
    signed = {(line.name, line.key_id) for line in parse_note(opened.note).signatures}
    whole = [all((key.name, key.key_id) in signed for key in keys) for keys in log.generations]
    return Generation(max(number for number, is_whole in enumerate(whole, start=1) if is_whole), len(whole))
