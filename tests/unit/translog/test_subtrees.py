"""Subtrees against the definitions of the draft, on every subtree of every small tree."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sfrl_secure.errors import ConsistencyError, InclusionError, MalformedError, SfrlError
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.translog.merkle import EMPTY_ROOT, leaf_hash, root_of
from sfrl_secure.translog.proofs import ConsistencyProof, verify_consistency
from sfrl_secure.translog.subtrees import Subtree, verify_subtree_consistency, verify_subtree_inclusion
from sfrl_secure.translog.tree import MerkleTree

LEAVES = [leaf_hash(b"entry %d" % index) for index in range(33)]
OTHER = sha256(b"another root")


def is_subtree(start: int, end: int) -> bool:
    """By the words of the draft: start is a multiple of BIT_CEIL(end - start)."""
    ceiling = 1
    while ceiling < end - start:
        ceiling *= 2
    return start <= end and start % ceiling == 0


def subtrees(size: int) -> Iterator[tuple[int, int]]:
    """Every subtree of a tree that is not empty."""
    return ((start, end) for start in range(size) for end in range(start + 1, size + 1) if is_subtree(start, end))


def subtree_proof(start: int, end: int, leaves: list[Digest], is_known: bool = True) -> tuple[Digest, ...]:
    """SUBTREE_SUBPROOF of the draft, as it stands there."""
    if (start, end) == (0, len(leaves)):
        return () if is_known else (root_of(leaves),)
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    if end <= k:
        return (*subtree_proof(start, end, leaves[:k], is_known), root_of(leaves[k:]))
    if k <= start:
        return (*subtree_proof(start - k, end - k, leaves[k:], is_known), root_of(leaves[:k]))
    assert start == 0
    return (*subtree_proof(0, end - k, leaves[k:], False), root_of(leaves[:k]))


@pytest.mark.parametrize("end", range(34))
def test_a_subtree_begins_at_a_multiple_of_its_rounded_size(end: int) -> None:
    for start in range(34):
        if is_subtree(start, end):
            assert Subtree(start, end).size == end - start
        else:
            with pytest.raises(MalformedError):
                Subtree(start, end)


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (-2, 2), (0, 2**63), (2**63, 2**63)])
def test_a_subtree_lies_within_the_counts(start: int, end: int) -> None:
    with pytest.raises(MalformedError):
        Subtree(start, end)


@pytest.mark.parametrize("size", range(1, 34))
def test_every_subtree_of_every_tree_is_consistent_with_it_and_with_no_other(size: int) -> None:
    leaves = LEAVES[:size]
    root = root_of(leaves)
    for start, end in subtrees(size):
        subtree, inner = Subtree(start, end), root_of(leaves[start:end])
        path = subtree_proof(start, end, leaves)
        verify_subtree_consistency(subtree, size, path, inner, root)
        with pytest.raises(ConsistencyError):
            verify_subtree_consistency(subtree, size, path, OTHER, root)
        with pytest.raises(ConsistencyError):
            verify_subtree_consistency(subtree, size, path, inner, OTHER)
        with pytest.raises(ConsistencyError):
            verify_subtree_consistency(subtree, size, (*path, OTHER), inner, root)
        for left_out in range(len(path)):
            with pytest.raises(ConsistencyError):
                verify_subtree_consistency(subtree, size, path[:left_out] + path[left_out + 1 :], inner, root)
            damaged = (*path[:left_out], OTHER, *path[left_out + 1 :])
            with pytest.raises(ConsistencyError):
                verify_subtree_consistency(subtree, size, damaged, inner, root)


@pytest.mark.parametrize("size", range(1, 18))
def test_a_proof_shows_no_other_subtree_and_no_other_tree(size: int) -> None:
    leaves = LEAVES[:size]
    root = root_of(leaves)
    for start, end in subtrees(size):
        inner, path = root_of(leaves[start:end]), subtree_proof(start, end, leaves)
        for other_start, other_end in subtrees(size):
            if (other_start, other_end) != (start, end):
                with pytest.raises(ConsistencyError):
                    verify_subtree_consistency(Subtree(other_start, other_end), size, path, inner, root)
        with pytest.raises(SfrlError):
            verify_subtree_consistency(Subtree(start, end), end - 1, path, inner, root)


@pytest.mark.parametrize("size", range(1, 34))
def test_a_prefix_is_a_subtree_with_the_proof_of_rfc_9162(size: int) -> None:
    tree, root = MerkleTree(LEAVES[:size]), root_of(LEAVES[:size])
    for end in range(1, size + 1):
        path = tree.consistency_proof(end, size).path
        assert path == subtree_proof(0, end, LEAVES[:size])
        verify_subtree_consistency(Subtree(0, end), size, path, root_of(LEAVES[:end]), root)
        verify_consistency(ConsistencyProof(end, size, path), root_of(LEAVES[:end]), root)


def test_an_empty_subtree_has_the_empty_root_and_no_proof() -> None:
    root = root_of(LEAVES[:8])
    for at in range(9):
        verify_subtree_consistency(Subtree(at, at), 8, (), EMPTY_ROOT, root)
        with pytest.raises(ConsistencyError):
            verify_subtree_consistency(Subtree(at, at), 8, (), root, root)
        with pytest.raises(ConsistencyError):
            verify_subtree_consistency(Subtree(at, at), 8, (EMPTY_ROOT,), EMPTY_ROOT, root)


def test_a_subtree_beyond_the_tree_is_refused() -> None:
    with pytest.raises(MalformedError):
        verify_subtree_consistency(Subtree(8, 9), 8, (), LEAVES[8], root_of(LEAVES[:9]))
    with pytest.raises(MalformedError):
        verify_subtree_consistency(Subtree(0, 1), 2**63, (), LEAVES[0], LEAVES[0])


def test_a_path_has_at_most_63_hashes_of_32_bytes() -> None:
    root = root_of(LEAVES[:8])
    for path in ((OTHER,) * 64, (Digest(b"short"),)):
        with pytest.raises(MalformedError):
            verify_subtree_consistency(Subtree(0, 4), 8, path, root, root)


@pytest.mark.parametrize("short", [b"", b"\x00" * 31, b"\x00" * 33])
def test_a_root_that_is_no_hash_is_refused(short: bytes) -> None:
    with pytest.raises(ConsistencyError):
        verify_subtree_consistency(Subtree(0, 1), 1, (), Digest(short), Digest(short))
    with pytest.raises(InclusionError):
        verify_subtree_inclusion(Digest(short), 0, Subtree(0, 1), (), Digest(short))


@pytest.mark.parametrize("size", range(1, 18))
def test_every_leaf_is_included_in_every_subtree_that_holds_it_and_in_no_other_place(size: int) -> None:
    for start, end in subtrees(size):
        subtree, root = Subtree(start, end), root_of(LEAVES[start:end])
        tree = MerkleTree(LEAVES[start:end])
        for index in range(start, end):
            path = tree.inclusion_proof(index - start, end - start).path
            verify_subtree_inclusion(LEAVES[index], index, subtree, path, root)
            for other in range(start, end):
                if other != index:
                    with pytest.raises(InclusionError):
                        verify_subtree_inclusion(LEAVES[index], other, subtree, path, root)


@pytest.mark.parametrize("index", [3, 8])
def test_a_leaf_outside_of_the_subtree_is_refused(index: int) -> None:
    with pytest.raises(MalformedError):
        verify_subtree_inclusion(LEAVES[index], index, Subtree(4, 8), (LEAVES[5], LEAVES[6]), OTHER)
