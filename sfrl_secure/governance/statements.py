"""Statements: what services and participants sign, as values.

The types carry no behaviour and believe nothing: a statement of these types was parsed in canonical form, its fields
have their lengths and ranges, and no signature was looked at.

Format: proto/README.md, "Statement" and "Update statement".

Runs in: gatekeeper, aggregator, audit_log, participant.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.translog.checkpoint import Checkpoint

STATEMENT_TYPE = "application/vnd.sfrl.statement.v1"
UPDATE_TYPE = "application/vnd.sfrl.update.v1"


class EntryKind(IntEnum):
    """What an entry records; the numbers of `sfrl.audit.v1.EntryKind`."""

    GENESIS = 1
    GOVERNANCE_PUBLISHED = 2
    PARTICIPANT_RECORDED = 3
    IDENTITY_ISSUED = 4
    ROUND_OPENED = 5
    UPDATE_ADMITTED = 6
    UPDATE_REFUSED = 7
    REFUSALS_COUNTED = 8
    ROUND_CLOSED = 11
    MODEL_PUBLISHED = 12
    TIME_ANCHORED = 14
    MODELS_FETCHED = 15


CONTROL_KINDS = frozenset({EntryKind.ROUND_OPENED, EntryKind.ROUND_CLOSED, EntryKind.MODEL_PUBLISHED})
"""Kinds that move a segment's control head (PROTOCOL R2). Every entry of stream `governance` moves the other one."""


class Evidence(IntEnum):
    """Where the grounds of a refusal can be found."""

    LOG = 1
    OBJECT = 2
    NONE = 3


class PeerClass(IntEnum):
    """Who was refused, as far as it is known."""

    UNKNOWN = 1
    PARTICIPANT = 2
    OPERATOR = 3
    AUDITOR = 4
    SERVICE = 5


class CloseCause(IntEnum):
    """Why a round ended."""

    FULL = 1
    DEADLINE = 2


class CloseOutcome(IntEnum):
    """What a round's end means."""

    CLOSED = 1
    ABORTED = 2


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """How an update's payload is encoded.

    Attributes:
        codec: version, 1.
        support: `free`.
        values: `int8` or `fp32`.
    """

    codec: int
    support: str
    values: str


@dataclass(frozen=True, slots=True)
class UpdateStatement:
    """What a participant signs for one round (PROTOCOL 4)."""

    federation_id: Digest
    segment: str
    participant: str
    key_id: Digest
    round: int
    round_opened: Digest
    base_model: Digest
    payload_sha256: Digest
    payload_bytes: int
    nonzeros: int
    format: PayloadFormat
    weight: int
    created_us: int


@dataclass(frozen=True, slots=True)
class IdentityIssued:
    """A TLS public key may be used under a SPIFFE ID."""

    spiffe_id: SpiffeId
    spki_sha256: Digest
    serial: int
    not_after_us: int


@dataclass(frozen=True, slots=True)
class RoundOpened:
    """A round begins and freezes its terms."""

    round: int
    base_model: Digest
    terms_digest: Digest


@dataclass(frozen=True, slots=True)
class MeasuredFacts:
    """Exact measurements of a payload; norm and magnitude in grid units, tensors as positions in the manifest."""

    nonzeros: int
    density_ppm: int
    norm: int
    largest_magnitude: int
    tensors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UpdateAdmitted:
    """An update may be counted. `envelope_raw` are the canonical bytes of `envelope`, `update` its parsed statement."""

    envelope_raw: bytes
    envelope: Envelope
    update: UpdateStatement
    facts: MeasuredFacts
    rule_ids: tuple[str, ...]
    retain_until_us: int


@dataclass(frozen=True, slots=True)
class UpdateRefused:
    """A known peer's request is refused. `envelope` and `update` stand where the participant's signature held."""

    peer: SpiffeId
    envelope_raw: bytes
    envelope: Envelope | None
    update: UpdateStatement | None
    request_digest: Digest
    reason: str
    facts: MeasuredFacts | None
    rule_ids: tuple[str, ...]
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class RefusalCount:
    """How many refusals of one reason and peer class."""

    reason: str
    peer_class: PeerClass
    count: int


@dataclass(frozen=True, slots=True)
class RefusalsCounted:
    """Refusals without an entry of their own."""

    from_us: int
    until_us: int
    counts: tuple[RefusalCount, ...]
    requests_root: Digest


@dataclass(frozen=True, slots=True)
class DroppedUpdate:
    """An effective admission that is not counted."""

    participant: str
    statement_digest: Digest
    reason: str


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """A round ends."""

    round: int
    cause: CloseCause
    outcome: CloseOutcome
    counted_count: int
    counted_root: Digest
    dropped: tuple[DroppedUpdate, ...]


@dataclass(frozen=True, slots=True)
class ModelPublished:
    """A round's model."""

    round: int
    round_closed: Digest
    base_model: Digest
    aggregate: Digest
    model: Digest
    rule: str
    arithmetic: int


@dataclass(frozen=True, slots=True)
class ModelFetch:
    """One participant fetched one model."""

    participant: str
    model: Digest


@dataclass(frozen=True, slots=True)
class ModelsFetched:
    """Models that went out in an interval."""

    from_us: int
    until_us: int
    fetches: tuple[ModelFetch, ...]


@dataclass(frozen=True, slots=True)
class TimeAnchored:
    """An earlier checkpoint of the log. `note` is signed, `checkpoint` what it says; no line of it was looked at."""

    note: bytes
    checkpoint: Checkpoint


Body = (
    IdentityIssued
    | RoundOpened
    | UpdateAdmitted
    | UpdateRefused
    | RefusalsCounted
    | RoundClosed
    | ModelPublished
    | ModelsFetched
    | TimeAnchored
)

KIND_OF_BODY: dict[type, EntryKind] = {
    IdentityIssued: EntryKind.IDENTITY_ISSUED,
    RoundOpened: EntryKind.ROUND_OPENED,
    UpdateAdmitted: EntryKind.UPDATE_ADMITTED,
    UpdateRefused: EntryKind.UPDATE_REFUSED,
    RefusalsCounted: EntryKind.REFUSALS_COUNTED,
    RoundClosed: EntryKind.ROUND_CLOSED,
    ModelPublished: EntryKind.MODEL_PUBLISHED,
    ModelsFetched: EntryKind.MODELS_FETCHED,
    TimeAnchored: EntryKind.TIME_ANCHORED,
}


@dataclass(frozen=True, slots=True)
class Statement:
    """What a service signs: the header of PROTOCOL 3 and one body.

    Attributes:
        reads_governance: last entry of stream `governance` that the writer had read.
        reads_segment: last control entry of the segment that it had read; zeros where there is none.
        valid_until_us: sequenced before then or never.
        request_id: 16 random bytes.
    """

    federation_id: Digest
    stream: str
    writer: SpiffeId
    key_id: Digest
    reads_governance: Digest
    reads_segment: Digest
    valid_until_us: int
    request_id: bytes
    body: Body

    @property
    def kind(self) -> EntryKind:
        """The kind of the body."""
        return KIND_OF_BODY[type(self.body)]
