"""Subtrees: a run of entries that is a Merkle tree of its own, and how it hangs in the whole tree.

[start, end) is a subtree where `start` is a multiple of the smallest power of two that holds `end - start`: its root is
then the same in every tree that has these entries, or follows from a node of it. A prefix [0, end) is one, and an
ML-DSA-44 cosignature signs a checkpoint as one.

Source: draft-ietf-plants-merkle-tree-certs, section 4; c2sp.org/tlog-cosignature, c2sp.org/tlog-witness, sign-subtree.

Runs in: verifier, whoever checks a cosigned subtree.
Trusts: the roots that the caller passes. Nothing in the proof.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.errors import ConsistencyError, MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.canonical_text import COUNT_END
from sfrl_secure.translog.merkle import EMPTY_ROOT, node_hash
from sfrl_secure.translog.proofs import InclusionProof, check_path, verify_inclusion_of_hash


@dataclass(frozen=True, slots=True)
class Subtree:
    """Entries `start` to `end - 1` of a log.

    Attributes:
        start: a multiple of the smallest power of two that is not below `end - start`.
        end: from `start` to 2**63 - 1; equal to it, the subtree is empty.
    """

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end < COUNT_END:
            raise MalformedError("a subtree ends where it begins, or behind it")
        if self.size and self.start & ((1 << (self.size - 1).bit_length()) - 1):
            raise MalformedError("a subtree begins at a multiple of its size, rounded up to a power of two")

    @property
    def size(self) -> int:
        """How many entries there are."""
        return self.end - self.start


def verify_subtree_inclusion(
    leaf: Digest, leaf_index: int, subtree: Subtree, path: tuple[Digest, ...], root: Digest
) -> None:
    """Verify that a leaf hash stands at `leaf_index` of the log, in the subtree under `root`.

    The caller has authenticated `root`, and has computed the leaf hash itself.

    Raises:
        MalformedError: the index is outside the subtree, or the path outside its bounds.
        InclusionError: the path has the wrong length or leads to another root.
    """
    # A subtree is hashed as a tree of its own entries alone.
    proof = InclusionProof(leaf_index - subtree.start, subtree.size, path)
    verify_inclusion_of_hash(leaf, proof, root)


def verify_subtree_consistency(
    subtree: Subtree, tree_size: int, path: tuple[Digest, ...], subtree_root: Digest, root: Digest
) -> None:
    """Verify that the subtree under `subtree_root` is that of the tree of `tree_size` entries under `root`.

    The caller has authenticated both roots. Of an empty subtree nothing is said but that its root is the empty tree's
    and its proof has no hashes.

    Raises:
        MalformedError: the subtree does not lie within the tree, or the path is outside its bounds.
        ConsistencyError: a root is not 32 bytes, the path has the wrong length or leads to other roots.
    """
    if not subtree.end <= tree_size < COUNT_END:
        raise MalformedError("the subtree does not lie within the tree")
    check_path(path)
    if len(subtree_root) != 32 or len(root) != 32:
        raise ConsistencyError("roots are exactly 32 bytes")
    if subtree.size:
        _walk(subtree, tree_size, path, subtree_root, root)
    elif path or subtree_root != EMPTY_ROOT:
        raise ConsistencyError("an empty subtree has the root of the empty tree, and no proof")


def _walk(
    subtree: Subtree, tree_size: int, path: tuple[Digest, ...], subtree_root: Digest, root: Digest
) -> None:
    # The node above the first entry, the one above the last, and the tree's right border, level by level.
    first, last, border = subtree.start, subtree.end - 1, tree_size - 1
    # Up to the highest node that lies in the subtree and in the tree alike. On the tree's border there is none short
    # of the subtree's own root: both end there.
    while first != last and (last & 1 or last == border):
        first, last, border = first >> 1, last >> 1, border >> 1
    steps = list(path)
    if first == last:
        reached = subtree_reached = subtree_root
    elif steps:
        reached = subtree_reached = steps.pop(0)
    else:
        raise ConsistencyError("consistency path is empty")
    for step in steps:
        if border == 0:
            raise ConsistencyError("consistency path is longer than the tree is high")
        if last & 1 or last == border:
            reached = node_hash(step, reached)
            # Left of the subtree's first entry, a step belongs to the tree alone.
            if first < last:
                subtree_reached = node_hash(step, subtree_reached)
            # On the right border: skip the levels that have no right sibling.
            while last and not last & 1:
                first, last, border = first >> 1, last >> 1, border >> 1
        else:
            reached = node_hash(reached, step)
        first, last, border = first >> 1, last >> 1, border >> 1
    if border:
        raise ConsistencyError("consistency path is shorter than the tree is high")
    if subtree_reached != subtree_root:
        raise ConsistencyError("consistency path leads to another root of the subtree")
    if reached != root:
        raise ConsistencyError("consistency path leads to another root of the tree")
