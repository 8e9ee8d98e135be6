import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.merkle import EMPTY_ROOT, leaf_hash, root_of
from sfrl_secure.translog.proofs import verify_consistency, verify_inclusion_of_hash
from sfrl_secure.translog.tree import MerkleTree

LEAVES = [leaf_hash(b"%d" % i) for i in range(600)]
TREE = MerkleTree(LEAVES)


def test_every_older_size_keeps_its_root() -> None:
    for size in range(len(LEAVES) + 1):
        assert TREE.root(size) == root_of(LEAVES[:size])
    assert TREE.root() == TREE.root(600)
    assert MerkleTree().root() == EMPTY_ROOT


def test_leaves_come_back_by_index() -> None:
    tree = MerkleTree()
    assert [tree.append(leaf) for leaf in LEAVES[:9]] == list(range(9))
    assert [tree.leaf(i) for i in range(9)] == LEAVES[:9]
    assert tree.size == 9


@pytest.mark.parametrize("index", [-1, 600])
def test_no_leaf_outside_the_tree(index: int) -> None:
    with pytest.raises(NotFoundError):
        TREE.leaf(index)
    with pytest.raises(NotFoundError):
        TREE.inclusion_proof(index, 600)


@pytest.mark.parametrize("size", [-1, 601, 2**63])
def test_no_root_and_no_proof_beyond_the_tree(size: int) -> None:
    with pytest.raises(NotFoundError):
        TREE.root(size)
    with pytest.raises(NotFoundError):
        TREE.inclusion_proof(0, size)
    with pytest.raises(NotFoundError):
        TREE.consistency_proof(0, size)


def test_no_proof_of_a_leaf_that_the_older_size_had_not() -> None:
    with pytest.raises(NotFoundError):
        TREE.inclusion_proof(5, 5)


@pytest.mark.parametrize("old_size", [-1, 8])
def test_no_consistency_from_a_size_that_is_not_older(old_size: int) -> None:
    with pytest.raises(NotFoundError):
        TREE.consistency_proof(old_size, 7)


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_leaf_of_another_length_leaves_the_tree_as_it_was(length: int) -> None:
    tree = MerkleTree(LEAVES[:3])
    with pytest.raises(MalformedError):
        tree.append(Digest(bytes(length)))
    assert (tree.size, tree.root()) == (3, root_of(LEAVES[:3]))


def test_subtree_hashes_are_roots_of_complete_subtrees() -> None:
    for height in range(9):
        count = 600 >> height
        expected = b"".join(root_of(LEAVES[i << height:(i + 1) << height]) for i in range(count))
        assert TREE.subtree_hashes(height, 0, count) == expected
        assert TREE.subtree_hashes(height, 1, count) == expected[32:]
        assert TREE.subtree_hashes(height, count, count) == b""


@pytest.mark.parametrize(
    ("height", "first", "end"), [(0, 0, 601), (1, 0, 301), (9, 0, 2), (64, 0, 1), (0, -1, 1), (0, 2, 1), (-1, 0, 1)]
)
def test_no_hash_of_a_subtree_that_is_not_complete(height: int, first: int, end: int) -> None:
    with pytest.raises(NotFoundError):
        TREE.subtree_hashes(height, first, end)


def test_a_leaf_costs_64_bytes() -> None:
    tree = MerkleTree(LEAVES[:512])
    hashes = sum(len(tree.subtree_hashes(height, 0, 512 >> height)) for height in range(10))
    assert hashes == 32 * (2 * 512 - 1)


@given(st.data())
@settings(deadline=None, max_examples=150)
def test_every_proof_of_the_tree_verifies(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 600))
    index = data.draw(st.integers(0, size - 1))
    old_size = data.draw(st.integers(0, size))
    verify_inclusion_of_hash(LEAVES[index], TREE.inclusion_proof(index, size), TREE.root(size))
    verify_consistency(TREE.consistency_proof(old_size, size), TREE.root(old_size), TREE.root(size))
