"""Verdicts: what a gatekeeper's admission or refusal must say to have effect, and what it changes.

Whoever signs one, the log decides again all that it can: an admission passes steps 4 to 8 at its own index, and a
refusal that claims evidence in the log has exactly the reason and the rules that the log gives there.

Format: proto/README.md, "update_admitted", and "Statements", update_refused.

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the fold, which verified writer, stream and reads. No gatekeeper.
"""

from __future__ import annotations

from sfrl_secure.errors import ConflictError, DeniedError, RoundStateError
from sfrl_secure.governance.statements import UPDATE_TYPE, Evidence, UpdateAdmitted, UpdateRefused
from sfrl_secure.limits import DEADLINE_MARGIN_US, SINGLE_REFUSALS_MAX
from sfrl_secure.rounds.admission import NOT_RECEIVED, check_log_steps, check_signed, denial_in_log
from sfrl_secure.rounds.quota import take_use
from sfrl_secure.rounds.state import Admission, FederationState, RefusedUpdate, SegmentState

DECODING_REASONS = frozenset(
    {
        "payload_format", "payload_shape", "payload_declared", "payload_length", "payload_digest",
        "not_canonical", "out_of_range", "not_finite", "off_grid", "magnitude",
    }
)
"""Reasons of step 12: the payload itself is the evidence."""

_OF_THE_PAYLOAD = DECODING_REASONS | {
    "norm_limit", "magnitude_limit", "tensor_not_allowed", "leak_coordinates", "leak_rows", "leak_labels",
    "leak_noise", "policy_denied", "policy_error",
}
"""Reasons of steps 12 to 14."""

_REASONS_WITH = {
    Evidence.OBJECT: _OF_THE_PAYLOAD,
    Evidence.NONE: _OF_THE_PAYLOAD | {"digest_mismatch", NOT_RECEIVED},
}
"""What a refusal that quotes an update may say with each evidence; with LOG it says what the log gives."""

UNQUOTED_REASONS = frozenset({"malformed", "bad_signature"})
"""Reasons of a refusal that quotes none."""

_DAY_US = 86_400_000_000


def check_admitted(state: FederationState, segment: SegmentState, body: UpdateAdmitted, log_time_us: int) -> None:
    """Check an admission as far as the log can.

    Raises:
        ConflictError: the round, or the cohort, is not as the gatekeeper saw it.
        DeniedError: another of steps 4 to 8; `stream`, `retention`.
    """
    if body.update.segment != segment.terms.segment:
        raise DeniedError("stream", "the update belongs to another segment's stream")
    try:
        _, opened = check_log_steps(state, None, body.envelope, body.update, log_time_us, margin_us=0)
    except RoundStateError as raced:
        raise ConflictError(str(raced), reason=raced.reason) from None
    if body.retain_until_us < log_time_us + opened.terms.retention_days * _DAY_US:
        raise DeniedError("retention", "the payload must be kept for the terms' retention days")


def take_admitted(
    state: FederationState, segment: SegmentState, body: UpdateAdmitted, index: int, log_time_us: int
) -> None:
    """Put an update into its round."""
    record = state.participant(body.update.participant)
    assert record is not None, "its check found the participant"
    admission = Admission(
        index=index,
        statement_digest=body.envelope.digest,
        update=body.update,
        facts=body.facts,
        rule_ids=body.rule_ids,
        participant=record,
        participant_index=state.index_of_document(record.series),
        services_index=state.index_of_document(("services", "")),
        rules=state.rules(log_time_us),
        retain_until_us=body.retain_until_us,
    )
    segment.rounds[body.update.round].admissions[record.name] = admission
    state.admitted_updates[admission.statement_digest] = admission
    take_use(segment, body.update, log_time_us)


def check_refused(state: FederationState, stream: str, body: UpdateRefused, log_time_us: int) -> None:
    """Check a refusal: its peer is on record, its update signed, and what it claims of the log is so.

    What speaks of the payload claims that the log's own steps let the update pass.

    Raises:
        ConflictError: `refusal`, the log gives another reason or other rules at this point; `counted`, the peer has as
            many refusals of this kind as get an entry.
        DeniedError: `unknown_peer`, `bad_signature`, `evidence`.
    """
    if body.peer not in state.recorded_peers:
        raise DeniedError("unknown_peer", "only a recorded peer's refusal is an entry")
    if body.envelope is not None and body.update is not None:
        update = body.update
        check_signed(state, body.envelope, UPDATE_TYPE, update.participant, update.key_id)
        if body.reason not in _REASONS_WITH.get(body.evidence, {body.reason}):
            raise DeniedError("evidence", "this evidence shows no such reason")
        if body.evidence is not Evidence.NONE or body.reason != NOT_RECEIVED:
            # The gatekeeper refused by its own clock, up to this long before the log's deadline.
            margin_us = DEADLINE_MARGIN_US if body.reason == "deadline" else 0
            found = denial_in_log(state, body.peer, body.envelope, update, log_time_us, margin_us=margin_us)
            if found != ((body.reason, body.rule_ids) if body.evidence is Evidence.LOG else None):
                raise ConflictError("the log gives another reason now", reason="refusal")
    elif body.evidence is not Evidence.NONE or body.reason not in UNQUOTED_REASONS:
        raise DeniedError("evidence", "without an envelope there is no evidence, and two reasons need none")
    key = state.refusal_key(body.peer, stream, body.reason)
    if state.single_refusals.get(key, 0) >= SINGLE_REFUSALS_MAX:
        raise ConflictError(f"a peer gets {SINGLE_REFUSALS_MAX} refusal entries of a kind", reason="counted")


def take_refused(state: FederationState, stream: str, body: UpdateRefused, index: int) -> None:
    """Count a refusal, and keep it as this peer's answer for its update."""
    key = state.refusal_key(body.peer, stream, body.reason)
    state.single_refusals[key] = state.single_refusals.get(key, 0) + 1
    if body.envelope is not None and body.reason != NOT_RECEIVED:
        state.refused_updates.setdefault((body.envelope.digest, body.peer), RefusedUpdate(index, body.reason))
