"""What participants sign beside updates, once it is in the log: withdrawals, complaints and decisions.

`check_*` raises and changes nothing; `take_*` changes and cannot fail, because its check came first.

Format: proto/README.md, "What participants sign".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the fold, which verified writer, stream and reads. Nothing in what a participant says.
"""

from __future__ import annotations

from sfrl_secure.errors import DeniedError, RoundStateError
from sfrl_secure.governance.statements import (
    DECISION_TYPE,
    UPDATE_TYPE,
    WITHDRAWAL_TYPE,
    ComplaintRecorded,
    DecisionRecorded,
    DecisionStatement,
    UpdateStatement,
    UpdateWithdrawn,
    WithdrawalStatement,
)
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.admission import check_active, check_signed
from sfrl_secure.rounds.state import (
    Complaint,
    FederationState,
    RecordedDecision,
    RoundState,
    SegmentState,
    Withdrawal,
)


def check_withdrawn(state: FederationState, segment: SegmentState, body: UpdateWithdrawn) -> None:
    """Check that an update may be taken back: its participant says so, active or not, while the round is open.

    Raises:
        DeniedError: `stream`, `bad_signature`, `wrong_federation`.
        RoundStateError: `round_not_open`, `wrong_prefix`, `not_admitted`, `withdrawn`.
    """
    said = body.withdrawal
    _check_place(state, segment, said)
    check_signed(state, body.envelope, WITHDRAWAL_TYPE, said.participant, said.key_id)
    opened = _open_round(segment, said.round, said.round_opened)
    admission = opened.admissions.get(said.participant)
    if admission is None or admission.statement_digest != said.update:
        raise RoundStateError("not_admitted", "the round has no such update of this participant")
    if said.participant in opened.withdrawn:
        raise RoundStateError("withdrawn", "the update is withdrawn already")


def take_withdrawn(segment: SegmentState, body: UpdateWithdrawn, index: int) -> None:
    """Drop the update at the round's close."""
    said = body.withdrawal
    segment.rounds[said.round].withdrawn[said.participant] = Withdrawal(index, body.envelope.digest)


def check_complaint(
    state: FederationState, segment: SegmentState, body: ComplaintRecorded, log_time_us: int
) -> None:
    """Check a complaint: one a participant in a round, while the round is open.

    Raises:
        DeniedError: `stream`, `bad_signature`, `wrong_federation`, `participant_inactive`.
        RoundStateError: `round_not_open`, `wrong_prefix`, `complained`.
    """
    update = body.update
    _check_place(state, segment, update)
    record = check_signed(state, body.envelope, UPDATE_TYPE, update.participant, update.key_id)
    check_active(state, record, log_time_us)
    opened = _open_round(segment, update.round, update.round_opened)
    if update.participant in opened.complaints:
        raise RoundStateError("complained", "the participant has complained in this round already")


def take_complaint(segment: SegmentState, body: ComplaintRecorded, index: int, log_time_us: int) -> None:
    """Put a complaint on record: it is answered by the round's close, or censorship."""
    complaint = Complaint(index, log_time_us, body.envelope.digest)
    segment.rounds[body.update.round].complaints[body.update.participant] = complaint


def check_decision_recorded(
    state: FederationState, segment: SegmentState, body: DecisionRecorded, log_time_us: int
) -> None:
    """Check that a participant may record this decision.

    Raises:
        DeniedError: `stream`, `bad_signature`, `wrong_federation`, `participant_inactive`, `not_granted`,
            `unknown_model`.
        RoundStateError: `record_seq`.
    """
    said, terms = body.decision, segment.terms
    _check_place(state, segment, said)
    record = check_signed(state, body.envelope, DECISION_TYPE, said.participant, said.key_id)
    check_active(state, record, log_time_us)
    if "record" not in terms.operations or not record.groups & terms.groups:
        raise DeniedError("not_granted", "no group of the participant is granted records in this segment")
    if said.record_seq <= segment.decision_seqs.get(said.participant, 0):
        # A gatekeeper that lags may hold this very decision for a new one: it is to read on and decide again.
        raise RoundStateError("record_seq", "a record's number is above that of the participant's last one")
    if said.model not in segment.models:
        raise DeniedError("unknown_model", "the model is not one of the segment's")


def take_decision(state: FederationState, segment: SegmentState, body: DecisionRecorded, index: int) -> None:
    """Put a decision on record, where an order may override it."""
    said = body.decision
    segment.decision_seqs[said.participant] = said.record_seq
    state.decisions[body.envelope.digest] = RecordedDecision(
        index, said.segment, said.participant, said.predicted_class
    )


def _check_place(
    state: FederationState, segment: SegmentState, said: WithdrawalStatement | UpdateStatement | DecisionStatement
) -> None:
    if said.federation_id != state.federation_id:
        raise DeniedError("wrong_federation", "signed for another federation")
    if said.segment != segment.terms.segment:
        raise DeniedError("stream", "signed for another segment than the stream's")


def _open_round(segment: SegmentState, number: int, round_opened: Digest) -> RoundState:
    opened = segment.open_round
    if opened is None or opened.number != number:
        raise RoundStateError("round_not_open", "the round is not open")
    if opened.opened != round_opened:
        raise RoundStateError("wrong_prefix", "signed for another history of the log")
    return opened
