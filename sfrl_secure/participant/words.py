"""What a participant signs beside its updates: that it takes one back, and what a model of the segment decided.

Each is one envelope by its signing key, which a gatekeeper quotes in the log as it came. The envelope of a withdrawal
is kept before it is sent, and sent again as it is: the log knows it by its digest.

Format: proto/README.md, "What participants sign".

Runs in: participant, cli.
Trusts: the trust policy, its caller and its folder. Nothing that a gatekeeper answers.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.commitment import SALT_BYTES
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, NotFoundError
from sfrl_secure.governance.statements import (
    DECISION_TYPE,
    WITHDRAWAL_TYPE,
    DecisionRecorded,
    DecisionStatement,
    UpdateStatement,
    UpdateWithdrawn,
    WithdrawalStatement,
)
from sfrl_secure.ids import Digest
from sfrl_secure.participant.acknowledgement import open_acknowledgement
from sfrl_secure.participant.decisions import Decision, Opening, keep_opening, last_record_seq, set_aside
from sfrl_secure.participant.exchange import CALL_SECONDS, keep_acknowledged, send_until_decided
from sfrl_secure.participant.sent import COMPLAINT_BYTES_MAX
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.rpc.clients import GatekeeperClient
from sfrl_secure.storage.files import SECRET_MODE, make_folder, read_bounded, write_atomically
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.participants import encode_decision, encode_withdrawal, parse_withdrawal_envelope


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Something that a gatekeeper put on record for its participant.

    Attributes:
        statement_digest: of what the participant signed.
        index: leaf index of the entry that quotes it.
    """

    statement_digest: Digest
    index: int


@dataclass(frozen=True, slots=True)
class AcknowledgedDecision(Acknowledged):
    """A decision on record.

    Attributes:
        record_seq: its number among the participant's in the segment.
    """

    record_seq: int


@dataclass(frozen=True, slots=True)
class WordsOnRecord:
    """Puts a participant's withdrawals and decisions on record, and keeps the log's word for them."""

    name: str
    key: SigningKey
    policy: TrustPolicy
    gatekeeper: GatekeeperClient
    receipts: Path
    clock: Clock
    sleep: Callable[[float], None] = time.sleep

    def withdraw(self, submitted: Submitted) -> Acknowledged:
        """Take an admitted update back: see `Participant.withdraw`."""
        update = submitted.update
        envelope = self._withdrawal_of(submitted)
        acknowledged = send_until_decided(
            lambda: self.gatekeeper.withdraw_update(envelope, deadline_seconds=CALL_SECONDS), self.sleep
        )
        open_acknowledgement(acknowledged, envelope, update.segment, self.policy, UpdateWithdrawn)
        keep_acknowledged(self.receipts / f"{update.segment}-{update.round}-withdrawn.tlog-proof", acknowledged)
        return Acknowledged(envelope.digest, acknowledged.logged.index)

    def record(
        self, federation_id: Digest, segment: str, raw_input: bytes, decision: Decision, record_seq: int
    ) -> AcknowledgedDecision:
        """Put a decision on record: see `Participant.record_decision`."""
        number = record_seq or last_record_seq(self.receipts, segment) + 1
        opening = keep_opening(self.receipts, segment, number, secrets.token_bytes(SALT_BYTES), raw_input)
        envelope = sign_decision(self.key, federation_id, self.name, opening, decision, self.clock.now_us())
        try:
            acknowledged = send_until_decided(
                lambda: self.gatekeeper.record_decision(envelope, deadline_seconds=CALL_SECONDS), self.sleep
            )
        except DeniedError:
            set_aside(self.receipts, segment, opening)
            raise
        open_acknowledgement(acknowledged, envelope, segment, self.policy, DecisionRecorded)
        keep_acknowledged(self.receipts / "decisions" / segment / f"{number}.tlog-proof", acknowledged)
        return AcknowledgedDecision(envelope.digest, acknowledged.logged.index, number)

    def _withdrawal_of(self, submitted: Submitted) -> Envelope:
        """The withdrawal that was signed before, or a new one, kept."""
        update = submitted.update
        path = self.receipts / f"{update.segment}-{update.round}-withdrawal.envelope"
        with suppress(NotFoundError):
            envelope, said = parse_withdrawal_envelope(read_bounded(path, COMPLAINT_BYTES_MAX))
            if said.update == submitted.statement_digest and said.key_id == self.key.public_key.key_id:
                return envelope
        envelope = sign_withdrawal(self.key, update, submitted.statement_digest, self.clock.now_us())
        make_folder(path.parent)
        write_atomically(path, encode_envelope(envelope), mode=SECRET_MODE)
        return envelope


def sign_withdrawal(key: SigningKey, update: UpdateStatement, statement_digest: Digest, now_us: int) -> Envelope:
    """Sign that an update is taken back.

    Args:
        statement_digest: of the update.

    Raises:
        MalformedError: it has no canonical form.
    """
    withdrawal = WithdrawalStatement(
        federation_id=update.federation_id,
        segment=update.segment,
        participant=update.participant,
        key_id=key.public_key.key_id,
        round=update.round,
        round_opened=update.round_opened,
        update=statement_digest,
        created_us=now_us,
    )
    return sign_envelope(WITHDRAWAL_TYPE, encode_withdrawal(withdrawal), [key])


def sign_decision(
    key: SigningKey, federation_id: Digest, participant: str, opening: Opening, decision: Decision, now_us: int
) -> Envelope:
    """Sign a decision about the input that `opening` commits to.

    Raises:
        MalformedError: it has no canonical form: a list too long or out of order, a number outside its range.
    """
    statement = DecisionStatement(
        federation_id=federation_id,
        segment=opening.segment,
        participant=participant,
        key_id=key.public_key.key_id,
        record_seq=opening.record_seq,
        input_commitment=opening.commitment,
        model=decision.model,
        predicted_class=decision.predicted_class,
        confidence_ppm=decision.confidence_ppm,
        active_latents=decision.active_latents,
        attributions=decision.attributions,
        created_us=now_us,
    )
    return sign_envelope(DECISION_TYPE, encode_decision(statement), [key])
