"""Refusing: each refusal of a known peer is an entry before it is an answer, or is counted.

The entry holds the participant's signed statement where its signature held, so that the verifier can decide again. The
fourth of a kind is counted, so that nobody can fill the log.

Format: proto/README.md, "Admission".

Runs in: gatekeeper.
Trusts: the view. Nothing in the request.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import structlog

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import ConflictError, DeniedError, SfrlError, UnavailableError
from sfrl_secure.governance.statements import Evidence, PeerClass, UpdateRefused, UpdateStatement
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.limits import SINGLE_REFUSALS_MAX
from sfrl_secure.rounds.admission import PolicyDenial, is_admitted
from sfrl_secure.rounds.payloads import MeasuredDenial
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rounds.verdicts import DECODING_REASONS, UNQUOTED_REASONS
from sfrl_secure.services.writer import Proposal, StatementWriter

_log = structlog.get_logger()

ON_WORD = frozenset({"malformed", "bad_signature", "digest_mismatch"})
"""Reasons that nobody can decide again; and `not_received`, which `complaints` writes."""


class DecisionChangedError(SfrlError):
    """Between the decision and its record the log moved on, and the decision with it."""


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """What is known of a refused request.

    Attributes:
        update: its statement, where it parsed.
        envelope_raw: canonical bytes of its envelope; `envelope` the same, parsed.
        signature_held: whether the participant's key in force signed it.
        request_digest: SHA-256 of the request message.
    """

    peer: SpiffeId
    request_digest: Digest
    envelope_raw: bytes = b""
    envelope: Envelope | None = None
    update: UpdateStatement | None = None
    signature_held: bool = False


def stream_of_refusal(state: FederationState, update: UpdateStatement | None) -> str:
    """The stream of the segment that the update names, or `log` where it names none that we know."""
    known = update is not None and update.segment in state.segments
    return f"segment/{update.segment}" if update is not None and known else "log"


def gets_entry(state: FederationState, peer: SpiffeId, update: UpdateStatement | None, reason: str) -> bool:
    """Whether the peer's next refusal of this kind is an entry of its own."""
    key = state.refusal_key(peer, stream_of_refusal(state, update), reason)
    return state.single_refusals.get(key, 0) < SINGLE_REFUSALS_MAX


class Refuser:
    """Writes refusals down."""

    def __init__(self, writer: StatementWriter, counter: RefusalCounter) -> None:
        self._writer = writer
        self._counter = counter

    def refuse(
        self,
        request: RefusedRequest,
        denial: DeniedError,
        *,
        payload_kept: bool,
        holds: Callable[[FederationState, int], bool] | None = None,
    ) -> DeniedError:
        """Record the refusal; give the error to answer with.

        Args:
            payload_kept: whether the payload is stored under its digest.
            holds: whether a state decides the payload as the one did on which it was refused; the log cannot tell.

        Raises:
            DecisionChangedError: the log gives another reason by now: decide again.
            UnavailableError: the log does not take the refusal.
        """
        evidence = self._evidence(request, denial, payload_kept)
        held = request.signature_held
        body = UpdateRefused(
            peer=request.peer,
            envelope_raw=request.envelope_raw if held else b"",
            envelope=request.envelope if held else None,
            update=request.update if held else None,
            request_digest=request.request_digest,
            reason=denial.reason,
            facts=denial.facts if isinstance(denial, MeasuredDenial) else None,
            rule_ids=denial.rule_ids if isinstance(denial, PolicyDenial | MeasuredDenial) else (),
            evidence=evidence,
        )

        def decide(state: FederationState, now_us: int) -> Proposal:
            envelope, update = request.envelope, request.update
            if (
                envelope is not None
                and update is not None
                and is_admitted(state, request.peer, envelope, update, now_us)
            ):
                raise DecisionChangedError("the update was admitted meanwhile")
            if evidence is Evidence.OBJECT and holds is not None and not holds(state, now_us):
                raise DecisionChangedError("the payload was refused on a state that the log has left")
            # A replay of an update whose participant has another key by now: no entry could quote it.
            is_unquotable = not held and denial.reason not in UNQUOTED_REASONS
            if is_unquotable or not gets_entry(state, request.peer, request.update, denial.reason):
                raise _CountedInsteadError
            return Proposal(stream_of_refusal(state, request.update), body)

        try:
            index: int | None = self._writer.write(decide).logged.index
        except _CountedInsteadError:
            self._counter.count(denial.reason, PeerClass.PARTICIPANT, request.request_digest)
            index = None
        except ConflictError as conflict:
            if conflict.reason == "refusal":
                raise DecisionChangedError("the log gives another reason by now") from None
            raise
        except DeniedError as refused:
            _log.warning("refusal_not_taken", reason=refused.reason)
            raise UnavailableError("the refusal could not be logged: nothing was decided, try again") from None
        _log.info("update_refused", peer=request.peer, reason=denial.reason, index=index)
        # The entry names these rules, and the peer cannot read it.
        forbidden = f": forbidden by {', '.join(body.rule_ids)}" if body.rule_ids else ""
        return DeniedError(denial.reason, f"{denial}{forbidden}", entry_index=index)

    @staticmethod
    def _evidence(request: RefusedRequest, denial: DeniedError, payload_kept: bool) -> Evidence:
        if not request.signature_held or denial.reason in ON_WORD:
            return Evidence.NONE
        if denial.reason in DECODING_REASONS or isinstance(denial, MeasuredDenial):
            return Evidence.OBJECT if payload_kept else Evidence.NONE
        return Evidence.LOG


class _CountedInsteadError(SfrlError):
    """The peer has had its single entries of this kind, or no entry can say this one."""
