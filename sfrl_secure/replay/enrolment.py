"""Who comes in: records by a join key, and identities that their bearers ask for themselves.

Format: proto/README.md, "Enrolment", "Statements", identity_issued.

Runs in: verifier.
Trusts: the documents in force. Neither the gatekeeper that issues nor its CA: what they issue is asked for under a key
that governance knows.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import SignatureError
from sfrl_secure.ids import SpiffeId
from sfrl_secure.replay.docket import Position
from sfrl_secure.replay.documents import Document, Participant
from sfrl_secure.replay.findings import Void
from sfrl_secure.replay.interventions import Join
from sfrl_secure.replay.issued import Issued
from sfrl_secure.replay.state import Identity, State
from sfrl_secure.replay.statements import IdentityIssued

_HOUR_US = 3_600_000_000
_DAY_US = 24 * _HOUR_US
_LIFETIME_US = 366 * _DAY_US

IDENTITIES_A_DAY_MAX = 1_000
"""Identities under one SPIFFE ID in any 24 hours."""


def invitation(state: State, document: Document, envelope: Envelope) -> tuple[Join, Document] | None:
    """The invitation by whose key alone a participant's record is signed; None where operators have to sign it."""
    if not isinstance(document.content, Participant):
        return None
    found = state.join(document.content.name)
    if found is None or [each.key_id for each in envelope.signatures] != [found[0].key.key_id]:
        return None
    return found


def check_invited(
    state: State, document: Document, envelope: Envelope, invited: tuple[Join, Document], now_us: int
) -> None:
    """Check a record against the invitation under whose key it stands."""
    join, joined = invited
    record = document.content
    assert isinstance(record, Participant), "only participants are invited"
    try:
        verify_single(envelope, join.key)
    except SignatureError:
        raise Void("threshold", "a valid signature of the join key, and no other", "another") from None
    if now_us >= joined.expires_us:
        raise Void("invitation_expired", f"log time below {joined.expires_us}", str(now_us))
    if joined.digest in state.spent_joins:
        raise Void("invitation_spent", "an invitation that was not used", "one that was")
    invites = (join.clearance, join.groups, join.record_expires_us)
    if record.state != "active" or (record.clearance, record.groups, document.expires_us) != invites:
        raise Void("record_differs", "an active record with the clearance, groups and expiry of its invitation")


def apply_identity(state: State, body: IdentityIssued, at: Position) -> None:
    """identity_issued: a TLS key may be used under a name, whose bearer asked for it."""
    key = signing_key_of(state, body.spiffe_id)
    if key is None:
        raise Void("identity_unknown", "a name of the documents in force", body.spiffe_id)
    known = state.identities.get(body.spki_sha256)
    if known is not None and known.spiffe_id != body.spiffe_id:
        raise Void("key_reused", known.spiffe_id, body.spiffe_id)
    if body.spki_sha256 in state.revoked_keys:
        raise Void("key_revoked", "a TLS key that is not revoked")
    if not at.log_time_us < body.not_after_us <= at.log_time_us + _LIFETIME_US:
        expected = f"an end after {at.log_time_us} and by {at.log_time_us + _LIFETIME_US}"
        raise Void("expired", expected, str(body.not_after_us))
    _check_request(state, body, key, at.log_time_us)
    if known is not None and body.request.created_us <= known.requested_us:
        raise Void("request_used", f"a request made after {known.requested_us}", str(body.request.created_us))
    _check_renewal(state, body, at.log_time_us)
    issued = state.issued.get(body.spiffe_id, Issued())
    if issued.since(at.log_time_us - _DAY_US) >= IDENTITIES_A_DAY_MAX:
        raise Void("identity_rate", f"{IDENTITIES_A_DAY_MAX} identities of a name in 24 hours", "one more")
    issued.add(at.index, at.log_time_us, body.spki_sha256)
    state.issued[body.spiffe_id] = issued
    state.identities[body.spki_sha256] = Identity(body.spiffe_id, body.not_after_us, body.request.created_us)
    state.forgotten_keys.discard(body.spki_sha256)


def forget_fallen_names(state: State) -> None:
    """Identities of whom no document in force names any more open nothing, even where one names them again later."""
    for key, identity in state.identities.items():
        if key not in state.forgotten_keys and signing_key_of(state, identity.spiffe_id) is None:
            state.forgotten_keys.add(key)


def signing_key_of(state: State, spiffe_id: SpiffeId) -> PublicKey | None:
    """The signing key of a name that stands: what it signs for itself, no CA and no gatekeeper can."""
    assert state.root is not None, "an ineffective genesis ends the walk"
    if spiffe_id.trust_domain != state.root.trust_domain:
        return None
    if spiffe_id.role == "operator":
        return state.root.operators.get(spiffe_id.name)
    if spiffe_id.role == "participant":
        record = state.participant(spiffe_id.name)
        return None if record is None or record.state == "revoked" else record.key
    found = state.services()
    return None if found is None else {**found[0].services, **found[0].auditors}.get(spiffe_id)


def _check_request(state: State, body: IdentityIssued, key: PublicKey, now_us: int) -> None:
    request = body.request
    try:
        verify_single(body.envelope, key)
    except SignatureError:
        raise Void("request", "exactly one signature, by the signing key of whom it names", "another") from None
    asked = (request.federation_id, request.spiffe_id, request.key_id, request.spki_sha256)
    if asked != (state.federation_id, body.spiffe_id, key.key_id, body.spki_sha256):
        raise Void("request", "a request for this federation, name, signing key and TLS key", "another")
    if abs(request.created_us - now_us) > _HOUR_US:
        raise Void("request", f"at most an hour from {now_us}", str(request.created_us))


def _check_renewal(state: State, body: IdentityIssued, now_us: int) -> None:
    """A renewal rests on an identity that opens the door; a first one, on none since the record was recorded."""
    name = body.spiffe_id
    if body.renews is not None:
        before = state.identities.get(body.renews)
        is_open = before is not None and before.spiffe_id == name and now_us < before.not_after_us
        if not is_open or body.renews in state.revoked_keys or body.renews in state.forgotten_keys:
            raise Void("renews", "an identity of the same name that opens the door", "none")
    elif name.role == "participant":
        recorded = state.since["participant", name.name]
        issued = state.issued.get(name)
        if issued is not None and issued.last_of_another(body.spki_sha256) > recorded:
            raise Void("renews", f"the identity that it renews: one was issued since entry {recorded}", "none")
