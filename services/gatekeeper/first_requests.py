"""First requests: what a gatekeeper asks of a stranger before it writes or signs anything for it.

An invited participant shows a record; an operator, auditor or service is named by root or the services document, where
its signing key stands. Such a one gets one identity this way, for one TLS key: whoever stole the signing key of
somebody who has an identity gets none. All of it is asked again where it must hold, when the entry is written.

Format: proto/README.md, "Enrolment".

Runs in: gatekeeper.
Trusts: the state of the fold. Nothing in the request.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import DeniedError, SignatureError
from sfrl_secure.governance.statements import IdentityRequest
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.rounds.identities import check_rate, check_unused, signing_key_of
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity_requests import FRESH_US


def check_request(
    request: Envelope,
    identity: IdentityRequest,
    *,
    federation_id: Digest,
    key: PublicKey,
    spiffe_id: SpiffeId,
    spki_sha256: Digest,
    now_us: int,
) -> None:
    """Check that a request is for this name and TLS key, of now, and signed with this signing key.

    Raises:
        DeniedError: `wrong_federation`, `wrong_peer`, `request_stale`, `bad_signature`.
    """
    if identity.federation_id != federation_id:
        raise DeniedError("wrong_federation", "record and request are of this federation")
    if (identity.spiffe_id, identity.spki_sha256) != (spiffe_id, spki_sha256):
        raise DeniedError("wrong_peer", "the request names another participant or public key")
    if abs(identity.created_us - now_us) > FRESH_US:
        raise DeniedError("request_stale", "a request is at most an hour old: check the clock, and ask again")
    try:
        if identity.key_id != key.key_id:
            raise SignatureError("the request is of another key")
        verify_single(request, key)
    except SignatureError:
        raise DeniedError("bad_signature", "the request is not signed by the signing key of whom it names") from None


def check_named(
    state: FederationState, request: Envelope, identity: IdentityRequest, spki_sha256: Digest, now_us: int
) -> None:
    """Check that an operator, auditor or service whom governance names may have its first identity.

    Raises:
        DeniedError: as `check_request`, `check_issuable` and `check_first`; `unknown_name`, nobody names it.
    """
    spiffe_id = identity.spiffe_id
    check_request(
        request, identity, federation_id=state.federation_id, key=signing_key_of(state, spiffe_id),
        spiffe_id=spiffe_id, spki_sha256=spki_sha256, now_us=now_us,
    )  # fmt: skip
    check_issuable(state, identity, now_us)
    check_first(state, spiffe_id, spki_sha256, now_us)


def check_issuable(state: FederationState, identity: IdentityRequest, now_us: int) -> None:
    """Check that the TLS key could be issued to whom the request names, by this request and now.

    Raises:
        DeniedError: `revoked`, `key_reused`; `request_used`; `identity_rate`.
    """
    if identity.spki_sha256 in state.revoked_keys:
        raise DeniedError("revoked", "the TLS public key was revoked")
    if state.issued.get(identity.spki_sha256, identity.spiffe_id) != identity.spiffe_id:
        raise DeniedError("key_reused", "the TLS public key was issued to another name")
    check_unused(state, identity)
    check_rate(state, identity.spiffe_id, now_us)


def check_first(state: FederationState, spiffe_id: SpiffeId, spki_sha256: Digest, now_us: int) -> None:
    """Check that the document that names an operator, auditor or service is good, and that no other TLS key was issued.

    Raises:
        DeniedError: `expired`, `already_issued`.
    """
    document = state.root if spiffe_id.role == "operator" else state.services()
    if document is None or now_us >= document.expires_us:
        what = "root" if spiffe_id.role == "operator" else "the services document"
        raise DeniedError("expired", f"{what} has expired: operators publish its next version first")
    # Whatever became of that identity: who holds its key renews it, and whoever has the signing key alone gets nothing.
    if state.only_key.get(spiffe_id, spki_sha256) != spki_sha256:
        raise DeniedError(
            "already_issued",
            "an identity was issued under this name for another TLS key: renew that one (`sfrl renew`), or ask "
            "the operators for another name",
        )
