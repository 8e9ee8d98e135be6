"""What the simulated federation's services and participants say: identities, updates, withdrawals, complaints,
decisions.

A method named as a thing builds it; one named as a deed writes it to the log, and gives its index.
"""

from __future__ import annotations

from dataclasses import replace
from types import EllipsisType
from typing import Any

import numpy as np
from simulated_federation import (
    DAY_US,
    GRID,
    IDENTITY_UNTIL_US,
    MANIFEST,
    SEGMENT,
    participant_id,
    service_id,
)

from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import PayloadError
from sfrl_secure.governance.statements import (
    DECISION_TYPE,
    IDENTITY_REQUEST_TYPE,
    STATEMENT_TYPE,
    UPDATE_TYPE,
    WITHDRAWAL_TYPE,
    Body,
    ComplaintRecorded,
    DecisionRecorded,
    DecisionStatement,
    IdentityIssued,
    IdentityRequest,
    PayloadFormat,
    Statement,
    UpdateAdmitted,
    UpdateStatement,
    UpdateWithdrawn,
    WithdrawalStatement,
)
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId, sha256
from sfrl_secure.rounds.payloads import check_payload
from sfrl_secure.sparse.encode import pack_update, payload_root
from sfrl_secure.sparse.header import CODEC_VERSION, SupportMode, ValueType
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.sparse.update import SparseUpdate
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.participants import encode_decision, encode_identity_request, encode_withdrawal
from sfrl_secure.wire.statements import encode_statement, encode_update

G1, A1, V1 = service_id("gatekeeper", "g1"), service_id("aggregator", "a1"), service_id("verifier", "v1")
STREAM = f"segment/{SEGMENT}"


class SimulatedStatements:
    """The services' and participants' part of `Simulator`, which has the log, the clock, the keys and the objects."""

    def key_of(self, spiffe_id: SpiffeId) -> SigningKey:
        """The signing key of anybody."""
        if spiffe_id.role == "participant":
            return self.rovers[spiffe_id.name]
        if spiffe_id.role == "operator":
            return self.operators[spiffe_id.name]
        return {**self.keys, **self.auditors}[spiffe_id]

    def statement(self, writer: SpiffeId, stream: str, body: Body, **changes: Any) -> Statement:
        """State something on the newest heads."""
        segment = self.state.segments.get(stream.removeprefix("segment/"))
        given = Statement(
            federation_id=self.federation_id,
            stream=stream,
            writer=writer,
            key_id=self.key_of(writer).public_key.key_id,
            reads_governance=self.state.governance_head,
            reads_segment=ZERO_DIGEST if segment is None else segment.control_head,
            valid_until_us=self.clock.now_us() + 30_000_000,
            request_id=sha256(b"%d %d" % (len(self.log.raw), self.clock.now_us()))[:16],
            body=body,
        )
        return replace(given, **changes)

    def sign(self, statement: Statement, key: SigningKey | None = None) -> Envelope:
        """Sign a statement as its writer, or with another key."""
        return sign_envelope(STATEMENT_TYPE, encode_statement(statement), [key or self.key_of(statement.writer)])

    def write(self, writer: SpiffeId, stream: str, body: Body, **changes: Any) -> int:
        """State, sign and append; give the index."""
        return self.log.order(self.sign(self.statement(writer, stream, body, **changes)))

    # Identities

    def identity_request(
        self, spiffe_id: SpiffeId, spki: Digest, /, *, key: SigningKey | None = None, **changes: Any
    ) -> tuple[Envelope, IdentityRequest]:
        """What somebody signs who wants a TLS identity, with its signing key or another."""
        key = key or self.key_of(spiffe_id)
        # A request has effect once: it is newer than the last one for its key.
        created_us = max(self.clock.now_us(), self.state.last_requests.get(spki, 0) + 1)
        given = IdentityRequest(self.federation_id, spiffe_id, key.public_key.key_id, spki, created_us)
        request = replace(given, **changes)
        return sign_envelope(IDENTITY_REQUEST_TYPE, encode_identity_request(request), [key]), request

    def identity(
        self,
        who: str | SpiffeId,
        *,
        spki: Digest | None = None,
        renews: Digest | EllipsisType | None = ...,
        signed: tuple[Envelope, IdentityRequest] | None = None,
        key: SigningKey | None = None,
        **changes: Any,
    ) -> IdentityIssued:
        """What an honest gatekeeper would write of a TLS key, of a participant by name or of anybody by SPIFFE ID.

        Args:
            renews: as it must be, where nothing is said.
            signed: the request, instead of a new one.
            key: signs the request instead of whose it is.
        """
        spiffe_id = who if isinstance(who, SpiffeId) else participant_id(who)
        spki = spki or sha256(spiffe_id.name.encode())
        if isinstance(renews, EllipsisType):
            renews = self.renewed_by(spiffe_id, spki)
        envelope, request = signed or self.identity_request(spiffe_id, spki, key=key)
        given = IdentityIssued(
            spiffe_id=spiffe_id,
            spki_sha256=spki,
            serial=7,
            not_after_us=IDENTITY_UNTIL_US,
            envelope_raw=encode_envelope(envelope),
            envelope=envelope,
            request=request,
            renews=renews,
        )
        return replace(given, **changes)

    def renewed_by(self, spiffe_id: SpiffeId, spki: Digest) -> Digest | None:
        """The newest identity of a participant that a request for this key has to come over; None for a first one."""
        if self.state.sole_identity.get(spiffe_id.name, spki) == spki or spiffe_id.role != "participant":
            return None
        mine = [known for known, each in self.state.identities.items() if each.spiffe_id == spiffe_id]
        return mine[-1] if mine else None

    def issue(self, who: str | SpiffeId, **changes: Any) -> int:
        """Record a TLS key: see `identity`. A participant's second one renews the newest before it."""
        return self.write(G1, "identity", self.identity(who, **changes))

    # Participants

    def update(
        self,
        name: str,
        values: dict[int, int] | None = None,
        *,
        key: SigningKey | None = None,
        payload: bytes | None = None,
        support: SupportMode = "free",
        value_type: ValueType = "int8",
        **changes: Any,
    ) -> tuple[Envelope, UpdateStatement, bytes]:
        """An update for the open round, signed: envelope, statement and payload. `values`: coordinate to grid units."""
        values = {0: 5, 3: -7, 17: 100} if values is None else values
        if payload is None:
            mask = self.mask if support == "agreed" else None
            payload = payload_of(values, support=support, value_type=value_type, mask=mask)
        key = key or self.rovers[name]
        current = self.segment.current
        given = UpdateStatement(
            federation_id=self.federation_id,
            segment=SEGMENT,
            participant=name,
            key_id=key.public_key.key_id,
            round=current.number if current is not None else 1,
            round_opened=current.opened if current is not None else ZERO_DIGEST,
            base_model=current.base_model if current is not None else ZERO_DIGEST,
            payload_sha256=sha256(payload),
            payload_root=root_of(payload),
            payload_bytes=len(payload),
            nonzeros=len(values),
            format=PayloadFormat(CODEC_VERSION, support, value_type),
            weight=10,
            created_us=self.clock.now_us(),
        )
        update = replace(given, **changes)
        return sign_envelope(UPDATE_TYPE, encode_update(update), [key]), update, payload

    def admission(self, name: str, values: dict[int, int] | None = None, **changes: Any) -> UpdateAdmitted:
        """What an honest gatekeeper would write about an update; its payload is stored."""
        envelope, update, payload = self.update(name, values, **changes)
        self.objects.put(payload)
        current, record = self.segment.current, self.state.participant(name)
        assert current is not None
        assert record is not None
        rules = self.state.rules(self.clock.now_us())
        measured = check_payload(
            current.terms, rules, record, update, payload, self.mask_of(current), mask_digest=current.mask
        )
        return UpdateAdmitted(
            envelope_raw=encode_envelope(envelope),
            envelope=envelope,
            update=update,
            facts=measured.facts,
            rule_ids=measured.rule_ids,
            retain_until_us=self.clock.now_us() + 91 * DAY_US,
        )

    def admit(self, name: str, values: dict[int, int] | None = None, **changes: Any) -> int:
        """Admit an update; give the index."""
        return self.write(G1, STREAM, self.admission(name, values, **changes))

    def withdrawal(self, name: str, *, key: SigningKey | None = None, **changes: Any) -> UpdateWithdrawn:
        """A participant's withdrawal of its update of the last round."""
        key, current = key or self.rovers[name], self.segment.current
        assert current is not None
        admission = current.admissions.get(name)
        given = WithdrawalStatement(
            federation_id=self.federation_id,
            segment=SEGMENT,
            participant=name,
            key_id=key.public_key.key_id,
            round=current.number,
            round_opened=current.opened,
            update=sha256(b"no update") if admission is None else admission.statement_digest,
            created_us=self.clock.now_us(),
        )
        said = replace(given, **changes)
        envelope = sign_envelope(WITHDRAWAL_TYPE, encode_withdrawal(said), [key])
        return UpdateWithdrawn(encode_envelope(envelope), envelope, said)

    def withdraw(self, name: str, **changes: Any) -> int:
        """Let a participant take its update back."""
        return self.write(G1, STREAM, self.withdrawal(name, **changes))

    def complaint(
        self, name: str, *, signed: tuple[Envelope, UpdateStatement, bytes] | None = None, **changes: Any
    ) -> ComplaintRecorded:
        """A complaint about an update: the one that is given, or a new one."""
        envelope, update, _ = signed or self.update(name, **changes)
        return ComplaintRecorded(encode_envelope(envelope), envelope, update)

    def complain(self, name: str, writer: SpiffeId = V1, **changes: Any) -> int:
        """Let a verifier, or an auditor, put a complaint on record."""
        return self.write(writer, STREAM, self.complaint(name, **changes))

    def decision(self, name: str, *, key: SigningKey | None = None, **changes: Any) -> DecisionRecorded:
        """A participant's next decision, made with the segment's newest model."""
        key = key or self.rovers[name]
        given = DecisionStatement(
            federation_id=self.federation_id,
            segment=SEGMENT,
            participant=name,
            key_id=key.public_key.key_id,
            record_seq=self.segment.decision_seqs.get(name, 0) + 1,
            input_commitment=sha256(b"input"),
            model=self.segment.model,
            predicted_class=3,
            confidence_ppm=900_000,
            active_latents=(),
            attributions=(),
            created_us=self.clock.now_us(),
        )
        said = replace(given, **changes)
        envelope = sign_envelope(DECISION_TYPE, encode_decision(said), [key])
        return DecisionRecorded(encode_envelope(envelope), envelope, said)

    def decide(self, name: str, **changes: Any) -> Digest:
        """Put a decision on record; give its statement digest."""
        body = self.decision(name, **changes)
        self.write(G1, STREAM, body)
        return body.envelope.digest


def root_of(payload: bytes) -> Digest:
    """The root of a payload; of what has no header that could have one, some digest."""
    try:
        return payload_root(payload)
    except PayloadError:
        return sha256(payload)


def payload_of(
    values: dict[int, int],
    *,
    coordinates: int = MANIFEST.coordinates,
    grid_exponent: int = GRID,
    support: SupportMode = "free",
    value_type: ValueType = "int8",
    mask: Mask | None = None,
) -> bytes:
    """The payload of an update in grid units; each value must be one that its type holds exactly in its block."""
    indices = np.array(sorted(values), dtype=np.int64)
    units = np.array([values[index] for index in sorted(values)], dtype=np.int64)
    update = SparseUpdate(coordinates, indices, units)
    return pack_update(update, value_type=value_type, grid_exponent=grid_exponent, support=support, mask=mask)
