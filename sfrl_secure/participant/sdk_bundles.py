"""A participant's updates as files that others carry, and what it carries for others.

Format: proto/README.md, "Bundles".

Runs in: participant, cli.
Trusts: the trust policy, and its caller. Nothing that a bundle, a receipt that came back or a gatekeeper says.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.participant.bundles import Bundle, write_bundle
from sfrl_secure.participant.relaying import RELAY_SECONDS, RelayedUpdate, relay_bundle
from sfrl_secure.participant.returned import ReturnedReceipt, take_receipt
from sfrl_secure.participant.sending import SignedUpdate, UpdateSender
from sfrl_secure.participant.sent import keep_sent
from sfrl_secure.participant.waiting import ReceiptWaiter
from sfrl_secure.rpc.uploads import UploadProgress
from sfrl_secure.translog.policy import TrustPolicy


class ParticipantBundles:
    """The part of `Participant` that is about what is carried."""

    name: str
    policy: TrustPolicy
    _sender: UpdateSender
    _waiter: ReceiptWaiter
    _receipts: Path

    @property
    def public_key(self) -> PublicKey:
        """What this participant's updates are verified with."""
        return self._sender.key.public_key

    def pack(self, path: Path, signed: SignedUpdate) -> None:
        """Write a signed update as a new file that anybody may carry: see `bundles`.

        Its envelope is kept as that of an update that was sent: see `complaint`.

        Raises:
            ExhaustedError, UncertainStateError: it could not be written, or there is a file of this name.
        """
        write_bundle(path, signed)
        keep_sent(self._receipts, signed.update, signed.envelope)

    def relay(
        self,
        bundle: Bundle,
        *,
        deadline_seconds: float = RELAY_SECONDS,
        on_progress: UploadProgress | None = None,
    ) -> RelayedUpdate:
        """Submit somebody's bundle under this participant's own identity, where the terms make it a relay.

        Sent again, by this relay or another, it goes on where it broke off, and gets the first answer.

        Raises:
            DigestError, PayloadError: the payload is not the signed one, or no gatekeeper takes it; nothing was sent.
            DeniedError, RoundStateError: refused, with the reason: `wrong_peer` where this participant is no relay.
            VerificationError: the answer does not prove the admission.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided in time.
        """
        return relay_bundle(
            self._sender, self._waiter, bundle, deadline_seconds=deadline_seconds, on_progress=on_progress
        )

    def take_receipt(self, raw: bytes) -> ReturnedReceipt:
        """Verify a receipt that a relay brought back, and keep it: see `returned.take_receipt`."""
        return take_receipt(
            raw, name=self.name, key=self.public_key, policy=self.policy, receipts=self._receipts
        )
