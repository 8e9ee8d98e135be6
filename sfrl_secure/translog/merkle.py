"""Merkle tree hashing: leaves, nodes and the root of a list.

Leaf and node hashes have different first bytes, so that no entry can pose as a node. A list is split at the largest
power of two strictly below its length; the last leaf is never duplicated.

Source: RFC 9162, section 2.1.1 (the same as RFC 6962, section 2.1).

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from sfrl_secure.ids import Digest, sha256

EMPTY_ROOT = sha256(b"")
"""Root of the tree without leaves."""


def leaf_hash(entry: bytes) -> Digest:
    """Hash one entry as a leaf: SHA-256(0x00 || entry)."""
    return Digest(hashlib.sha256(b"\x00" + entry).digest())


def node_hash(left: bytes, right: bytes) -> Digest:
    """Hash two subtrees into their parent: SHA-256(0x01 || left || right)."""
    return Digest(hashlib.sha256(b"\x01" + left + right).digest())


def root_of(leaf_hashes: Iterable[Digest]) -> Digest:
    """Hash a list of leaf hashes into its root, in one pass and O(log n) memory."""
    # The complete subtrees so far, largest first: one for each bit set in the count.
    subtrees: list[Digest] = []
    for count, leaf in enumerate(leaf_hashes):
        subtree = leaf
        while count & 1:
            subtree = node_hash(subtrees.pop(), subtree)
            count >>= 1
        subtrees.append(subtree)
    return fold_subtrees(subtrees)


def fold_subtrees(subtrees: list[Digest]) -> Digest:
    """Join complete subtrees of falling size, as they stand from left to right, into one root."""
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        root = node_hash(left, root)
    return root
