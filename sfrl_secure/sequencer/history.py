"""The log as it is, and as it will be after the next batch.

`stage` decides, places and takes in, in memory; `commit` makes durable what was staged. Nothing staged is shown to
anybody before it is committed. When a commit fails, memory is ahead of the disk, and the process stops. What the
journal holds at a start is taken in by the same steps (`replay`).

Format: proto/README.md, "Entry". What has effect: `Fold`.

Runs in: audit_log.
Trusts: the store, after the checks of a start; the fold. No writer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import ConflictError, MalformedError, UncertainStateError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.limits import ENTRY_BYTES_MAX
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.tree import MerkleTree

CLOCK_BACK_US_MAX = 5_000_000
"""The clock may be this far behind the last entry; the entry then bears the last entry's time."""

ContentT = TypeVar("ContentT")
_Content_contra = TypeVar("_Content_contra", contravariant=True)


class Placement(Protocol):
    """Where an entry goes: its position in its stream, and the entry hash of the stream's entry before."""

    @property
    def stream_seq(self) -> int: ...

    @property
    def stream_prev(self) -> Digest: ...


class Fold(Protocol[_Content_contra]):
    """Says what has effect: `rounds.fold.FederationFold`, in the log's own order."""

    def index_of(self, statement_digest: Digest) -> int | None:
        """Leaf index of the entry with this statement digest."""
        ...

    def place(self, content: _Content_contra) -> Placement:
        """Where `content` would be sequenced now."""
        ...

    def check(
        self, log_time_us: int, envelope: Envelope, content: _Content_contra, verified_by: PublicKey | None = None
    ) -> None:
        """Refuse what would be void at the next index; change nothing."""
        ...

    def apply(self, index: int, leaf: Digest, entry: LogEntry, content: _Content_contra | None) -> str | None:
        """Take an entry in; None where it has effect, else why not."""
        ...


@dataclass(frozen=True, slots=True)
class Codec(Generic[ContentT]):
    """The functions of `wire` that turn entries into bytes and back; this layer knows no protobuf."""

    encode_entry: Callable[[LogEntry], bytes]
    parse_entry: Callable[[bytes], LogEntry]
    parse_content: Callable[[Envelope], ContentT]


class Entries(Protocol):
    """Durable entries by leaf index."""

    def read(self, index: int) -> bytes:
        """Read one.

        Raises:
            NotFoundError: there is none.
        """
        ...

    def append_batch(self, raws: Sequence[bytes]) -> None:
        """Make 1 to 256 entries durable.

        Raises:
            UncertainStateError: the store did not confirm.
        """
        ...


@dataclass(frozen=True, slots=True)
class Staged:
    """An entry that was placed: its leaf index, bytes and hash."""

    index: int
    raw: bytes
    leaf: Digest


class History(Generic[ContentT]):
    """The tree over every entry, and what they amount to.

    One thread stages and commits. Any thread reads entries and proofs below `size`; what the fold knows is read under
    `lock`.

    Attributes:
        lock: held while the fold changes; the fold is up to 256 entries ahead of `size` while a batch is written.
        tree: over the committed entries.
        fold: what they and the staged ones amount to.
        last_leaf: hash of the last entry that the fold took, staged or committed.
        void_entries: entries without effect in the log. We refuse such entries before they are sequenced; a newer
            version of the rules may see an older entry so.
    """

    def __init__(
        self,
        fold: Fold[ContentT],
        codec: Codec[ContentT],
        clock: Clock,
        entries: Entries,
        tree: MerkleTree,
    ) -> None:
        """Go on from `tree`, of whose entries `fold` has taken none yet; `resume` says where it has."""
        self.lock = threading.RLock()
        self.tree = tree
        self.fold = fold
        self.void_entries = 0
        self.last_leaf = ZERO_DIGEST
        self._codec = codec
        self._clock = clock
        self._entries = entries
        self._staged: list[Staged] = []
        self._next_index = 0
        self._last_time_us = 0

    def resume(self, size: int, last_leaf: Digest, last_time_us: int, void_entries: int) -> None:
        """Say that `fold` has taken the first `size` entries, the last of which has this hash and time."""
        self._next_index, self.last_leaf, self._last_time_us = size, last_leaf, last_time_us
        self.void_entries = void_entries

    def replay(self, end: int) -> None:
        """Let the fold take the durable entries up to `end`.

        Raises:
            UncertainStateError: they do not follow one another, or are not those of the tree.
        """
        for index in range(self._next_index, end):
            self._replay_entry(index, self._entries.read(index))

    @property
    def size(self) -> int:
        """Entries that are durable."""
        return self.tree.size

    @property
    def next_index(self) -> int:
        """Leaf index of the next entry to be staged."""
        return self._next_index

    @property
    def last_time_us(self) -> int:
        """Log time of the last entry that the fold took."""
        return self._last_time_us

    def known_index(self, statement_digest: Digest) -> int | None:
        """Leaf index of a statement that is in the log or staged."""
        return self.fold.index_of(statement_digest)

    def stage(self, envelope: Envelope, content: ContentT, verified_by: PublicKey | None = None) -> Staged:
        """Sequence a statement next, in memory.

        Args:
            verified_by: the key whose single signature over the envelope the caller has verified, if it has.

        Raises:
            ConflictError: the statement is known, or its writer read an older log; `log_size` says how far to read.
            DeniedError: it would be void.
            MalformedError: the entry would be longer than `ENTRY_BYTES_MAX`.
            UncertainStateError: the clock is behind the log.
        """
        log_time_us = self._time_of_next()
        index = self._next_index
        with self.lock:
            try:
                self.fold.check(log_time_us, envelope, content, verified_by)
            except ConflictError as conflict:
                raise ConflictError(str(conflict), reason=conflict.reason, log_size=index) from None
            place = self.fold.place(content)
            entry = LogEntry(self.last_leaf, log_time_us, place.stream_seq, place.stream_prev, envelope)
            raw = self._codec.encode_entry(entry)
            if len(raw) > ENTRY_BYTES_MAX:
                raise MalformedError(f"an entry is at most {ENTRY_BYTES_MAX} bytes")
            staged = Staged(index, raw, leaf_hash(raw))
            if self._take(staged, entry, content) is not None:
                raise UncertainStateError("an entry that was checked had no effect")
        self._staged.append(staged)
        return staged

    def staged_entries(self) -> list[bytes]:
        """What is staged, in order."""
        return [each.raw for each in self._staged]

    def commit(self) -> None:
        """Make durable what is staged: one write and one sync.

        Raises:
            UncertainStateError: the disk did not confirm. The process stops.
        """
        if self._staged:
            self._entries.append_batch(self.staged_entries())
            self.tree.extend(each.leaf for each in self._staged)
            self._staged.clear()

    def entry(self, index: int) -> bytes:
        """Read a durable entry.

        Raises:
            NotFoundError: there is none at `index` yet.
        """
        return self._entries.read(index)

    def entries(self, first: int, end: int, bytes_max: int) -> tuple[bytes, ...]:
        """Read durable entries from `first` to before `end`: as many as fit into `bytes_max`; one at least, if there is
        one."""
        taken: list[bytes] = []
        left = bytes_max
        for index in range(first, min(end, self.size)):
            raw = self.entry(index)
            left -= len(raw)
            if left < 0 and taken:
                break
            taken.append(raw)
        return tuple(taken)

    def _time_of_next(self) -> int:
        now_us = self._clock.now_us()
        if now_us < self._last_time_us - CLOCK_BACK_US_MAX:
            raise UncertainStateError(f"the clock is more than {CLOCK_BACK_US_MAX} microseconds behind the log")
        return max(now_us, self._last_time_us)

    def _replay_entry(self, index: int, raw: bytes) -> None:
        leaf = leaf_hash(raw)
        if leaf != self.tree.leaf(index):
            raise UncertainStateError("an entry is not the one that its tile names")
        try:
            entry = self._codec.parse_entry(raw)
        except MalformedError as error:
            raise UncertainStateError("an entry of the journal is malformed") from error
        if entry.prev != self.last_leaf or entry.log_time_us < self._last_time_us:
            raise UncertainStateError("the journal's entries do not follow one another")
        content: ContentT | None = None
        # An entry of an older version may not parse any more: it is void, and the log goes on (PROTOCOL R1).
        with suppress(MalformedError):
            content = self._codec.parse_content(entry.envelope)
        with self.lock:
            if content is not None:
                place = self.fold.place(content)
                if (entry.stream_seq, entry.stream_prev) != (place.stream_seq, place.stream_prev):
                    raise UncertainStateError("an entry of the journal is not the next one of its stream")
            if self._take(Staged(index, raw, leaf), entry, content) is not None:
                self.void_entries += 1

    def _take(self, staged: Staged, entry: LogEntry, content: ContentT | None) -> str | None:
        void = self.fold.apply(staged.index, staged.leaf, entry, content)
        self._next_index = staged.index + 1
        self.last_leaf, self._last_time_us = staged.leaf, entry.log_time_us
        return void
