"""Fraud proofs, verified: from the file and the trust policy alone.

Each note must be one that the log answers for: under the newest generation of its keys, or under an older one and the
witness quorum. Keys that are retired may have been stolen since, so a note under them alone accuses nobody.

Rules: proto/README.md, "Fraud proofs".

Runs in: participants' and auditors' machines.
Trusts: the trust policy. Nothing in the proof.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

from sfrl_secure.audit.fraud import FraudProof, LeftOut, ProvenEntry, TwoEntries, TwoHistories
from sfrl_secure.errors import MalformedError, MissingEvidenceError, VerificationError
from sfrl_secure.governance.statements import Body, RoundClosed, Statement, UpdateAdmitted
from sfrl_secure.translog.entries import LogEntry, LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash, root_of
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import NO_QUORUM, TrustPolicy
from sfrl_secure.translog.proofs import ConsistencyProof, InclusionProof, verify_consistency, verify_inclusion
from sfrl_secure.wire.content import parse_content, stream_of
from sfrl_secure.wire.entries import parse_entry

B = TypeVar("B", bound=Body)


def rests_on_retired_keys(opened: OpenedCheckpoint, policy: TrustPolicy) -> bool:
    """Whether nothing but keys that the log no longer uses vouches for a checkpoint."""
    return not opened.is_current and (policy.quorum == NO_QUORUM or not opened.quorum_met)


def open_accusing(note: bytes, policy: TrustPolicy) -> OpenedCheckpoint:
    """Open a note that is to be held against its log.

    Raises:
        MalformedError: not a checkpoint note.
        VerificationError: it is not under the log's keys.
        MissingEvidenceError: it is under retired keys alone.
    """
    opened = open_checkpoint(note, policy, quorum=False, archived=True)
    if rests_on_retired_keys(opened, policy):
        raise MissingEvidenceError(
            "a checkpoint rests on retired keys of the log alone: whoever has stolen them since can have made it"
        )
    return opened


def verify_fraud(proof: FraudProof, policy: TrustPolicy) -> str:
    """Verify a proof, and say in one sentence what it proves.

    Raises:
        VerificationError: it proves nothing: a signature or a path does not hold, or nothing in it is contradicted.
        MalformedError: something in it does not parse.
        MissingEvidenceError: it rests on keys that the log no longer uses.
    """
    match proof:
        case TwoEntries():
            return _verify_two_entries(proof, policy)
        case TwoHistories():
            return _verify_two_histories(proof, policy)
        case LeftOut():
            return _verify_left_out(proof, policy)


def _verify_two_entries(proof: TwoEntries, policy: TrustPolicy) -> str:
    first, first_entry = _open_entry(proof.first, policy)
    second, second_entry = _open_entry(proof.second, policy)
    _check_one_log(first, second)
    if proof.first.logged.raw == proof.second.logged.raw:
        raise VerificationError("the two entries are the same")
    stream = stream_of(first_entry.envelope)
    position = first_entry.stream_seq
    if stream is not None and (stream, position) == (stream_of(second_entry.envelope), second_entry.stream_seq):
        return f"the log put another entry at position {position} of {stream}"
    if proof.first.logged.index == proof.second.logged.index:
        return f"the log put another entry at index {proof.first.logged.index}"
    raise VerificationError("the two entries stand at two places: both can be in one log")


def _verify_two_histories(proof: TwoHistories, policy: TrustPolicy) -> str:
    older, newer = open_accusing(proof.older, policy), open_accusing(proof.newer, policy)
    _check_one_log(older, newer)
    size = older.checkpoint.size
    try:
        consistency = ConsistencyProof(size, newer.checkpoint.size, proof.path)
    except MalformedError as error:
        raise VerificationError(str(error)) from None
    verify_consistency(consistency, proof.past_root, newer.checkpoint.root)
    if proof.past_root == older.checkpoint.root:
        raise VerificationError("the newer history goes on from the older one")
    return f"the log signed two histories: two roots over its first {size} entries"


def _verify_left_out(proof: LeftOut, policy: TrustPolicy) -> str:
    opened = open_accusing(proof.checkpoint, policy)
    admission, admitted = _open_statement(proof.admitted, opened, UpdateAdmitted)
    closing, closed = _open_statement(proof.round_closed, opened, RoundClosed)
    update, digest = admitted.update, admitted.envelope.digest
    stream = f"segment/{update.segment}"
    if stream_of(admission.envelope) != stream or stream_of(closing.envelope) != stream:
        raise VerificationError("admission and closing are not in the stream of the update's segment")
    if proof.admitted.index >= proof.round_closed.index or admission.stream_seq >= closing.stream_seq:
        raise VerificationError("the admission does not come before the closing")
    if closed.round != update.round:
        raise VerificationError("the closing is that of another round")
    if any(each.statement_digest == digest for each in closed.dropped):
        raise VerificationError("the closing names the update as dropped")
    if any(not one.participant < other.participant for one, other in pairwise(proof.counted)):
        raise VerificationError("the counted updates are not sorted by participant")
    root = root_of(leaf_hash(each.leaf) for each in proof.counted)
    if (closed.counted_count, closed.counted_root) != (len(proof.counted), root):
        raise VerificationError("the counted updates are not those of the closing")
    if any(each.statement_digest == digest for each in proof.counted):
        raise VerificationError("the closing counts the update")
    return (
        f"the closing of round {closed.round} of {stream} left out the update of {update.participant} that the log "
        f"had admitted at position {admission.stream_seq}"
    )


def _check_one_log(first: OpenedCheckpoint, second: OpenedCheckpoint) -> None:
    if first.checkpoint.origin != second.checkpoint.origin:
        raise VerificationError("the checkpoints are of two logs")


def _open_entry(proven: ProvenEntry, policy: TrustPolicy) -> tuple[OpenedCheckpoint, LogEntry]:
    opened = open_accusing(proven.checkpoint, policy)
    return opened, _included(proven.logged, opened)


def _open_statement(logged: LoggedEntry, opened: OpenedCheckpoint, body: type[B]) -> tuple[LogEntry, B]:
    entry = _included(logged, opened)
    content = parse_content(entry.envelope)
    if not isinstance(content, Statement) or not isinstance(content.body, body):
        raise VerificationError("an entry is not of the kind that it stands for")
    return entry, content.body


def _included(logged: LoggedEntry, opened: OpenedCheckpoint) -> LogEntry:
    checkpoint = opened.checkpoint
    try:
        proof = InclusionProof(logged.index, checkpoint.size, logged.path)
    except MalformedError as error:
        raise VerificationError(str(error)) from None
    verify_inclusion(logged.raw, proof, checkpoint.root)
    return parse_entry(logged.raw)
