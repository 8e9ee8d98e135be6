"""Deciding withdrawals: an update is taken back by the participant that sent it, while its round is open.

Format: proto/README.md, "What participants sign", update_withdrawn.

Runs in: gatekeeper.
Trusts: the state of the fold. Nothing in the request.
"""

from __future__ import annotations

from sfrl_secure.governance.statements import UpdateWithdrawn
from sfrl_secure.ids import SpiffeId
from sfrl_secure.rounds.participants import check_withdrawn
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.services.gatekeeper.words import check_speaker
from sfrl_secure.wire.gatekeeper_service import WithdrawRequest


def decide_withdrawal(state: FederationState, peer: SpiffeId, asked: WithdrawRequest) -> int | UpdateWithdrawn:
    """Decide whether the update is taken back.

    Returns: what to write; or the leaf index of its entry, where this very withdrawal is on record.

    Raises:
        DeniedError: `wrong_peer`, `unknown_segment`, `wrong_federation`, `bad_signature`.
        RoundStateError: `round_not_open`, `wrong_prefix`, `not_admitted`, `withdrawn`.
    """
    said = asked.withdrawal
    check_speaker(peer, said.participant)
    segment = state.segment(said.segment)
    current = segment.rounds.get(said.round)
    known = None if current is None else current.withdrawn.get(said.participant)
    if known is not None and known.statement_digest == asked.envelope.digest:
        return known.index
    body = UpdateWithdrawn(asked.envelope_raw, asked.envelope, said)
    check_withdrawn(state, segment, body)
    return body
