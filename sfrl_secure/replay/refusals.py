"""Refusals, decided again where there is evidence, and booked as on word where there is none.

Format: proto/README.md, "Statements", update_refused; "Admission".

Runs in: verifier.
Trusts: the replay's state. The gatekeeper's word where the log says that nothing else is there.
"""

from __future__ import annotations

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.ids import SpiffeId
from sfrl_secure.replay.admission import (
    PayloadDecision,
    is_of,
    is_signed,
    log_reason,
    passed,
    payload_decision,
    submit_decision,
)
from sfrl_secure.replay.docket import Docket, Position
from sfrl_secure.replay.findings import Void
from sfrl_secure.replay.state import State
from sfrl_secure.replay.statements import LOG_EVIDENCE, NO_EVIDENCE, OBJECT_EVIDENCE, Statement, UpdateRefused
from sfrl_secure.replay.words import Update

_OF_THE_PAYLOAD = frozenset(
    {
        # Step 12.
        "payload_format", "payload_shape", "payload_declared", "payload_length", "payload_digest", "not_canonical",
        "out_of_range", "not_finite", "off_grid", "magnitude",
        # Step 13.
        "norm_limit", "magnitude_limit", "tensor_not_allowed", "leak_coordinates", "leak_rows", "leak_labels",
        "leak_noise",
        # Step 14.
        "policy_denied", "policy_error",
    }
)  # fmt: skip
"""Reasons that only the payload shows: what has evidence OBJECT."""
_NOT_RECEIVED = "not_received"
_ON_WORD = _OF_THE_PAYLOAD | {"digest_mismatch", _NOT_RECEIVED}
"""Reasons that a gatekeeper may give of a signed update without evidence."""
_UNQUOTED = frozenset({"malformed", "bad_signature"})
"""Reasons for which there is no update to quote."""

_SINGLE_REFUSALS_MAX = 3
_DAY_US = 86_400_000_000
_DEADLINE_MARGIN_US = 2_000_000
"""How long before a deadline the door closes, so that what it lets through is in the log in time."""


def apply_refusal(state: State, docket: Docket, statement: Statement, body: UpdateRefused, at: Position) -> None:
    """update_refused: a recorded peer's request was refused, for the reason that the evidence gives."""
    if body.peer not in state.issued:
        raise Void("peer_unknown", "a peer to which an identity was issued", body.peer)
    if body.envelope is None or body.update is None:
        if body.evidence != NO_EVIDENCE or body.reason not in _UNQUOTED:
            raise Void("refusal_evidence", "no evidence, and a reason for which no envelope is quoted", body.reason)
    else:
        if not is_signed(state, body.envelope, body.update):
            raise Void("bad_signature", "a quoted update is signed by its participant's key in force", "it is not")
        _check_reason(state, body, body.envelope, body.update, at.log_time_us)
    segment = None if statement.segment is None else state.segments[statement.segment]
    kind = (str(body.peer), statement.stream, body.reason, 0 if segment is None else segment.last_round)
    if state.refusals[kind] >= _SINGLE_REFUSALS_MAX:
        raise Void("refusal_count", f"{_SINGLE_REFUSALS_MAX} single refusals of a kind", "one more")
    state.refusals[kind] += 1
    if body.envelope is not None and body.update is not None and is_of(body.peer, body.update):
        state.refused_updates.add(body.envelope.digest)
    docket.refused[body.reason] += 1
    if body.evidence == NO_EVIDENCE:
        docket.refusals_on_word += 1
    elif body.evidence == OBJECT_EVIDENCE:
        assert body.update is not None, "evidence needs an envelope"
        _decide_payload(state, docket, body, body.update, at)


def _check_reason(state: State, body: UpdateRefused, envelope: Envelope, update: Update, now_us: int) -> None:
    """What the log shows of the reason: with evidence LOG all of it, else that nothing spoke against the update yet."""
    if body.evidence == OBJECT_EVIDENCE and body.reason not in _OF_THE_PAYLOAD:
        raise Void("refusal_evidence", "with an object, a reason that a payload gives", body.reason)
    if body.evidence == NO_EVIDENCE and body.reason not in _ON_WORD:
        raise Void("refusal_evidence", "without evidence, a reason that the log cannot show", body.reason)
    if body.reason == _NOT_RECEIVED and body.evidence == NO_EVIDENCE:
        # The gatekeeper never had the update, and has decided nothing.
        return
    margin_us = _DEADLINE_MARGIN_US if body.reason == "deadline" else 0
    found = _decision_in_log(state, body.peer, envelope, update, now_us, margin_us)
    expected = body.reason if body.evidence == LOG_EVIDENCE else ""
    if found.reason != expected:
        raise Void("refusal_reason", found.reason or "no reason before the payload", body.reason)
    if body.evidence == LOG_EVIDENCE and body.rule_ids != _denying(found):
        raise Void("refusal_rules", _names(_denying(found)), _names(body.rule_ids))


def _decision_in_log(
    state: State, peer: SpiffeId, envelope: Envelope, update: Update, now_us: int, margin_us: int
) -> PayloadDecision:
    """Steps 3 to 9."""
    reason = log_reason(state, peer, envelope, update, now_us, margin_us=margin_us)
    if reason:
        return PayloadDecision(reason)
    opened, participant = passed(state, update)
    return submit_decision(state.rules(now_us), opened.terms, participant, update)


def _denying(decision: PayloadDecision) -> tuple[str, ...]:
    """The rules that a refusal names: of `policy_denied` those of the decision that denies, of all else none."""
    return decision.rule_ids if decision.reason == "policy_denied" else ()


def _names(rule_ids: tuple[str, ...]) -> str:
    return ", ".join(rule_ids) or "no rules"


def _decide_payload(state: State, docket: Docket, body: UpdateRefused, update: Update, at: Position) -> None:
    """Steps 11 to 14 over the payload that was kept: the log cannot check this, so a false reason voids nothing."""
    opened, participant = passed(state, update)
    payload = docket.try_read(update.payload_sha256, at, update.payload_bytes)
    if payload is None:
        kept_until_us = at.log_time_us + opened.terms.evidence_days * _DAY_US
        docket.miss_until(update.payload_sha256, at.index, kept_until_us)
        return
    decision = payload_decision(state.rules(at.log_time_us), opened, participant, update, payload)
    if decision is None:
        return  # The mask is missing, which was noted when the round opened.
    if decision.reason != body.reason:
        docket.find("refusal_reason", at, decision.reason or "admission", body.reason, is_acceptable=True)
    elif body.rule_ids != _denying(decision):
        expected, found = _names(_denying(decision)), _names(body.rule_ids)
        docket.find("refusal_rules", at, expected, found, is_acceptable=True)
    elif body.facts is not None and body.facts != decision.facts:
        docket.find("refusal_facts", at, str(decision.facts), str(body.facts), is_acceptable=True)
