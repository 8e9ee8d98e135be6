"""Participants of the ingest benchmark: how they are enrolled, and the updates that they send.

Everything is signed and encoded before a clock starts.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.ingest_site import FOREVER_US, GRID, MANIFEST, SEGMENT, TRUST_DOMAIN, IngestSite
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import ED25519, SigningKey
from sfrl_secure.crypto.possession import prove_possession
from sfrl_secure.governance.build import build_join, build_participant
from sfrl_secure.governance.documents import JoinDocument, ParticipantRecord
from sfrl_secure.governance.statements import (
    IDENTITY_REQUEST_TYPE,
    UPDATE_TYPE,
    IdentityIssued,
    IdentityRequest,
    PayloadFormat,
    UpdateStatement,
)
from sfrl_secure.ids import SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.sparse.encode import EncodedUpdate, encode_update
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.participants import encode_identity_request
from sfrl_secure.wire.statements import encode_update as encode_update_statement
from sfrl_secure.wire.uploads import Chunk, encode_upload_start

DAY_US = 86_400_000_000
CLEARANCE = 5
GROUPS = ("rovers",)
PAYLOAD_BYTES = 300_000


@dataclass(frozen=True, slots=True)
class Person:
    """A participant and its signing key."""

    name: str
    key: SigningKey

    @property
    def spiffe_id(self) -> SpiffeId:
        """Its SPIFFE ID."""
        return parse_spiffe_id(f"spiffe://{TRUST_DOMAIN}/participant/{self.name}")


def people(first: int, count: int) -> list[Person]:
    """New participants, numbered from `first` on."""
    return [Person(f"rover-{number:06}", SigningKey.generate(ED25519)) for number in range(first, first + count)]


def record_of(site: IngestSite, person: Person) -> bytes:
    """The record of a participant."""
    return build_participant(
        federation_id=site.federation_id,
        expires_us=FOREVER_US,
        name=person.name,
        key=person.key.public_key,
        possession=prove_possession(person.key, site.federation_id, person.name),
        clearance=CLEARANCE,
        groups=GROUPS,
    )


def invitation_of(site: IngestSite, person: Person, token: SigningKey) -> Envelope:
    """The join document of a participant, signed by operators."""
    raw = build_join(
        federation_id=site.federation_id,
        expires_us=site.clock.now_us() + DAY_US,
        name=person.name,
        join_key=token.public_key,
        clearance=CLEARANCE,
        groups=GROUPS,
        record_expires_us=FOREVER_US,
    )
    return site.sign_document(JoinDocument.payload_type, raw)


def joined_record(site: IngestSite, person: Person, token: SigningKey) -> Envelope:
    """The record of an invited participant, signed with its token."""
    return sign_envelope(ParticipantRecord.payload_type, record_of(site, person), [token])


def issued_to(site: IngestSite, person: Person) -> Envelope:
    """The gatekeeper's statement that the participant has a TLS identity."""
    spki, now_us = sha256(person.name.encode()), site.clock.now_us()
    request = IdentityRequest(site.federation_id, person.spiffe_id, person.key.public_key.key_id, spki, now_us)
    envelope = sign_envelope(IDENTITY_REQUEST_TYPE, encode_identity_request(request), [person.key])
    body = IdentityIssued(
        spiffe_id=person.spiffe_id,
        spki_sha256=spki,
        serial=7,
        not_after_us=now_us + 90 * DAY_US,
        envelope_raw=encode_envelope(envelope),
        envelope=envelope,
        request=request,
    )
    return site.state_as("gatekeeper", "identity", body)


def populate(site: IngestSite, newcomers: Sequence[Person]) -> None:
    """Enrol many at once, recorded by operators."""
    records = [
        site.sign_document(ParticipantRecord.payload_type, record_of(site, person)) for person in newcomers
    ]
    site.log.append_all(records)
    # In parts: a statement lives for 30 s.
    for start in range(0, len(newcomers), 1_000):
        site.log.append_all([issued_to(site, person) for person in newcomers[start : start + 1_000]])


def requests_of(
    site: IngestSite, senders: Sequence[Person], rng: np.random.Generator
) -> Iterator[tuple[Person, bytes]]:
    """The one request of each sender's upload, with a payload of about `PAYLOAD_BYTES`."""
    nonzeros = 100_000
    for _ in range(3):  # what a coordinate costs depends little on how many there are
        nonzeros = nonzeros * PAYLOAD_BYTES // len(_encoded(nonzeros, rng).payload)
    opened = site.state.segments[SEGMENT].open_round
    assert opened is not None
    for person in senders:
        encoded = _encoded(nonzeros, rng)
        update = UpdateStatement(
            federation_id=site.federation_id,
            segment=SEGMENT,
            participant=person.name,
            key_id=person.key.public_key.key_id,
            round=opened.number,
            round_opened=opened.opened,
            base_model=opened.base_model,
            payload_sha256=sha256(encoded.payload),
            payload_root=encoded.root,
            payload_bytes=len(encoded.payload),
            nonzeros=encoded.nonzeros,
            format=PayloadFormat(codec=2, support=encoded.support, values=encoded.value_type),
            weight=100,
            created_us=site.clock.now_us(),
        )
        envelope = sign_envelope(UPDATE_TYPE, encode_update_statement(update), [person.key])
        yield person, encode_upload_start(envelope, Chunk(0, encoded.payload))


def _encoded(nonzeros: int, rng: np.random.Generator) -> EncodedUpdate:
    indices = np.sort(rng.choice(MANIFEST.coordinates, nonzeros, replace=False)).astype(np.int64)
    values = rng.normal(0.0, 0.01, nonzeros)
    return encode_update(MANIFEST.coordinates, indices, values, value_type="int8", grid_exponent=GRID, rng=rng)
