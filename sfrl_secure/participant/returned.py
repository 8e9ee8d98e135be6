"""Receipts that come back with whoever carried the update: verified offline, and kept where the others lie.

Nobody who carried them is believed. What has our update in it, proven to be in the log, is a receipt; all else is not.

Format: proto/README.md, "Receipts" and "Bundles".

Runs in: participant, cli.
Trusts: the trust policy, and the participant's own key. Nothing in the file.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.audit.fraud_check import rests_on_retired_keys
from sfrl_secure.crypto.envelope import verify_single
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import MalformedError, NotFoundError, VerificationError
from sfrl_secure.governance.statements import Statement, UpdateStatement
from sfrl_secure.ids import Digest
from sfrl_secure.participant.exchange import keep_acknowledged
from sfrl_secure.participant.known_roots import KnownRoots
from sfrl_secure.participant.receipt_files import ProvenLogging, open_receipt_file
from sfrl_secure.participant.receipts import ProvenReceipt
from sfrl_secure.participant.sent import complaint_of, forget_sent, parse_complaint
from sfrl_secure.participant.submissions import ACKNOWLEDGED, read_submitted
from sfrl_secure.storage.files import SECRET_MODE, make_folder, write_atomically
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.receipts import ReceiptKind


@dataclass(frozen=True, slots=True)
class ReturnedReceipt:
    """A receipt of ours that came back, and was kept.

    Attributes:
        update: what was signed and admitted.
        index: leaf index of the admission.
        path: where the receipt lies now.
    """

    kind: ReceiptKind
    update: UpdateStatement
    statement_digest: Digest
    index: int
    path: Path


def take_receipt(raw: bytes, *, name: str, key: PublicKey, policy: TrustPolicy, receipts: Path) -> ReturnedReceipt:
    """Verify a receipt of participant `name`, whose key is `key`, and keep it in the folder `receipts`.

    Receipt A is kept with it, so that the update counts as submitted here; what was kept for a complaint is forgotten.

    Raises:
        MalformedError: it is no receipt of an update.
        VerificationError: it does not prove the admission of an update of this participant; or another admission of
            the round is kept already, and then the file and what is kept convict somebody: keep both.
        ExhaustedError, UncertainStateError: it could not be kept.
    """
    proven = open_receipt_file(raw, policy)
    if rests_on_retired_keys(proven.checkpoint, policy):
        raise VerificationError("the receipt rests on keys that the log no longer uses: have it fetched again")
    update, digest = _our_update(proven, name, key)
    if isinstance(proven, ProvenReceipt):
        KnownRoots(receipts).check(proven.roots)
    index = proven.logged.index
    with suppress(NotFoundError):
        kept = read_submitted(receipts, policy, name, update.segment, update.round)
        if (kept.statement_digest, kept.index) != (digest, index):
            raise VerificationError(
                "another admission of this round is kept here: keep both files, and show them to an auditor"
            )
    acknowledged = receipts / f"{update.segment}-{update.round}-{ACKNOWLEDGED}"
    if not acknowledged.exists():
        keep_acknowledged(acknowledged, AppendedEntry(proven.logged, proven.checkpoint.note))
    path = acknowledged
    if isinstance(proven, ProvenReceipt):
        path = receipts / f"{update.segment}-{update.round}-{proven.kind.name.lower()}.receipt"
        make_folder(receipts)
        write_atomically(path, raw, mode=SECRET_MODE)
    _forget_sent(receipts, update, digest)
    return ReturnedReceipt(proven.kind, update, digest, index, path)


def _our_update(
    proven: ProvenReceipt | ProvenLogging, name: str, key: PublicKey
) -> tuple[UpdateStatement, Digest]:
    """The update that a receipt is of, shown to be of this participant."""
    if isinstance(proven, ProvenReceipt):
        update, digest = proven.update, proven.statement_digest
    else:
        admitted = proven.admitted
        if admitted is None or not isinstance(proven.content, Statement):
            raise MalformedError("the file proves an entry of the log that admits no update")
        update, digest = admitted.update, admitted.envelope.digest
        if proven.content.stream != f"segment/{update.segment}":
            raise VerificationError("the admission stands in the stream of another segment")
    if update.participant != name:
        raise VerificationError(f"the receipt is of another participant's update, and the profile is {name}'s")
    if isinstance(proven, ProvenLogging):
        # An entry alone says nothing of who signed; with the record and its authority, a receipt of ours does.
        assert proven.admitted is not None
        verify_single(proven.admitted.envelope, key)
    return update, digest


def _forget_sent(receipts: Path, update: UpdateStatement, digest: Digest) -> None:
    with suppress(NotFoundError, MalformedError):
        if parse_complaint(complaint_of(receipts, update.segment, update.round))[1].digest == digest:
            forget_sent(receipts, update)
