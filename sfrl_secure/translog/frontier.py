"""The right edge of a growing tree: enough to go on with its root, and for no proof.

One hash for each bit set in the size: the roots of the complete subtrees, largest first, from left to right. Whoever
follows a log and leaves its entries to the log keeps this; the tree that gives proofs is `tree`.

Source: RFC 9162, section 2.1.1.

Runs in: gatekeeper, aggregator, and whatever else follows a log.
Trusts: the leaf hashes that it is given, and its owner for the hashes that it goes on from.
"""

from __future__ import annotations

from collections.abc import Iterable

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, parse_digest
from sfrl_secure.translog.canonical_text import COUNT_END
from sfrl_secure.translog.merkle import fold_subtrees, node_hash


class Frontier:
    """An append-only tree of which only the right edge is kept: at most 63 hashes."""

    __slots__ = ("_size", "_subtrees")

    def __init__(self, size: int = 0, hashes: Iterable[Digest] = ()) -> None:
        """Go on from `size` leaves, whose complete subtrees have these hashes.

        Raises:
            MalformedError: not as many hashes as the size has bits set, or one that is not 32 bytes.
        """
        self._size = size
        self._subtrees = [parse_digest(each) for each in hashes]
        if not 0 <= size < COUNT_END or len(self._subtrees) != size.bit_count():
            raise MalformedError("a frontier has one hash for each bit set in its size, which is below 2**63")

    @property
    def size(self) -> int:
        """Leaves in the tree."""
        return self._size

    @property
    def hashes(self) -> tuple[Digest, ...]:
        """Roots of the complete subtrees, the largest and leftmost first."""
        return tuple(self._subtrees)

    def append(self, leaf: Digest) -> None:
        """Add a leaf hash.

        Raises:
            MalformedError: it is not 32 bytes.
        """
        subtree, full = parse_digest(leaf), self._size
        # Each bit that is carried joins two complete subtrees into the next larger one.
        while full & 1:
            subtree = node_hash(self._subtrees.pop(), subtree)
            full >>= 1
        self._subtrees.append(subtree)
        self._size += 1

    def root(self) -> Digest:
        """The root over all leaves."""
        return fold_subtrees(self._subtrees)
