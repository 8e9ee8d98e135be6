"""Tiles and entry bundles: the log as static files.

A tile of level L holds up to 256 hashes of complete subtrees of 256**L leaves; a bundle holds the entries under a
level-0 tile. A full one never changes. A partial one (width 1 to 255) is a file of its own for each width, so that it
never changes either. Lists are produced lazily: a size that a stranger claims takes no memory.

Format: c2sp.org/tlog-tiles.

Runs in: audit_log, verifier, participant.
Trusts: nothing; what a tile says is verified against a root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import ENTRY_BYTES_MAX
from sfrl_secure.translog.canonical_text import COUNT_END
from sfrl_secure.translog.tree import MerkleTree

TILE_WIDTH = 256
"""Hashes in a full tile, entries in a full bundle."""

LEVEL_MAX = 63
"""Highest level that a path can name."""

BUNDLE_BYTES_MAX = TILE_WIDTH * (2 + ENTRY_BYTES_MAX)
"""One entry bundle."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of hashes.

    Attributes:
        level: 0 to 63.
        index: position in the level, from 0.
        width: hashes in it, 1 to 256.
    """

    level: int
    index: int
    width: int

    def __post_init__(self) -> None:
        if not 0 <= self.level <= LEVEL_MAX:
            raise MalformedError("a tile's level is 0 to 63")
        _check_place(self.index, self.width)

    @property
    def path(self) -> str:
        """Where the tile lies below the log's prefix."""
        return f"tile/{self.level}/{_place(self.index, self.width)}"


@dataclass(frozen=True, slots=True)
class Bundle:
    """One bundle of entries.

    Attributes:
        index: that of the level-0 tile over it.
        width: entries in it, 1 to 256.
    """

    index: int
    width: int

    def __post_init__(self) -> None:
        _check_place(self.index, self.width)

    @property
    def path(self) -> str:
        """Where the bundle lies below the log's prefix."""
        return f"tile/entries/{_place(self.index, self.width)}"


def _check_place(index: int, width: int) -> None:
    if not 0 <= index < COUNT_END or not 1 <= width <= TILE_WIDTH:
        raise MalformedError("a tile's index is below 2**63 and its width 1 to 256")


def _place(index: int, width: int) -> str:
    groups = [f"{index % 1000:03}"]
    while index >= 1000:
        index //= 1000
        groups.append(f"x{index % 1000:03}")
    partial = "" if width == TILE_WIDTH else f".p/{width}"
    return "/".join(reversed(groups)) + partial


def tile_path(level: int, index: int, width: int = TILE_WIDTH) -> str:
    """The path of a tile.

    Raises:
        MalformedError: no such tile can be.
    """
    return Tile(level, index, width).path


def bundle_path(index: int, width: int = TILE_WIDTH) -> str:
    """The path of an entry bundle.

    Raises:
        MalformedError: no such bundle can be.
    """
    return Bundle(index, width).path


def tiles_between(old_size: int, new_size: int) -> Iterator[Tile]:
    """List the tiles to write when the log has grown: those of the newer size that the older had not.

    A tile that the older size had narrower is listed with its new width: another file.

    Raises:
        MalformedError: the sizes fall, or are outside 0 to 2**63 - 1.
    """
    _check_sizes(old_size, new_size)
    return _tiles_between(old_size, new_size)


def _tiles_between(old_count: int, new_count: int) -> Iterator[Tile]:
    level = 0
    while new_count > old_count:
        for index, width in _places_between(old_count, new_count):
            yield Tile(level, index, width)
        # One level up stand the full tiles only.
        old_count, new_count, level = old_count // TILE_WIDTH, new_count // TILE_WIDTH, level + 1


def bundles_between(old_size: int, new_size: int) -> Iterator[Bundle]:
    """List the entry bundles to write when the log has grown.

    Raises:
        MalformedError: the sizes fall, or are outside 0 to 2**63 - 1.
    """
    _check_sizes(old_size, new_size)
    return (Bundle(index, width) for index, width in _places_between(old_size, new_size))


def tiles_of(size: int) -> Iterator[Tile]:
    """List the tiles of a log: full ones, and of each level at most one partial.

    Raises:
        MalformedError: the size is outside 0 to 2**63 - 1.
    """
    return tiles_between(0, size)


def bundles_of(size: int) -> Iterator[Bundle]:
    """List the entry bundles of a log.

    Raises:
        MalformedError: the size is outside 0 to 2**63 - 1.
    """
    return bundles_between(0, size)


def _check_sizes(old_size: int, new_size: int) -> None:
    if not 0 <= old_size <= new_size < COUNT_END:
        raise MalformedError("a log grows, and its size is below 2**63")


def _places_between(old_count: int, new_count: int) -> Iterator[tuple[int, int]]:
    if new_count > old_count:
        for index in range(old_count // TILE_WIDTH, (new_count - 1) // TILE_WIDTH + 1):
            yield index, min(TILE_WIDTH, new_count - index * TILE_WIDTH)


def tile_of_tree(tree: MerkleTree, tile: Tile) -> bytes:
    """Write a tile's bytes: its hashes one after the other.

    Raises:
        NotFoundError: the tree has not grown so far.
    """
    first = tile.index * TILE_WIDTH
    return tree.subtree_hashes(8 * tile.level, first, first + tile.width)


def parse_tile(raw: bytes, width: int) -> tuple[Digest, ...]:
    """Parse a tile of exactly `width` hashes.

    Raises:
        MalformedError: another length.
    """
    _check_place(0, width)
    if len(raw) != 32 * width:
        raise MalformedError("a tile is 32 bytes for each hash of its width")
    return tuple(Digest(bytes(raw[at:at + 32])) for at in range(0, len(raw), 32))


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Write an entry bundle: each entry behind its 16-bit big-endian length.

    Raises:
        MalformedError: no entry, more than 256, or one above 65,535 bytes.
    """
    _check_place(0, len(entries))
    if any(len(entry) > ENTRY_BYTES_MAX for entry in entries):
        raise MalformedError(f"an entry is at most {ENTRY_BYTES_MAX} bytes")
    return b"".join(len(entry).to_bytes(2, "big") + entry for entry in entries)


def parse_bundle(raw: bytes, width: int) -> tuple[bytes, ...]:
    """Parse a bundle of exactly `width` entries.

    Raises:
        MalformedError: fewer entries, left-over bytes, or a length that leads outside.
    """
    _check_place(0, width)
    entries: list[bytes] = []
    at = 0
    for _ in range(width):
        start = at + 2
        end = start + int.from_bytes(raw[at:start], "big")
        if end > len(raw):
            raise MalformedError("the bundle ends within an entry")
        entries.append(bytes(raw[start:end]))
        at = end
    if at != len(raw):
        raise MalformedError("bytes are left over after the last entry of the bundle")
    return tuple(entries)
