"""Asking for a TLS identity, and opening what is answered.

Whoever wants an identity makes the TLS key at home, signs with the key that governance knows that exactly this key is
to be its own, and shows with a PKCS #10 request that it holds it. So neither a CA nor a gatekeeper makes anybody an
identity that he did not ask for. What comes back is believed once the log has signed that it records it.

Format: proto/README.md, "Enrolment"; proto/sfrl/identity/v1/identity_service.proto.

Runs in: participant, gatekeeper, aggregator, audit_log, verifier, operators' and auditors' machines.
Trusts: the trust policy. Nothing in the answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.svid import PeerCertificate, open_svid
from sfrl_secure.crypto.x509 import build_csr, generate_tls_key, tls_spki
from sfrl_secure.errors import DeniedError, MalformedError, VerificationError
from sfrl_secure.governance.statements import IDENTITY_REQUEST_TYPE, IdentityIssued, IdentityRequest, Statement
from sfrl_secure.ids import Digest, SpiffeId, sha256
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.entries import LogEntry, LoggedEntry
from sfrl_secure.translog.opened import open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import encode_envelope, parse_entry
from sfrl_secure.wire.participants import encode_identity_request

FRESH_US = 3_600_000_000
"""A request is at most this far from the log's time."""


@dataclass(frozen=True, slots=True, eq=False)
class AskedIdentity:
    """A TLS key, and the two requests that ask for its certificate.

    Attributes:
        request: envelope over `identity`.
        csr: PKCS #10 in DER.
    """

    tls_key: SecretBytes
    identity: IdentityRequest
    request: Envelope
    csr: bytes


def sign_identity_request(request: IdentityRequest, key: SigningKey) -> Envelope:
    """Sign a request with the signing key that governance knows of whom it names."""
    return sign_envelope(IDENTITY_REQUEST_TYPE, encode_identity_request(request), [key])


class IdentityAsker:
    """Asks for one identity for one TLS key, by another request each time. For one thread.

    The log lets a request have effect once. Where an answer is lost nobody knows whether it had, so a call that is
    tried again is signed again.
    """

    def __init__(
        self,
        spiffe_id: SpiffeId,
        federation_id: Digest,
        key: SigningKey,
        clock: Clock,
        *,
        tls_key: SecretBytes | None = None,
    ) -> None:
        """Prepare; as for `ask_identity`."""
        self._spiffe_id, self._federation_id, self._key, self._clock = spiffe_id, federation_id, key, clock
        self._tls_key = generate_tls_key()[0] if tls_key is None else tls_key
        self._last_us = 0

    def ask(self) -> AskedIdentity:
        """Sign a request that is newer than every one before, even where the clock has not moved.

        Raises:
            MalformedError: the TLS key is not ECDSA P-256.
        """
        self._last_us = max(self._clock.now_us(), self._last_us + 1)
        return ask_identity(self._spiffe_id, self._federation_id, self._key, self._last_us, tls_key=self._tls_key)


def ask_identity(
    spiffe_id: SpiffeId, federation_id: Digest, key: SigningKey, now_us: int, *, tls_key: SecretBytes | None = None
) -> AskedIdentity:
    """Make what asks for an identity.

    Args:
        key: the signing key that governance knows of `spiffe_id`.
        tls_key: in PEM; a new one where there is none.

    Raises:
        MalformedError: the TLS key is not ECDSA P-256.
    """
    if tls_key is None:
        tls_key, spki = generate_tls_key()
    else:
        spki = tls_spki(tls_key)
    identity = IdentityRequest(federation_id, spiffe_id, key.public_key.key_id, sha256(spki), now_us)
    return AskedIdentity(tls_key, identity, sign_identity_request(identity, key), build_csr(tls_key))


def open_identity(
    asked: AskedIdentity, issued: LoggedEntry, checkpoint: bytes, certificate: bytes, policy: TrustPolicy,
    *, renews: Digest | None,
) -> PeerCertificate:
    """Verify that the log records the identity that was asked for, and that the certificate is that identity's.

    Who wrote the entry and that it has effect is not shown by it; a door that the log's followers keep will tell.

    Args:
        renews: SHA-256 of the public key over whose connection it was asked for; None for a first identity.

    Raises:
        VerificationError: the checkpoint is not under every key of the log, the entry is not in it, records something
            else, or the certificate is another's.
        MalformedError: something does not parse.
    """
    signed = open_checkpoint(checkpoint, policy, quorum=False).checkpoint
    content = parse_content(open_logged(issued, signed).envelope)
    body = content.body if isinstance(content, Statement) else None
    if (
        not isinstance(body, IdentityIssued)
        or (body.spiffe_id, body.spki_sha256) != (asked.identity.spiffe_id, asked.identity.spki_sha256)
        or body.request.federation_id != asked.identity.federation_id
        or body.request.key_id != asked.identity.key_id
        or body.renews != renews
    ):
        raise VerificationError("the entry does not record the identity that was asked for")
    try:
        found = open_svid(certificate, asked.identity.spiffe_id.trust_domain)
    except DeniedError:
        raise VerificationError("the certificate is not an X.509-SVID of the trust domain") from None
    said = (found.spiffe_id, found.spki_sha256, found.serial, found.not_after_us)
    if said != (body.spiffe_id, body.spki_sha256, body.serial, body.not_after_us):
        raise VerificationError("the certificate is not the one that the log records")
    return found


def open_logged(logged: LoggedEntry, checkpoint: Checkpoint) -> LogEntry:
    """Verify that an entry is in the tree of a checkpoint that was opened.

    Raises:
        VerificationError: it is not.
        MalformedError: it does not parse.
    """
    try:
        proof = InclusionProof(logged.index, checkpoint.size, logged.path)
    except MalformedError as error:
        raise VerificationError(str(error)) from None
    verify_inclusion(logged.raw, proof, checkpoint.root)
    return parse_entry(logged.raw)


def issued_body(
    spiffe_id: SpiffeId, certificate: PeerCertificate, request: Envelope, identity: IdentityRequest,
    renews: Digest | None = None,
) -> IdentityIssued:
    """What the log records of a certificate that was made for a request."""
    return IdentityIssued(
        spiffe_id=spiffe_id,
        spki_sha256=certificate.spki_sha256,
        serial=certificate.serial,
        not_after_us=certificate.not_after_us,
        envelope_raw=encode_envelope(request),
        envelope=request,
        request=identity,
        renews=renews,
    )
