"""The log as it is, and as it will be after the next batch.

A `History` is made from the journal by the same steps that sequence a new entry: `stage` decides, places and takes
in, in memory; `commit` makes durable what was staged. Nothing staged is shown to anybody before it is committed. When
a commit fails, memory is ahead of the disk, and the process stops.

Format: proto/README.md, "Entry". What has effect: `Fold`.

Runs in: audit_log.
Trusts: the journal, after the checks of a start; the fold. No writer.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import ConflictError, MalformedError, UncertainStateError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.limits import ENTRY_BYTES_MAX
from sfrl_secure.storage.journal import Journal
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

    def check(self, log_time_us: int, envelope: Envelope, content: _Content_contra) -> None:
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


class History(Generic[ContentT]):
    """Every entry, the tree over them and what they amount to.

    One thread stages and commits. Any thread reads entries and proofs below `size`; what the fold knows is read under
    `lock`.

    Attributes:
        lock: held while the fold changes; the fold is up to 256 entries ahead of `size` while a batch is written.
        tree: over the committed entries.
        void_entries: entries without effect that the journal holds. We refuse such entries before they are sequenced; a
            newer version of the rules may see an older entry so.
    """

    def __init__(self, fold: Fold[ContentT], codec: Codec[ContentT], clock: Clock) -> None:
        """Begin before entry 0, without a journal."""
        self.lock = threading.RLock()
        self.tree = MerkleTree()
        self.void_entries = 0
        self._fold = fold
        self._codec = codec
        self._clock = clock
        self._journal: Journal | None = None
        self._staged: list[tuple[bytes, Digest]] = []
        self._last_leaf = ZERO_DIGEST
        self._last_time_us = 0

    def replay(self, journal: Journal) -> None:
        """Take in what `journal` holds, and go on in it from then on.

        Raises:
            UncertainStateError: the journal's entries do not follow one another.
        """
        assert self._journal is None
        assert not self.next_index
        for raw in journal.records():
            self._replay_entry(raw)
        self._journal = journal

    @property
    def size(self) -> int:
        """Entries that are durable."""
        return self.tree.size

    @property
    def next_index(self) -> int:
        """Leaf index of the next entry to be staged."""
        return self.size + len(self._staged)

    def known_index(self, statement_digest: Digest) -> int | None:
        """Leaf index of a statement that is in the log or staged."""
        return self._fold.index_of(statement_digest)

    def stage(self, envelope: Envelope, content: ContentT) -> int:
        """Sequence a statement next, in memory; give its leaf index. Its digest is not `known_index`'s.

        Raises:
            ConflictError: the writer read an older log; `log_size` says how far to read.
            DeniedError: it would be void.
            MalformedError: the entry would be longer than `ENTRY_BYTES_MAX`.
            UncertainStateError: the clock is behind the log.
        """
        log_time_us = self._time_of_next()
        index = self.next_index
        with self.lock:
            try:
                self._fold.check(log_time_us, envelope, content)
            except ConflictError as conflict:
                raise ConflictError(str(conflict), reason=conflict.reason, log_size=index) from None
            place = self._fold.place(content)
            entry = LogEntry(self._last_leaf, log_time_us, place.stream_seq, place.stream_prev, envelope)
            raw = self._codec.encode_entry(entry)
            if len(raw) > ENTRY_BYTES_MAX:
                raise MalformedError(f"an entry is at most {ENTRY_BYTES_MAX} bytes")
            if self._take(index, raw, entry, content) is not None:
                raise UncertainStateError("an entry that was checked had no effect")
        return index

    def staged_leaf(self) -> Digest:
        """Entry hash of the last entry, staged or committed."""
        return self._last_leaf

    def staged_entries(self) -> list[bytes]:
        """What is staged, in order."""
        return [raw for raw, _ in self._staged]

    def commit(self) -> None:
        """Make durable what is staged: one write and one sync.

        Raises:
            UncertainStateError: the disk did not confirm. The process stops.
        """
        if self._staged:
            assert self._journal is not None, "a history without a journal is only staged"
            self._journal.append_batch(self.staged_entries())
            self._settle()

    def entry(self, index: int) -> bytes:
        """Read a durable entry.

        Raises:
            NotFoundError: there is none at `index` yet.
        """
        assert self._journal is not None
        return self._journal.record(index)

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

    def _replay_entry(self, raw: bytes) -> None:
        try:
            entry = self._codec.parse_entry(raw)
        except MalformedError as error:
            raise UncertainStateError("an entry of the journal is malformed") from error
        if entry.prev != self._last_leaf or entry.log_time_us < self._last_time_us:
            raise UncertainStateError("the journal's entries do not follow one another")
        content: ContentT | None = None
        # An entry of an older version may not parse any more: it is void, and the log goes on (PROTOCOL R1).
        with suppress(MalformedError):
            content = self._codec.parse_content(entry.envelope)
        with self.lock:
            if content is not None:
                place = self._fold.place(content)
                if (entry.stream_seq, entry.stream_prev) != (place.stream_seq, place.stream_prev):
                    raise UncertainStateError("an entry of the journal is not the next one of its stream")
            if self._take(self.next_index, raw, entry, content) is not None:
                self.void_entries += 1
        self._settle()

    def _take(self, index: int, raw: bytes, entry: LogEntry, content: ContentT | None) -> str | None:
        leaf = leaf_hash(raw)
        void = self._fold.apply(index, leaf, entry, content)
        self._staged.append((raw, leaf))
        self._last_leaf, self._last_time_us = leaf, entry.log_time_us
        return void

    def _settle(self) -> None:
        self.tree.extend(leaf for _, leaf in self._staged)
        self._staged.clear()
