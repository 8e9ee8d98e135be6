"""From a payload to receipt A: say what it is, sign it, send it until it is decided, keep the log's word.

The signed envelope is kept before the first byte goes out, until its admission is acknowledged (`sent`). Sending goes
on over broken connections until the round takes no more updates; the gatekeeper says what it has, and only the rest is
sent.

Format: proto/README.md, "What participants sign" and "Upload".

Runs in: participant, cli, demo.
Trusts: the trust policy, its caller and its folder. Nothing that a gatekeeper answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.statements import UPDATE_TYPE, PayloadFormat, UpdateStatement
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.participant.acknowledgement import open_acknowledgement
from sfrl_secure.participant.exchange import CALL_SECONDS, keep_acknowledged
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sent import forget_sent, keep_sent
from sfrl_secure.participant.submissions import ACKNOWLEDGED, Submitted
from sfrl_secure.rpc.clients import GatekeeperClient
from sfrl_secure.rpc.sources import PayloadSource
from sfrl_secure.rpc.uploads import UploadProgress
from sfrl_secure.sparse.encode import EncodedUpdate, payload_root
from sfrl_secure.sparse.header import AGREED_PREAMBLE_BYTES, PREAMBLE_BYTES
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire import statements
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.uploads import encode_admitted

CODEC_VERSION = 2

MARGIN_US = 3_000_000
"""Nothing is begun so near to a round's deadline: updates are taken until 2 s before."""


@dataclass(frozen=True, slots=True)
class ClaimedPayload:
    """A payload, and what its participant claims of it in the statement; nothing of it is looked at.

    Attributes:
        support, value_type: as its header says them.
        noise_std: grid units.
        root: of its leaves; None to read it from the header.
    """

    payload: bytes | memoryview = field(repr=False)
    nonzeros: int
    weight: int
    support: str = "free"
    value_type: str = "int8"
    noise_std: int = 0
    root: Digest | None = None


@dataclass(frozen=True, slots=True)
class SignedUpdate:
    """An update that may be sent: now, later, or by somebody else.

    Attributes:
        update: what was signed.
        envelope: the signature over it.
        payload: the bytes that it names, in memory or in a file.
        deadline_us: log time, until which the round takes it; 0 where it is not known.
        encoded: what the payload decodes to, where it was encoded here.
    """

    update: UpdateStatement
    envelope: Envelope
    payload: bytes | memoryview | PayloadSource = field(repr=False)
    deadline_us: int = 0
    encoded: EncodedUpdate | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        update = self.update
        return (
            f"SignedUpdate({update.segment}, round {update.round}, {update.participant}: {update.payload_bytes} bytes, "
            f"{update.format.support}, {update.format.values})"
        )


@dataclass(frozen=True, slots=True)
class UpdateSender:
    """Signs and sends a participant's updates."""

    name: str
    key: SigningKey
    policy: TrustPolicy
    gatekeeper: GatekeeperClient
    receipts: Path
    clock: Clock

    def statement_of(self, opened: OpenRound, claimed: ClaimedPayload) -> UpdateStatement:
        """What this participant says of a payload in the round.

        Raises:
            PayloadError: it has no header to read the root from.
            DeniedError: `payload_format`: the update is of another mask than the round's; nothing was signed.
        """
        payload = claimed.payload
        if claimed.support == "agreed":
            _check_mask(opened, payload)
        return UpdateStatement(
            federation_id=opened.federation_id,
            segment=opened.segment,
            participant=self.name,
            key_id=self.key.public_key.key_id,
            round=opened.number,
            round_opened=opened.opened,
            base_model=opened.base_model,
            payload_sha256=sha256(payload),
            payload_bytes=len(payload),
            payload_root=payload_root(payload) if claimed.root is None else claimed.root,
            nonzeros=claimed.nonzeros,
            format=PayloadFormat(codec=CODEC_VERSION, support=claimed.support, values=claimed.value_type),
            weight=claimed.weight,
            created_us=self.clock.now_us(),
            noise_std=claimed.noise_std,
        )

    def sign(self, update: UpdateStatement) -> Envelope:
        """Sign a statement.

        Raises:
            MalformedError: it has no canonical form.
        """
        return sign_envelope(UPDATE_TYPE, statements.encode_update(update), [self.key])

    def prepare(self, opened: OpenRound, encoded: EncodedUpdate, weight: int, noise_std: int) -> SignedUpdate:
        """Sign an update that was encoded here."""
        claimed = ClaimedPayload(
            encoded.buffer, encoded.nonzeros, weight, encoded.support, encoded.value_type, noise_std, encoded.root
        )
        update = self.statement_of(opened, claimed)
        return SignedUpdate(update, self.sign(update), encoded.buffer, opened.deadline_us, encoded)

    def send(
        self,
        signed: SignedUpdate,
        *,
        deadline_seconds: float | None = None,
        on_progress: UploadProgress | None = None,
    ) -> Submitted:
        """Send an update until it is decided; verify receipt A and keep it.

        Args:
            deadline_seconds: None for as long as the round takes updates.

        Raises:
            DeniedError, RoundStateError: refused, with the reason; `entry_index` where the refusal is in the log.
            VerificationError: the answer does not prove the admission.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided in time; the same update sent again
                goes on where it broke off.
        """
        update = signed.update
        keep_sent(self.receipts, update, signed.envelope)
        left = self._seconds_left(signed) if deadline_seconds is None else deadline_seconds
        try:
            submitted, admitted = self.deliver(signed, deadline_seconds=left, on_progress=on_progress)
        except DeniedError as denied:
            if denied.reason != "duplicate":
                raise
            words = f"round {update.round} of {update.segment} has an update of yours already: wait for the next round"
            raise type(denied)(denied.reason, words, entry_index=denied.entry_index) from None
        keep_acknowledged(self.receipts / f"{update.segment}-{update.round}-{ACKNOWLEDGED}", admitted)
        forget_sent(self.receipts, update)
        return submitted

    def deliver(
        self, signed: SignedUpdate, *, deadline_seconds: float, on_progress: UploadProgress | None = None
    ) -> tuple[Submitted, AppendedEntry]:
        """Send an update until it is decided, whoever signed it; verify receipt A, and keep nothing.

        Raises:
            DeniedError, RoundStateError, VerificationError, ConflictError, ExhaustedError, UnavailableError: as `send`.
        """
        update, envelope = signed.update, signed.envelope
        uploaded = self.gatekeeper.submit(
            envelope, signed.payload, deadline_seconds=deadline_seconds, on_progress=on_progress
        )
        open_acknowledgement(uploaded.admitted, envelope, update.segment, self.policy)
        submitted = Submitted(
            update=update,
            statement_digest=envelope.digest,
            acknowledgement=encode_admitted(uploaded.admitted),
            index=uploaded.admitted.logged.index,
            request_bytes=uploaded.request_bytes,
            encoded=signed.encoded,
        )
        return submitted, uploaded.admitted

    def _seconds_left(self, signed: SignedUpdate) -> float:
        """Until the round takes no more, by our own clock, which may be wrong: the gatekeeper is asked in any case."""
        left_us = signed.deadline_us - MARGIN_US - self.clock.now_us()
        return max(left_us / 1_000_000, CALL_SECONDS)


def _check_mask(opened: OpenRound, payload: bytes | memoryview) -> None:
    """Check that an agreed update names the round's mask: it may have been made for another round."""
    if opened.mask is not None and payload[PREAMBLE_BYTES:AGREED_PREAMBLE_BYTES] != opened.mask:
        raise DeniedError(
            "payload_format",
            f"the update is of another mask than round {opened.number}'s, and a mask can change from round to round: "
            "fetch the round's (`Participant.mask`) and encode the update again",
        )
