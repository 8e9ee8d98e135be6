"""A receipt held against a log as it is today: consistent, a fraud, or more evidence is needed.

The log's checkpoint must open under its newest keys, and its tiles must lead to it. Then the past is recomputed from
the tiles: the root at the receipt's size is the receipt's, or the log has signed two histories. Whatever accuses the
log holds for anyone who has the trust policy, without this copy.

Rules: proto/README.md, "Receipts", "Fraud proofs".

Runs in: participants' and auditors' machines.
Trusts: the trust policy, and the receipt as far as its caller has opened it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from sfrl_secure.audit.counting import Counting, LogInHand, find_fate
from sfrl_secure.audit.fraud import FraudProof, ProvenEntry, TwoEntries, TwoHistories
from sfrl_secure.audit.fraud_check import rests_on_retired_keys, verify_fraud
from sfrl_secure.audit.leaves import open_tree
from sfrl_secure.audit.source import LogSource
from sfrl_secure.audit.structure import entries_of
from sfrl_secure.errors import MalformedError, MissingEvidenceError, VerificationError
from sfrl_secure.governance.statements import Statement, UpdateAdmitted
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.content import parse_content, stream_of
from sfrl_secure.wire.entries import parse_entry


class Verdict(StrEnum):
    """What a log's copy says of a receipt."""

    CONSISTENT = "consistent"
    FRAUD = "fraud"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A receipt against a log.

    Attributes:
        sentence: why, for people.
        log: the log's newest checkpoint; None where none could be opened.
        counting: what became of the update; None where the entry is no admission, or the verdict comes before that.
        proof: of a fraud, where few entries show it.
    """

    verdict: Verdict
    sentence: str
    log: OpenedCheckpoint | None = None
    counting: Counting | None = None
    proof: FraudProof | None = None


def compare_with_log(
    receipt: OpenedCheckpoint,
    logged: LoggedEntry,
    source: LogSource,
    policy: TrustPolicy,
    tell: Callable[[str, int, int], None],
) -> Comparison:
    """Hold a receipt against a log.

    Args:
        receipt: its checkpoint, opened; archived keys are allowed.
        logged: its entry, whose path leads there.
        tell: is given a stage, how far it is, and of how much.

    Raises:
        MalformedError: the folder holds another log.
    """
    try:
        newest = _open_newest(source, policy)
    except MissingEvidenceError as error:
        return Comparison(Verdict.MISSING, str(error))
    if newest.checkpoint.origin != receipt.checkpoint.origin:
        raise MalformedError("the folder holds another log than the receipt's")
    try:
        log = _in_hand(newest, source, policy, tell)
        found = _compare(_Pair(receipt, logged, newest, log, policy))
    except MissingEvidenceError as error:
        return Comparison(Verdict.MISSING, str(error), newest)
    except MalformedError as error:
        return Comparison(Verdict.MISSING, f"the log's copy is damaged: {error}: see `sfrl audit fsck`", newest)
    if found.verdict is Verdict.FRAUD and found.counting is None and rests_on_retired_keys(receipt, policy):
        # Whoever stole a retired key could accuse the log of anything.
        what = "the log holds another history than the receipt's; but that rests on retired keys alone"
        return Comparison(Verdict.MISSING, what, newest)
    return found


def _open_newest(source: LogSource, policy: TrustPolicy) -> OpenedCheckpoint:
    raw = source.read("checkpoint", NOTE_BYTES_MAX)
    if raw is None:
        raise MissingEvidenceError("the log's copy has no checkpoint")
    try:
        return open_checkpoint(raw, policy, quorum=False)
    except (MalformedError, VerificationError) as error:
        raise MissingEvidenceError(f"the checkpoint of the log's copy does not hold: {error}") from None


def _in_hand(
    newest: OpenedCheckpoint, source: LogSource, policy: TrustPolicy, tell: Callable[[str, int, int], None]
) -> LogInHand:
    trusted = policy.log(newest.checkpoint.origin)
    assert trusted is not None, "open_checkpoint found the log"
    return LogInHand(source, open_tree(source, newest.checkpoint), trusted, newest.note, tell)


@dataclass(frozen=True, slots=True)
class _Pair:
    receipt: OpenedCheckpoint
    logged: LoggedEntry
    newest: OpenedCheckpoint
    log: LogInHand
    policy: TrustPolicy

    @property
    def own(self) -> ProvenEntry:
        return ProvenEntry(self.receipt.note, self.logged)

    @property
    def is_there(self) -> bool:
        """Whether the log has the receipt's entry at its index."""
        return self.has_index and self.log.tree.leaf(self.logged.index) == leaf_hash(self.logged.raw)

    @property
    def has_index(self) -> bool:
        return self.logged.index < self.log.tree.size


def _compare(pair: _Pair) -> Comparison:
    receipt, newest = pair.receipt.checkpoint, pair.newest.checkpoint
    if receipt.size <= newest.size:
        if pair.log.tree.root(receipt.size) != receipt.root:
            return _accuse(pair, _other_entry(pair) or _two_histories(pair))
        if not pair.newest.quorum_met:
            what = "the copy has the receipt's entry, and its checkpoint is not under the witness quorum"
            return Comparison(Verdict.MISSING, what, pair.newest)
        return _count(pair)
    if pair.is_there:
        what = f"the copy ends before the receipt's checkpoint of {receipt.size} entries; it has the entry itself"
        return Comparison(Verdict.MISSING, what, pair.newest)
    other = _other_entry(pair)
    if other is not None:
        return _accuse(pair, other)
    if pair.has_index:
        what = f"the copy has another entry at index {pair.logged.index}, and not the bytes of it that would show it"
        return Comparison(Verdict.MISSING, what, pair.newest)
    return Comparison(Verdict.MISSING, f"the copy ends before the receipt's entry {pair.logged.index}", pair.newest)


def _accuse(pair: _Pair, proof: FraudProof) -> Comparison:
    try:
        sentence = verify_fraud(proof, pair.policy)
    except MissingEvidenceError:
        sentence = "the receipt rests on retired keys alone"  # The caller says what follows from that.
    return Comparison(Verdict.FRAUD, sentence, pair.newest, None, proof)


def _other_entry(pair: _Pair) -> TwoEntries | None:
    """The entry that the log has in the place of the receipt's: at its position in the stream, or at its index."""
    log, own = pair.log, pair.logged
    own_entry = parse_entry(own.raw)
    stream = stream_of(own_entry.envelope)

    def at_position(raw: bytes) -> bool:
        try:
            entry = parse_entry(raw)
        except MalformedError:
            return False
        is_at = entry.stream_seq == own_entry.stream_seq and stream_of(entry.envelope) == stream is not None
        return is_at and raw != own.raw

    def evidence(index: int, raw: bytes) -> TwoEntries:
        return TwoEntries(pair.own, ProvenEntry(log.checkpoint, log.logged(index, raw)))

    at_index = None
    try:
        if pair.has_index and not pair.is_there:
            (at_index,) = entries_of(log.source, log.tree, own.index + 1, own.index)
            if at_position(at_index):
                return evidence(own.index, at_index)
        for index, raw in enumerate(entries_of(log.source, log.tree, log.tree.size)):
            log.tell("entries", index + 1, log.tree.size)
            if at_position(raw):
                return evidence(index, raw)
    except MalformedError:
        pass  # Entries are not all there: what was found so far counts.
    return None if at_index is None else evidence(own.index, at_index)


def _two_histories(pair: _Pair) -> TwoHistories:
    older, newer = pair.receipt.checkpoint.size, pair.newest.checkpoint.size
    path = pair.log.tree.consistency_proof(older, newer).path
    return TwoHistories(pair.receipt.note, pair.newest.note, pair.log.tree.root(older), path)


def _count(pair: _Pair) -> Comparison:
    consistent = f"the log of {pair.newest.checkpoint.size} entries holds it, at index {pair.logged.index}"
    content = parse_content(parse_entry(pair.logged.raw).envelope)
    if not isinstance(content, Statement) or not isinstance(content.body, UpdateAdmitted):
        return Comparison(Verdict.CONSISTENT, consistent, pair.newest)
    counting = find_fate(pair.log, pair.logged, content.body)
    if counting.is_fraud:
        return Comparison(Verdict.FRAUD, counting.sentence, pair.newest, counting, counting.proof)
    return Comparison(Verdict.CONSISTENT, consistent, pair.newest, counting)
