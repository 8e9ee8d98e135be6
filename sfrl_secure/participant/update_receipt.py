"""The receipt of an update that was admitted, and the way to the receipts that follow.

Runs in: participant, cli, demo.
Trusts: the trust policy. Nothing that a gatekeeper says.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.ids import Digest
from sfrl_secure.participant.receipts import ProvenReceipt, open_receipt
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.participant.weights import BaseModel
from sfrl_secure.participant.words import Acknowledged
from sfrl_secure.rpc.downloads import DownloadProgress
from sfrl_secure.wire.receipts import ReceiptKind

CLOSING_SECONDS = 120.0
"""A round is closed, and its model published, at most so long after its deadline."""


@dataclass(frozen=True, slots=True)
class UpdateReceipt:
    """The log's signed word that an update was admitted, and the way to the words that follow.

    Attributes:
        submitted: what was sent, and receipt A.
        opened: the update's round.
    """

    participant: Participant
    submitted: Submitted
    opened: OpenRound

    def __repr__(self) -> str:
        return f"UpdateReceipt({self.submitted.in_words})"

    @property
    def round(self) -> int:
        """The update's round."""
        return self.submitted.update.round

    @property
    def index(self) -> int:
        """Leaf index of the admission in the log."""
        return self.submitted.index

    @property
    def statement_digest(self) -> Digest:
        """Identity of the update."""
        return self.submitted.statement_digest

    def wait(self, kind: ReceiptKind = ReceiptKind.COUNTED, *, wait_seconds: float | None = None) -> ProvenReceipt:
        """Wait for a further receipt, verify it and keep it in the profile's folder.

        Args:
            kind: COUNTED, that a published model counts the update; WITNESSED, that witnesses saw the admission.
            wait_seconds: None for until the round is closed and its model published.

        Raises:
            NotFoundError: there is none in time; says why, and what to do.
            VerificationError: the receipt does not prove this update; nothing was kept.
            UnavailableError: no gatekeeper answers.
        """
        if wait_seconds is None:
            left_us = self.opened.deadline_us - self.participant.clock.now_us()
            wait_seconds = max(left_us / 1_000_000, 0.0) + CLOSING_SECONDS
        raw = self.participant.receipt(self.submitted, kind, wait_seconds=wait_seconds)
        return open_receipt(raw, self.participant.policy)

    def cluster_model(
        self, *, wait_seconds: float | None = None, on_progress: DownloadProgress | None = None
    ) -> BaseModel | None:
        """Wait for the COUNTED receipt, and fetch the model of the cluster that the update was in, if it was in one.

        Under a clustered mean a round has a model for each group of updates that are alike, beside the model of all:
        the members' task as far as that one round saw it, to be used and not to be handed in. Rounds go on from the
        model of all.

        Args:
            wait_seconds: as `wait`.

        Returns: None where the update was in no cluster, as under every other rule: the model of all is its model.

        Raises:
            NotFoundError, VerificationError, UnavailableError: as `wait`, and as `Participant.model`.
            DigestError, MalformedError, DeniedError: as `Participant.model`.
        """
        cluster = self.wait(wait_seconds=wait_seconds).cluster
        if cluster is None:
            return None
        found = self.participant.cluster_model(self.opened, cluster, on_progress=on_progress)
        return BaseModel(cluster.model, found)

    def path(self, kind: ReceiptKind = ReceiptKind.COUNTED) -> Path:
        """Where a receipt is kept once it was waited for."""
        update = self.submitted.update
        return self.participant.receipt_path(update.segment, update.round, kind)

    def withdraw(self) -> Acknowledged:
        """Take the update back while its round is open: see `Participant.withdraw`."""
        return self.participant.withdraw(self.submitted)
