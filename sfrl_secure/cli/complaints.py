"""Putting a complaint on record, as the auditor whom it was shown to.

An auditor signs nothing that it has not looked at: the log is followed and verified, and the update must be signed by
the participant that it names, for the round that is open now. The log decides the same again.

Format: proto/README.md, "What participants sign", complaint_recorded.

Runs in: auditors' machines, cli.
Trusts: the trust policy. Not the complaint file, and nothing that the log answers before it is proven.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Protocol

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError, DeniedError
from sfrl_secure.governance.statements import STATEMENT_TYPE, ComplaintRecorded, Statement, UpdateStatement
from sfrl_secure.ids import SpiffeId
from sfrl_secure.limits import STATEMENT_LIFETIME_US
from sfrl_secure.operating.following import FollowSource, follow_state
from sfrl_secure.participant.acknowledgement import acknowledgement_file, open_acknowledgement
from sfrl_secure.participant.sent import parse_complaint
from sfrl_secure.rounds.participants import check_complaint
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.statements import encode_statement

ATTEMPTS_MAX = 5
"""How often the log is read again where it moved on between the reading and the writing."""

_ADVICE = {
    "round_not_open": "its round is closed, or is not the one that is open: there is nothing left to answer",
    "complained": "a complaint of this participant in the round is on record already",
    "participant_inactive": "the participant is suspended, revoked or expired: nobody owes it an answer",
    "unknown_segment": "the log has no such segment: is this the right federation's profile?",
    "wrong_federation": "it was signed for another federation: is this the right profile?",
    "bad_signature": "the participant that it names did not sign it with its key in force",
}


class ComplaintLog(FollowSource, Protocol):
    """A log to follow and to append to: `rpc.clients.AuditLogClient`, or one in memory."""

    def append(self, envelope: Envelope) -> AppendedEntry:
        """Append an envelope, once, however often it is tried."""
        ...


@dataclass(frozen=True, slots=True)
class RecordedComplaint:
    """A complaint in the log, proven.

    Attributes:
        receipt: the `.tlog-proof` with the entry in it, to keep.
    """

    update: UpdateStatement
    index: int
    receipt: bytes


def record_complaint(
    raw: bytes, log: ComplaintLog, policy: TrustPolicy, key: SigningKey, auditor: SpiffeId, clock: Clock
) -> RecordedComplaint:
    """Sign a complaint as the auditor, append it, and verify that the log has it.

    Args:
        raw: the complaint file.
        key: the auditor's, which the services document names.

    Raises:
        MalformedError: the file is no complaint.
        DeniedError: it would have no effect; says why.
        ConflictError: the log moved on each time.
        UnavailableError: the log does not answer.
        VerificationError: the log contradicts itself, or its answer does not prove the entry.
    """
    body = ComplaintRecorded(*parse_complaint(raw))
    for attempt in range(ATTEMPTS_MAX):
        state = follow_state(log, policy)
        signed = _sign(state, body, key, auditor, clock.now_us())
        try:
            acknowledged = log.append(signed)
        except ConflictError:
            if attempt + 1 == ATTEMPTS_MAX:
                raise
            continue
        open_acknowledgement(acknowledged, body.envelope, body.update.segment, policy, ComplaintRecorded)
        return RecordedComplaint(body.update, acknowledged.logged.index, acknowledgement_file(acknowledged))
    raise AssertionError("ATTEMPTS_MAX is at least 1")


def _sign(
    state: FederationState, body: ComplaintRecorded, key: SigningKey, auditor: SpiffeId, now_us: int
) -> Envelope:
    services = state.services()
    named = None if services is None else services.auditor_by_key(key.public_key.key_id)
    if named is None or named.spiffe_id != auditor:
        raise DeniedError("writer", "the services document in force does not name this auditor with this key")
    try:
        segment = state.segment(body.update.segment)
        check_complaint(state, segment, body, now_us)
    except DeniedError as denied:
        advice = _ADVICE.get(denied.reason, str(denied))
        raise DeniedError(denied.reason, f"the complaint would have no effect: {advice}") from None
    statement = Statement(
        federation_id=state.federation_id,
        stream=f"segment/{body.update.segment}",
        writer=auditor,
        key_id=key.public_key.key_id,
        reads_governance=state.governance_head,
        reads_segment=segment.control_head,
        valid_until_us=now_us + STATEMENT_LIFETIME_US,
        request_id=secrets.token_bytes(16),
        body=body,
    )
    return sign_envelope(STATEMENT_TYPE, encode_statement(statement), [key])
