"""Admitting: steps 3 to 17 for one update, in their order.

What decides is pure (`rounds.admission`, `rounds.payloads`); here it is decided on the newest state, recorded, and
answered, or decided again where the log moved on meanwhile. The header is decided before the payload is waited for;
the payload comes once, and is read again from where it was kept.

Format: proto/README.md, "Admission", "Upload".

Runs in: gatekeeper.
Trusts: the view. Nothing in the request.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import ConflictError, DeniedError, ExhaustedError, SfrlError, UnavailableError
from sfrl_secure.governance.documents import ParticipantRecord, RulesDocument
from sfrl_secure.governance.statements import UPDATE_TYPE, UpdateAdmitted, UpdateStatement
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.rounds.admission import check_log_steps, check_signed, is_admitted
from sfrl_secure.rounds.payloads import MeasuredDenial, MeasuredUpdate, PayloadJudge
from sfrl_secure.rounds.state import FederationState, RoundState
from sfrl_secure.rounds.verdicts import DECODING_REASONS
from sfrl_secure.services.gatekeeper.refuse import DecisionChangedError, RefusedRequest, Refuser, gets_entry
from sfrl_secure.services.masks import Masks
from sfrl_secure.services.view import FederationView
from sfrl_secure.services.writer import Proposal, StatementWriter
from sfrl_secure.sparse.mask import Mask
from sfrl_secure.sparse.update import UpdatePart
from sfrl_secure.wire.audit_service import AppendedEntry

_log = structlog.get_logger()

_DAY_US = 86_400_000_000
_DECISIONS_MAX = 4


@dataclass(frozen=True, slots=True)
class Submission:
    """A submit whose header parsed.

    Attributes:
        envelope_raw: canonical bytes of `envelope`.
        request_digest: SHA-256 of the first request as it arrived.
    """

    peer: SpiffeId
    envelope_raw: bytes
    envelope: Envelope
    update: UpdateStatement
    request_digest: Digest


class Payload(Protocol):
    """The payload of one submission."""

    def receive(
        self, judge: PayloadJudge, recheck: Callable[[], None], leads_to_root: Callable[[], bool]
    ) -> Generator[int, None, MeasuredUpdate]:
        """Let `judge` decide it, while it comes or from where it was kept; yield how many bytes are durable.

        Args:
            recheck: raises where the header would not pass any more.
            leads_to_root: whether the judge has read all of it, and each part led to the root that was signed.

        Raises:
            DeniedError: what the judge finds.
            ExhaustedError: there is no room for it now.
            SfrlError: it did not come; nothing was decided.
        """
        ...

    def keep(self) -> None:
        """Make what was received the object of its name, durably."""
        ...

    def drop(self) -> None:
        """Forget what was received, if anything was and it was not kept."""
        ...


class ByteBudget:
    """Bytes of refused payloads that may be kept as evidence."""

    def __init__(self, bytes_max: int) -> None:
        self._left = bytes_max
        self._max = bytes_max
        self._lock = Lock()

    def take(self, size: int) -> None:
        """Take `size` bytes.

        Raises:
            ExhaustedError: the budget does not allow so many more.
        """
        with self._lock:
            if size > self._left:
                raise ExhaustedError(f"at most {self._max} bytes of payloads are kept")
            self._left -= size


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
        masks: Masks,
        clock: Clock,
        evidence_budget: ByteBudget,
    ) -> None:
        """Bind to the view and to what it writes through.

        Args:
            evidence_budget: bytes of refused payloads that are kept as evidence; never given back while we run.
        """
        self._view = view
        self._writer = writer
        self._refuser = refuser
        self._masks = masks
        self._clock = clock
        self._evidence_budget = evidence_budget

    def decide(self, request: Submission, payload: Payload) -> Generator[int, None, AppendedEntry | int]:
        """Admit the update, or refuse it for the first step that fails; yield what `payload` says is durable.

        Returns: receipt A of the new entry; or, for an update that was admitted before, the leaf index of its entry.

        Raises:
            DeniedError: refused, and on record.
            ExhaustedError, UnavailableError, ConflictError: nothing was decided.
            SfrlError: as `payload` raises it; nothing was decided.
        """
        has_room = False
        for _ in range(_DECISIONS_MAX):
            known = self._known(request)
            if known is not None:
                return known
            judged, signature_held, kept = None, False, False
            try:
                judged, signature_held = self._judge_header(request), True
                measured = yield from self._judge_payload(request, payload, judged)
                return self._admit(request, payload, judged, measured)
            except ConflictError:
                continue  # What was decided on has changed: decide from the start.
            except _HeaderDenied as denied:
                denial, signature_held = denied.denial, denied.signature_held
            except DeniedError as denied_payload:
                denial = denied_payload
                kept = self._keep_evidence(request, payload, denial, has_room=has_room)
                has_room = has_room or kept
            refused = RefusedRequest(
                request.peer, request.request_digest, request.envelope_raw, request.envelope, request.update,
                signature_held,
            )  # fmt: skip
            try:
                answer = self._refuser.refuse(
                    refused, denial, payload_kept=kept, holds=None if judged is None else judged.holds
                )
            except (DecisionChangedError, ConflictError):
                continue
            payload.drop()
            raise answer
        raise ConflictError("the log moved on each time that the update was decided: try again")

    def _known(self, request: Submission) -> int | None:
        """Step 3: the stored answer, if there is one for this peer."""
        now_us = self._clock.now_us()
        with self._view.reading() as state:
            digest = request.envelope.digest
            if is_admitted(state, request.peer, request.envelope, request.update, now_us):
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
        if is_admitted(state, request.peer, request.envelope, request.update, now_us):
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

    def _judge_payload(
        self, request: Submission, payload: Payload, judged: _Judged
    ) -> Generator[int, None, MeasuredUpdate]:
        terms, update = judged.opened.terms, request.update
        mask = self._mask_of(judged.opened) if update.format.support == "agreed" else None
        read = 0

        def on_part(part: UpdatePart) -> None:
            nonlocal read
            read += part.count

        def leads_to_root() -> bool:
            return read == update.nonzeros > 0  # a leaf is read when it led there, and the last one ends the payload

        judge = PayloadJudge(
            terms, judged.rules, judged.record, update, mask, mask_digest=judged.opened.mask, on_part=on_part
        )
        return (yield from payload.receive(judge, lambda: self._recheck(request), leads_to_root))

    def _mask_of(self, opened: RoundState) -> Mask:
        assert opened.mask is not None, "a round has a mask where its terms allow the agreed mode"
        try:
            return self._masks.of(opened.mask, opened.terms)
        except SfrlError as error:
            # Whoever put it there: it is no update's fault.
            _log.error("mask_not_usable", digest=opened.mask.hex(), error=type(error).__name__)
            raise UnavailableError("the round's mask cannot be read here: tell an operator") from None

    def _recheck(self, request: Submission) -> None:
        """Steps 3 to 8 again, while the payload is on its way: what cannot be admitted any more is not waited for."""
        now_us = self._clock.now_us()
        with self._view.reading() as state:
            self._check_header(state, request, now_us)

    def _admit(
        self, request: Submission, payload: Payload, judged: _Judged, measured: MeasuredUpdate
    ) -> AppendedEntry:
        payload.keep()

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

    def _keep_evidence(
        self, request: Submission, payload: Payload, denial: DeniedError, *, has_room: bool
    ) -> bool:
        """Keep a payload that was refused for its content, as long as the budget for evidence lasts.

        Args:
            has_room: it was kept for an earlier decision of the same request: its room is taken.
        """
        if denial.reason not in DECODING_REASONS and not isinstance(denial, MeasuredDenial):
            return False
        with self._view.reading() as state:
            if not gets_entry(state, request.peer, request.update, denial.reason):
                return False  # Nobody can name a payload whose refusal is only counted.
        try:
            if not has_room:
                self._evidence_budget.take(request.update.payload_bytes)
        except ExhaustedError:
            return False
        payload.keep()
        return True


class _HeaderDenied(Exception):
    def __init__(self, denial: DeniedError, signature_held: bool) -> None:
        super().__init__(denial.reason)
        self.denial = denial
        self.signature_held = signature_held
