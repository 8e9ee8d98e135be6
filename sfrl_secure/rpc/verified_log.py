"""Verifying a log as it arrives: every entry, in order, once, and only what the log has signed for.

Entries that arrive are held back until a checkpoint under the log's keys covers them: their hashes go into a tree of
our own, and its root is compared with the signed one. Then the chain, the streams and the times are checked, and they
are given out, and kept by nobody here.

A long log signs for its end alone. So until it has agreed once, with a checkpoint of all that was given out, entries
are given out as they come; whoever takes them must not act on them before. A log that we go on with, after a restart,
first shows by its last entry that it means the same history; where it is another one, everything is held until its
checkpoint contradicts the one that we hold.

A checkpoint under the trust policy's quorum comes late: it is compared with the root that our tree had at its size, and
gives nothing where that is longer ago than `recent_roots` knows.

Format: proto/README.md, "Entry", "Checkpoints, tiles, cosignatures". Tree: RFC 9162, section 2.1.

Runs in: gatekeeper, aggregator.
Trusts: the trust policy. Of what it goes on from, see `follower_start`. Nothing that arrives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from sfrl_secure.errors import (
    ConsistencyError,
    MalformedError,
    SfrlError,
    UnavailableError,
    UncertainStateError,
    VerificationError,
)
from sfrl_secure.governance.statements import Statement
from sfrl_secure.ids import Digest
from sfrl_secure.rpc.chain import Chain
from sfrl_secure.rpc.follower_start import CoveredTree, FollowerStart, open_start
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.translog.frontier import Frontier
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.recent_roots import RecentRoots
from sfrl_secure.wire.audit_service import FollowBatch
from sfrl_secure.wire.content import GOVERNANCE_STREAM, Content, parse_content
from sfrl_secure.wire.entries import parse_entry

HELD_BYTES_MAX = 2**30
"""Entries that no checkpoint covers yet. A log that sends more is asked again from the start of them."""

OnEntry = Callable[[int, Digest, LogEntry, Content | None], None]
"""Takes index, leaf hash, entry, and its content or None where that is malformed. Called in order."""

OnSettled = Callable[[OpenedCheckpoint], None]
"""Told each checkpoint that our tree agrees with, after all that it covers was given out."""


class VerifiedLog:
    """What has arrived of one log, and how far it is verified. Not thread-safe.

    Attributes:
        signed: the newest size under the log's keys.
        witnessed: the newest size under the quorum.
        is_agreed: whether the log has signed, once, for all that was given out until then.
    """

    def __init__(
        self,
        origin: str,
        policy: TrustPolicy,
        on_entry: OnEntry,
        on_settled: OnSettled,
        start: FollowerStart | None = None,
        floor: CoveredTree | None = None,
    ) -> None:
        """Begin at the first entry, or go on at `start`.

        Args:
            floor: what the log has signed before, verified: entries that come anew must lead to it again.

        Raises:
            MalformedError, VerificationError: `start` is not this log's.
        """
        self._origin, self._policy = origin, policy
        self._on_entry, self._on_settled = on_entry, on_settled
        self._goes_on = start is not None
        self._floor = floor
        self._begin()
        if start is not None:
            self._floor = None
            frontier, self.witnessed = open_start(start, origin, policy)
            self._chain, self._roots, self.signed = start.chain.copy(), RecentRoots(frontier), start.signed

    def _begin(self) -> None:
        self._chain, self._roots = Chain(), RecentRoots(Frontier())
        self.signed = self.witnessed = CoveredTree()
        self.is_agreed = False
        # Whether what comes is given out before the log has agreed.
        self._is_eager = True
        self._repeats = False
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._ahead: list[OpenedCheckpoint] = []

    @property
    def size(self) -> int:
        """Entries that were given out."""
        return self._roots.size

    @property
    def is_caught_up(self) -> bool:
        """Whether all that has arrived was given out, and the log has agreed with it."""
        return self.is_agreed and not self._held

    def position(self) -> FollowerStart:
        """Where another may go on. Asked for when the log has agreed, and nothing was given out since."""
        return FollowerStart(self._roots.hashes, self._chain.copy(), self.signed, self.witnessed)

    def begin_call(self) -> int:
        """Forget what is held, and say from which index on to ask the log."""
        # What no checkpoint covered may never have been in the log: it is asked for again.
        self._held, self._held_bytes, self._ahead = [], 0, []
        # With our last entry comes the checkpoint that covers it, though nothing be new.
        self._repeats = not self.is_agreed and self.size > 0
        return self.size - self._repeats

    def may_begin_anew(self, failure: SfrlError) -> bool:
        """Whether what we went on from can be to blame for a failure: before the log has agreed with it once.

        Not for another root: the tree that we go on from is one that the log has signed.
        """
        return self._goes_on and not self.is_agreed and not isinstance(failure, ConsistencyError)

    def begin_anew(self) -> None:
        """Forget everything but what the log has signed, and begin at the first entry."""
        self._goes_on = False
        # Whoever lies would else choose what we forget: a bad message, and then another history.
        self._floor = self.signed
        self._begin()

    def take(self, batch: FollowBatch) -> None:
        """Take a batch in; give out what may be.

        Raises:
            UnavailableError: not the entries that were asked for, or too many without a checkpoint.
            ConsistencyError: a checkpoint contradicts the entries or an older checkpoint.
            MalformedError, VerificationError: what the log has signed for is no log.
            UncertainStateError: whoever takes entries or checkpoints failed.
        """
        if batch.entries and self._repeats:
            # Our last entry names all before it.
            self._repeats, self._is_eager = False, leaf_hash(batch.entries[0]) == self._chain.prev
            batch = FollowBatch(batch.first_index + 1, batch.entries[1:], batch.checkpoint)
        if batch.entries and batch.first_index != self.size + len(self._held):
            raise UnavailableError("the log sent other entries than those asked for")
        self._held.extend(batch.entries)
        self._held_bytes += sum(map(len, batch.entries))
        if self._is_eager and not self.is_agreed:
            self._give(len(self._held), None)
        if self._held_bytes > HELD_BYTES_MAX:
            raise UnavailableError(f"the log sent more than {HELD_BYTES_MAX} bytes without a checkpoint")
        if batch.checkpoint:
            opened = open_checkpoint(batch.checkpoint, self._policy, quorum=False)
            if opened.checkpoint.origin != self._origin:
                raise VerificationError("the checkpoint is another log's")
            self._ahead.append(opened)
        if self._ahead:
            reached = self.size + len(self._held)
            ready = [opened for opened in self._ahead if opened.checkpoint.size <= reached]
            # One of each sort is enough to go on with later: the newest.
            self._ahead = _newest([opened for opened in self._ahead if opened.checkpoint.size > reached])
            for opened in sorted(ready, key=lambda opened: opened.checkpoint.size):
                self._cover(opened)

    def _cover(self, opened: OpenedCheckpoint) -> None:
        """Give out the held entries that `opened` covers, where its root is ours at its size."""
        size = opened.checkpoint.size
        if size > self.size:
            self._give(size - self.size, opened)
        else:
            root = self._roots.root(size)
            if root is None:
                return  # Longer ago than we know: nothing of it is believed, and it gives us nothing.
            self._check_root(root, opened)
        self._settle(opened)

    def _give(self, count: int, covering: OpenedCheckpoint | None) -> None:
        """Check the first `count` of the held entries, against what covers all of them where there is that; give them
        out."""
        first, fresh = self.size, self._held[:count]
        leaves = [leaf_hash(raw) for raw in fresh]
        for leaf in leaves:
            self._roots.append(leaf)
            self._check_floor(covering)
        # Before they are looked at: entries of another history do not join on, and that would be no evidence.
        if covering is not None:
            self._check_root(self._roots.root(self.size), covering)
        for index, (leaf, raw) in enumerate(zip(leaves, fresh, strict=True), start=first):
            entry, content = _parsed(raw)
            self._chain.check_and_extend(leaf, entry, _stream_of(content))
            try:
                self._on_entry(index, leaf, entry, content)
            except Exception as error:  # a fault behind us: its state is not known any more, whatever the error says
                raise UncertainStateError("an entry of the log could not be taken") from error
        del self._held[:count]
        self._held_bytes -= sum(map(len, fresh))

    def _check_floor(self, covering: OpenedCheckpoint | None) -> None:
        floor = self._floor
        if floor is None or self._roots.size != floor.tree_size:
            return
        if self._roots.root(floor.tree_size) != floor.root:
            raise ConsistencyError(older=floor.note, newer=b"" if covering is None else covering.note)
        self._floor = None

    def _check_root(self, root: Digest | None, opened: OpenedCheckpoint) -> None:
        if root != opened.checkpoint.root:
            raise ConsistencyError(older=self.signed.note, newer=opened.note)

    def _settle(self, opened: OpenedCheckpoint) -> None:
        covered = CoveredTree(opened.checkpoint.size, opened.checkpoint.root, opened.note)
        if covered.tree_size >= self.signed.tree_size:
            self.signed = covered
        if opened.quorum_met and covered.tree_size >= self.witnessed.tree_size:
            self.witnessed = covered
        # Below what it has signed before, a log has not agreed: it has gone back.
        self.is_agreed = self.is_agreed or (covered.tree_size == self.size and self._floor is None)
        try:
            self._on_settled(opened)
        except Exception as error:
            raise UncertainStateError("a checkpoint of the log could not be taken") from error


def _parsed(raw: bytes) -> tuple[LogEntry, Content | None]:
    entry = parse_entry(raw)
    content: Content | None = None
    with suppress(MalformedError):
        content = parse_content(entry.envelope)
    return entry, content


def _stream_of(content: Content | None) -> str | None:
    if content is None:
        return None
    return content.stream if isinstance(content, Statement) else GOVERNANCE_STREAM


def _newest(waiting: Iterable[OpenedCheckpoint]) -> list[OpenedCheckpoint]:
    newest: dict[bool, OpenedCheckpoint] = {}
    for opened in waiting:
        other = newest.get(opened.quorum_met)
        if other is None or other.checkpoint.size <= opened.checkpoint.size:
            newest[opened.quorum_met] = opened
    return list(newest.values())
