"""A log's beginning: made once, on purpose, and opened at each start.

`NewLog` orders the first entries in memory, by the rules of every later one; whoever makes the store puts all of them
into it, or none. Nothing is signed: that is the first start's work, after it has asked the witnesses. A log that is
there is never made anew, and a start never makes one: an empty log in an old one's place would be a second history.

`open_log` takes a start's time from what is new, not from what is old: the tree from the full tiles and the journal,
the fold from its snapshot and the entries since, the index from where it stands. Snapshot and index may be gone; then
the entries are read again. They may not be ahead: a log that was put back to an older state does not open.

Rules: PROTOCOL 2.

Runs in: audit_log, `sfrl init`.
Trusts: whoever starts it; the store.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Protocol

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import ConflictError, MalformedError, MissingEvidenceError, NotFoundError, UncertainStateError
from sfrl_secure.ids import Digest
from sfrl_secure.sequencer.entries import StoredEntries
from sfrl_secure.sequencer.history import Codec, ContentT, Fold, History
from sfrl_secure.sequencer.snapshot import FoldSnapshot
from sfrl_secure.storage.log_store import LogStore
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.tile_nodes import TileNodes
from sfrl_secure.translog.tiles import TILE_WIDTH
from sfrl_secure.translog.tree import MerkleTree

FLUSH_ENTRIES = 4096
"""So many digests wait in memory while entries are read again."""

_log = structlog.get_logger()


class Index(Protocol):
    """Leaf indices by statement digest: `storage.index.SqliteStatements`."""

    @property
    def indexed_size(self) -> int:
        """Entries whose digests are in the file."""
        ...

    def add(self, digest: Digest, index: int) -> None:
        """Note a digest; the first index stays."""
        ...

    def flush(self, size: int) -> None:
        """Write what is noted of the first `size` entries."""
        ...

    def clear(self) -> None:
        """Forget everything."""
        ...


class NewLog(Generic[ContentT]):
    """The first entries of a log that is not there yet. For one thread."""

    def __init__(self, fold: Fold[ContentT], codec: Codec[ContentT], clock: Clock) -> None:
        """Begin before entry 0 with an empty `fold`."""
        self._history = History(fold, codec, clock, _Nowhere(), MerkleTree())
        self._codec = codec

    def append(self, envelope: Envelope) -> Digest:
        """Order an envelope next; give its entry hash.

        Raises:
            MalformedError: it cannot be parsed, or is too long.
            DeniedError, ConflictError: it would have no effect.
        """
        content = self._codec.parse_content(envelope)
        if self._history.known_index(envelope.digest) is not None:
            raise ConflictError("the statement is already in the log", reason="known")
        return self._history.stage(envelope, content).leaf

    def entries(self) -> list[bytes]:
        """What was ordered, for the store that is to be made."""
        return self._history.staged_entries()


class _Nowhere:
    """No entries, and none can be kept."""

    def read(self, _index: int) -> bytes:
        raise NotFoundError("the log is not made yet")

    def append_batch(self, _raws: object) -> None:
        raise AssertionError("the entries of a new log are made durable by its store")


@dataclass(frozen=True, slots=True)
class Folds(Generic[ContentT]):
    """How a fold begins: before entry 0, or as a snapshot has it (MalformedError where it is of no use)."""

    begin: Callable[[], Fold[ContentT]]
    restore: Callable[[bytes], Fold[ContentT]]


@dataclass(frozen=True, slots=True)
class OpenedLog(Generic[ContentT]):
    """A log at its start.

    Attributes:
        nodes: the lower levels of the tree, from files.
        settled_size: entries that lie in full tiles and bundles, durably.
    """

    history: History[ContentT]
    nodes: TileNodes
    settled_size: int


def open_log(
    store: LogStore,
    folds: Folds[ContentT],
    codec: Codec[ContentT],
    clock: Clock,
    index: Index,
    snapshot: FoldSnapshot | None,
) -> OpenedLog[ContentT]:
    """Open a log and let its fold take every entry.

    Raises:
        UncertainStateError: it is empty or damaged, or snapshot or index are ahead of it.
    """
    entries = StoredEntries(store)
    nodes = TileNodes(entries.tile)
    try:
        tree, settled_size = _tree_of(store, entries, nodes)
        nodes.hold_to(tree)
        entries.hold_to(nodes.leaves)
        history = _history_of(entries, tree, folds, codec, clock, index, snapshot)
        for end in range(history.next_index, tree.size, FLUSH_ENTRIES):
            history.replay(end)
            index.flush(end)
        history.replay(tree.size)
    except (NotFoundError, MalformedError, MissingEvidenceError) as error:
        raise UncertainStateError("a tile or bundle that the journal goes on from is gone or damaged") from error
    return OpenedLog(history, nodes, settled_size)


def _tree_of(store: LogStore, entries: StoredEntries, nodes: TileNodes) -> tuple[MerkleTree, int]:
    journal = store.journal
    if not journal.count:
        raise UncertainStateError("the log has no entry, not even genesis")
    # The journal drops what full bundles hold durably, so the bundle that it begins in is one of those. It must not be
    # written again: its first entries are nowhere else.
    settled_size = -(-journal.first_index // TILE_WIDTH) * TILE_WIDTH
    tree = MerkleTree.over_tiles(nodes.tile_roots(settled_size // TILE_WIDTH), nodes.node)
    for position in range(settled_size, journal.count):
        tree.append(leaf_hash(entries.read(position)))
    return tree, settled_size


def _history_of(
    entries: StoredEntries,
    tree: MerkleTree,
    folds: Folds[ContentT],
    codec: Codec[ContentT],
    clock: Clock,
    index: Index,
    snapshot: FoldSnapshot | None,
) -> History[ContentT]:
    if index.indexed_size > tree.size or (snapshot is not None and snapshot.size > tree.size):
        raise UncertainStateError("index or snapshot know more entries than the journal: the log was put back")
    if snapshot is not None and (
        snapshot.root != tree.root(snapshot.size) or snapshot.last_leaf != tree.leaf(snapshot.size - 1)
    ):
        raise UncertainStateError("the snapshot is of another log than journal and tiles")
    fold = _restored(folds, index, snapshot)
    if snapshot is None or fold is None:
        # Rows that other rules have left would make a document known that has had no effect.
        index.clear()
        return History(folds.begin(), codec, clock, entries, tree)
    history = History(fold, codec, clock, entries, tree)
    history.resume(snapshot.size, snapshot.last_leaf, snapshot.last_time_us, snapshot.void_entries)
    for position in range(index.indexed_size, snapshot.size):
        index.add(codec.parse_entry(entries.read(position)).envelope.digest, position)
        if position % FLUSH_ENTRIES == 0:
            index.flush(position + 1)
    return history


def _restored(folds: Folds[ContentT], index: Index, snapshot: FoldSnapshot | None) -> Fold[ContentT] | None:
    """The fold as the snapshot has it; None where it must take every entry again."""
    if snapshot is None:
        return None
    if index.indexed_size < snapshot.size and snapshot.void_entries:
        # Entries without effect may have no place in the index, and only the fold knows which they are.
        return None
    try:
        return folds.restore(snapshot.fold)
    except MalformedError:
        _log.warning("snapshot_discarded", log_size=snapshot.size)
        return None
