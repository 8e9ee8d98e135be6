"""What participants sign beside updates, as it takes effect: withdrawals, complaints, decisions.

Format: proto/README.md, "What participants sign".

Runs in: verifier.
Trusts: the replay's state. The gatekeeper, verifier or auditor that wrote the entry vouches for nothing in it.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.replay.admission import is_signed
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.findings import Void
from sfrl_secure.replay.segments import Complaint, Round, Segment
from sfrl_secure.replay.state import DecisionOnRecord, State
from sfrl_secure.replay.statements import ComplaintRecorded, DecisionRecorded, UpdateWithdrawn
from sfrl_secure.replay.words import ByParticipant, Update, Withdrawal


def apply_withdrawn(state: State, docket: Docket, segment: Segment, name: str, body: UpdateWithdrawn) -> None:
    """update_withdrawn: it counts towards the cohort, and towards no model."""
    word = body.withdrawal
    _check_word(state, name, body.envelope, word)
    opened = _round_of(segment, word)
    admission = opened.admissions.get(word.participant)
    if admission is None or admission.statement_digest != word.update or word.participant in opened.withdrawn:
        raise Void("withdrawal", "an admission of the participant that is not withdrawn", word.update.hex())
    opened.withdrawn.add(word.participant)
    docket.withdrawals += 1


def apply_complaint(
    state: State, docket: Docket, segment: Segment, name: str, body: ComplaintRecorded, at: Position
) -> None:
    """complaint_recorded: an update was shown, and what becomes of it is asked at the close of its round."""
    word = body.update
    _check_word(state, name, body.envelope, word)
    _check_active(state, word, at.log_time_us)
    opened = _round_of(segment, word)
    if word.participant in opened.complaints:
        raise Void("complaint", "one complaint of a participant in a round", "another")
    opened.complaints[word.participant] = Complaint(at.index, at.log_time_us, body.envelope.digest)
    docket.complaints += 1


def apply_decision(
    state: State, docket: Docket, segment: Segment, name: str, body: DecisionRecorded, at: Position
) -> None:
    """decision_recorded: a participant decided something with one of the segment's models."""
    word = body.decision
    _check_word(state, name, body.envelope, word)
    _check_active(state, word, at.log_time_us)
    record, terms = state.participant(word.participant), state.terms(name)
    assert record is not None, "it is active"
    assert terms is not None, "the segment has terms"
    if "record" not in terms.operations or not record.groups & terms.groups:
        raise Void("not_granted", "a group that is granted, and the operation `record`", "none")
    last = segment.record_seqs.get(word.participant, 0)
    if word.record_seq <= last:
        raise Void("record_seq", f"a number above {last}", str(word.record_seq))
    if word.model not in segment.models:
        raise Void("model_unknown", "the initial model or a published one", word.model.hex())
    segment.record_seqs[word.participant] = word.record_seq
    state.decisions[body.envelope.digest] = DecisionOnRecord(name, word.participant, word.predicted_class)
    docket.decisions += 1


def _check_word(state: State, name: str, envelope: Envelope, word: ByParticipant) -> None:
    if word.federation_id != state.federation_id:
        raise Void("wrong_federation", state.federation_id.hex(), word.federation_id.hex())
    if word.segment != name:
        raise Void("stream", f"segment/{name}", f"segment/{word.segment}")
    if not is_signed(state, envelope, word):
        raise Void("bad_signature", "exactly one signature, by the participant's key in force", "another")


def _check_active(state: State, word: ByParticipant, now_us: int) -> None:
    if not state.is_active(word.participant, now_us):
        raise Void("participant_inactive", "an active participant", word.participant)


def _round_of(segment: Segment, word: Withdrawal | Update) -> Round:
    """The open round, which the word is about. One that an order has ended is open until it is closed."""
    opened = segment.open_round
    if opened is None or word.round != opened.number:
        raise Void("round_not_open", "the open round", f"round {word.round}")
    if word.round_opened != opened.opened:
        raise Void("wrong_prefix", opened.opened.hex(), word.round_opened.hex())
    return opened
