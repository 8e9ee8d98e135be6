"""Answering complaints: whose update no gatekeeper had is told so on record, before the round closes.

A participant that nobody answered has shown its signed update to an auditor. Where it is still neither admitted nor
refused after a while, each gatekeeper says that it never had it: `not_received`, on its word. That bars nothing: the
update may still come and be admitted.

Format: proto/README.md, "What participants sign", complaint_recorded.

Runs in: gatekeeper.
Trusts: the view, and the log's entries as `ProofBuilder` proves them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import structlog

from sfrl_secure.errors import SfrlError
from sfrl_secure.governance.statements import ComplaintRecorded, Evidence, Statement, UpdateRefused
from sfrl_secure.ids import Digest, SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.periodic import PeriodicThread
from sfrl_secure.rounds.admission import NOT_RECEIVED
from sfrl_secure.rounds.state import Complaint, FederationState
from sfrl_secure.services.gatekeeper.refuse import gets_entry
from sfrl_secure.services.view import FederationView
from sfrl_secure.services.writer import Proposal, StatementWriter
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

_log = structlog.get_logger()

PATIENCE_SECONDS = 3.0
"""How long an update that was complained of may still come; well below the 10 s after which silence is a finding."""

LOOK_SECONDS = 0.5


class Entries(Protocol):
    """Who gives entries of the log, proven: `ProofBuilder`."""

    def acknowledged(self, index: int) -> AppendedEntry:
        """Give the entry that the view has read at an index."""
        ...


@dataclass(frozen=True, slots=True)
class _Open:
    """A complaint in an open round that has no answer."""

    segment: str
    participant: str
    complaint: Complaint


class ComplaintAnswerer:
    """Watches the open rounds for complaints, in a thread. `start`, then `stop` once."""

    def __init__(
        self,
        view: FederationView,
        writer: StatementWriter,
        entries: Entries,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin with nothing seen."""
        self._view = view
        self._writer = writer
        self._entries = entries
        self._monotonic = monotonic
        self._first_seen: dict[int, float] = {}
        self._answered: set[int] = set()
        self._thread = PeriodicThread("complaints", self.look, every_seconds=LOOK_SECONDS)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._thread.stop()

    def look(self) -> int:
        """Answer the complaints that have waited long enough; how many were."""
        with self._view.reading() as state:
            unanswered = list(_unanswered(state))
        now = self._monotonic()
        # What is closed or answered is forgotten, so that memory holds the open rounds' complaints alone.
        indices = [each.complaint.index for each in unanswered]
        self._first_seen = {index: self._first_seen.get(index, now) for index in indices}
        self._answered &= self._first_seen.keys()
        count = 0
        for each in unanswered:
            index = each.complaint.index
            if index in self._answered or now - self._first_seen[index] < PATIENCE_SECONDS:
                continue
            try:
                self._answer(each)
            except _AnsweredError:
                self._answered.add(index)
            except SfrlError as error:
                _log.warning("complaint_not_answered", segment=each.segment, error=type(error).__name__)
            else:
                self._answered.add(index)
                count += 1
        return count

    def _answer(self, each: _Open) -> None:
        body = self._complaint_at(each.complaint.index)

        def decide(state: FederationState, _now_us: int) -> Proposal:
            if each not in _unanswered(state):
                raise _AnsweredError("the update was decided meanwhile, or its round closed")
            peer = _peer_of(state, each.participant)
            if peer not in state.recorded_peers or not gets_entry(state, peer, body.update, NOT_RECEIVED):
                raise _AnsweredError("nothing more can be said of this participant in the round")
            refusal = UpdateRefused(
                peer=peer,
                envelope_raw=body.envelope_raw,
                envelope=body.envelope,
                update=body.update,
                request_digest=sha256(body.envelope_raw),
                reason=NOT_RECEIVED,
                facts=None,
                rule_ids=(),
                evidence=Evidence.NONE,
            )
            return Proposal(f"segment/{each.segment}", refusal)

        index = self._writer.write(decide).logged.index
        _log.info("complaint_answered", segment=each.segment, participant=each.participant, index=index)

    def _complaint_at(self, index: int) -> ComplaintRecorded:
        content = parse_content(parse_entry(self._entries.acknowledged(index).logged.raw).envelope)
        body = content.body if isinstance(content, Statement) else None
        assert isinstance(body, ComplaintRecorded), "the fold took a complaint at this index, and the entry is proven"
        return body


def _unanswered(state: FederationState) -> Iterator[_Open]:
    for name, segment in sorted(state.segments.items()):
        opened = segment.open_round
        for participant, complaint in sorted(() if opened is None else opened.complaints.items()):
            if not _is_decided(state, participant, complaint.statement_digest):
                yield _Open(name, participant, complaint)


def _is_decided(state: FederationState, participant: str, digest: Digest) -> bool:
    peer = _peer_of(state, participant)
    return digest in state.admitted_updates or (digest, peer) in state.refused_updates


def _peer_of(state: FederationState, participant: str) -> SpiffeId:
    assert state.root is not None, "a complaint has effect after genesis"
    return parse_spiffe_id(f"spiffe://{state.root.trust_domain}/participant/{participant}")


class _AnsweredError(SfrlError):
    """There is nothing left to say."""
