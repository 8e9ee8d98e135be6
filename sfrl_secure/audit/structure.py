"""Structure: that entries, tiles and the signed root belong together, and where they first do not.

Two trees grow, from the entries and from the level-0 tiles; they are one as long as both say the same. Whichever leads
to the signed root is right, and where the other differs somebody changed it: so the report names an entry or a tile and
not merely a difference. The log is read once, and memory does not grow with it.

Format: proto/README.md, "Verification of a log, in order", 2; c2sp.org/tlog-tiles.

Runs in: verifier, auditors' machines.
Trusts: the checkpoint that the caller has opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sfrl_secure.audit.leaves import CHANGED, LeafTree, cut_entries, read_wide, width_of
from sfrl_secure.audit.source import LogSource
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.findings import FILES, Finding, Missing
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.tiles import TILE_WIDTH, Bundle, Tile, bundles_of, parse_tile, tile_of_tree, tiles_of
from sfrl_secure.translog.tree import MerkleTree

MISSING_FILES_MAX = 100
"""After so many missing files the audit stops looking: a size that a log claims costs nobody time without end."""

Progress = Callable[[str, int, int], None]
"""Told a stage, how far it is, and of how much."""

Visit = Callable[[int, Sequence[bytes], Sequence[Digest]], None]
"""Given the index of a first entry, some entries in order and their leaf hashes."""


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
class _Difference:
    """Where a bundle does not say what its tile says, or ends too early."""

    index: int
    entry: Digest | None
    leaf: Digest | None


def check_structure(
    source: LogSource, checkpoint: Checkpoint, progress: Progress, visit: Visit | None = None
) -> Structure:
    """Hold a log's files against an opened checkpoint.

    Args:
        visit: is given the entries from index 0 on, up to the first bundle that is missing or differs. Whether they are
            the tree's is known when this returns.
    """
    walk = _Walk(source, checkpoint.size)
    for bundle in bundles_of(checkpoint.size):
        walk.take(bundle, visit)
        if len(walk.missing) > MISSING_FILES_MAX:
            return Structure(missing=walk.missing[: MISSING_FILES_MAX + 1])
        progress("structure", min(checkpoint.size, (bundle.index + 1) * TILE_WIDTH), checkpoint.size)
    return walk.conclude(checkpoint)


def entries_of(source: LogSource, tree: MerkleTree, end: int, first: int = 0) -> Iterator[bytes]:
    """Read the entries of a tree from `first` to below `end`, each compared with it: files can change between readings.

    Raises:
        MalformedError: an entry is not the one that is in the tree.
    """
    while first < end:
        number, place = divmod(first, TILE_WIDTH)
        width = width_of(number, tree.size)
        raw = read_wide(source, Bundle(number, width))
        entries = ([] if raw is None else cut_entries(raw, width)[0])[place : place + end - first]
        leaves = b"".join(leaf_hash(entry) for entry in entries)
        last = min(end, number * TILE_WIDTH + width)
        if leaves != tree.subtree_hashes(0, first, last):
            raise MalformedError(CHANGED)
        yield from entries
        first = last


class _Walk:
    """Takes bundles and level-0 tiles in order, and knows how far they agree."""

    def __init__(self, source: LogSource, size: int) -> None:
        self.missing: list[Missing] = []
        self._source = source
        self._size = size
        # One object as long as entries and tiles say the same; None from the first leaf on that one of them lacks.
        self._entries: LeafTree | None = LeafTree(source)
        self._tiles: LeafTree | None = self._entries
        self._readable = 0
        self._different: _Difference | None = None
        self._broken_tile: int | None = None
        self._left_over: int | None = None

    def take(self, bundle: Bundle, visit: Visit | None) -> None:
        number, width = bundle.index, bundle.width
        raw = read_wide(self._source, bundle)
        if raw is None:
            self.missing.append(Missing(None, None, f"entries from {number * TILE_WIDTH} on", bundle.path))
        tile = self._read_tile(Tile(0, number, width))
        if raw is None:
            self._grow(width, (), tile)
            return
        entries, end = cut_entries(raw, width)
        leaves = [leaf_hash(entry) for entry in entries]
        if len(entries) == width and end != len(raw) and self._left_over is None:
            self._left_over = number
        self._compare(number * TILE_WIDTH, width, leaves, tile)
        if self._readable == number * TILE_WIDTH:
            self._readable += len(leaves)
            if visit is not None and self._different is None:
                visit(number * TILE_WIDTH, entries, leaves)
        self._grow(width, leaves, tile)

    def _read_tile(self, tile: Tile) -> tuple[Digest, ...]:
        """The hashes of a tile; none where it is missing or broken."""
        raw = read_wide(self._source, tile)
        if raw is None:
            self.missing.append(_missing_tile(tile))
            return ()
        try:
            return parse_tile(raw, tile.width)
        except MalformedError:
            self._broken_tile = tile.index if self._broken_tile is None else self._broken_tile
            return ()

    def _compare(self, first: int, width: int, leaves: Sequence[Digest], tile: Sequence[Digest]) -> None:
        if self._different is not None or (len(leaves) == width and (not tile or tuple(leaves) == tuple(tile))):
            return
        for place in range(width):
            entry = leaves[place] if place < len(leaves) else None
            leaf = tile[place] if tile else None
            if entry is None or (leaf is not None and entry != leaf):
                self._different = _Difference(first + place, entry, leaf)
                return

    def _grow(self, width: int, leaves: Sequence[Digest], tile: Sequence[Digest]) -> None:
        entries_whole, tile_whole = len(leaves) == width, len(tile) == width
        if self._entries is self._tiles and self._entries is not None:
            if entries_whole and tile_whole and tuple(leaves) == tuple(tile):
                self._entries.extend(leaves)
                return
            if entries_whole and tile_whole:
                self._tiles = self._entries.fork()
        self._entries = _extended(self._entries, leaves) if entries_whole else None
        self._tiles = _extended(self._tiles, tile) if tile_whole else None

    def conclude(self, checkpoint: Checkpoint) -> Structure:
        found = Structure(missing=self.missing)
        from_entries = None if self._entries is None else self._entries.tree
        from_tiles = None if self._tiles is None else self._tiles.tree
        for tree in (from_tiles, from_entries):
            if tree is not None and tree.root() == checkpoint.root:
                found.tree = tree
        if self._broken_tile is not None:
            broken = Tile(0, self._broken_tile, width_of(self._broken_tile, self._size))
            _blame_tile(found, broken, "a tile of another length")
        elif self._left_over is not None:
            self._blame_left_over(found, self._left_over)
        elif self._different is not None and found.tree is from_entries is not None:
            number = self._different.index // TILE_WIDTH
            _blame_tile(found, Tile(0, number, width_of(number, self._size)), "other hashes")
        elif self._different is not None:
            self._blame_entry(found, self._different)
        elif found.tree is not None:
            self._check_upper(found, found.tree)
        elif from_entries is not None or from_tiles is not None:
            self._blame_root(found, checkpoint, from_entries or from_tiles)
        if found.tree is not None:
            found.readable = self._readable
        return found

    def _check_upper(self, found: Structure, tree: MerkleTree) -> None:
        for tile in tiles_of(self._size):
            if tile.level == 0:
                continue
            raw = read_wide(self._source, tile)
            if raw is None:
                found.missing.append(_missing_tile(tile))
            elif raw != tile_of_tree(tree, tile):
                _blame_tile(found, tile, "other hashes than the entries give")
                return

    def _blame_root(self, found: Structure, checkpoint: Checkpoint, tree: MerkleTree | None) -> None:
        """Entries and tiles agree with each other and not with the root: the tiles above say how far that goes."""
        assert tree is not None, "one of the two is whole"
        self._check_upper(found, tree)
        if not found.findings:
            expected, said = f"root {checkpoint.root.hex()}", f"root {tree.root().hex()}"
            found.findings.append(Finding("structure", None, FILES, expected, said, "checkpoint"))

    def _blame_entry(self, found: Structure, different: _Difference) -> None:
        number = different.index // TILE_WIDTH
        expected = "an entry as the root has it" if different.leaf is None else f"entry hash {different.leaf.hex()}"
        said = "no whole entry" if different.entry is None else f"entry hash {different.entry.hex()}"
        path = Bundle(number, width_of(number, self._size)).path
        found.findings.append(Finding("structure", different.index, FILES, expected, said, path))

    def _blame_left_over(self, found: Structure, number: int) -> None:
        path = Bundle(number, width_of(number, self._size)).path
        last = min(self._size, (number + 1) * TILE_WIDTH) - 1
        found.findings.append(
            Finding("structure", last, FILES, "the last entry of the bundle", "bytes behind it", path)
        )


def _extended(tree: LeafTree | None, leaves: Sequence[Digest]) -> LeafTree | None:
    if tree is not None:
        tree.extend(leaves)
    return tree


def _blame_tile(found: Structure, tile: Tile, said: str) -> None:
    span = TILE_WIDTH**tile.level
    first = tile.index * TILE_WIDTH * span
    covered = f"entries {first} to {first + tile.width * span - 1}"
    found.findings.append(Finding("structure", None, FILES, f"the hashes over {covered}", said, tile.path))


def _missing_tile(tile: Tile) -> Missing:
    return Missing(None, None, f"hashes of level {tile.level}", tile.path)
