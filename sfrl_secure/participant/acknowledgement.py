"""Receipt A, verified: the log has signed that exactly our envelope was admitted, withdrawn or recorded.

It holds the entry, its path and a checkpoint under every key of the log: enough to show that a log which later leaves
the entry out has lied, and so worth keeping. Who wrote the entry, and that witnesses saw it, is shown by the receipts
that come later (`receipts`).

Format: proto/sfrl/gatekeeper/v1/gatekeeper_service.proto, `SubmitUpdateResponse`, `WithdrawUpdateResponse`,
`RecordDecisionResponse`; PROTOCOL 8.

Runs in: participant, cli.
Trusts: the trust policy. Nothing in the answer.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError, VerificationError
from sfrl_secure.governance.statements import (
    ComplaintRecorded,
    DecisionRecorded,
    Statement,
    UpdateAdmitted,
    UpdateWithdrawn,
)
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion
from sfrl_secure.translog.tlog_proof import TlogProof, format_tlog_proof
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import encode_envelope, parse_entry

_WORDS: dict[type, str] = {
    UpdateAdmitted: "the admission",
    UpdateWithdrawn: "the withdrawal",
    DecisionRecorded: "the record",
    ComplaintRecorded: "the complaint",
}


def acknowledgement_file(acknowledged: AppendedEntry) -> bytes:
    """Write receipt A as the file to keep: a `.tlog-proof` with the entry in it. `receipt_files` reads it.

    Raises:
        MalformedError: what was answered does not fit the format.
    """
    logged = acknowledged.logged
    return format_tlog_proof(TlogProof(logged.raw, logged.index, logged.path, acknowledged.checkpoint))


def open_acknowledgement(
    acknowledged: AppendedEntry,
    sent: Envelope,
    segment: str,
    policy: TrustPolicy,
    body: type[UpdateAdmitted | UpdateWithdrawn | DecisionRecorded | ComplaintRecorded] = UpdateAdmitted,
) -> LogEntry:
    """Verify that the log holds an entry of this kind with exactly the envelope that was sent; give the entry.

    Raises:
        VerificationError: the checkpoint is not under every key of the log, the entry is not in it, or it does not
            hold this envelope as what it was sent for.
        MalformedError: something does not parse.
    """
    checkpoint = open_checkpoint(acknowledged.checkpoint, policy, quorum=False).checkpoint
    logged = acknowledged.logged
    try:
        proof = InclusionProof(logged.index, checkpoint.size, logged.path)
    except MalformedError as error:
        raise VerificationError(str(error)) from None
    verify_inclusion(logged.raw, proof, checkpoint.root)
    entry = parse_entry(logged.raw)
    content = parse_content(entry.envelope)
    if (
        not isinstance(content, Statement)
        or not isinstance(content.body, body)
        or content.stream != f"segment/{segment}"
        or content.body.envelope_raw != encode_envelope(sent)
    ):
        raise VerificationError(f"the entry is not {_WORDS[body]} of the envelope that was sent")
    return entry
