"""State of a federation: what the effective entries of a prefix of the log amount to.

Only `FederationFold` changes it. Everybody else reads it, under the lock of whoever owns the fold.

Format: proto/README.md, "Entry", "Documents", "Statements".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the fold, which checked every entry.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.authority import KeyOwners
from sfrl_secure.governance.documents import Document, ParticipantRecord, RootDocument, RulesDocument, ServicesDocument
from sfrl_secure.governance.statements import MeasuredFacts, RoundClosed, UpdateStatement
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId


@dataclass(frozen=True, slots=True)
class Placed:
    """A document in force and the leaf index at which it took effect."""

    document: Document
    index: int


@dataclass(frozen=True, slots=True)
class RecordedIdentity:
    """A TLS public key that an identity_issued entry names."""

    spiffe_id: SpiffeId
    spki_sha256: Digest
    serial: int
    not_after_us: int


@dataclass(frozen=True, slots=True)
class Admission:
    """An effective admission.

    Attributes:
        index: leaf index of the update_admitted entry.
        participant_index: leaf index of the participant's record in force then.
        services_index: leaf index of the services document in force then.
        rules: the rules document in force then, or None.
        participant: the participant's record in force then.
    """

    index: int
    statement_digest: Digest
    update: UpdateStatement
    facts: MeasuredFacts
    rule_ids: tuple[str, ...]
    participant: ParticipantRecord
    participant_index: int
    services_index: int
    rules: RulesDocument | None
    retain_until_us: int


@dataclass(frozen=True, slots=True)
class RefusedUpdate:
    """A refusal on record: leaf index of its update_refused, and its reason."""

    index: int
    reason: str


@dataclass(slots=True)
class RoundState:
    """A round from its opening on.

    Attributes:
        opened: entry hash of round_opened; `opened_index` its leaf index.
        deadline_us: log time from which on no admission has effect.
        terms: frozen at the opening; `terms_index` is where they took effect.
        admissions: by participant's name.
        closed: the effective round_closed, its entry hash and index, once there is one.
        model: digest of the published model, its leaf index, once there is one.
        closed_services_index: leaf index of the services document in force at the closing; `model_services_index`, at
            the model.
    """

    number: int
    opened: Digest
    opened_index: int
    opened_us: int
    deadline_us: int
    terms: SegmentTerms
    terms_index: int
    base_model: Digest
    admissions: dict[str, Admission] = field(default_factory=dict)
    closed: RoundClosed | None = None
    closed_hash: Digest = ZERO_DIGEST
    closed_index: int = -1
    model: Digest | None = None
    model_index: int = -1
    closed_services_index: int = -1
    model_services_index: int = -1

    @property
    def is_open(self) -> bool:
        """No effective round_closed yet."""
        return self.closed is None

    @property
    def is_full(self) -> bool:
        """The cohort's upper bound is reached."""
        return len(self.admissions) >= self.terms.round.cohort_max


@dataclass(slots=True)
class SegmentState:
    """A segment: its terms in force, its rounds and its newest model.

    Attributes:
        control_head: entry hash of the last control entry.
        model: newest model; `model_index` its model_published entry, -1 while it is the terms' initial model.
        models: every model that a participant may fetch; `fetches` counts who fetched which, how often.
    """

    terms: SegmentTerms
    terms_index: int
    model: Digest
    control_head: Digest = ZERO_DIGEST
    model_index: int = -1
    models: set[Digest] = field(default_factory=set)
    fetches: Counter[tuple[str, Digest]] = field(default_factory=Counter)
    rounds: dict[int, RoundState] = field(default_factory=dict)
    last_round: int = 0

    @property
    def current(self) -> RoundState | None:
        """The last round that was opened, open or not."""
        return self.rounds.get(self.last_round)

    @property
    def open_round(self) -> RoundState | None:
        """The open round."""
        current = self.current
        return current if current is not None and current.is_open else None

    @property
    def awaits_model(self) -> bool:
        """The last round counted enough updates, and its model is not published yet."""
        current = self.current
        return (
            current is not None
            and current.closed is not None
            and current.closed.outcome.name == "CLOSED"
            and current.model is None
        )


@dataclass(slots=True)
class StreamState:
    """Where the next entry of a stream goes."""

    next_seq: int = 0
    last: Digest = ZERO_DIGEST


class StatementIndex(Protocol):
    """Where each statement stands in the log, by its digest. A digest that was added keeps its first index.

    An index that was kept over a restart may be ahead of the state: what stands at or after `size` is not there yet.
    """

    def get(self, digest: Digest) -> int | None:
        """Leaf index of the statement with this digest."""
        ...

    def add(self, digest: Digest, index: int) -> None:
        """Record a statement."""
        ...


@dataclass(slots=True)
class MemoryStatements:
    """A statement index without a file."""

    indices: dict[Digest, int] = field(default_factory=dict)

    def get(self, digest: Digest) -> int | None:
        """Leaf index of the statement with this digest."""
        return self.indices.get(digest)

    def add(self, digest: Digest, index: int) -> None:
        """Record a statement."""
        self.indices.setdefault(digest, index)


@dataclass(slots=True)
class FederationState:
    """Everything that a prefix of the log amounts to.

    Attributes:
        placed: documents in force by series.
        identities: TLS public keys that open the door; those of a revoked participant, and of a service or auditor that
            the services document no longer names, are gone.
        issued: every TLS public key that was ever issued, and to whom: a key serves one name, for ever.
        recorded_peers: everybody to whom one was.
        statements: where each statement stands, and each document that had effect.
        admitted_updates: each effective admission by the statement digest of its update.
        refused_updates: the first refusal of an update, by its statement digest and the peer.
        single_refusals: refusal entries so far by `refusal_key`.
        last_anchor_size: size of the checkpoint in the last time_anchored entry; 0 before the first.
    """

    origin: str
    root: RootDocument | None = None
    federation_id: Digest = ZERO_DIGEST
    placed: dict[tuple[str, str], Placed] = field(default_factory=dict)
    owners: KeyOwners = field(default_factory=KeyOwners)
    governance_head: Digest = ZERO_DIGEST
    identities: dict[Digest, RecordedIdentity] = field(default_factory=dict)
    issued: dict[Digest, SpiffeId] = field(default_factory=dict)
    recorded_peers: set[SpiffeId] = field(default_factory=set)
    segments: dict[str, SegmentState] = field(default_factory=dict)
    streams: dict[str, StreamState] = field(default_factory=dict)
    statements: StatementIndex = field(default_factory=MemoryStatements)
    admitted_updates: dict[Digest, Admission] = field(default_factory=dict)
    refused_updates: dict[tuple[Digest, SpiffeId], RefusedUpdate] = field(default_factory=dict)
    single_refusals: dict[tuple[str, str, int, str], int] = field(default_factory=dict)
    last_anchor_size: int = 0
    size: int = 0
    last_time_us: int = 0

    def index_of_statement(self, digest: Digest) -> int | None:
        """Leaf index of the statement, or effective document, with this digest; None where there is none so far."""
        index = self.statements.get(digest)
        return index if index is not None and index < self.size else None

    def services(self) -> ServicesDocument | None:
        """The services document in force, expired or not."""
        placed = self.placed.get(("services", ""))
        return placed.document if placed is not None and isinstance(placed.document, ServicesDocument) else None

    def rules(self, now_us: int) -> RulesDocument | None:
        """The rules document in force, unless it has expired."""
        placed = self.placed.get(("rules", ""))
        if placed is None or not isinstance(placed.document, RulesDocument) or now_us >= placed.document.expires_us:
            return None
        return placed.document

    def participant(self, name: str) -> ParticipantRecord | None:
        """The record of a participant in force, active or not."""
        placed = self.placed.get(("participant", name))
        return placed.document if placed is not None and isinstance(placed.document, ParticipantRecord) else None

    def is_active(self, name: str, now_us: int) -> bool:
        """Whether the participant may take part now."""
        record = self.participant(name)
        return record is not None and record.state == "active" and now_us < record.expires_us

    def index_of_document(self, series: tuple[str, str]) -> int:
        """Leaf index of the document of this series in force; -1 where there is none."""
        placed = self.placed.get(series)
        return -1 if placed is None else placed.index

    def segment(self, name: str) -> SegmentState:
        """The segment.

        Raises:
            DeniedError: `unknown_segment`, no terms name it.
        """
        found = self.segments.get(name)
        if found is None:
            raise DeniedError("unknown_segment", "no terms in force name this segment")
        return found

    def refusal_key(self, peer: str, stream: str, reason: str) -> tuple[str, str, int, str]:
        """What single refusals are counted by: peer, stream, the segment's last round, reason."""
        segment = self.segments.get(stream.removeprefix("segment/")) if stream.startswith("segment/") else None
        return (peer, stream, 0 if segment is None else segment.last_round, reason)
