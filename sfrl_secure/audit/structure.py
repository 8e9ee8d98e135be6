"""Structure: that entries, tiles and the signed root belong together, and where they first do not.

Two trees are built, from the entries and from the level-0 tiles. Whichever leads to the signed root is right, and where
the other differs somebody changed it: so the report names an entry or a tile and not merely a difference.

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
from sfrl_secure.replay.findings import FILES, Finding, Missing
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


@dataclass(slots=True)
class _Leaves:
    """Leaf hashes as far as files gave them.

    Attributes:
        by_index: the hashes.
        absent: numbers of the bundles or tiles that are missing.
        broken: first number of one whose file has a wrong length; None where there is none.
    """

    size: int
    by_index: dict[int, Digest] = field(default_factory=dict)
    absent: set[int] = field(default_factory=set)
    broken: int | None = None

    @property
    def whole(self) -> bool:
        return len(self.by_index) == self.size

    def tree(self) -> MerkleTree | None:
        """The tree over them, where none is lacking."""
        return MerkleTree(self.by_index[index] for index in range(self.size)) if self.whole else None


def check_structure(source: LogSource, checkpoint: Checkpoint, progress: Progress) -> Structure:
    """Hold a log's files against an opened checkpoint."""
    found = Structure()
    size = checkpoint.size
    entries = _read_entries(source, size, found, progress)
    tiles = _read_leaf_tiles(source, size, found)
    if len(found.missing) > MISSING_FILES_MAX:
        return found
    from_entries, from_tiles = entries.tree(), tiles.tree()
    if from_entries is not None and from_entries.root() == checkpoint.root:
        found.tree = from_entries
    elif from_tiles is not None and from_tiles.root() == checkpoint.root:
        found.tree = from_tiles
    different = _first_difference(entries, tiles)
    if tiles.broken is not None:
        _blame_tile(found, Tile(0, tiles.broken, _width(tiles.broken, size)), "a tile of another length")
    elif entries.broken is not None:
        _blame_left_over(found, entries.broken, size)
    elif different is not None and found.tree is from_entries is not None:
        _blame_tile(found, Tile(0, different // TILE_WIDTH, _width(different // TILE_WIDTH, size)), "other hashes")
    elif different is not None:
        _blame_entry(found, different, entries, tiles, size)
    elif found.tree is not None:
        _check_upper(found, source, size, found.tree)
    elif entries.whole or tiles.whole:
        _blame_root(found, source, checkpoint, from_entries or from_tiles)
    if found.tree is not None:
        found.readable = next((index for index in range(size) if index not in entries.by_index), size)
    return found


def entries_of(source: LogSource, tree: MerkleTree, count: int) -> Iterator[bytes]:
    """Read the first `count` entries again, each compared with the tree: files can change between two readings.

    Raises:
        MalformedError: an entry is not the one that was there before.
    """
    for bundle in bundles_of(tree.size):
        begin = bundle.index * TILE_WIDTH
        if begin >= count:
            return
        raw = _read_wide(source, bundle)
        entries = [] if raw is None else _cut_entries(raw, bundle.width)[0]
        for index in range(begin, min(count, begin + bundle.width)):
            if index - begin >= len(entries) or leaf_hash(entries[index - begin]) != tree.leaf(index):
                raise MalformedError("the log's files changed while they were read")
            yield entries[index - begin]


def _read_entries(source: LogSource, size: int, found: Structure, progress: Progress) -> _Leaves:
    leaves = _Leaves(size)
    for bundle in bundles_of(size):
        raw = _read_wide(source, bundle)
        if raw is None:
            leaves.absent.add(bundle.index)
            found.missing.append(Missing(None, None, f"entries from {bundle.index * TILE_WIDTH} on", bundle.path))
            if len(found.missing) > MISSING_FILES_MAX:
                break
            continue
        entries, end = _cut_entries(raw, bundle.width)
        for position, entry in enumerate(entries):
            leaves.by_index[bundle.index * TILE_WIDTH + position] = leaf_hash(entry)
        if len(entries) == bundle.width and end != len(raw) and leaves.broken is None:
            leaves.broken = bundle.index
        progress("structure", min(size, (bundle.index + 1) * TILE_WIDTH), size)
    return leaves


def _read_leaf_tiles(source: LogSource, size: int, found: Structure) -> _Leaves:
    leaves = _Leaves(size)
    for tile in tiles_of(size):
        if tile.level > 0 or len(found.missing) > MISSING_FILES_MAX:
            break
        raw = _read_wide(source, tile)
        if raw is None:
            leaves.absent.add(tile.index)
            found.missing.append(_missing_tile(tile))
            continue
        try:
            hashes = parse_tile(raw, tile.width)
        except MalformedError:
            leaves.broken = tile.index if leaves.broken is None else leaves.broken
            continue
        for position, leaf in enumerate(hashes):
            leaves.by_index[tile.index * TILE_WIDTH + position] = leaf
    return leaves


def _read_wide(source: LogSource, place: Tile | Bundle) -> bytes | None:
    """Read a tile or bundle; of a partial one that has gone, the beginning of the full one that took its place."""
    bytes_max = 32 * place.width if isinstance(place, Tile) else place.width * (BUNDLE_BYTES_MAX // TILE_WIDTH)
    raw = source.read(place.path, bytes_max)
    if raw is not None or place.width == TILE_WIDTH:
        return raw
    if isinstance(place, Tile):
        raw = source.read(Tile(place.level, place.index, TILE_WIDTH).path, 32 * TILE_WIDTH)
        return None if raw is None else raw[: 32 * place.width]
    raw = source.read(Bundle(place.index, TILE_WIDTH).path, BUNDLE_BYTES_MAX)
    return None if raw is None else raw[: _cut_entries(raw, place.width)[1]]


def _cut_entries(raw: bytes, width: int) -> tuple[list[bytes], int]:
    """Cut a bundle into at most `width` entries, as far as they are whole; also where the last of them ends."""
    entries: list[bytes] = []
    at = 0
    while len(entries) < width and at + 2 <= len(raw):
        end = at + 2 + int.from_bytes(raw[at : at + 2], "big")
        if end > len(raw):
            break
        entries.append(raw[at + 2 : end])
        at = end
    return entries, at


def _first_difference(entries: _Leaves, tiles: _Leaves) -> int | None:
    """First index at which a bundle that is there does not say what the level-0 tile says, or ends too early."""
    for index in range(entries.size):
        number = index // TILE_WIDTH
        if number in entries.absent:
            continue
        entry, leaf = entries.by_index.get(index), tiles.by_index.get(index)
        if entry is None or (leaf is not None and entry != leaf):
            return index
    return None


def _check_upper(found: Structure, source: LogSource, size: int, tree: MerkleTree) -> None:
    for tile in tiles_of(size):
        if tile.level == 0:
            continue
        raw = _read_wide(source, tile)
        if raw is None:
            found.missing.append(_missing_tile(tile))
        elif raw != tile_of_tree(tree, tile):
            _blame_tile(found, tile, "other hashes than the entries give")
            return


def _blame_root(found: Structure, source: LogSource, checkpoint: Checkpoint, tree: MerkleTree | None) -> None:
    """Entries and tiles agree with each other and not with the root: the tiles above say how far that goes."""
    assert tree is not None, "one of the two is whole"
    _check_upper(found, source, checkpoint.size, tree)
    if not found.findings:
        expected, said = f"root {checkpoint.root.hex()}", f"root {tree.root().hex()}"
        found.findings.append(Finding("structure", None, FILES, expected, said, "checkpoint"))


def _blame_entry(found: Structure, index: int, entries: _Leaves, tiles: _Leaves, size: int) -> None:
    number = index // TILE_WIDTH
    leaf, entry = tiles.by_index.get(index), entries.by_index.get(index)
    expected = "an entry as the root has it" if leaf is None else f"entry hash {leaf.hex()}"
    said = "no whole entry" if entry is None else f"entry hash {entry.hex()}"
    found.findings.append(
        Finding("structure", index, FILES, expected, said, Bundle(number, _width(number, size)).path)
    )


def _blame_tile(found: Structure, tile: Tile, said: str) -> None:
    span = TILE_WIDTH**tile.level
    first = tile.index * TILE_WIDTH * span
    covered = f"entries {first} to {first + tile.width * span - 1}"
    found.findings.append(Finding("structure", None, FILES, f"the hashes over {covered}", said, tile.path))


def _blame_left_over(found: Structure, number: int, size: int) -> None:
    path = Bundle(number, _width(number, size)).path
    last = min(size, (number + 1) * TILE_WIDTH) - 1
    found.findings.append(Finding("structure", last, FILES, "the last entry of the bundle", "bytes behind it", path))


def _missing_tile(tile: Tile) -> Missing:
    return Missing(None, None, f"hashes of level {tile.level}", tile.path)


def _width(number: int, size: int) -> int:
    return min(TILE_WIDTH, size - number * TILE_WIDTH)
