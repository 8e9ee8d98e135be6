"""State of a federation: what the effective entries of a prefix of the log amount to.

Only `FederationFold` changes it. Everybody else reads it, under the lock of whoever owns the fold.

Format: proto/README.md, "Entry", "Documents", "Statements".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the fold, which checked every entry.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.authority import KeyOwners
from sfrl_secure.governance.documents import (
    Document,
    JoinDocument,
    ParticipantRecord,
    RootDocument,
    RulesDocument,
    ServicesDocument,
)
from sfrl_secure.governance.statements import MeasuredFacts, RoundClosed, UpdateStatement
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId
from sfrl_secure.rounds.statement_index import MemoryStatements, StatementIndex


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


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """An update that its participant took back.

    Attributes:
        index: leaf index of update_withdrawn.
        statement_digest: of the WithdrawalStatement.
    """

    index: int
    statement_digest: Digest


@dataclass(frozen=True, slots=True)
class Complaint:
    """A participant's word, before a verifier or auditor, that no gatekeeper answered this update.

    Attributes:
        index: leaf index of complaint_recorded; `log_time_us` its time.
    """

    index: int
    log_time_us: int
    statement_digest: Digest


@dataclass(frozen=True, slots=True)
class RecordedDecision:
    """A decision on record.

    Attributes:
        index: leaf index of decision_recorded.
        overridden: the class that an order put in the place of `decided_class`; None while none has.
    """

    index: int
    segment: str
    participant: str
    decided_class: int
    overridden: int | None = None


@dataclass(frozen=True, slots=True)
class LineageStep:
    """One round that led to the newest model, as it was last derived.

    Attributes:
        model: the round's model; `base` the one it was derived from.
        aggregate: the object that leads from `base` to `model`.
        published: entry hash of its model_published; `index` its leaf index.
        server_state: after the step; None where there is none. `next_mask`: of the round after; None where its terms'
            mask stays.
    """

    round: int
    model: Digest
    base: Digest
    aggregate: Digest
    published: Digest
    index: int
    server_state: Digest | None = None
    next_mask: Digest | None = None


@dataclass(slots=True)
class RoundState:
    """A round from its opening on.

    Attributes:
        opened: entry hash of round_opened; `opened_index` its leaf index.
        deadline_us: log time from which on no admission has effect.
        terms: frozen at the opening; `terms_index` is where they took effect.
        server_state: what its step stands on as it opened; None stands for zeros, or no server step at all. `mask`: the
            coordinates of its agreed updates; None where its terms have no mask.
        admissions: by participant's name.
        withdrawn: by name of the participant who took its update back; `excluded`, whose update an order excluded.
        complaints: by participant's name, one each.
        ended_by_order: an order ended it while it was open; only its closing is left.
        closed: the effective round_closed, its entry hash and index, once there is one.
        is_abandoned: an order came before its model, which will never be.
        model: digest of its model as last derived, that model's leaf index, once there is one.
        first_model_index: leaf index of the model_published that superseded none; `first_services_index`, of the
            services document in force there.
        left_out: counted participants without whom its model is derived: as the newest order has it where its step is
            due, else as it was last derived. `left_out_derived` are those of the model as it is.
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
    server_state: Digest | None = None
    mask: Digest | None = None
    admissions: dict[str, Admission] = field(default_factory=dict)
    withdrawn: dict[str, Withdrawal] = field(default_factory=dict)
    excluded: set[str] = field(default_factory=set)
    complaints: dict[str, Complaint] = field(default_factory=dict)
    ended_by_order: bool = False
    closed: RoundClosed | None = None
    closed_hash: Digest = ZERO_DIGEST
    closed_index: int = -1
    is_abandoned: bool = False
    model: Digest | None = None
    model_index: int = -1
    first_model_index: int = -1
    first_services_index: int = -1
    left_out: frozenset[str] = frozenset()
    left_out_derived: frozenset[str] = frozenset()
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
        models: every model that a participant may fetch, clusters' among them; `fetches` counts who fetched which, how
            often. `masks`: every mask that it may, of the terms so far and of published steps.
        is_halted: by order: no round opens, no update is admitted.
        lineage: the steps that led to the newest model, by rising round.
        due: rounds whose step an order has to be derived again and is not yet, by rising round.
        quota_uses: effective admissions by participant: see `rounds.quota`.
        decision_seqs: `record_seq` of each participant's last decision.
    """

    terms: SegmentTerms
    terms_index: int
    model: Digest
    control_head: Digest = ZERO_DIGEST
    model_index: int = -1
    models: set[Digest] = field(default_factory=set)
    masks: set[Digest] = field(default_factory=set)
    fetches: Counter[tuple[str, Digest]] = field(default_factory=Counter)
    rounds: dict[int, RoundState] = field(default_factory=dict)
    last_round: int = 0
    is_halted: bool = False
    lineage: list[LineageStep] = field(default_factory=list)
    due: list[int] = field(default_factory=list)
    quota_uses: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    decision_seqs: dict[str, int] = field(default_factory=dict)

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
            and not current.is_abandoned
        )

    def step_of(self, round_number: int) -> int | None:
        """Position in the lineage of the step of this round; None where it has none."""
        return next((at for at, step in enumerate(self.lineage) if step.round == round_number), None)


@dataclass(slots=True)
class StreamState:
    """Where the next entry of a stream goes."""

    next_seq: int = 0
    last: Digest = ZERO_DIGEST


@dataclass(slots=True)
class FederationState:
    """Everything that a prefix of the log amounts to.

    Attributes:
        root: the newest effective one; `root_indices` are the leaf indices of those after genesis, rising.
        placed: documents in force by series.
        spent_joins: digests of the joins by which a record was made; `invited_by`, each join's leaf index by the digest
            of the record.
        identities: TLS public keys that open the door; those of a revoked participant, of an operator whom root, and of
            a service or auditor whom the services document no longer names, and revoked keys are gone.
        revoked_keys: TLS public keys that open nothing, whether or not they were issued.
        issued: every TLS public key that was ever issued, and to whom: a key serves one name, for ever.
        sole_identity: by participant's name, the one TLS public key that was issued to it since its record in force
            took effect; None where there were several.
        only_key: by the SPIFFE ID of an operator, auditor or service, the one TLS public key that was ever issued to
            it; None where there were several.
        last_requests: by TLS public key, when the last request for it that had effect was made.
        issue_times: by SPIFFE ID, log times of the identities issued to it that the rate can still count.
        recorded_peers: everybody to whom one was.
        statements: where each statement stands, and each document that had effect.
        admitted_updates: each effective admission by the statement digest of its update.
        refused_updates: the first refusal of an update, by its statement digest and the peer; not `not_received`.
        single_refusals: refusal entries so far by `refusal_key`.
        decisions: decisions on record by their statement digest.
        accepted: what orders accept: the index and code of a verifier's finding.
        last_anchor_size: size of the checkpoint in the last time_anchored entry; 0 before the first.
    """

    origin: str
    root: RootDocument | None = None
    root_indices: list[int] = field(default_factory=list)
    federation_id: Digest = ZERO_DIGEST
    placed: dict[tuple[str, str], Placed] = field(default_factory=dict)
    owners: KeyOwners = field(default_factory=KeyOwners)
    spent_joins: set[Digest] = field(default_factory=set)
    invited_by: dict[Digest, int] = field(default_factory=dict)
    governance_head: Digest = ZERO_DIGEST
    identities: dict[Digest, RecordedIdentity] = field(default_factory=dict)
    revoked_keys: set[Digest] = field(default_factory=set)
    issued: dict[Digest, SpiffeId] = field(default_factory=dict)
    sole_identity: dict[str, Digest | None] = field(default_factory=dict)
    only_key: dict[SpiffeId, Digest | None] = field(default_factory=dict)
    last_requests: dict[Digest, int] = field(default_factory=dict)
    issue_times: dict[SpiffeId, list[int]] = field(default_factory=dict)
    recorded_peers: set[SpiffeId] = field(default_factory=set)
    segments: dict[str, SegmentState] = field(default_factory=dict)
    streams: dict[str, StreamState] = field(default_factory=dict)
    statements: StatementIndex = field(default_factory=MemoryStatements)
    admitted_updates: dict[Digest, Admission] = field(default_factory=dict)
    refused_updates: dict[tuple[Digest, SpiffeId], RefusedUpdate] = field(default_factory=dict)
    single_refusals: dict[tuple[str, str, int, str], int] = field(default_factory=dict)
    decisions: dict[Digest, RecordedDecision] = field(default_factory=dict)
    accepted: list[tuple[int, str]] = field(default_factory=list)
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

    def join(self, name: str) -> JoinDocument | None:
        """The invitation of this name in force, spent or not, expired or not."""
        placed = self.placed.get(("join", name))
        return placed.document if placed is not None and isinstance(placed.document, JoinDocument) else None

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
