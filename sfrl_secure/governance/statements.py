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
WITHDRAWAL_TYPE = "application/vnd.sfrl.withdrawal.v1"
DECISION_TYPE = "application/vnd.sfrl.decision.v1"
IDENTITY_REQUEST_TYPE = "application/vnd.sfrl.identity-request.v1"
OBJECT_REQUEST_TYPE = "application/vnd.sfrl.object-request.v1"

PARTICIPANT_TYPES = frozenset({UPDATE_TYPE, WITHDRAWAL_TYPE, DECISION_TYPE, IDENTITY_REQUEST_TYPE, OBJECT_REQUEST_TYPE})
"""What stands inside entries or requests, and is never an entry of its own."""


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
    UPDATE_WITHDRAWN = 9
    COMPLAINT_RECORDED = 10
    ROUND_CLOSED = 11
    MODEL_PUBLISHED = 12
    ORDER_GIVEN = 13
    TIME_ANCHORED = 14
    MODELS_FETCHED = 15
    DECISION_RECORDED = 16


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
    ORDER = 3


class CloseOutcome(IntEnum):
    """What a round's end means."""

    CLOSED = 1
    ABORTED = 2


@dataclass(frozen=True, slots=True)
class PayloadFormat:
    """How an update's payload is encoded.

    Attributes:
        codec: version, 2.
        support: `free`, `agreed` or `dense`.
        values: `int8`, `fp32`, `bf16`, `sign`, `packed` or `exact`.
    """

    codec: int
    support: str
    values: str


@dataclass(frozen=True, slots=True)
class UpdateStatement:
    """What a participant signs for one round (PROTOCOL 4).

    Attributes:
        payload_root: root of the payload's leaves (proto/README.md, "Codec").
        nonzeros: values that the payload carries.
        noise_std: standard deviation of the noise that it says it added to each value, in grid units; 0: none claimed.
    """

    federation_id: Digest
    segment: str
    participant: str
    key_id: Digest
    round: int
    round_opened: Digest
    base_model: Digest
    payload_sha256: Digest
    payload_root: Digest
    payload_bytes: int
    nonzeros: int
    format: PayloadFormat
    weight: int
    created_us: int
    noise_std: int = 0


@dataclass(frozen=True, slots=True)
class WithdrawalStatement:
    """What a participant signs to take back an update; `update` is its statement digest."""

    federation_id: Digest
    segment: str
    participant: str
    key_id: Digest
    round: int
    round_opened: Digest
    update: Digest
    created_us: int


@dataclass(frozen=True, slots=True)
class Attribution:
    """What one input of a decision contributed, in millionths."""

    feature: int
    share_ppm: int


@dataclass(frozen=True, slots=True)
class DecisionStatement:
    """What a participant signs about a decision that it made with a model.

    Attributes:
        record_seq: from 1, above that of its last one in the segment.
        input_commitment: salted hash of the input (`crypto.commitment`).
        confidence_ppm: 0 to 1,000,000.
        active_latents: ascending.
        attributions: by rising feature.
    """

    federation_id: Digest
    segment: str
    participant: str
    key_id: Digest
    record_seq: int
    input_commitment: Digest
    model: Digest
    predicted_class: int
    confidence_ppm: int
    active_latents: tuple[int, ...]
    attributions: tuple[Attribution, ...]
    created_us: int


@dataclass(frozen=True, slots=True)
class IdentityRequest:
    """What somebody signs who wants a TLS identity, with the signing key that governance knows of him."""

    federation_id: Digest
    spiffe_id: SpiffeId
    key_id: Digest
    spki_sha256: Digest
    created_us: int


@dataclass(frozen=True, slots=True)
class ObjectRequest:
    """What an auditor or verifier signs to read an object."""

    federation_id: Digest
    reader: SpiffeId
    key_id: Digest
    digest: Digest
    created_us: int


@dataclass(frozen=True, slots=True)
class IdentityIssued:
    """A TLS public key may be used under a SPIFFE ID.

    Attributes:
        envelope_raw: canonical bytes of `envelope`, whose parsed statement is `request`.
        renews: SHA-256 of the public key of the identity before; None for a first one.
    """

    spiffe_id: SpiffeId
    spki_sha256: Digest
    serial: int
    not_after_us: int
    envelope_raw: bytes
    envelope: Envelope
    request: IdentityRequest
    renews: Digest | None = None


@dataclass(frozen=True, slots=True)
class RoundOpened:
    """A round begins and freezes its terms.

    Attributes:
        server_state: what its step stands on; None where there is none, which stands for zeros.
        mask: the coordinates of its agreed updates; None where its terms have no mask.
    """

    round: int
    base_model: Digest
    terms_digest: Digest
    server_state: Digest | None = None
    mask: Digest | None = None


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
class UpdateWithdrawn:
    """An update is taken back. `envelope_raw` are the canonical bytes of `envelope`, `withdrawal` its statement."""

    envelope_raw: bytes
    envelope: Envelope
    withdrawal: WithdrawalStatement


@dataclass(frozen=True, slots=True)
class ComplaintRecorded:
    """An update was shown that no gatekeeper answered. `envelope_raw` are the canonical bytes of `envelope`."""

    envelope_raw: bytes
    envelope: Envelope
    update: UpdateStatement


@dataclass(frozen=True, slots=True)
class DecisionRecorded:
    """A participant's decision. `envelope_raw` are the canonical bytes of `envelope`, `decision` its statement."""

    envelope_raw: bytes
    envelope: Envelope
    decision: DecisionStatement


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
class Cluster:
    """Updates of a round that are alike, as positions in its counted list, and the digest of their model."""

    members: tuple[int, ...]
    model: Digest


@dataclass(frozen=True, slots=True)
class ModelPublished:
    """A round's model.

    Attributes:
        aggregate: what is added to the base.
        rule: name of the terms' rule.
        supersedes: entry hash of the model_published whose place it takes, or None.
        server_state: after the step; None where the terms have no server step.
        next_mask: of the next round; None where the terms keep theirs, or have none.
        clusters: under the clustered rule.
    """

    round: int
    round_closed: Digest
    base_model: Digest
    aggregate: Digest
    model: Digest
    rule: str
    arithmetic: int
    supersedes: Digest | None = None
    server_state: Digest | None = None
    next_mask: Digest | None = None
    clusters: tuple[Cluster, ...] = ()


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
    | UpdateWithdrawn
    | ComplaintRecorded
    | DecisionRecorded
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
    UpdateWithdrawn: EntryKind.UPDATE_WITHDRAWN,
    ComplaintRecorded: EntryKind.COMPLAINT_RECORDED,
    DecisionRecorded: EntryKind.DECISION_RECORDED,
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
