"""Bringing others' updates: a bundle is submitted under the relay's own identity, and its receipts go back as files.

The relay is trusted with nothing: the statement is signed by the participant, receipt A is the log's word over exactly
that statement, and a COUNTED receipt proves itself to whoever gets it (`returned`). Nothing is kept among the relay's
own receipts.

Format: proto/README.md, "Bundles" and "Upload".

Runs in: participant, cli.
Trusts: the trust policy. Nothing in the bundle, and nothing that a gatekeeper answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sfrl_secure.errors import DeniedError
from sfrl_secure.participant.acknowledgement import acknowledgement_file
from sfrl_secure.participant.bundles import Bundle
from sfrl_secure.participant.sending import UpdateSender
from sfrl_secure.participant.submissions import ACKNOWLEDGED, Submitted
from sfrl_secure.participant.waiting import ReceiptWaiter
from sfrl_secure.rpc.uploads import UploadProgress
from sfrl_secure.storage.files import SECRET_MODE, write_atomically
from sfrl_secure.wire.receipts import ReceiptKind

BUNDLE_SUFFIX = ".bundle"

RELAY_SECONDS = 600.0
"""How long a relay goes on, which need not know when the round ends; sent again, the update goes on where it was."""


@dataclass(frozen=True, slots=True)
class RelayedUpdate:
    """An update that was brought and admitted.

    Attributes:
        submitted: what was sent, and receipt A.
        acknowledgement: receipt A as a file, for the way back.
    """

    submitted: Submitted
    acknowledgement: bytes = field(repr=False)
    waiter: ReceiptWaiter = field(repr=False)

    def receipt(self, kind: ReceiptKind, *, wait_seconds: float) -> bytes:
        """Wait for a further receipt and verify it; give the file for the way back.

        Raises:
            NotFoundError: there is none of this kind in time.
            VerificationError: it does not prove this update.
            UnavailableError: no gatekeeper answers.
        """
        return self.waiter.proven(self.submitted, kind, wait_seconds)


def relay_bundle(
    sender: UpdateSender,
    waiter: ReceiptWaiter,
    bundle: Bundle,
    *,
    deadline_seconds: float = RELAY_SECONDS,
    on_progress: UploadProgress | None = None,
) -> RelayedUpdate:
    """Submit a bundle until it is decided, and verify receipt A: see `Participant.relay`.

    Raises:
        DigestError, PayloadError: the payload is not the signed one, or no gatekeeper takes it; nothing was sent.
        DeniedError, RoundStateError: refused, with the reason: `wrong_peer` where the sender is no relay.
        VerificationError: the answer does not prove the admission.
        ConflictError, ExhaustedError, UnavailableError: nothing was decided in time.
    """
    bundle.check_payload()
    try:
        submitted, admitted = sender.deliver(bundle.signed, deadline_seconds=deadline_seconds, on_progress=on_progress)
    except DeniedError as denied:
        raise _with_advice(denied, sender.name, bundle.update.segment) from None
    return RelayedUpdate(submitted, acknowledgement_file(admitted), waiter)


def _with_advice(denied: DeniedError, name: str, segment: str) -> DeniedError:
    """The refusal, with what follows from it for somebody who carries bundles."""
    match denied.reason:
        case "wrong_peer":
            words = (
                f"{name} is no relay of segment {segment}: it is in none of the `relay_groups` of the terms; operators "
                "add one of its groups there, or somebody else brings the bundle"
            )
        case "round_not_open" | "deadline":
            words = (
                f"{denied}: the bundle was signed for that round alone and can never be sent now; its participant "
                "packs again, for the next round"
            )
        case "bad_signature":
            words = (
                f"{denied}: the bundle was altered on its way (ask for it again), or its participant has a new key"
            )
        case _:
            return denied
    return type(denied)(denied.reason, words, entry_index=denied.entry_index)


def receipt_beside(bundle: Path, kind: ReceiptKind) -> Path:
    """Where a receipt for the way back is put: `rocks.bundle` has `rocks.counted.receipt` beside it."""
    ending = ACKNOWLEDGED if kind is ReceiptKind.ACKNOWLEDGED else f"{kind.name.lower()}.receipt"
    return bundle.with_name(f"{bundle.name.removesuffix(BUNDLE_SUFFIX)}.{ending}")


def put_beside(bundle: Path, kind: ReceiptKind, raw: bytes) -> Path:
    """Write a receipt beside its bundle, durably; give its path.

    Raises:
        ExhaustedError, UncertainStateError: it could not be written.
    """
    path = receipt_beside(bundle, kind)
    write_atomically(path, raw, mode=SECRET_MODE)
    return path
