"""Admitting: steps 3 to 17 for one update, in their order.

What decides is pure (`rounds.admission`, `rounds.payloads`); here it is decided on the newest state, recorded, and
answered, or decided again where the log moved on meanwhile.

Format: proto/README.md, "Admission".

Runs in: gatekeeper.
Trusts: the view. Nothing in the request.
"""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import ConflictError, DeniedError, ExhaustedError
from sfrl_secure.governance.documents import ParticipantRecord, RulesDocument
from sfrl_secure.governance.statements import UPDATE_TYPE, UpdateAdmitted, UpdateStatement
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.rounds.admission import check_log_steps, check_signed, is_admitted
from sfrl_secure.rounds.payloads import MeasuredDenial, MeasuredUpdate, check_payload
from sfrl_secure.rounds.state import FederationState, RoundState
from sfrl_secure.rounds.verdicts import DECODING_REASONS
from sfrl_secure.services.gatekeeper.refuse import DecisionChangedError, RefusedRequest, Refuser, gets_entry
from sfrl_secure.services.view import FederationView
from sfrl_secure.services.writer import Proposal, StatementWriter
from sfrl_secure.storage.objects import Objects
from sfrl_secure.wire.audit_service import AppendedEntry

_log = structlog.get_logger()

_DAY_US = 86_400_000_000
_DECISIONS_MAX = 4


@dataclass(frozen=True, slots=True)
class Submission:
    """A submit whose header parsed.

    Attributes:
        envelope_raw: canonical bytes of `envelope`.
        request_digest: SHA-256 of the request message as it arrived.
    """

    peer: SpiffeId
    envelope_raw: bytes
    envelope: Envelope
    update: UpdateStatement
    payload: bytes
    request_digest: Digest


class ByteBudget:
    """Bytes of payloads that may be in work at once (step 10)."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._max = bytes_max
        self._lock = Lock()

    def take(self, size: int) -> None:
        """Take `size` bytes.

        Raises:
            ExhaustedError: more are in work than the budget allows; no decision was made.
        """
        with self._lock:
            if size > self._left:
                raise ExhaustedError(f"at most {self._max} bytes of payloads are in work at once: try again")
            self._left -= size

    def give(self, size: int) -> None:
        """Give them back."""
        with self._lock:
            self._left += size


@dataclass(frozen=True, slots=True)
class _Judged:
    """A header that passed, with the state it passed on."""

    record: ParticipantRecord
    opened: RoundState
    rules: RulesDocument | None

    def holds(self, state: FederationState, now_us: int) -> bool:
        """Whether a payload that was decided on this state would be decided so again."""
        opened = state.segment(self.opened.terms.segment).open_round
        return (
            state.participant(self.record.name) == self.record
            and state.rules(now_us) == self.rules
            and opened is not None
            and opened.opened == self.opened.opened
        )


class Admitter:
    """Decides submitted updates."""

    def __init__(
        self,
        view: FederationView,
        writer: StatementWriter,
        refuser: Refuser,
        objects: Objects,
        clock: Clock,
        budget: ByteBudget,
        evidence_budget: ByteBudget,
    ) -> None:
        """Bind to the view and to what it writes through.

        Args:
            budget: payload bytes in work at once.
            evidence_budget: bytes of refused payloads that are kept as evidence; never given back while we run.
        """
        self._view = view
        self._writer = writer
        self._refuser = refuser
        self._objects = objects
        self._clock = clock
        self._budget = budget
        self._evidence_budget = evidence_budget

    def submit(self, request: Submission) -> AppendedEntry | int:
        """Admit the update, or refuse it for the first step that fails.

        Returns: receipt A of the new entry; or, for an update that was admitted before, the leaf index of its entry.

        Raises:
            DeniedError: refused, and on record.
            ExhaustedError, UnavailableError, ConflictError: nothing was decided.
        """
        for _ in range(_DECISIONS_MAX):
            known = self._known(request)
            if known is not None:
                return known
            judged, signature_held, kept = None, False, False
            try:
                judged, signature_held = self._judge_header(request), True
                measured = self._judge_payload(request, judged)
                return self._admit(request, judged, measured)
            except ConflictError:
                continue  # What was decided on has changed: decide from the start.
            except _HeaderDenied as denied:
                denial, signature_held = denied.denial, denied.signature_held
            except DeniedError as denied_payload:
                denial = denied_payload
                kept = self._keep_evidence(request, denial)
            refused = RefusedRequest(
                request.peer, request.request_digest, request.envelope_raw, request.envelope, request.update,
                signature_held,
            )
            try:
                raise self._refuser.refuse(
                    refused, denial, payload_kept=kept, holds=None if judged is None else judged.holds
                )
            except (DecisionChangedError, ConflictError):
                continue
        raise ConflictError("the log moved on each time that the update was decided: try again")

    def _known(self, request: Submission) -> int | None:
        """Step 3: the stored answer, if there is one for this peer."""
        with self._view.reading() as state:
            digest = request.envelope.digest
            if is_admitted(state, request.peer, request.envelope, request.update):
                return state.admitted_updates[digest].index
            refused = state.refused_updates.get((digest, request.peer))
            if refused is not None:
                raise DeniedError(refused.reason, "the update was refused before", entry_index=refused.index)
        return None

    def _judge_header(self, request: Submission) -> _Judged:
        now_us = self._clock.now_us()
        with self._view.reading() as state:
            record, opened = self._check_header(state, request, now_us)
            return _Judged(record, opened, state.rules(now_us))

    @classmethod
    def _check_header(
        cls, state: FederationState, request: Submission, now_us: int
    ) -> tuple[ParticipantRecord, RoundState]:
        # A gatekeeper beside us, or a call whose answer was lost: a duplicate of itself is no duplicate.
        if is_admitted(state, request.peer, request.envelope, request.update):
            raise ConflictError("the update was admitted meanwhile")
        try:
            return check_log_steps(state, request.peer, request.envelope, request.update, now_us)
        except DeniedError as denial:
            raise _HeaderDenied(denial, cls._signature_held(state, request)) from None

    @staticmethod
    def _signature_held(state: FederationState, request: Submission) -> bool:
        try:
            check_signed(
                state, request.envelope, UPDATE_TYPE, request.update.participant, request.update.key_id
            )
        except DeniedError:
            return False
        return True

    def _judge_payload(self, request: Submission, judged: _Judged) -> MeasuredUpdate:
        size = len(request.payload)
        self._budget.take(size)
        try:
            return check_payload(judged.opened.terms, judged.rules, judged.record, request.update, request.payload)
        finally:
            self._budget.give(size)

    def _admit(self, request: Submission, judged: _Judged, measured: MeasuredUpdate) -> AppendedEntry:
        self._objects.put(request.payload)

        def decide(state: FederationState, now_us: int) -> Proposal:
            _, opened = self._check_header(state, request, now_us)
            if not judged.holds(state, now_us):
                raise ConflictError("participant, rules or round changed while the payload was decided")
            assert judged.rules is not None, "without rules the payload was denied"
            body = UpdateAdmitted(
                envelope_raw=request.envelope_raw,
                envelope=request.envelope,
                update=request.update,
                facts=measured.facts,
                rule_ids=measured.rule_ids,
                # A day more than asked: the log's clock may be ahead of ours.
                retain_until_us=now_us + (opened.terms.retention_days + 1) * _DAY_US,
            )
            # The admission is judged by the rules in force at its own index: it must not come after their end.
            valid_until_us = min(opened.deadline_us, opened.terms.expires_us, judged.rules.expires_us)
            return Proposal(f"segment/{request.update.segment}", body, valid_until_us)

        try:
            acknowledged = self._writer.write(decide)
        except DeniedError as refused:
            # Our state allows it and the log does not: its clock is ahead of ours, or no services document is in force.
            # Neither is the update's fault.
            _log.warning("admission_not_taken", reason=refused.reason)
            raise ConflictError("the log does not take the admission yet", reason=refused.reason) from None
        _log.info(
            "update_admitted",
            segment=request.update.segment,
            round=request.update.round,
            participant=request.update.participant,
            nonzeros=measured.facts.nonzeros,
            index=acknowledged.logged.index,
        )
        return acknowledged

    def _keep_evidence(self, request: Submission, denial: DeniedError) -> bool:
        """Keep a payload that was refused for its content, as long as the budget for evidence lasts."""
        if denial.reason not in DECODING_REASONS and not isinstance(denial, MeasuredDenial):
            return False
        with self._view.reading() as state:
            if not gets_entry(state, request.peer, request.update, denial.reason):
                return False  # Nobody can name a payload whose refusal is only counted.
        try:
            self._evidence_budget.take(len(request.payload))
        except ExhaustedError:
            return False
        self._objects.put(request.payload)
        return True


class _HeaderDenied(Exception):
    def __init__(self, denial: DeniedError, signature_held: bool) -> None:
        super().__init__(denial.reason)
        self.denial = denial
        self.signature_held = signature_held


