"""The replay: every entry of a log in order, each effective or void, and what cannot be told.

Entries come as bytes, already tied to a checkpoint (`audit`). Everything is decided here again: signatures, documents,
rounds, admissions from their payloads, models from their updates. A void entry changes nothing, and is a finding.

Format: proto/README.md, "Verification of a log, in order", 3 to 7.

Runs in: verifier.
Trusts: the trust policy's origin and log keys; the objects' store for bytes, never for what they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.replay import authority, orders, rounds, service
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.documents import Document, parse_document
from sfrl_secure.replay.effects import apply_statement
from sfrl_secure.replay.enrolment import invitation
from sfrl_secure.replay.findings import LOG, NEWCOMER, OPERATORS, Finding, Missing, Untold, Void
from sfrl_secure.replay.interventions import Order
from sfrl_secure.replay.objects import Objects
from sfrl_secure.replay.reader import parse_entry, parse_statement
from sfrl_secure.replay.segments import Segment
from sfrl_secure.replay.state import State
from sfrl_secure.replay.statements import STATEMENT_TYPE, RoundClosed, Statement, TimeAnchored
from sfrl_secure.replay.terms import Terms
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.policy import TrustedLog

OVERDUE_US = 120_000_000
"""An open round is overdue when its segment still gets entries this long after the deadline: log time's tolerance."""

_UNSIGNED = frozenset({"wrong_federation", "writer", "writer_signature", "threshold", "genesis"})
"""Codes of what no key in force has signed: nobody but the log answers for such an entry."""


@dataclass(frozen=True, slots=True)
class Taken:
    """What an entry was, for whoever judges its time.

    Attributes:
        log_time_us: its own; that of the entry before, where it is not in canonical form.
        stream: empty where what was signed is malformed.
        anchor: set where it is an effective time_anchored; `writer` is whoever signed it.
    """

    index: int
    log_time_us: int
    stream: str = ""
    anchor: TimeAnchored | None = None
    writer: str = LOG


class Replay:
    """Takes entries in order. An ineffective genesis ends it: `is_ended`, and nothing that follows is looked at."""

    def __init__(self, log: TrustedLog, objects: Objects) -> None:
        """Begin before entry 0 of the trust policy's log."""
        self.state = State()
        self.docket = Docket(objects)
        self.is_ended = False
        self._log = log
        self._size = 0
        self._last_hash = ZERO_DIGEST
        self._last_time_us = 0
        self._taken = Taken(-1, 0)

    @property
    def size(self) -> int:
        """Entries taken in."""
        return self._size

    @property
    def last_time_us(self) -> int:
        """Log time of the last of them."""
        return self._last_time_us

    @property
    def taken(self) -> Taken:
        """The last of them."""
        return self._taken

    @property
    def accepted(self) -> dict[Finding, int]:
        """Findings that operators accept, each with the order's index; complete after `finish`."""
        named = self.state.accepted
        found = [each for each in self.docket.findings if each.is_acceptable and each.index is not None]
        return {
            each: named[each.index, each.code]
            for each in found
            if each.index is not None and (each.index, each.code) in named
        }

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Objects that are not there; complete after `finish`."""
        return self.docket.missing

    @property
    def untold(self) -> tuple[Untold, ...]:
        """What nobody can work out again of published models."""
        return tuple(self.docket.untold)

    def step(self, raw: bytes) -> list[Finding]:
        """Take the next entry in, and give what does not hold in it.

        The caller has tied `raw` to the checkpoint.
        """
        before = len(self.docket.findings)
        at = Position(self._size, leaf_hash(raw), self._last_time_us, LOG)
        self._taken = Taken(at.index, at.log_time_us)
        try:
            entry = parse_entry(raw)
        except MalformedError as error:
            self.docket.find("entry_malformed", at, str(error))
            self.is_ended = self.is_ended or at.index == 0
        else:
            at = Position(at.index, at.leaf, entry.log_time_us, LOG)
            self._taken = Taken(at.index, at.log_time_us)
            self._check_chain(entry, at)
            if not self.is_ended:
                self._take(entry, at)
            self._last_time_us = entry.log_time_us
        self._size, self._last_hash = at.index + 1, at.leaf
        return self.docket.findings[before:]

    def finish(self) -> list[Finding]:
        """After the last entry: overdue rounds, and which refused payloads should still be there."""
        before = len(self.docket.findings)
        for segment in self.state.segments.values():
            opened = segment.open_round
            if opened is not None and opened.overdue_index is not None:
                at = Position(opened.overdue_index, ZERO_DIGEST, self._last_time_us, LOG)
                expected = f"round {opened.number} closed after {opened.deadline_us}"
                self.docket.find("overdue", at, expected, "open", is_acceptable=True)
        self.docket.settle(self._last_time_us)
        return self.docket.findings[before:]

    def _check_chain(self, entry: LogEntry, at: Position) -> None:
        if entry.prev != self._last_hash:
            self.docket.find("chain", at, self._last_hash.hex(), entry.prev.hex())
        if entry.log_time_us < self._last_time_us:
            self.docket.find("time", at, f"{self._last_time_us} or later", str(entry.log_time_us))

    def _take(self, entry: LogEntry, at: Position) -> None:
        envelope = entry.envelope
        content: Statement | Document
        try:
            if envelope.payload_type == STATEMENT_TYPE:
                content = parse_statement(envelope.statement)
            else:
                content = parse_document(envelope.payload_type, envelope.statement)
        except MalformedError as error:
            # It names no stream that could be believed, and moves none.
            self.docket.find("malformed", at, str(error), is_acceptable=True)
            self.is_ended = at.index == 0
            return
        stream = content.stream if isinstance(content, Statement) else "governance"
        self._taken = Taken(at.index, at.log_time_us, stream)
        self._check_stream(entry, stream, at)
        writer = self._writer_of(content, envelope)
        try:
            self._apply(content, envelope, replace(at, writer=writer))
        except Void as void:
            blamed = replace(at, writer=LOG if void.code in _UNSIGNED else writer)
            self.docket.find(void.code, blamed, void.expected, void.found, is_acceptable=True)
            self.is_ended = at.index == 0
        self.state.statements.add(envelope.digest)

    def _writer_of(self, content: Statement | Document, envelope: Envelope) -> str:
        if isinstance(content, Statement):
            return content.writer
        return OPERATORS if invitation(self.state, content, envelope) is None else NEWCOMER

    def _check_stream(self, entry: LogEntry, stream: str, at: Position) -> None:
        position, last = self.state.streams.get(stream, (0, ZERO_DIGEST))
        if (entry.stream_seq, entry.stream_prev) != (position, last):
            self.docket.find(
                "stream_position",
                at,
                f"{position} of {stream} after {last.hex()}",
                f"{entry.stream_seq} after {entry.stream_prev.hex()}",
            )
        self.state.streams[stream] = (position + 1, at.leaf)

    def _apply(self, content: Statement | Document, envelope: Envelope, at: Position) -> None:
        if at.index == 0:
            if not isinstance(content, Document):
                raise Void("genesis", "a genesis document at index 0", "a statement")
            authority.check_genesis(content, envelope, self._log)
            authority.take_document(self.state, content, envelope, at)
        elif isinstance(content, Document):
            self._apply_document(content, envelope, at)
        else:
            segment = service.check_header(self.state, content, envelope, at.log_time_us)
            self._note_overdue(segment, content, at)
            apply_statement(self.state, self.docket, self._log.origin, content, segment, at)
            if isinstance(content.body, TimeAnchored):
                self._taken = Taken(at.index, at.log_time_us, content.stream, content.body, at.writer)

    def _apply_document(self, document: Document, envelope: Envelope, at: Position) -> None:
        authority.check_document(self.state, document, envelope, at.log_time_us)
        content = document.content
        if isinstance(content, Order):
            orders.check_order(self.state, content, at)
        authority.take_document(self.state, document, envelope, at)
        if isinstance(content, Order):
            orders.obey_order(self.state, self.docket, content, at)
        if isinstance(content, Terms) and content.segment not in self.state.segments:
            self.state.segments[content.segment] = rounds.begin_segment(self.docket, content, at)

    def _note_overdue(self, segment: Segment | None, statement: Statement, at: Position) -> None:
        opened = None if segment is None else segment.open_round
        late = opened is not None and at.log_time_us >= opened.deadline_us + OVERDUE_US
        if opened is not None and late and not isinstance(statement.body, RoundClosed) and opened.overdue_index is None:
            opened.overdue_index = at.index
