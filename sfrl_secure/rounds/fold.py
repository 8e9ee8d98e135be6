"""The fold: from the log's entries to the state of the federation.

Whether an entry has effect is a function of the log's prefix (PROTOCOL R1). `check` says what would happen to a
statement if it were sequenced next; `apply` takes an entry in and says whether it had effect. The sequencer, the
gatekeeper and the aggregator use this one definition. What needs an object's bytes is not decided here: see
`rounds.payloads`. Here is what every entry passes; what its kind asks and changes stands in a module of its own.

Format: proto/README.md, "When a document has effect", "Statements".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the origin and the log's keys, from the trust policy. No writer.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import ConflictError, DeniedError, RoundStateError, VerificationError
from sfrl_secure.governance.documents import Document
from sfrl_secure.governance.services import Signatory
from sfrl_secure.governance.statements import (
    CONTROL_KINDS,
    ComplaintRecorded,
    DecisionRecorded,
    EntryKind,
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
    UpdateWithdrawn,
)
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.rounds import effects, participants, verdicts
from sfrl_secure.rounds.documents import check_document, take_document
from sfrl_secure.rounds.identities import check_identity, take_identity
from sfrl_secure.rounds.state import FederationState, SegmentState, StreamState
from sfrl_secure.rounds.statement_index import MemoryStatements, StatementIndex
from sfrl_secure.translog.entries import LogEntry

Content = Statement | Document

_SegmentBody = (
    RoundOpened
    | UpdateAdmitted
    | RoundClosed
    | ModelPublished
    | ModelsFetched
    | UpdateWithdrawn
    | ComplaintRecorded
    | DecisionRecorded
)
"""What stands in a segment's stream, but for refusals."""

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
    EntryKind.UPDATE_WITHDRAWN: frozenset({"gatekeeper"}),
    EntryKind.COMPLAINT_RECORDED: frozenset({"verifier", "auditor"}),
    EntryKind.DECISION_RECORDED: frozenset({"gatekeeper"}),
}

_STREAMS = {
    EntryKind.IDENTITY_ISSUED: "identity",
    EntryKind.REFUSALS_COUNTED: "log",
    EntryKind.TIME_ANCHORED: "log",
}
"""Kinds with a stream of their own; the others stand in a segment's."""

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
            check_document(self.state, self.log_vkeys, log_time_us, envelope, content)
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
        signatory: Signatory | None = services.service_by_key(statement.key_id)
        if signatory is None and statement.kind is EntryKind.COMPLAINT_RECORDED:
            signatory = services.auditor_by_key(statement.key_id)
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
                check_identity(self.state, body, log_time_us)
            case UpdateRefused() as body:
                verdicts.check_refused(self.state, statement.stream, body, log_time_us)
            case RefusalsCounted():
                pass  # Its form is all there is to check, and the parser did.
            case TimeAnchored() as body:
                effects.check_time_anchored(self.state, body)
            case body:
                assert segment is not None, "_check_stream gives a segment for every kind of a segment's stream"
                self._check_segment_body(log_time_us, segment, body)

    def _check_segment_body(self, log_time_us: int, segment: SegmentState, body: _SegmentBody) -> None:
        state = self.state
        match body:
            case RoundOpened():
                effects.check_round_opened(segment, body, log_time_us)
            case UpdateAdmitted():
                verdicts.check_admitted(state, segment, body, log_time_us)
            case RoundClosed():
                effects.check_round_closed(state, segment, body, log_time_us)
            case ModelPublished():
                effects.check_model_published(segment, body)
            case ModelsFetched():
                effects.check_models_fetched(state, segment, body)
            case UpdateWithdrawn() | ComplaintRecorded() | DecisionRecorded():
                self._check_participants_word(log_time_us, segment, body)

    def _check_participants_word(
        self, log_time_us: int, segment: SegmentState, body: UpdateWithdrawn | ComplaintRecorded | DecisionRecorded
    ) -> None:
        state = self.state
        try:
            match body:
                case UpdateWithdrawn():
                    participants.check_withdrawn(state, segment, body)
                case ComplaintRecorded():
                    participants.check_complaint(state, segment, body, log_time_us)
                case DecisionRecorded():
                    participants.check_decision_recorded(state, segment, body, log_time_us)
        except RoundStateError as raced:
            raise ConflictError(str(raced), reason=raced.reason) from None

    # Effects

    def _take(self, index: int, leaf: Digest, entry: LogEntry, content: Content) -> None:
        if not isinstance(content, Statement):
            take_document(self.state, index, leaf, entry.envelope, content)
            return
        self._take_statement(index, leaf, entry.log_time_us, content)
        if content.kind in CONTROL_KINDS:
            self.state.segments[content.stream.removeprefix("segment/")].control_head = leaf

    def _take_statement(self, index: int, leaf: Digest, log_time_us: int, statement: Statement) -> None:
        state = self.state
        match statement.body:
            case IdentityIssued() as body:
                take_identity(state, body, log_time_us)
            case UpdateRefused() as body:
                verdicts.take_refused(state, statement.stream, body, index)
            case RefusalsCounted():
                pass  # A record for people; no decision rests on it.
            case TimeAnchored() as body:
                state.last_anchor_size = body.checkpoint.size
            case body:
                segment = state.segments[statement.stream.removeprefix("segment/")]
                self._take_segment_body(segment, index, leaf, log_time_us, body)

    def _take_segment_body(
        self, segment: SegmentState, index: int, leaf: Digest, log_time_us: int, body: _SegmentBody
    ) -> None:
        state = self.state
        match body:
            case RoundOpened():
                effects.take_round_opened(segment, body, index, leaf, log_time_us)
            case UpdateAdmitted():
                verdicts.take_admitted(state, segment, body, index, log_time_us)
            case RoundClosed():
                effects.take_round_closed(state, segment, body, index, leaf)
            case ModelPublished():
                effects.take_model_published(state, segment, body, index, leaf)
            case ModelsFetched():
                segment.fetches.update((fetch.participant, fetch.model) for fetch in body.fetches)
            case UpdateWithdrawn():
                participants.take_withdrawn(segment, body, index)
            case ComplaintRecorded():
                participants.take_complaint(segment, body, index, log_time_us)
            case DecisionRecorded():
                participants.take_decision(state, segment, body, index)
