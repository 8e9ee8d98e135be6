"""The fold: from the log's entries to the state of the federation.

Whether an entry has effect is a function of the log's prefix (PROTOCOL R1). `check` says what would happen to a
statement if it were sequenced next; `apply` takes an entry in and says whether it had effect. The sequencer, the
gatekeeper and the aggregator use this one definition. What needs an object's bytes is not decided here: see
`rounds.payloads`.

Format: proto/README.md, "When a document has effect", "Statements".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the origin and the log's keys, from the trust policy. No writer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import ConflictError, DeniedError, RoundStateError, VerificationError
from sfrl_secure.governance.authority import check_document_authority, check_succession, open_genesis
from sfrl_secure.governance.documents import Document, GenesisDocument, ParticipantRecord, ServicesDocument
from sfrl_secure.governance.statements import (
    CONTROL_KINDS,
    EntryKind,
    Evidence,
    IdentityIssued,
    ModelPublished,
    ModelsFetched,
    RefusalsCounted,
    RoundClosed,
    RoundOpened,
    Statement,
    TimeAnchored,
    UpdateAdmitted,
    UpdateRefused,
)
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId
from sfrl_secure.limits import SINGLE_REFUSALS_MAX
from sfrl_secure.rounds import effects
from sfrl_secure.rounds.admission import check_log_steps, denial_in_log
from sfrl_secure.rounds.closing import DEFECTIVE, close_round
from sfrl_secure.rounds.state import (
    FederationState,
    MemoryStatements,
    Placed,
    SegmentState,
    StatementIndex,
    StreamState,
)
from sfrl_secure.translog.entries import LogEntry

Content = Statement | Document

_ROLES: dict[EntryKind, frozenset[str]] = {
    EntryKind.IDENTITY_ISSUED: frozenset({"gatekeeper"}),
    EntryKind.ROUND_OPENED: frozenset({"aggregator"}),
    EntryKind.UPDATE_ADMITTED: frozenset({"gatekeeper"}),
    EntryKind.UPDATE_REFUSED: frozenset({"gatekeeper"}),
    EntryKind.REFUSALS_COUNTED: frozenset({"gatekeeper", "audit_log"}),
    EntryKind.ROUND_CLOSED: frozenset({"aggregator"}),
    EntryKind.MODEL_PUBLISHED: frozenset({"aggregator"}),
    EntryKind.MODELS_FETCHED: frozenset({"gatekeeper"}),
    EntryKind.TIME_ANCHORED: frozenset({"audit_log"}),
}

_STREAMS = {
    EntryKind.IDENTITY_ISSUED: "identity",
    EntryKind.REFUSALS_COUNTED: "log",
    EntryKind.TIME_ANCHORED: "log",
}
"""Kinds with a stream of their own; the others stand in a segment's."""

_NAMED_ELSEWHERE = frozenset({"participant", "operator"})
"""Roles that records and root name; all others stand in the services document."""

_DAY_US = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry goes: its stream, its position there, and the entry hash of the stream's entry before."""

    stream: str
    stream_seq: int
    stream_prev: Digest


class FederationFold:
    """Takes entries in order and holds what they amount to. Not thread-safe: its owner locks.

    Attributes:
        state: what the entries so far amount to.
        log_vkeys: the log's keys, which genesis names.
    """

    def __init__(
        self, origin: str, log_vkeys: tuple[str, str], statements: StatementIndex | None = None
    ) -> None:
        """Begin before entry 0.

        Args:
            origin: the log's origin, from the trust policy.
            log_vkeys: its Ed25519 and ML-DSA-44 vkeys, from the trust policy.
            statements: where the statements' digests are kept; in memory where there is none.
        """
        self.state = FederationState(origin, statements=MemoryStatements() if statements is None else statements)
        self.log_vkeys = log_vkeys
        # The whole envelope, not its digest: that does not cover the signatures.
        self._checked: tuple[Envelope, int, int] | None = None

    @classmethod
    def resume(cls, state: FederationState, log_vkeys: tuple[str, str]) -> FederationFold:
        """Go on from a state that this fold, or another like it, has left."""
        fold = cls(state.origin, log_vkeys, state.statements)
        fold.state = state
        return fold

    def index_of(self, statement_digest: Digest) -> int | None:
        """Leaf index of the entry with this statement digest."""
        return self.state.index_of_statement(statement_digest)

    def place(self, content: Content) -> Place:
        """Say where `content` would be sequenced now."""
        stream = content.stream if isinstance(content, Statement) else "governance"
        at = self.state.streams.get(stream, StreamState())
        return Place(stream, at.next_seq, at.last)

    def check(
        self, log_time_us: int, envelope: Envelope, content: Content, verified_by: PublicKey | None = None
    ) -> None:
        """Check that `content`, sequenced next at `log_time_us`, would have effect; change nothing.

        Args:
            verified_by: the key whose single signature over `envelope` the caller has verified. It spares us the same
                verification where it is the writer's key, and means nothing where it is another.

        Raises:
            ConflictError: the writer read an older log: it reads on and decides again.
            DeniedError: it would be void however often it is tried.
        """
        if self.state.index_of_statement(envelope.digest) is not None:
            raise ConflictError("the statement is already in the log", reason="known")
        if isinstance(content, Statement):
            self._check_statement(log_time_us, envelope, content, verified_by)
        else:
            self._check_document(log_time_us, envelope, content)
        self._checked = (envelope, log_time_us, self.state.size)

    def apply(self, index: int, leaf: Digest, entry: LogEntry, content: Content | None) -> str | None:
        """Take the entry at `index` in.

        Args:
            leaf: its entry hash.
            content: its parsed statement, or None where that did not parse.

        Returns: None where it had effect, else the code of why it is void. A void entry moves its stream and nothing
            else.
        """
        void: str | None = None
        if content is None:
            void = "malformed"
        elif self._checked != (entry.envelope, entry.log_time_us, index):
            try:
                self.check(entry.log_time_us, entry.envelope, content)
            except (ConflictError, DeniedError) as refusal:
                void = refusal.reason
        self._checked = None
        state = self.state
        if content is not None:
            place = self.place(content)
            state.streams[place.stream] = StreamState(place.stream_seq + 1, leaf)
            # A document whose signatures did not suffice may come again with enough: its digest is the same.
            if void is None or isinstance(content, Statement):
                state.statements.add(entry.envelope.digest, index)
            if void is None:
                self._take(index, leaf, entry, content)
        state.size = index + 1
        state.last_time_us = entry.log_time_us
        return void

    # Documents

    def _check_document(self, log_time_us: int, envelope: Envelope, document: Document) -> None:
        state = self.state
        if isinstance(document, GenesisDocument):
            if state.size != 0:
                raise DeniedError("genesis", "a log has one genesis, at index 0")
            try:
                open_genesis(envelope, document, state.origin, self.log_vkeys)
            except VerificationError as error:
                raise DeniedError("genesis", str(error)) from None
            state.owners.check(document.root)
            return
        root = state.root
        if root is None:
            raise DeniedError("genesis", "the log does not begin with an effective genesis")
        if document.federation_id != state.federation_id:
            raise DeniedError("wrong_federation", "the document belongs to another federation")
        if log_time_us >= root.expires_us:
            raise DeniedError("expired", "the root document has expired")
        check_document_authority(document, envelope, root)
        before = state.placed.get(document.series)
        check_succession(document, None if before is None else before.document, log_time_us)
        state.owners.check(document)

    # Statements

    def _check_statement(
        self, log_time_us: int, envelope: Envelope, statement: Statement, verified_by: PublicKey | None
    ) -> None:
        state = self.state
        if state.root is None:
            raise DeniedError("genesis", "the log does not begin with an effective genesis")
        if statement.federation_id != state.federation_id:
            raise DeniedError("wrong_federation", "the statement belongs to another federation")
        self._check_writer(log_time_us, envelope, statement, verified_by)
        if log_time_us >= statement.valid_until_us:
            raise DeniedError("expired", "the statement's time is over")
        segment = self._check_stream(statement)
        if statement.reads_governance != state.governance_head:
            raise ConflictError("governance has moved on", reason="stale")
        if statement.reads_segment != (ZERO_DIGEST if segment is None else segment.control_head):
            raise ConflictError("the segment has moved on", reason="stale")
        self._check_body(log_time_us, statement, segment)

    def _check_writer(
        self, log_time_us: int, envelope: Envelope, statement: Statement, verified_by: PublicKey | None
    ) -> None:
        services = self.state.services()
        if services is None or log_time_us >= services.expires_us:
            raise DeniedError("writer", "no services document is in force")
        signatory = services.service_by_key(statement.key_id)
        if signatory is None or signatory.spiffe_id != statement.writer:
            raise DeniedError("writer", "the services document does not name this writer with this key")
        if statement.writer.role not in _ROLES[statement.kind]:
            raise DeniedError("role", "the writer's role may not write this kind")
        if verified_by == signatory.key:
            return
        try:
            verify_single(envelope, signatory.key)
        except VerificationError:
            raise DeniedError("bad_signature", "the statement is not signed by exactly its writer's key") from None

    def _check_stream(self, statement: Statement) -> SegmentState | None:
        """Check that the stream is the kind's; give the segment where it is one's."""
        kind, stream = statement.kind, statement.stream
        fixed = _STREAMS.get(kind)
        name = stream.removeprefix("segment/")
        body = statement.body
        if isinstance(body, UpdateRefused) and body.update is not None:
            # A refusal that quotes an update stands where the update belongs, so that it is counted there.
            known = body.update.segment in self.state.segments
            if stream != (f"segment/{body.update.segment}" if known else "log"):
                raise DeniedError("stream", "the stream is not that of the update that was refused")
        if stream == fixed or (kind is EntryKind.UPDATE_REFUSED and stream == "log"):
            return None
        if fixed is not None or name == stream:
            raise DeniedError("stream", "the stream is not this kind's")
        return self.state.segment(name)

    def _check_body(self, log_time_us: int, statement: Statement, segment: SegmentState | None) -> None:
        match statement.body:
            case IdentityIssued() as body:
                self._check_identity(log_time_us, body)
            case UpdateRefused() as body:
                self._check_refused(log_time_us, statement.stream, body)
            case RefusalsCounted():
                pass  # Its form is all there is to check, and the parser did.
            case TimeAnchored() as body:
                effects.check_time_anchored(self.state, body)
            case body:
                assert segment is not None, "_check_stream gives a segment for every kind of a segment's stream"
                self._check_segment_body(log_time_us, segment, body)

    def _check_segment_body(
        self,
        log_time_us: int,
        segment: SegmentState,
        body: RoundOpened | UpdateAdmitted | RoundClosed | ModelPublished | ModelsFetched,
    ) -> None:
        match body:
            case RoundOpened():
                effects.check_round_opened(segment, body, log_time_us)
            case UpdateAdmitted():
                self._check_admitted(log_time_us, segment, body)
            case RoundClosed():
                self._check_closed(log_time_us, segment, body)
            case ModelPublished():
                effects.check_model_published(segment, body)
            case ModelsFetched():
                effects.check_models_fetched(self.state, segment, body)

    def _check_identity(self, log_time_us: int, body: IdentityIssued) -> None:
        state = self.state
        assert state.root is not None
        name, role = body.spiffe_id.name, body.spiffe_id.role
        services = state.services()
        record = state.participant(name)
        known = body.spiffe_id.trust_domain == state.root.trust_domain and (
            (role == "operator" and name in state.root.operators)
            or (role == "participant" and record is not None and record.state != "revoked")
            or (
                services is not None
                and any(s.spiffe_id == body.spiffe_id for s in (*services.services, *services.auditors))
            )
        )
        if not known:
            raise DeniedError("unknown_name", "no document in force names this SPIFFE ID")
        if state.issued.get(body.spki_sha256, body.spiffe_id) != body.spiffe_id:
            raise DeniedError("key_reused", "the public key was issued to another name")
        if log_time_us >= body.not_after_us:
            raise DeniedError("expired", "the identity has expired")

    def _check_admitted(self, log_time_us: int, segment: SegmentState, body: UpdateAdmitted) -> None:
        if body.update.segment != segment.terms.segment:
            raise DeniedError("stream", "the update belongs to another segment's stream")
        try:
            _, opened = check_log_steps(self.state, None, body.envelope, body.update, log_time_us, margin_us=0)
        except RoundStateError as raced:
            raise ConflictError(str(raced), reason=raced.reason) from None
        if body.retain_until_us < log_time_us + opened.terms.retention_days * _DAY_US:
            raise DeniedError("retention", "the payload must be kept for the terms' retention days")

    def _check_refused(self, log_time_us: int, stream: str, body: UpdateRefused) -> None:
        state = self.state
        if body.peer not in state.recorded_peers:
            raise DeniedError("unknown_peer", "only a recorded peer's refusal is an entry")
        if body.envelope is not None and body.update is not None:
            record = state.participant(body.update.participant)
            if record is None or record.key.key_id != body.update.key_id:
                raise DeniedError("bad_signature", "the refused update is not its participant's")
            try:
                verify_single(body.envelope, record.key)
            except VerificationError:
                raise DeniedError("bad_signature", "the refused update is not its participant's") from None
            due = denial_in_log(state, body.peer, body.envelope, body.update, log_time_us)
            if body.evidence is not Evidence.NONE and due != (body.reason if body.evidence is Evidence.LOG else None):
                raise ConflictError("the log gives another reason now", reason="refusal")
        elif body.evidence is not Evidence.NONE:
            raise DeniedError("evidence", "without an envelope there is no evidence")
        key = state.refusal_key(body.peer, stream, body.reason)
        if state.single_refusals.get(key, 0) >= SINGLE_REFUSALS_MAX:
            raise ConflictError(f"a peer gets {SINGLE_REFUSALS_MAX} refusal entries of a kind", reason="counted")

    def _check_closed(self, log_time_us: int, segment: SegmentState, body: RoundClosed) -> None:
        opened = segment.open_round
        if opened is None or body.round != opened.number:
            raise ConflictError("the round is not open", reason="round_not_open")
        defective = {drop.participant for drop in body.dropped if drop.reason == DEFECTIVE}
        if not defective <= opened.admissions.keys():
            raise DeniedError("close", "an update that was not admitted cannot be dropped")
        try:
            due = close_round(
                opened, defective=defective, is_active=self._is_active_at(log_time_us), now_us=log_time_us
            )
        except RoundStateError as early:
            raise DeniedError(early.reason, str(early)) from None
        if body != due:
            # Not denied for good: an admission may have come between the reading and the writing.
            raise ConflictError("the closing does not say what the log says", reason="close")

    def _is_active_at(self, now_us: int) -> Callable[[str], bool]:
        return lambda name: self.state.is_active(name, now_us)

    # Effects

    def _take(self, index: int, leaf: Digest, entry: LogEntry, content: Content) -> None:
        state = self.state
        if isinstance(content, Statement):
            effects.take_statement(state, index, leaf, entry, content)
            if content.kind in CONTROL_KINDS:
                state.segments[content.stream.removeprefix("segment/")].control_head = leaf
            return
        document: Document = content
        if isinstance(document, GenesisDocument):
            state.root, state.federation_id = document.root, document.federation_id
            state.placed[document.root.series] = Placed(document.root, index)
            state.owners.claim(document.root)
        else:
            state.owners.claim(document)
        state.placed[document.series] = Placed(document, index)
        state.governance_head = leaf
        if isinstance(document, SegmentTerms):
            effects.take_terms(state, document, index)
        if isinstance(document, ServicesDocument):
            named = {signatory.spiffe_id for signatory in (*document.services, *document.auditors)}
            self._forget_identities(lambda who: who.role not in _NAMED_ELSEWHERE and who not in named)
        if isinstance(document, ParticipantRecord) and document.state == "revoked":
            self._forget_identities(lambda who: who.role == "participant" and who.name == document.name)

    def _forget_identities(self, is_gone: Callable[[SpiffeId], bool]) -> None:
        """The TLS keys of whoever is revoked, or no longer named, open nothing any more."""
        state = self.state
        state.identities = {key: each for key, each in state.identities.items() if not is_gone(each.spiffe_id)}


