"""Following the log: every entry, in order, once, and only what the log has signed for.

Entries that arrive are held back until a checkpoint under every log key covers them. Then the chain, the streams and
the times are checked, the entries go into a tree of our own, and the tree's root is compared with the signed one.
What does not fit ends the following for good: it never gives out another entry, and whoever waits gets the error with
its evidence. A service that is merely away is asked again, from where we are.

`witnessed` moves when a checkpoint comes that the trust policy's quorum has cosigned too.

Format: proto/README.md, "Entry", "Checkpoints, tiles, cosignatures". Tree: RFC 9162, section 2.1.

Runs in: gatekeeper, aggregator, verifier.
Trusts: the trust policy. Nothing that arrives.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import structlog

from sfrl_secure.errors import (
    ConsistencyError,
    NotFoundError,
    SfrlError,
    UnavailableError,
    UncertainStateError,
    VerificationError,
)
from sfrl_secure.ids import Digest
from sfrl_secure.rpc.chain import Chain
from sfrl_secure.translog.entries import LogEntry, LoggedEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.audit_service import FollowBatch
from sfrl_secure.wire.entries import parse_entry

HELD_BYTES_MAX = 2**30
"""Entries that no checkpoint covers yet. A log that sends more is asked again from the start of them."""

FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 5.0

OnEntry = Callable[[int, Digest, bytes, LogEntry], None]
"""Takes index, leaf hash, bytes and the parsed entry. Called in order, by one thread."""


class FollowedBatches(Protocol):
    """Batches as they come; `cancel` ends them from another thread."""

    def __iter__(self) -> Iterator[FollowBatch]: ...

    def cancel(self) -> None:
        """End the batches."""
        ...


class FollowSource(Protocol):
    """Where batches come from: `clients.AuditLogClient`, or a log in memory."""

    def follow(self, first_index: int) -> FollowedBatches:
        """Follow the log from an index on."""
        ...


@dataclass(frozen=True, slots=True)
class CoveredTree:
    """A size of the log with the note that signs it; size 0 and no note before the first."""

    tree_size: int
    note: bytes


class LogFollower:
    """Follows one log from its first entry on, in a thread of its own. Safe for several threads.

    `size` counts the entries that `on_entry` has taken: whoever waits for a size finds them all in its state.
    """

    def __init__(
        self,
        source: FollowSource,
        *,
        origin: str,
        policy: TrustPolicy,
        on_entry: OnEntry,
        on_witnessed: Callable[[int], None] = lambda size: None,
        on_failed: Callable[[SfrlError], None] = lambda failure: None,
    ) -> None:
        """Prepare to follow.

        Args:
            on_witnessed: told each size that comes under the quorum, after its entries were given out.
            on_failed: told once what ended the following for good; the state behind `on_entry` is stale from then on.
        """
        self._source, self._origin, self._policy, self._on_entry = source, origin, policy, on_entry
        self._on_witnessed, self._on_failed = on_witnessed, on_failed
        self._log = structlog.get_logger()
        self._changed = threading.Condition()
        self._tree = MerkleTree()
        self._entries: list[bytes] = []
        self._size = 0
        self._signed = self._witnessed = CoveredTree(0, b"")
        self._failure: SfrlError | None = None
        self._stopping = threading.Event()
        self._batches: FollowedBatches | None = None
        # Of the follower's thread alone:
        self._chain = Chain()
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._ahead: list[OpenedCheckpoint] = []
        self._thread = threading.Thread(target=self._run, name="log-follower", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self) -> None:
        """End following; waits for the thread. Whoever waits gets an UnavailableError."""
        with self._changed:
            self._stopping.set()
            batches = self._batches
            self._changed.notify_all()
        if batches is not None:
            batches.cancel()
        self._thread.join()

    @property
    def size(self) -> int:
        """Entries that were verified and taken by `on_entry`."""
        with self._changed:
            return self._size

    @property
    def signed(self) -> CoveredTree:
        """The newest size under the log's keys."""
        with self._changed:
            return self._signed

    @property
    def witnessed(self) -> CoveredTree:
        """The newest size under the witness quorum."""
        with self._changed:
            return self._witnessed

    @property
    def witnessed_size(self) -> int:
        """Entries under the witness quorum."""
        return self.witnessed.tree_size

    @property
    def failure(self) -> SfrlError | None:
        """What ended the following for good, or None."""
        with self._changed:
            return self._failure

    def wait_for(self, size: int, timeout_seconds: float) -> None:
        """Wait until at least `size` entries were taken.

        Raises:
            UnavailableError: not in time, or the follower was stopped.
            SfrlError: what ended the following.
        """
        self._wait(lambda: self._size >= size, timeout_seconds)

    def wait_witnessed(self, size: int, timeout_seconds: float) -> None:
        """Wait until at least `size` entries are under the witness quorum.

        Raises:
            UnavailableError: not in time, or the follower was stopped.
            SfrlError: what ended the following.
        """
        self._wait(lambda: self._witnessed.tree_size >= size, timeout_seconds)

    def entry(self, index: int) -> bytes:
        """Return an entry's bytes.

        Raises:
            NotFoundError: not among the entries that were taken.
        """
        with self._changed:
            if not 0 <= index < self._size:
                raise NotFoundError("the entry is not in the log as we know it")
            return self._entries[index]

    def logged_entry(self, index: int, tree_size: int) -> LoggedEntry:
        """Return an entry with its audit path in the tree of `tree_size` leaves.

        Raises:
            NotFoundError: the tree is larger than what was taken, or the entry is not in it.
        """
        with self._changed:
            if not 0 <= index < tree_size <= self._size:
                raise NotFoundError("the entry is not in the log as we know it")
            return LoggedEntry(index, self._entries[index], self._tree.inclusion_proof(index, tree_size).path)

    def _wait(self, reached: Callable[[], bool], timeout_seconds: float) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: reached() or self._failure is not None or self._stopping.is_set(), timeout_seconds
            )
            # A failed log is not acted upon, however far it got.
            if self._failure is not None:
                raise self._failure
            if not reached():
                raise UnavailableError("the log did not get that far in time")

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            begun = self._size
            try:
                self._follow_once()
            except UnavailableError as away:
                self._log.warning("log_unavailable", error=type(away).__name__, log_size=self._size)
            except SfrlError as failure:
                self._fail(failure)
                return
            except Exception as failure:  # noqa: BLE001 - a fault of ours: nobody may wait for ever on a dead thread
                self._log.error("follower_failed", error=type(failure).__name__, log_size=self._size)
                self._fail(UncertainStateError("following the log failed"))
                return
            pause = FIRST_PAUSE_SECONDS if self._size > begun else min(pause * 2, LONGEST_PAUSE_SECONDS)
            self._stopping.wait(pause)

    def _follow_once(self) -> None:
        # What no checkpoint covered may never have been in the log: it is asked for again.
        self._held, self._held_bytes, self._ahead = [], 0, []
        batches = self._source.follow(self._size)
        with self._changed:
            self._batches = batches
        if self._stopping.is_set():
            batches.cancel()
            return
        for batch in _received(batches):
            self._take(batch)
        batches.cancel()

    def _take(self, batch: FollowBatch) -> None:
        if batch.entries and batch.first_index != self._size + len(self._held):
            raise UnavailableError("the log sent other entries than those asked for")
        self._held.extend(batch.entries)
        self._held_bytes += sum(map(len, batch.entries))
        if self._held_bytes > HELD_BYTES_MAX:
            raise UnavailableError(f"the log sent more than {HELD_BYTES_MAX} bytes without a checkpoint")
        if batch.checkpoint:
            opened = open_checkpoint(batch.checkpoint, self._policy, quorum=False)
            if opened.checkpoint.origin != self._origin:
                raise VerificationError("the checkpoint is another log's")
            self._ahead.append(opened)
        if self._ahead:
            reached = self._size + len(self._held)
            ready = [opened for opened in self._ahead if opened.checkpoint.size <= reached]
            # One of each sort is enough to go on with later: the newest.
            self._ahead = _newest([opened for opened in self._ahead if opened.checkpoint.size > reached])
            for opened in sorted(ready, key=lambda opened: opened.checkpoint.size):
                self._cover(opened)

    def _cover(self, opened: OpenedCheckpoint) -> None:
        """Take the held entries that `opened` covers, and compare roots at its size."""
        size = opened.checkpoint.size
        fresh = self._held[: max(size - self._size, 0)]
        parsed = [(leaf_hash(raw), raw, parse_entry(raw)) for raw in fresh]
        for leaf, _, entry in parsed:
            self._chain.check_and_extend(leaf, entry)
        with self._changed:
            self._tree.extend(leaf for leaf, _, _ in parsed)
            root, last = self._tree.root(size), self._signed
        if root != opened.checkpoint.root:
            raise ConsistencyError(older=last.note, newer=opened.note)
        try:
            for index, (leaf, raw, entry) in enumerate(parsed, start=self._size):
                self._on_entry(index, leaf, raw, entry)
            if opened.quorum_met:
                self._on_witnessed(size)
        except Exception as error:  # a fault behind us: its state is not known any more, whatever the error says
            raise UncertainStateError("an entry of the log could not be taken") from error
        self._held = self._held[len(fresh) :]
        self._held_bytes -= sum(map(len, fresh))
        with self._changed:
            self._entries.extend(fresh)
            self._size = len(self._entries)
            covered = CoveredTree(size, opened.note)
            if size >= self._signed.tree_size:
                self._signed = covered
            if opened.quorum_met and size >= self._witnessed.tree_size:
                self._witnessed = covered
            self._changed.notify_all()

    def _fail(self, failure: SfrlError) -> None:
        self._log.error("log_contradicts", error=type(failure).__name__, log_size=self._size)
        with self._changed:
            self._failure = failure
            self._changed.notify_all()
        self._on_failed(failure)


def _received(batches: FollowedBatches) -> Iterator[FollowBatch]:
    """Yield the batches; any error of the call itself, whatever it says, only means that the log is away."""
    iterator = iter(batches)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except SfrlError as error:
            raise UnavailableError(f"the log's stream ended with {type(error).__name__}") from error
        yield batch


def _newest(waiting: Iterable[OpenedCheckpoint]) -> list[OpenedCheckpoint]:
    newest: dict[bool, OpenedCheckpoint] = {}
    for opened in waiting:
        other = newest.get(opened.quorum_met)
        if other is None or other.checkpoint.size <= opened.checkpoint.size:
            newest[opened.quorum_met] = opened
    return list(newest.values())
