from collections.abc import Iterator

import pytest

from sfrl_secure.errors import ConsistencyError, InclusionError, MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.merkle import EMPTY_ROOT, leaf_hash, root_of
from sfrl_secure.translog.proofs import (
    ConsistencyProof,
    InclusionProof,
    verify_consistency,
    verify_inclusion,
    verify_inclusion_of_hash,
)
from sfrl_secure.translog.tree import MerkleTree

ENTRIES = [b"entry %d" % i for i in range(64)]
LEAVES = [leaf_hash(entry) for entry in ENTRIES]
TREE = MerkleTree(LEAVES)
ROOTS = [root_of(LEAVES[:size]) for size in range(65)]


def split(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def path_of(m: int, leaves: list[Digest]) -> list[Digest]:
    """PATH(m, D[n]) of RFC 9162, section 2.1.3.1."""
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path_of(m, leaves[:k]), root_of(leaves[k:])]
    return [*path_of(m - k, leaves[k:]), root_of(leaves[:k])]


def subproof_of(m: int, leaves: list[Digest], whole: bool) -> list[Digest]:
    """SUBPROOF(m, D[n], b) of RFC 9162, section 2.1.4.1."""
    if m == len(leaves):
        return [] if whole else [root_of(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof_of(m, leaves[:k], whole), root_of(leaves[k:])]
    return [*subproof_of(m - k, leaves[k:], False), root_of(leaves[:k])]


def damaged_paths(path: tuple[Digest, ...]) -> Iterator[tuple[Digest, ...]]:
    """Longer, shorter, reordered, and each hash with its first and its last bit turned."""
    yield (*path, Digest(bytes(32)))
    yield (Digest(bytes(32)), *path)
    if path:
        yield (*path, path[-1])
    for i, step in enumerate(path):
        yield path[:i] + path[i + 1:]
        yield (*path[:i], Digest(bytes([step[0] ^ 0x80]) + step[1:]), *path[i + 1:])
        yield (*path[:i], Digest(step[:-1] + bytes([step[-1] ^ 1])), *path[i + 1:])
        if i:
            yield (*path[:i - 1], step, path[i - 1], *path[i + 1:])


@pytest.mark.parametrize("tree_size", range(1, 65))
def test_every_inclusion_proof_is_that_of_the_rfc_and_verifies(tree_size: int) -> None:
    for leaf_index in range(tree_size):
        proof = TREE.inclusion_proof(leaf_index, tree_size)
        assert proof == InclusionProof(leaf_index, tree_size, tuple(path_of(leaf_index, LEAVES[:tree_size])))
        verify_inclusion(ENTRIES[leaf_index], proof, ROOTS[tree_size])


@pytest.mark.parametrize("tree_size", range(1, 65))
def test_every_damaged_inclusion_proof_is_refused(tree_size: int) -> None:
    for leaf_index in range(tree_size):
        proof = TREE.inclusion_proof(leaf_index, tree_size)
        damaged = [InclusionProof(leaf_index, tree_size, path) for path in damaged_paths(proof.path)]
        damaged += [InclusionProof(other, tree_size, proof.path) for other in range(tree_size) if other != leaf_index]
        for bad in damaged:
            with pytest.raises(InclusionError):
                verify_inclusion_of_hash(LEAVES[leaf_index], bad, ROOTS[tree_size])
        with pytest.raises(InclusionError):
            verify_inclusion(ENTRIES[leaf_index] + b"!", proof, ROOTS[tree_size])
        with pytest.raises(InclusionError):
            verify_inclusion(ENTRIES[leaf_index], proof, ROOTS[tree_size - 1])


def test_inclusion_alone_does_not_prove_the_size() -> None:
    """Why every caller takes the size from the checkpoint: the same path verifies under another size."""
    path = TREE.inclusion_proof(0, 3).path
    verify_inclusion(ENTRIES[0], InclusionProof(0, 4, path), ROOTS[3])


def test_a_path_through_a_larger_tree_proves_nothing_in_a_smaller() -> None:
    """Leaf 1 of two, posing as the only leaf of a tree that has the root of both."""
    with pytest.raises(InclusionError, match="longer"):
        verify_inclusion_of_hash(LEAVES[1], InclusionProof(0, 1, (LEAVES[0],)), ROOTS[2])
    with pytest.raises(ConsistencyError, match="longer"):
        verify_consistency(ConsistencyProof(1, 2, (LEAVES[1], LEAVES[2])), ROOTS[1], ROOTS[3])


def test_a_path_that_stops_below_the_root_proves_nothing() -> None:
    """The root of the left half, posing as the root of all."""
    with pytest.raises(InclusionError, match="shorter"):
        verify_inclusion_of_hash(LEAVES[0], InclusionProof(0, 4, (LEAVES[1],)), ROOTS[2])
    with pytest.raises(ConsistencyError, match="shorter"):
        verify_consistency(ConsistencyProof(1, 4, (LEAVES[1],)), ROOTS[1], ROOTS[2])


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_leaf_or_root_that_is_no_hash_is_refused(length: int) -> None:
    no_hash = Digest(bytes(length))
    with pytest.raises(InclusionError):
        verify_inclusion_of_hash(no_hash, InclusionProof(0, 1, ()), no_hash)
    with pytest.raises(ConsistencyError):
        verify_consistency(ConsistencyProof(1, 1, ()), no_hash, no_hash)
    with pytest.raises(ConsistencyError):
        verify_consistency(ConsistencyProof(0, 5, ()), EMPTY_ROOT, no_hash)
    with pytest.raises(ConsistencyError, match="exactly 32"):
        verify_consistency(ConsistencyProof(1, 2, (LEAVES[1],)), no_hash, ROOTS[2])


@pytest.mark.parametrize(("index", "size"), [(0, 0), (1, 1), (-1, 1), (0, 2**63), (2**63, 2**63 + 1)])
def test_a_leaf_outside_the_tree_has_no_proof(index: int, size: int) -> None:
    with pytest.raises(MalformedError):
        InclusionProof(index, size, ())


@pytest.mark.parametrize(("old", "new"), [(2, 1), (-1, 1), (0, 2**63)])
def test_sizes_that_fall_or_overflow_have_no_proof(old: int, new: int) -> None:
    with pytest.raises(MalformedError):
        ConsistencyProof(old, new, ())


@pytest.mark.parametrize("path", [(Digest(bytes(32)),) * 64, (Digest(bytes(31)),), (Digest(b""),)])
def test_a_path_is_at_most_63_whole_hashes(path: tuple[Digest, ...]) -> None:
    InclusionProof(0, 2**63 - 1, (Digest(bytes(32)),) * 63)
    with pytest.raises(MalformedError):
        InclusionProof(0, 2**63 - 1, path)
    with pytest.raises(MalformedError):
        ConsistencyProof(1, 2**63 - 1, path)


@pytest.mark.parametrize("new_size", range(65))
def test_every_consistency_proof_is_that_of_the_rfc_and_verifies(new_size: int) -> None:
    for old_size in range(new_size + 1):
        proof = TREE.consistency_proof(old_size, new_size)
        if old_size:
            assert proof.path == tuple(subproof_of(old_size, LEAVES[:new_size], True))
        else:
            assert proof.path == ()
        verify_consistency(proof, ROOTS[old_size], ROOTS[new_size])


@pytest.mark.parametrize("new_size", range(65))
def test_every_damaged_consistency_proof_is_refused(new_size: int) -> None:
    other = leaf_hash(b"another root")
    for old_size in range(new_size + 1):
        proof = TREE.consistency_proof(old_size, new_size)
        for path in damaged_paths(proof.path):
            with pytest.raises(ConsistencyError):
                verify_consistency(ConsistencyProof(old_size, new_size, path), ROOTS[old_size], ROOTS[new_size])
        with pytest.raises(ConsistencyError):
            verify_consistency(proof, other, ROOTS[new_size])
        if old_size:  # From nothing, every tree has grown: only the older root is checked.
            with pytest.raises(ConsistencyError):
                verify_consistency(proof, ROOTS[old_size], other)


@pytest.mark.parametrize("new_size", range(2, 65))
def test_a_rewritten_leaf_is_inconsistent(new_size: int) -> None:
    forked = MerkleTree([*LEAVES[:1], leaf_hash(b"rewritten"), *LEAVES[2:new_size]])
    for old_size in range(2, new_size):
        with pytest.raises(ConsistencyError):
            verify_consistency(forked.consistency_proof(old_size, new_size), ROOTS[old_size], forked.root())


def test_the_empty_tree_is_before_every_tree_with_an_empty_proof_only() -> None:
    verify_consistency(ConsistencyProof(0, 5, ()), EMPTY_ROOT, ROOTS[5])
    verify_consistency(ConsistencyProof(0, 0, ()), EMPTY_ROOT, EMPTY_ROOT)
    wrong_root, not_empty = (ROOTS[1], ()), (EMPTY_ROOT, (ROOTS[5],))
    for new_size, (old_root, path) in [(5, wrong_root), (0, wrong_root), (5, not_empty), (0, not_empty)]:
        with pytest.raises(ConsistencyError):
            verify_consistency(ConsistencyProof(0, new_size, path), old_root, ROOTS[new_size])
