"""Inclusion and consistency proofs: what they are and how they are verified.

A proof is believed only against roots that the caller has authenticated, each from a verified checkpoint and never from
the message that carries the proof.

Source: RFC 9162, sections 2.1.3.2 and 2.1.4.2; the empty older tree: c2sp.org/tlog-witness.

Runs in: everything.
Trusts: the roots that the caller passes. Nothing in the proof.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.errors import ConsistencyError, InclusionError, MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.canonical_text import COUNT_END
from sfrl_secure.translog.merkle import EMPTY_ROOT, leaf_hash, node_hash

PATH_HASHES_MAX = 63
"""Hashes in one proof."""


@dataclass(frozen=True, slots=True)
class InclusionProof:
    """Audit path from one leaf to a root (RFC 9162, section 2.1.3).

    Attributes:
        leaf_index: zero-based, less than `tree_size`.
        tree_size: leaves in the tree, 1 to 2**63 - 1.
        path: sibling hashes from the leaf upwards, at most 63, each of 32 bytes.
    """

    leaf_index: int
    tree_size: int
    path: tuple[Digest, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.leaf_index < self.tree_size < COUNT_END:
            raise MalformedError("leaf index is outside the tree")
        check_path(self.path)


@dataclass(frozen=True, slots=True)
class ConsistencyProof:
    """Proof that an older tree is a prefix of a newer one (RFC 9162, section 2.1.4).

    Attributes:
        old_size: leaves in the older tree, from 0.
        new_size: leaves in the newer tree, from `old_size` to 2**63 - 1.
        path: hashes from the older tree's right border upwards, at most 63, each of 32 bytes.
    """

    old_size: int
    new_size: int
    path: tuple[Digest, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.old_size <= self.new_size < COUNT_END:
            raise MalformedError("the older tree is larger than the newer")
        check_path(self.path)


def check_path(path: tuple[Digest, ...]) -> None:
    """Hold the hashes of a proof to their bounds.

    Raises:
        MalformedError: more than 63, or one that is not 32 bytes.
    """
    if len(path) > PATH_HASHES_MAX:
        raise MalformedError(f"a proof has at most {PATH_HASHES_MAX} hashes")
    if any(len(step) != 32 for step in path):
        raise MalformedError("a hash in a proof is exactly 32 bytes")


def verify_inclusion(entry: bytes, proof: InclusionProof, root: Digest) -> None:
    """Verify that `entry` is leaf `proof.leaf_index` of the tree under `root`.

    The caller has authenticated `root`, and has compared `proof.tree_size` with the size signed beside it.
    RFC 9162, section 2.1.3.2.

    Raises:
        InclusionError: the path has the wrong length or leads to another root.
    """
    verify_inclusion_of_hash(leaf_hash(entry), proof, root)


def verify_inclusion_of_hash(leaf: Digest, proof: InclusionProof, root: Digest) -> None:
    """Verify the same of a leaf hash that the caller has computed itself.

    Raises:
        InclusionError: the leaf hash is not 32 bytes, the path has the wrong length or leads to another root.
    """
    # In a tree of one leaf the leaf hash is the root: two empty strings would be equal.
    if len(leaf) != 32:
        raise InclusionError("a leaf hash is exactly 32 bytes")
    position, border = proof.leaf_index, proof.tree_size - 1
    reached = leaf
    for sibling in proof.path:
        if border == 0:
            raise InclusionError("audit path is longer than the tree is high")
        if position & 1 or position == border:
            reached = node_hash(sibling, reached)
            # On the right border: skip the levels that have no right sibling.
            while position and not position & 1:
                position, border = position >> 1, border >> 1
        else:
            reached = node_hash(reached, sibling)
        position, border = position >> 1, border >> 1
    if border:
        raise InclusionError("audit path is shorter than the tree is high")
    if reached != root:
        raise InclusionError("audit path leads to another root")


def verify_consistency(proof: ConsistencyProof, old_root: Digest, new_root: Digest) -> None:
    """Verify that the tree under `old_root` is a prefix of the tree under `new_root`.

    The caller has authenticated both roots, with their sizes. RFC 9162, section 2.1.4.2. That algorithm begins at one
    leaf; for the empty older tree the rule is C2SP's: the proof is empty, and `old_root` is the root of the empty tree.

    Raises:
        ConsistencyError: a root is not 32 bytes, the path has the wrong length or leads to other roots. The error
            carries no notes: this function has seen none.
    """
    if len(old_root) != 32 or len(new_root) != 32:
        raise ConsistencyError("roots are exactly 32 bytes")
    if proof.old_size == 0 or proof.old_size == proof.new_size:
        if proof.path:
            raise ConsistencyError("a proof from the empty tree, or between equal sizes, has no hashes")
        if proof.old_size == 0 and old_root != EMPTY_ROOT:
            raise ConsistencyError("the empty tree has another root")
        if proof.old_size == proof.new_size and old_root != new_root:
            raise ConsistencyError("two roots for one size")
        return
    _walk_consistency(proof, old_root, new_root)


def _walk_consistency(proof: ConsistencyProof, old_root: Digest, new_root: Digest) -> None:
    # A complete older tree is itself the first step; the proof leaves it out.
    steps = proof.path if proof.old_size & (proof.old_size - 1) else (old_root, *proof.path)
    if not steps:
        raise ConsistencyError("consistency path is empty")
    position, border = proof.old_size - 1, proof.new_size - 1
    while position & 1:
        position, border = position >> 1, border >> 1
    old_reached = new_reached = steps[0]
    for step in steps[1:]:
        if border == 0:
            raise ConsistencyError("consistency path is longer than the tree is high")
        if position & 1 or position == border:
            old_reached = node_hash(step, old_reached)
            new_reached = node_hash(step, new_reached)
            # On the right border: skip the levels that have no right sibling.
            while position and not position & 1:
                position, border = position >> 1, border >> 1
        else:
            new_reached = node_hash(new_reached, step)
        position, border = position >> 1, border >> 1
    if border:
        raise ConsistencyError("consistency path is shorter than the tree is high")
    if old_reached != old_root:
        raise ConsistencyError("consistency path leads to another older root")
    if new_reached != new_root:
        raise ConsistencyError("consistency path leads to another newer root")
