"""Was an admitted update counted? The log says: the closing of its round names who counts and who fell out.

The admissions of the round are read from the log and held against the closing's root. Where they do not lead to it as
they stand, the replay says which of them had effect.

Rules: proto/README.md, "round_closed", "Counted root".

Runs in: participants' and auditors' machines.
Trusts: the tree that the caller has held against a checkpoint. No writer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sfrl_secure.audit.fraud import WEIGHT_END, CountedUpdate, LeftOut
from sfrl_secure.audit.source import LogSource
from sfrl_secure.audit.structure import entries_of
from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.governance.statements import (
    CloseCause,
    CloseOutcome,
    RoundClosed,
    RoundOpened,
    Statement,
    UpdateAdmitted,
)
from sfrl_secure.ids import Digest
from sfrl_secure.limits import COHORT_MAX
from sfrl_secure.replay.fold import Replay
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash, root_of
from sfrl_secure.translog.policy import TrustedLog
from sfrl_secure.translog.tiles import TILE_WIDTH
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

_DROPPED = {
    "withdrawn": "its participant took it back",
    "excluded": "operators ordered it",
    "participant_inactive": "its participant was suspended, revoked or expired",
    "defective": "its payload does not bear the admission out",
}


class Fate(StrEnum):
    """What became of an admitted update."""

    OPEN = "open"
    COUNTED = "counted"
    ABORTED = "aborted"
    DROPPED = "dropped"
    LEFT_OUT = "left_out"
    VOID = "void"
    UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True)
class Counting:
    """What the log shows of an admitted update.

    Attributes:
        sentence: the same in words.
        proof: of LEFT_OUT, where it can be shown with few entries.
    """

    fate: Fate
    sentence: str
    proof: LeftOut | None = None

    @property
    def is_fraud(self) -> bool:
        """Whether the aggregator or the log lied."""
        return self.fate in (Fate.LEFT_OUT, Fate.VOID, Fate.UNEXPLAINED)


@dataclass(frozen=True, slots=True)
class LogInHand:
    """A log whose files lead to a checkpoint.

    Attributes:
        checkpoint: the note.
        tell: is given a stage, how far it is, and of how much.
    """

    source: LogSource
    tree: MerkleTree
    trusted: TrustedLog
    checkpoint: bytes
    tell: Callable[[str, int, int], None]

    def logged(self, index: int, raw: bytes) -> LoggedEntry:
        """An entry with its path to the checkpoint's root."""
        return LoggedEntry(index, raw, self.tree.inclusion_proof(index, self.tree.size).path)

    def statements(self, stream: str, first: int) -> Iterator[tuple[int, bytes, Statement]]:
        """The statements of a stream from an index on."""
        for index, raw in enumerate(entries_of(self.source, self.tree, self.tree.size, first), start=first):
            self.tell("entries", index + 1 - first, self.tree.size - first)
            try:
                content = parse_content(parse_entry(raw).envelope)
            except MalformedError:
                continue
            if isinstance(content, Statement) and content.stream == stream:
                yield index, raw, content

    def index_of(self, leaf: Digest, end: int) -> int:
        """Place of an entry hash below `end`, the last one; from the tiles, without an entry.

        Raises:
            NotFoundError: it is not there.
        """
        for number in range((end - 1) // TILE_WIDTH, -1, -1):
            first = number * TILE_WIDTH
            hashes = self.tree.subtree_hashes(0, first, min(end, first + TILE_WIDTH))
            at = next((at for at in range(0, len(hashes), 32) if hashes[at : at + 32] == leaf), None)
            if at is not None:
                return first + at // 32
        raise NotFoundError("the log has no such entry")


def find_fate(log: LogInHand, admission: LoggedEntry, admitted: UpdateAdmitted) -> Counting:
    """Say what became of an update whose admission is in the log at `admission.index`.

    Raises:
        MalformedError: the log's entries are not those of its tree.
    """
    update = admitted.update
    try:
        opened_index = log.index_of(update.round_opened, admission.index)
    except NotFoundError:
        return Counting(Fate.VOID, "the log admitted an update that was signed for another history")
    case = _Case(log, admission, _counted_update(admitted), update.round_opened)
    admissions: dict[str, CountedUpdate] = {}
    for index, raw, statement in log.statements(f"segment/{update.segment}", opened_index):
        body = statement.body
        if isinstance(body, UpdateAdmitted) and body.update.round == update.round and len(admissions) <= COHORT_MAX:
            each = _counted_update(body)
            admissions.setdefault(each.participant, each)
        elif isinstance(body, RoundClosed) and body.round == update.round and index > admission.index:
            closing = LoggedEntry(index, raw, ())
            found = case.judge(admissions, closing, body)
            return case.judge_by_replay(closing, body) if found.fate is Fate.UNEXPLAINED else found
        elif isinstance(body, RoundOpened) and body.round > update.round:
            break
    return Counting(Fate.OPEN, f"round {update.round} is not closed in this copy of the log")


@dataclass(frozen=True, slots=True)
class _Case:
    """One update, whose closing is looked at."""

    log: LogInHand
    admission: LoggedEntry
    own: CountedUpdate
    round_opened: Digest

    def judge(self, admissions: Mapping[str, CountedUpdate], closing: LoggedEntry, closed: RoundClosed) -> Counting:
        """What a closing says of the update, where these are the round's admissions by participant."""
        own, number = self.own, closed.round
        dropped = {each.statement_digest: each.reason for each in closed.dropped}
        if own.statement_digest in dropped:
            reason = dropped[own.statement_digest]
            return Counting(Fate.DROPPED, f"round {number} closed without it: {reason}, {_DROPPED[reason]}")
        others = [each for each in admissions.values() if each.statement_digest not in dropped and each != own]
        if _are_counted([*others, own], closed):
            if closed.outcome is CloseOutcome.ABORTED:
                why = "by an order" if closed.cause is CloseCause.ORDER else "with too few updates"
                return Counting(Fate.ABORTED, f"round {number} was aborted {why}, and has no model")
            return Counting(Fate.COUNTED, f"round {number} counted it, among {closed.counted_count} updates")
        if not _are_counted(others, closed):
            return Counting(Fate.UNEXPLAINED, f"the closing of round {number} counts other updates than were admitted")
        admission, closing = (self.log.logged(each.index, each.raw) for each in (self.admission, closing))
        proof = LeftOut(self.log.checkpoint, admission, closing, tuple(_by_name(others)))
        return Counting(Fate.LEFT_OUT, f"the closing of round {number} left it out", proof)

    def judge_by_replay(self, closing: LoggedEntry, closed: RoundClosed) -> Counting:
        """Judge with the admissions that had effect; payloads are not asked for."""
        log, own = self.log, self.own
        replay = Replay(log.trusted, _NoObjects())
        code = "round_not_open"
        for index, raw in enumerate(entries_of(log.source, log.tree, closing.index)):
            findings = replay.step(raw)
            if index == self.admission.index and findings:
                code = findings[0].code
            log.tell("replay", index + 1, closing.index)
        effective = {
            name: CountedUpdate(name, each.statement_digest, each.update.weight)
            for segment in replay.state.segments.values()
            if segment.open_round is not None
            for name, each in segment.open_round.admissions.items()
            if each.update.round_opened == self.round_opened
        }
        if effective.get(own.participant) != own:
            return Counting(Fate.VOID, f"the log admitted it without effect: {code}")
        return self.judge(effective, closing, closed)


class _NoObjects:
    """A store without objects: of a payload that is not there, the log's word is taken."""

    def read(self, digest: Digest, bytes_max: int) -> bytes | None:
        return None

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes | None:
        return None

    def holds(self, digest: Digest) -> bool:
        return False


def _counted_update(admitted: UpdateAdmitted) -> CountedUpdate:
    update = admitted.update
    return CountedUpdate(update.participant, admitted.envelope.digest, update.weight)


def _are_counted(updates: Iterable[CountedUpdate], closed: RoundClosed) -> bool:
    """Whether exactly these are under a closing's root."""
    leaves = [each.leaf for each in _by_name(updates) if each.weight < WEIGHT_END]
    return len(leaves) == closed.counted_count and root_of(map(leaf_hash, leaves)) == closed.counted_root


def _by_name(updates: Iterable[CountedUpdate]) -> list[CountedUpdate]:
    return sorted(updates, key=lambda each: each.participant)
