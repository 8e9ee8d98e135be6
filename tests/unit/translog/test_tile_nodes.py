"""A tree that forgets what lies in tiles answers as one that remembers all."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.merkle import leaf_hash, node_hash, root_of
from sfrl_secure.translog.tile_nodes import TILES_KEPT, TileNodes, root_of_tile
from sfrl_secure.translog.tiles import Tile, tile_of_tree
from sfrl_secure.translog.tree import MerkleTree

LEAVES = [leaf_hash(b"%d" % i) for i in range(2_000)]
WHOLE = MerkleTree(LEAVES)


def read_whole(tile: Tile) -> bytes:
    return tile_of_tree(WHOLE, tile)


def same_answers(tree: MerkleTree, sizes: list[int]) -> None:
    for size in sizes:
        assert tree.root(size) == WHOLE.root(size)
        for index in {0, min(1, size - 1), size // 3, size // 2, size - 1}:
            assert tree.leaf(index) == LEAVES[index]
            assert tree.inclusion_proof(index, size) == WHOLE.inclusion_proof(index, size)
        for older in {0, 1, size // 3, size // 2, size}:
            assert tree.consistency_proof(older, size) == WHOLE.consistency_proof(older, size)


@pytest.mark.parametrize("tiles", [0, 1, 2, 3, 7])
def test_a_tree_goes_on_from_full_tiles(tiles: int) -> None:
    nodes = TileNodes(read_whole)
    tree = MerkleTree.over_tiles(nodes.tile_roots(tiles), nodes.node)
    assert tree.size == 256 * tiles
    for leaf in LEAVES[tree.size:]:
        tree.append(leaf)
    same_answers(tree, [max(256 * tiles, 1), 256 * tiles + 1, 1_999, 2_000])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 2_000)), min_size=1, max_size=6))
def test_forgetting_at_any_time_changes_no_answer(steps: list[tuple[int, int]]) -> None:
    nodes = TileNodes(read_whole)
    tree = MerkleTree()
    for count, forgotten in steps:
        tree.extend(LEAVES[tree.size:tree.size + count])
        tree.forget(min(forgotten, tree.size), nodes.node)
        same_answers(tree, [1, tree.size // 2 + 1, tree.size])
        assert tree.subtree_hashes(0, 0, tree.size) == b"".join(LEAVES[:tree.size])


def test_what_is_forgotten_takes_no_memory_and_is_asked_for() -> None:
    asked: list[tuple[int, int]] = []

    def older(height: int, index: int) -> Digest:
        asked.append((height, index))
        return Digest(WHOLE.subtree_hashes(height, index, index + 1))

    tree = MerkleTree(LEAVES)
    tree.forget(1_800, older)
    assert sum(len(level.hashes) for level in tree._levels) < 64 * (2_000 - 1_536) + 64 * 16
    # The last 256 leaves are kept, whatever lies in files.
    assert tree.leaf(1_744) == LEAVES[1_744]
    assert not asked
    assert tree.leaf(1_535) == LEAVES[1_535]
    assert asked == [(0, 1_535)]


def test_every_node_of_a_tile_is_its_subtrees_hash() -> None:
    nodes = TileNodes(read_whole)
    for height in range(8):
        for index in range(1_792 >> height):
            assert nodes.node(height, index) == root_of(LEAVES[index << height:(index + 1) << height])
    assert root_of_tile(read_whole(Tile(0, 3, 256))) == root_of(LEAVES[768:1_024])


def test_roots_of_many_tiles_come_from_the_tiles_above_as_far_as_those_are_full() -> None:
    roots = [leaf_hash(b"root %d" % i) for i in range(2)]
    read: list[Tile] = []

    def tile(wanted: Tile) -> bytes:
        read.append(wanted)
        return b"".join([roots[wanted.level]] * 256)

    found = list(TileNodes(tile).tile_roots(513))
    level_0 = roots[0]
    for _ in range(8):
        level_0 = node_hash(level_0, level_0)
    assert found == [roots[1]] * 512 + [level_0]
    assert [(each.level, each.index) for each in read] == [(1, 0), (1, 1), (0, 512)]


def test_tiles_are_read_once_as_long_as_they_are_kept_and_not_all_are() -> None:
    read: list[int] = []

    def tile(wanted: Tile) -> bytes:
        read.append(wanted.index)
        return bytes(32 * 256)

    nodes = TileNodes(tile)
    for number in range(TILES_KEPT):
        nodes.node(0, 256 * number)
    nodes.node(0, 0)
    assert read == list(range(TILES_KEPT))
    nodes.node(0, 256 * TILES_KEPT)
    nodes.node(0, 0)
    assert read == [*range(TILES_KEPT), TILES_KEPT]
    nodes.node(0, 256)
    assert read[-1] == 1


def test_a_tile_that_is_gone_or_short_gives_nothing() -> None:
    def gone(_: Tile) -> bytes:
        raise NotFoundError("gone")

    with pytest.raises(NotFoundError):
        TileNodes(gone).node(0, 0)
    for raw in (b"", bytes(32 * 255), bytes(32 * 256 + 1)):
        with pytest.raises(MalformedError):
            TileNodes(lambda _, raw=raw: raw).node(0, 0)
        with pytest.raises(MalformedError):
            list(TileNodes(lambda _, raw=raw: raw).tile_roots(1))
