"""Enrolment and renewal: parse, decide, record, answer.

A newcomer has no certificate. What lets it in is its record under the signature of the join key: the log takes that
once, for the name, clearance, groups and expiry that operators signed, and this gatekeeper then issues one identity to
the signing key in the record. A call that is repeated, with the same record and TLS key and a request of its own, goes
on where the one before ended. An operator, auditor or service is let in by the document that names it, once:
`first_requests`. Whoever has an identity asks for the next one over it.

Format: proto/README.md, "Enrolment"; proto/sfrl/identity/v1/identity_service.proto.

Runs in: gatekeeper.
Trusts: the interceptor, for who renews; the view. Nothing in a request.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import grpc

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.x509 import open_csr
from sfrl_secure.errors import DeniedError, MalformedError, SignatureError
from sfrl_secure.governance.authority import check_document_authority, is_by_join_key
from sfrl_secure.governance.documents import ParticipantRecord
from sfrl_secure.governance.participants import parse_participant
from sfrl_secure.governance.statements import IdentityRequest, PeerClass
from sfrl_secure.ids import Digest, SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.rounds.documents import check_document
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity import ROLES, peer_class_of, peer_of
from sfrl_secure.rpc.server import ANYBODY, Method
from sfrl_secure.services.gatekeeper.first_requests import check_first, check_issuable, check_named, check_request
from sfrl_secure.services.gatekeeper.issuing import IdentityIssuer, Issued
from sfrl_secure.services.view import FederationView
from sfrl_secure.services.writer import CATCH_UP_SECONDS
from sfrl_secure.translog.checkpoint import parse_checkpoint
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.note import parse_note
from sfrl_secure.wire import identity_service as wire
from sfrl_secure.wire.audit_service import AppendedEntry

_REASONS = {
    # What the rules for documents call it, in the words of enrolment.
    "threshold": "bad_signature",
    "possession": "bad_signature",
    "version": "record_differs",
    "previous": "record_differs",
    "expired": "invitation_expired",
    "not_renewed": "invitation_spent",
}

_NEXT = {
    "invitation_spent": "this invitation was taken up, by another key: ask an operator for another (`sfrl invite`)",
    "invitation_expired": "this invitation has expired: ask an operator for another (`sfrl invite`)",
}
"""What a newcomer can do; other reasons say it themselves."""

_NO_KEYS = ("", "")
"""The log's keys, which only genesis names."""


class EnrolmentLog(Protocol):
    """The audit log, as enrolment uses it."""

    def append(self, envelope: Envelope) -> AppendedEntry:
        """Append; raises ConflictError, DeniedError, ExhaustedError, UnavailableError."""
        ...

    def prove(self, indices: Sequence[int], tree_size: int) -> tuple[LoggedEntry, ...]:
        """Give entries, ascending, with their paths to the root at `tree_size`."""
        ...


class IdentityServicer:
    """Answers newcomers, and whoever wants its next certificate."""

    def __init__(
        self,
        view: FederationView,
        log: EnrolmentLog,
        issuer: IdentityIssuer,
        counter: RefusalCounter,
        trust_domain: str,
        clock: Clock,
    ) -> None:
        self._view, self._log, self._issuer = view, log, issuer
        self._counter, self._trust_domain, self._clock = counter, trust_domain, clock

    def methods(self) -> list[Method]:
        """What the gatekeeper's own server serves: anybody who has an identity may renew it."""
        return [Method(wire.RENEW_IDENTITY, self.renew, ROLES)]

    def open_methods(self) -> list[Method]:
        """What the server for newcomers serves."""
        return [Method(wire.ENROL, self.enrol, ANYBODY)]

    def enrol(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        """Give a first identity: to a participant, whom its join key records, or to whom governance names."""
        return self._counted(raw, PeerClass.UNKNOWN, lambda: self._enrol(raw, context.is_active))

    def renew(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        """Give the caller its next identity."""
        peer = peer_of(context)
        return self._counted(
            raw,
            peer_class_of(peer.spiffe_id),
            lambda: self._renew(raw, peer.spiffe_id, peer.spki_sha256, context.is_active),
        )

    def _renew(self, raw: bytes, peer: SpiffeId, peer_key: Digest, still_wanted: Callable[[], bool]) -> bytes:
        asked = wire.parse_renew_request(raw)
        if asked.identity.spiffe_id != peer:
            raise DeniedError("wrong_peer", "an identity is renewed by whom it names")
        spki = _open_csr(asked.csr)
        issued = self._issuer.issue(asked.request, asked.identity, spki, peer_key, still_wanted=still_wanted)
        acknowledged = issued.acknowledged
        return wire.encode_renew_response(
            wire.RenewResponse(acknowledged.logged, acknowledged.checkpoint, issued.certificate)
        )

    def _enrol(self, raw: bytes, still_wanted: Callable[[], bool]) -> bytes:
        asked = wire.parse_enrol_request(raw)
        spiffe_id, is_participant = asked.identity.spiffe_id, asked.identity.spiffe_id.role == "participant"
        if asked.record is None and is_participant:
            raise DeniedError("no_invitation", "a participant shows its record: ask an operator for an invitation")
        if asked.record is not None and not is_participant:
            raise DeniedError("wrong_peer", "only a participant has a record")
        self._issuer.check_issues(spiffe_id)
        spki = _open_csr(asked.csr)
        if asked.record is None:
            issued = self._issue_to_named(asked, spki, still_wanted)
            acknowledged = issued.acknowledged
            return wire.encode_enrol_response(
                wire.EnrolResponse(None, acknowledged.logged, acknowledged.checkpoint, issued.certificate)
            )
        try:
            recorded, issued = self._issue_to_invited(asked, asked.record, spki, still_wanted)
        except DeniedError as denied:
            raise _of_an_invitation(denied) from None
        checkpoint = issued.acknowledged.checkpoint
        # One checkpoint for both: the newcomer has no other, and keeps what it is shown.
        size = parse_checkpoint(parse_note(checkpoint).text).size
        proved = self._log.prove((recorded, issued.acknowledged.logged.index), size)
        return wire.encode_enrol_response(wire.EnrolResponse(proved[0], proved[1], checkpoint, issued.certificate))

    def _issue_to_named(self, asked: wire.EnrolRequest, spki: bytes, still_wanted: Callable[[], bool]) -> Issued:
        """Give whom root or the services document names its first identity."""
        spiffe_id, spki_sha256 = asked.identity.spiffe_id, sha256(spki)
        with self._view.reading() as state:
            check_named(state, asked.request, asked.identity, spki_sha256, self._clock.now_us())
        # Two calls with two TLS keys may both have come this far: one of them finds the other's identity.
        return self._issuer.issue(
            asked.request, asked.identity, spki, None, still_wanted=still_wanted,
            check=lambda state, now_us: check_first(state, spiffe_id, spki_sha256, now_us),
        )  # fmt: skip

    def _issue_to_invited(
        self, asked: wire.EnrolRequest, envelope: Envelope, spki: bytes, still_wanted: Callable[[], bool]
    ) -> tuple[int, Issued]:
        """Record an invited participant and give it its first identity; give the leaf index of its record, and that."""
        record = parse_participant(envelope.statement)
        with self._view.reading() as state:
            now_us = self._clock.now_us()
            # All that can be known before the record stands in the log: a bad request must not spend a join.
            if record.federation_id != state.federation_id:
                raise DeniedError("wrong_federation", "record and request are of this federation")
            check_request(
                asked.request, asked.identity, federation_id=state.federation_id, key=record.key,
                spiffe_id=parse_spiffe_id(f"spiffe://{self._trust_domain}/participant/{record.name}"),
                spki_sha256=sha256(spki), now_us=now_us,
            )  # fmt: skip
            is_recorded = _check_newcomer(state, record, envelope, now_us)
            check_issuable(state, asked.identity, now_us)
            _check_sole_key(state, asked.identity, is_recorded=is_recorded)
        recorded = self._record(envelope, record)
        return recorded, self._issuer.issue(asked.request, asked.identity, spki, None, still_wanted=still_wanted)

    def _record(self, envelope: Envelope, record: ParticipantRecord) -> int:
        """Append the record where it is not in force yet; give its leaf index, once the view has it."""
        # Where an earlier call came this far, the log answers with the entry that there is.
        acknowledged = self._log.append(envelope)
        self._view.wait_size(acknowledged.logged.index + 1, CATCH_UP_SECONDS)
        with self._view.reading() as state:
            in_force = state.participant(record.name)
            if in_force is None or in_force.digest != record.digest:
                raise DeniedError("record_differs", "another record of this name is in force")
            return state.index_of_document(record.series)

    def _counted(self, raw: bytes, peer_class: PeerClass, serve: Callable[[], bytes]) -> bytes:
        try:
            return serve()
        except MalformedError:
            self._counter.count("malformed", peer_class, sha256(raw))
            raise
        except DeniedError as denied:
            self._counter.count(denied.reason, peer_class, sha256(raw))
            raise


def _of_an_invitation(denied: DeniedError) -> DeniedError:
    reason = _REASONS.get(denied.reason, denied.reason)
    # `expired` says of itself what has: the record that was invited, or root.
    return DeniedError(reason, str(denied) if denied.reason == "expired" else _NEXT.get(reason, str(denied)))


def _check_newcomer(state: FederationState, record: ParticipantRecord, envelope: Envelope, now_us: int) -> bool:
    """Check that the record may be, or is, recorded by its join key; say whether it is.

    Raises:
        DeniedError: `no_invitation`, `invitation_spent`, `invitation_expired`, `bad_signature`, `record_differs`,
            `revoked`, `key_reused`, or what `_REASONS` translates.
    """
    join, before, root = state.join(record.name), state.participant(record.name), state.root
    if before is not None and before.state == "revoked":
        raise DeniedError("revoked", "the participant is revoked")
    if join is None or root is None:
        raise DeniedError("no_invitation", "nobody of this name is invited: ask an operator to publish the invitation")
    if not is_by_join_key(envelope, join):
        raise DeniedError("bad_signature", "the record is not signed by the join key of its name")
    if before is not None and before.digest == record.digest:
        # In force already; who calls still shows that he holds the token.
        check_document_authority(record, envelope, root, join=join)
        return True
    check_document(state, _NO_KEYS, now_us, envelope, record)
    return False


def _check_sole_key(state: FederationState, identity: IdentityRequest, *, is_recorded: bool) -> None:
    """Check that an invitation that was taken up was so for this TLS key."""
    spki = identity.spki_sha256
    if is_recorded and state.sole_identity.get(identity.spiffe_id.name, spki) != spki:
        raise DeniedError("invitation_spent", "this invitation has given its identity to another TLS key")


def _open_csr(raw: bytes) -> bytes:
    try:
        return open_csr(raw)
    except (MalformedError, SignatureError) as error:
        raise DeniedError("csr", str(error)) from None
