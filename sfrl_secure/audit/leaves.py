"""A log's leaves from its files, and the tree over them in little memory.

A tree that is built here keeps 0.25 bytes a leaf: what lies below a full tile is read again when it is asked for, and
held against the tile's root, which the tree has kept. Files that change between two readings are noticed.

Format: c2sp.org/tlog-tiles.

Runs in: verifier, auditors' machines.
Trusts: nothing; a tree is worth what its root is compared with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sfrl_secure.audit.source import LogSource
from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.tile_nodes import TileNodes, root_of_tile
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX, TILE_WIDTH, Bundle, Tile, parse_tile
from sfrl_secure.translog.tree import TILE_HEIGHT, MerkleTree

CHANGED = "the log's files changed while they were read"


def read_wide(source: LogSource, place: Tile | Bundle) -> bytes | None:
    """Read a tile or bundle; of a partial one that has gone, the beginning of the full one that took its place.

    Returns: its bytes, which may be of another length than they should; None where it is missing.
    """
    bytes_max = 32 * place.width if isinstance(place, Tile) else place.width * (BUNDLE_BYTES_MAX // TILE_WIDTH)
    raw = source.read(place.path, bytes_max)
    if raw is not None or place.width == TILE_WIDTH:
        return raw
    if isinstance(place, Tile):
        raw = source.read(Tile(place.level, place.index, TILE_WIDTH).path, 32 * TILE_WIDTH)
        return None if raw is None else raw[: 32 * place.width]
    raw = source.read(Bundle(place.index, TILE_WIDTH).path, BUNDLE_BYTES_MAX)
    return None if raw is None else raw[: cut_entries(raw, place.width)[1]]


def cut_entries(raw: bytes, width: int) -> tuple[list[bytes], int]:
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


def width_of(number: int, size: int) -> int:
    """Leaves under level-0 tile `number` of a log of `size` entries."""
    return min(TILE_WIDTH, size - number * TILE_WIDTH)


class LeafTree:
    """A growing tree whose lower levels lie in a log's files: its own tiles, or else its entries."""

    def __init__(self, source: LogSource, tile_roots: Iterable[Digest] = ()) -> None:
        """Go on from full tiles of level 0, whose roots these are."""
        self._source = source
        self._older = TileNodes(self._read_checked).node
        self.tree = MerkleTree.over_tiles(tile_roots, self._older)

    def extend(self, leaves: Iterable[Digest]) -> None:
        """Add leaf hashes that the files have, too."""
        self.tree.extend(leaves)
        self.tree.forget(self.tree.size, self._older)

    def fork(self) -> LeafTree:
        """Another tree of the same leaves, a multiple of 256, to be continued in another way."""
        size = self.tree.size
        assert size % TILE_WIDTH == 0
        hashes = self.tree.subtree_hashes(TILE_HEIGHT, 0, size >> TILE_HEIGHT)
        return LeafTree(self._source, (Digest(hashes[at : at + 32]) for at in range(0, len(hashes), 32)))

    def _read_checked(self, tile: Tile) -> bytes:
        expected = self.tree.subtree_hashes(TILE_HEIGHT, tile.index, tile.index + 1)
        for raw in self._candidates(tile):
            if len(raw) == 32 * TILE_WIDTH and root_of_tile(raw) == expected:
                return raw
        raise MalformedError(CHANGED)

    def _candidates(self, tile: Tile) -> Iterator[bytes]:
        raw = self._source.read(tile.path, 32 * TILE_WIDTH)
        if raw is not None:
            yield raw
        raw = self._source.read(Bundle(tile.index, TILE_WIDTH).path, BUNDLE_BYTES_MAX)
        if raw is not None:
            yield b"".join(leaf_hash(entry) for entry in cut_entries(raw, TILE_WIDTH)[0])


def open_tree(source: LogSource, checkpoint: Checkpoint) -> MerkleTree:
    """The tree under an opened checkpoint, from tiles alone: O(size / 256) hashes are read, and no entry.

    Raises:
        MissingEvidenceError: a tile is not there, or the tiles do not lead to the checkpoint's root.
    """
    number, width = divmod(checkpoint.size, TILE_WIDTH)
    try:
        leaves = LeafTree(source, TileNodes(lambda tile: _read_tile(source, tile)).tile_roots(number))
        if width:
            leaves.extend(parse_tile(_read_tile(source, Tile(0, number, width)), width))
    except NotFoundError as error:
        raise MissingEvidenceError(f"the copy of the log is not whole: {error}") from None
    except MalformedError as error:
        raise MissingEvidenceError(f"a tile of the log's copy is damaged: {error}") from None
    if leaves.tree.root() != checkpoint.root:
        raise MissingEvidenceError("the tiles of the log's copy do not lead to its checkpoint: see `sfrl audit fsck`")
    return leaves.tree


def _read_tile(source: LogSource, tile: Tile) -> bytes:
    raw = read_wide(source, tile)
    if raw is None:
        raise NotFoundError(f"{tile.path} is missing")
    return raw
