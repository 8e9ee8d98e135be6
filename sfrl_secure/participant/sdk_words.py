"""What a participant says beside its updates: withdrawals, complaints, decisions on record.

Format: proto/README.md, "What participants sign".

Runs in: participant, cli.
Trusts: the trust policy, and its caller. Nothing that a gatekeeper answers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

from sfrl_secure.errors import NotFoundError
from sfrl_secure.ids import Digest, parse_segment
from sfrl_secure.participant.decisions import Decision, opening_path
from sfrl_secure.participant.rounds import FinishedSegment, OpenRound
from sfrl_secure.participant.sent import complaint_of
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.participant.words import Acknowledged, AcknowledgedDecision, WordsOnRecord


class ParticipantWords(ABC):
    """The part of `Participant` that is about what it says beside its updates."""

    _words: WordsOnRecord
    _receipts: Path
    _federation_id: Digest | None

    @abstractmethod
    def open_round(
        self, segment: str, after_round: int = 0, *, wait_seconds: float = 60.0, through_halt: bool = True
    ) -> OpenRound | FinishedSegment:
        """Wait for a round and open it."""

    @abstractmethod
    def submitted(self, segment: str, round_number: int = 0) -> Submitted:
        """Read an admitted update of ours back from the receipt that was kept."""

    def withdraw(self, submitted: Submitted) -> Acknowledged:
        """Take an admitted update back while its round is open; verify and keep the log's word.

        Asked again, it gives the entry that there is.

        Raises:
            DeniedError, RoundStateError: refused, with the reason: `round_not_open` once the round is closed.
            VerificationError: the answer does not prove the withdrawal.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided; try again.
        """
        return self._words.withdraw(submitted)

    def complaint(self, segment: str, round_number: int = 0) -> bytes:
        """Give the file to show to an auditor about an update that was sent and never acknowledged.

        Args:
            round_number: 0 for the newest.

        Raises:
            NotFoundError: there is no such update.
        """
        return complaint_of(self._receipts, parse_segment(segment), round_number)

    def record_decision(
        self, segment: str, raw_input: bytes, decision: Decision, *, record_seq: int = 0, wait_seconds: float = 60.0
    ) -> AcknowledgedDecision:
        """Put a decision on record: a salted hash of the input, and what the model said of it.

        The salt is kept in the profile's folder before anything is sent (`decisions`); the input is not kept.

        Args:
            record_seq: number of the record; 0 for one above the last that was kept here.
            wait_seconds: where the profile does not name the federation's id and no receipt has it, for the round from
                which it is learnt.

        Raises:
            DeniedError: refused, with the reason: `record_seq` where the log has a record with this number or above.
            MalformedError: a number or a list of the decision is outside its range.
            VerificationError: the answer does not prove the record.
            NotFoundError: the federation's id is known neither from a round nor from a receipt.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided; try again.
        """
        parse_segment(segment)
        federation_id = self._known_federation(segment, wait_seconds)
        return self._words.record(federation_id, segment, raw_input, decision, record_seq)

    def opening_path(self, segment: str, record_seq: int) -> Path:
        """Where the salt of a decision is kept."""
        return opening_path(self._receipts, segment, record_seq)

    def _known_federation(self, segment: str, wait_seconds: float) -> Digest:
        if self._federation_id is None:
            with suppress(NotFoundError):
                self._federation_id = self.submitted(segment).update.federation_id
        if self._federation_id is None:
            self.open_round(segment, wait_seconds=wait_seconds)
        if self._federation_id is None:
            raise NotFoundError("the federation's id is learnt from an open round, and none will open here")
        return self._federation_id
