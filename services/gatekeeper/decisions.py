"""Deciding decision records: a participant says what a model of the segment decided.

Format: proto/README.md, "What participants sign", decision_recorded.

Runs in: gatekeeper.
Trusts: the state of the fold. Nothing in the request.
"""

from __future__ import annotations

from sfrl_secure.governance.statements import DecisionRecorded
from sfrl_secure.ids import SpiffeId
from sfrl_secure.rounds.participants import check_decision_recorded
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.services.gatekeeper.words import check_speaker
from sfrl_secure.wire.gatekeeper_service import RecordRequest


def decide_record(
    state: FederationState, peer: SpiffeId, asked: RecordRequest, now_us: int
) -> int | DecisionRecorded:
    """Decide whether the decision goes on record.

    Returns: what to write; or the leaf index of its entry, where this very decision is on record.

    Raises:
        DeniedError: `wrong_peer`, `unknown_segment`, `wrong_federation`, `bad_signature`, `participant_inactive`,
            `not_granted`, `record_seq`, `unknown_model`.
    """
    said = asked.decision
    check_speaker(peer, said.participant)
    known = state.decisions.get(asked.envelope.digest)
    if known is not None:
        return known.index
    body = DecisionRecorded(asked.envelope_raw, asked.envelope, said)
    check_decision_recorded(state, state.segment(said.segment), body, now_us)
    return body
