"""The tree's lower levels from its full tiles: the hash of any complete subtree of up to 256 leaves.

A full tile's 256 hashes give the 254 hashes between them and the tile's root; those of the tiles read last are kept.

Format: c2sp.org/tlog-tiles.

Runs in: audit_log.
Trusts: the files, until there is a tree to hold them to.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

from sfrl_secure.errors import MissingEvidenceError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.merkle import node_hash
from sfrl_secure.translog.tiles import TILE_WIDTH, Tile, parse_tile
from sfrl_secure.translog.tree import TILE_HEIGHT, MerkleTree

TILES_KEPT = 64
"""Tiles whose inner hashes are kept: 16 KiB each."""


class TileNodes:
    """Hashes from full tiles. Safe for any number of threads."""

    def __init__(self, read: Callable[[Tile], bytes]) -> None:
        """Read tiles by `read`, which raises NotFoundError for one that is not there."""
        self._read = read
        self._root_of: Callable[[int], bytes] | None = None
        self._lock = threading.Lock()
        self._pyramids: OrderedDict[int, list[tuple[Digest, ...]]] = OrderedDict()

    def hold_to(self, tree: MerkleTree) -> None:
        """From now on believe a tile only where its root is the one that `tree` has in memory."""
        self._root_of = lambda number: tree.subtree_hashes(TILE_HEIGHT, number, number + 1)

    def leaves(self, number: int) -> tuple[Digest, ...]:
        """The leaf hashes of full tile `number`.

        Raises:
            NotFoundError, MalformedError, MissingEvidenceError: as `node`.
        """
        return self._pyramid(number)[0]

    def node(self, height: int, index: int) -> Digest:
        """The hash of complete subtree `index` of 2**`height` leaves; `height` is below 8.

        Raises:
            NotFoundError: the tile is not there.
            MalformedError: it is not a full tile.
            MissingEvidenceError: it is not the tree's.
        """
        assert 0 <= height < TILE_HEIGHT
        number, place = divmod(index, TILE_WIDTH >> height)
        return self._pyramid(number)[height][place]

    def tile_roots(self, count: int) -> Iterator[Digest]:
        """The roots of the first `count` full tiles of level 0, read from the tiles above as far as those are full.

        Raises:
            NotFoundError, MalformedError: as `node`.
        """
        whole = count // TILE_WIDTH
        for index in range(whole):
            yield from parse_tile(self._read(Tile(1, index, TILE_WIDTH)), TILE_WIDTH)
        for number in range(whole * TILE_WIDTH, count):
            yield root_of_tile(self._read(Tile(0, number, TILE_WIDTH)))

    def _pyramid(self, number: int) -> list[tuple[Digest, ...]]:
        with self._lock:
            found = self._pyramids.get(number)
            if found is not None:
                self._pyramids.move_to_end(number)
                return found
        built = _levels_of(parse_tile(self._read(Tile(0, number, TILE_WIDTH)), TILE_WIDTH))
        if self._root_of is not None and built[TILE_HEIGHT][0] != self._root_of(number):
            raise MissingEvidenceError("a tile's file is not the tile that the log has written")
        with self._lock:
            self._pyramids[number] = built
            while len(self._pyramids) > TILES_KEPT:
                self._pyramids.popitem(last=False)
        return built


def root_of_tile(raw: bytes) -> Digest:
    """The root over a full tile's hashes.

    Raises:
        MalformedError: it is not full.
    """
    return _levels_of(parse_tile(raw, TILE_WIDTH))[TILE_HEIGHT][0]


def _levels_of(hashes: tuple[Digest, ...]) -> list[tuple[Digest, ...]]:
    levels = [hashes]
    while len(hashes) > 1:
        hashes = tuple(node_hash(hashes[at], hashes[at + 1]) for at in range(0, len(hashes), 2))
        levels.append(hashes)
    return levels


