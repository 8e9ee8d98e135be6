"""Identities: which TLS public key opens the door under which SPIFFE ID.

Whoever is named asks for it with the signing key that governance knows, so neither a certificate authority nor a
gatekeeper makes anybody an identity that he did not ask for; and a participant that has one asks over it, so a stolen
signing key alone gets none.

Format: proto/README.md, "Statements", identity_issued, and "Enrolment".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the state of the fold. Nothing in the request.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from sfrl_secure.crypto.envelope import verify_single
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import DeniedError, SignatureError
from sfrl_secure.governance.documents import ParticipantRecord, RootDocument, ServicesDocument
from sfrl_secure.governance.statements import IDENTITY_REQUEST_TYPE, IdentityIssued, IdentityRequest
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.rounds.state import FederationState, RecordedIdentity

LIFETIME_US_MAX = 366 * 86_400_000_000
"""An identity ends at most so long after it was issued."""

REQUEST_AGE_US_MAX = 3_600_000_000
"""A request is made at most so long before its entry, or after it, by two clocks."""

RATE_WINDOW_US = 86_400_000_000
RATE_MAX = 1_000
"""So many identities of one SPIFFE ID are issued in the window, whatever their keys."""


def signing_key_of(state: FederationState, spiffe_id: SpiffeId) -> PublicKey:
    """The signing key in force of whoever documents in force name so.

    Raises:
        DeniedError: `unknown_name`; `revoked`, a participant who was there and is no more.
    """
    root, name, role = state.root, spiffe_id.name, spiffe_id.role
    key: PublicKey | None = None
    if root is not None and spiffe_id.trust_domain == root.trust_domain:
        services = state.services()
        if role == "operator":
            key = root.operators.get(name)
        elif role == "participant":
            key = _key_of_record(state.participant(name))
        elif services is not None:
            signatory = services.signatory(spiffe_id)
            key = None if signatory is None else signatory.key
    if key is None:
        raise DeniedError("unknown_name", "no document in force names this SPIFFE ID")
    return key


def check_identity(state: FederationState, body: IdentityIssued, log_time_us: int) -> None:
    """Check that an identity may be issued now.

    Raises:
        DeniedError: `unknown_name`, `revoked`, `key_reused`, `expired`, `lifetime`; of the request `bad_signature`,
            `wrong_federation`, `wrong_peer`, `request_stale`, `request_used`; `identity_rate`; of `renews`:
            `not_renewed`.
    """
    key = signing_key_of(state, body.spiffe_id)
    if body.spki_sha256 in state.revoked_keys:
        raise DeniedError("revoked", "the public key was revoked")
    if state.issued.get(body.spki_sha256, body.spiffe_id) != body.spiffe_id:
        raise DeniedError("key_reused", "the public key was issued to another name")
    if log_time_us >= body.not_after_us:
        raise DeniedError("expired", "the identity has expired")
    if body.not_after_us > log_time_us + LIFETIME_US_MAX:
        raise DeniedError("lifetime", f"an identity lives for at most {LIFETIME_US_MAX} us")
    _check_request(state, body, key, log_time_us)
    check_unused(state, body.request)
    check_rate(state, body.spiffe_id, log_time_us)
    check_renewal(state, body.spiffe_id, body.spki_sha256, body.renews, log_time_us)


def _check_request(state: FederationState, body: IdentityIssued, key: PublicKey, log_time_us: int) -> None:
    request = body.request
    if body.envelope.payload_type != IDENTITY_REQUEST_TYPE or request.key_id != key.key_id:
        raise DeniedError("bad_signature", "the request is not signed by the signing key in force of whom it names")
    if request.federation_id != state.federation_id:
        raise DeniedError("wrong_federation", "the request was signed for another federation")
    if (request.spiffe_id, request.spki_sha256) != (body.spiffe_id, body.spki_sha256):
        raise DeniedError("wrong_peer", "the request names another SPIFFE ID or public key")
    if abs(request.created_us - log_time_us) > REQUEST_AGE_US_MAX:
        raise DeniedError("request_stale", f"a request is at most {REQUEST_AGE_US_MAX} us from the log's time")
    try:
        verify_single(body.envelope, key)
    except SignatureError:
        raise DeniedError(
            "bad_signature", "the request is not signed by the signing key in force of whom it names"
        ) from None


def check_unused(state: FederationState, request: IdentityRequest) -> None:
    """Check that a request is newer than the last one that had effect for its public key: each has effect once.

    Whoever kept it, or reads it in the log, makes nothing of it any more; and the newest entry of a key is the one that
    its holder asked for last.

    Raises:
        DeniedError: `request_used`.
    """
    last_us = state.last_requests.get(request.spki_sha256)
    if last_us is not None and request.created_us <= last_us:
        raise DeniedError("request_used", "this request, or a newer one for its public key, was used: sign a new one")


def check_rate(state: FederationState, spiffe_id: SpiffeId, now_us: int) -> None:
    """Check that a name has had few enough identities lately.

    Raises:
        DeniedError: `identity_rate`.
    """
    times = state.issue_times.get(spiffe_id, [])
    if len(times) - bisect_right(times, now_us - RATE_WINDOW_US) >= RATE_MAX:
        raise DeniedError("identity_rate", f"a name gets at most {RATE_MAX} identities in 24 hours")


def check_renewal(
    state: FederationState, spiffe_id: SpiffeId, spki_sha256: Digest, renews: Digest | None, now_us: int
) -> None:
    """Check that this name may get an identity with this `renews` now.

    Raises:
        DeniedError: `not_renewed`, `renews` opens nothing under this name; or it is empty, and the participant has an
            identity of another key already.
    """
    if renews is not None:
        renewed = state.identities.get(renews)
        if renewed is None or renewed.spiffe_id != spiffe_id or now_us >= renewed.not_after_us:
            raise DeniedError("not_renewed", "the renewed key opens nothing under this name")
    elif spiffe_id.role == "participant" and state.sole_identity.get(spiffe_id.name, spki_sha256) != spki_sha256:
        raise DeniedError("not_renewed", "whoever has an identity asks for the next one over it")


def take_identity(state: FederationState, body: IdentityIssued, log_time_us: int) -> None:
    """Let a public key in."""
    who, spki = body.spiffe_id, body.spki_sha256
    state.identities[spki] = RecordedIdentity(who, spki, body.serial, body.not_after_us)
    state.issued[spki] = who
    state.last_requests[spki] = body.request.created_us
    times = state.issue_times.setdefault(who, [])
    # What no window reaches any more is forgotten: log time never falls.
    del times[: bisect_right(times, log_time_us - RATE_WINDOW_US)]
    times.append(log_time_us)
    state.recorded_peers.add(who)
    if who.role == "participant":
        state.sole_identity[who.name] = spki if state.sole_identity.get(who.name, spki) == spki else None
    else:
        state.only_key[who] = spki if state.only_key.get(who, spki) == spki else None


def check_key_revocation(state: FederationState, spiffe_id: SpiffeId, spki_sha256: Digest) -> None:
    """Check that a key revocation names whose key it is: by that name its threshold goes.

    Raises:
        DeniedError: `wrong_name`.
    """
    if state.issued.get(spki_sha256, spiffe_id) != spiffe_id:
        raise DeniedError("wrong_name", "the public key was issued to another name than the revocation says")


def revoke_key(state: FederationState, spki_sha256: Digest) -> None:
    """The key opens nothing any more, and never again."""
    state.revoked_keys.add(spki_sha256)
    state.identities.pop(spki_sha256, None)


def take_names(state: FederationState, document: RootDocument | ServicesDocument | ParticipantRecord) -> None:
    """Let a document that names people have its effect on what opens the door."""
    match document:
        case RootDocument():
            _forget(state, lambda who: who.role == "operator" and who.name not in document.operators)
        case ServicesDocument():
            _forget(
                state, lambda who: who.role not in {"participant", "operator"} and document.signatory(who) is None
            )
        case ParticipantRecord():
            # The first identity under a new record is asked for with the record's signing key alone.
            state.sole_identity.pop(document.name, None)
            if document.state == "revoked":
                _forget(state, lambda who: who.role == "participant" and who.name == document.name)


def _forget(state: FederationState, is_gone: Callable[[SpiffeId], bool]) -> None:
    state.identities = {key: each for key, each in state.identities.items() if not is_gone(each.spiffe_id)}


def _key_of_record(record: ParticipantRecord | None) -> PublicKey | None:
    if record is None:
        return None
    if record.state == "revoked":
        raise DeniedError("revoked", "the participant is revoked")
    return record.key
