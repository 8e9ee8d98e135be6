"""Admitted updates, as their participant has them: just sent, or read back from the receipt that was kept.

Format: `.tlog-proof` files of receipt A (`acknowledgement`).

Runs in: participant, cli, demo.
Trusts: the trust policy. Nothing that a kept file holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.errors import NotFoundError, VerificationError
from sfrl_secure.governance.statements import UpdateStatement
from sfrl_secure.ids import Digest
from sfrl_secure.limits import RECEIPT_BYTES_MAX
from sfrl_secure.participant.receipt_files import ProvenLogging, open_receipt_file
from sfrl_secure.participant.sent import newest_round
from sfrl_secure.sparse.encode import EncodedUpdate
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.uploads import encode_admitted

ACKNOWLEDGED = "acknowledged.tlog-proof"


@dataclass(frozen=True, slots=True)
class Submitted:
    """An admitted update.

    Attributes:
        update: what was signed.
        acknowledgement: receipt A, verified: the admission's entry, its path and the log's checkpoint
            (`acknowledgement`).
        index: leaf index of the admission.
        request_bytes: length of the request messages, the payload and what was sent in vain in them; 0 where it was
            read back from a receipt.
        encoded: the payload and what it decodes to, where `submit` encoded it; error feedback subtracts that.
    """

    update: UpdateStatement
    statement_digest: Digest
    acknowledgement: bytes
    index: int
    request_bytes: int
    encoded: EncodedUpdate | None = None

    @property
    def in_words(self) -> str:
        """Which update it is, for people."""
        update = self.update
        return f"{update.segment}, round {update.round}, {update.participant}: entry {self.index}"

    def __repr__(self) -> str:
        return f"Submitted({self.in_words})"


def newest_submitted(receipts: Path, segment: str) -> int:
    """The highest round of which the receipt of an admitted update is kept; 0 where there is none."""
    return newest_round(receipts, segment, ACKNOWLEDGED)


def read_submitted(
    receipts: Path, policy: TrustPolicy, participant: str, segment: str, round_number: int = 0
) -> Submitted:
    """Read an admitted update of `participant` back from its receipt A.

    Args:
        round_number: 0 for the newest that is kept.

    Raises:
        NotFoundError: no receipt of that round is kept.
        MalformedError, VerificationError: what is kept does not prove the admission of an update of this participant.
    """
    number = round_number or newest_submitted(receipts, segment)
    try:
        raw = read_bounded(receipts / f"{segment}-{number}-{ACKNOWLEDGED}", RECEIPT_BYTES_MAX)
    except NotFoundError:
        raise NotFoundError(
            f"no receipt of an update for segment {segment}{f', round {number}' if number else ''} is kept"
        ) from None
    proven = open_receipt_file(raw, policy)
    admitted = proven.admitted if isinstance(proven, ProvenLogging) else None
    if not isinstance(proven, ProvenLogging) or admitted is None or admitted.update.participant != participant:
        raise VerificationError("what is kept as a receipt does not prove the admission of this participant's update")
    if (admitted.update.segment, admitted.update.round) != (segment, number):
        raise VerificationError("what is kept as a receipt proves the admission of an update of another round")
    return Submitted(
        update=admitted.update,
        statement_digest=admitted.envelope.digest,
        acknowledgement=encode_admitted(AppendedEntry(proven.logged, proven.checkpoint.note)),
        index=proven.logged.index,
        request_bytes=0,
    )
