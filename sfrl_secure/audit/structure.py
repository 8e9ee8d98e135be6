"""Structure: that entries, tiles and the signed root belong together, and where they first do not.

Two trees are built, from the entries and from the level-0 tiles. Whichever leads to the signed root is right, and where the
other differs somebody changed it: so the report names an entry or a tile and not merely a difference.

Format: proto/README.md, "Verification of a log, in order", 2; c2sp.org/tlog-tiles.

Runs in: verifier, auditors' machines.
Trusts: the checkpoint that the caller has opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from sfrl_secure.audit.source import LogSource
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.findings import LOG, Finding, Missing
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.tiles import (
    BUNDLE_BYTES_MAX,
    TILE_WIDTH,
    Bundle,
    Tile,
    bundles_of,
    parse_tile,
    tile_of_tree,
    tiles_of,
)
from sfrl_secure.translog.tree import MerkleTree

MISSING_FILES_MAX = 100
"""After so many missing files the audit stops looking: a size that a log claims costs nobody time without end."""

_TILE_BYTES_MAX = 32 * TILE_WIDTH

Progress = Callable[[str, int, int], None]
"""Told a stage, how far it is, and of how much."""


@dataclass(slots=True)
class Structure:
    """What the files amount to.

    Attributes:
        tree: the tree under the signed root; None where neither entries nor tiles lead to it.
        readable: entries from index 0 on that are there and in the tree.
        findings: at most one: the first difference.
    """

    tree: MerkleTree | None = None
    readable: int = 0
    findings: list[Finding] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Leaves:
    """Leaf hashes by index, as far as files gave them; `whole` where none is lacking."""

    by_index: dict[int, Digest]
    size: int

    @property
    def whole(self) -> bool:
        return len(self.by_index) == self.size

    def tree(self) -> MerkleTree | None:
        """The tree over them, where none is lacking."""
        return MerkleTree(self.by_index[index] for index in range(self.size)) if self.whole else None


def check_structure(source: LogSource, checkpoint: Checkpoint, progress: Progress) -> Structure:
    """Hold a log's files against an opened checkpoint."""
    found = Structure()
    entries, left_over = _read_entries(source, checkpoint.size, found, progress)
    tiles = _read_leaf_tiles(source, checkpoint.size, found)
    if len(found.missing) > MISSING_FILES_MAX:
        return found
    from_entries, from_tiles = entries.tree(), tiles.tree()
    entries_hold = from_entries is not None and from_entries.root() == checkpoint.root
    tiles_hold = from_tiles is not None and from_tiles.root() == checkpoint.root
    different = _first_difference(entries, tiles)
    if left_over is not None:
        _find(found, left_over * TILE_WIDTH, Bundle(left_over, _width(left_over, checkpoint.size)).path, "no bytes behind")
    elif entries_hold:
        found.tree = from_entries
        if different is not None:
            _blame_tile(found, 0, different // TILE_WIDTH, checkpoint.size)
    elif tiles_hold:
        found.tree = from_tiles
        if different is not None:
            _blame_entry(found, different, entries, tiles)
    elif different is not None:
        _blame_entry(found, different, entries, tiles)
    elif entries.whole or tiles.whole:
        _blame_upper(found, source, checkpoint, from_entries or from_tiles)
    if found.tree is not None and not found.findings:
        _check_upper(found, source, checkpoint.size, found.tree)
    if found.tree is not None:
        found.readable = next((i for i in range(checkpoint.size) if i not in entries.by_index), checkpoint.size)
    return found


def entries_of(source: LogSource, tree: MerkleTree, count: int) -> Iterator[bytes]:
    """Read the first `count` entries again, each compared with the tree once more: files can change between two readings.

    Raises:
        MalformedError: an entry is not the one that was there before.
    """
    for bundle in bundles_of(tree.size):
        if bundle.index * TILE_WIDTH >= count:
            return
        raw = _read_wide(source, bundle)
        for position, entry in enumerate(_cut_entries(raw or b"", bundle.width)):
            index = bundle.index * TILE_WIDTH + position
            if index >= count:
                return
            if entry is None or leaf_hash(entry) != tree.leaf(index):
                raise MalformedError("the log's files changed while they were read")
            yield entry


def _read_entries(
    source: LogSource, size: int, found: Structure, progress: Progress
) -> tuple[_Leaves, int | None]:
    """Hash every entry. Also the first bundle that has bytes behind its last entry."""
    leaves: dict[int, Digest] = {}
    left_over = None
    for bundle in bundles_of(size):
        raw = _read_wide(source, bundle)
        if raw is None:
            found.missing.append(Missing(None, None, "entries", bundle.path))
            if len(found.missing) > MISSING_FILES_MAX:
                break
            continue
        cut = list(_cut_entries(raw, bundle.width))
        for position, entry in enumerate(cut[: bundle.width]):
            if entry is not None:
                leaves[bundle.index * TILE_WIDTH + position] = leaf_hash(entry)
        if len(cut) > bundle.width and left_over is None:
            left_over = bundle.index
        progress("structure", min(size, (bundle.index + 1) * TILE_WIDTH), size)
    return _Leaves(leaves, size), left_over
