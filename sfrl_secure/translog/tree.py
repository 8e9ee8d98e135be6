"""The tree in memory: every complete subtree's hash, so that any root and any proof costs O(log n).

Level h holds the hashes of the complete subtrees of 2**h leaves: 64 bytes a leaf in all. Nothing is ever changed or
removed, so every older size keeps its root and its proofs.

Not locked: one thread appends, and whoever reads beside it asks for sizes that it has seen.

Source: RFC 9162, sections 2.1.1, 2.1.3.1 and 2.1.4.1.

Runs in: audit_log, verifier, participant, and whatever follows a log.
Trusts: the leaf hashes that it is given.
"""

from __future__ import annotations

from collections.abc import Iterable

from sfrl_secure.errors import NotFoundError
from sfrl_secure.ids import Digest, parse_digest
from sfrl_secure.translog.merkle import fold_subtrees, node_hash
from sfrl_secure.translog.proofs import ConsistencyProof, InclusionProof


class MerkleTree:
    """An append-only tree over leaf hashes."""

    __slots__ = ("_levels",)

    def __init__(self, leaf_hashes: Iterable[Digest] = ()) -> None:
        self._levels = [bytearray()]
        self.extend(leaf_hashes)

    @property
    def size(self) -> int:
        """Leaves in the tree."""
        return len(self._levels[0]) // 32

    def append(self, leaf_hash: Digest) -> int:
        """Add a leaf at the right and give its index.

        Raises:
            MalformedError: not 32 bytes; the tree is as it was.
        """
        subtree = parse_digest(leaf_hash)
        index = position = self.size
        self._levels[0] += subtree
        height = 0
        # Each odd position completes a subtree one level up.
        while position & 1:
            left = bytes(self._levels[height][-64:-32])
            subtree = node_hash(left, subtree)
            height, position = height + 1, position >> 1
            if height == len(self._levels):
                self._levels.append(bytearray())
            self._levels[height] += subtree
        return index

    def extend(self, leaf_hashes: Iterable[Digest]) -> None:
        """Add leaves at the right, in order.

        Raises:
            MalformedError: one is not 32 bytes; those before it were added.
        """
        for leaf in leaf_hashes:
            self.append(leaf)

    def leaf(self, index: int) -> Digest:
        """The leaf hash at `index`.

        Raises:
            NotFoundError: the tree has no such leaf.
        """
        if not 0 <= index < self.size:
            raise NotFoundError("the tree has no such leaf")
        return self._subtree(0, index)

    def root(self, size: int | None = None) -> Digest:
        """The root of the first `size` leaves; of all without `size`.

        Raises:
            NotFoundError: the tree has not so many leaves.
        """
        return self._range_root(0, self.size if size is None else self._known(size))

    def inclusion_proof(self, index: int, size: int) -> InclusionProof:
        """Prove that leaf `index` is in the tree of the first `size` leaves. RFC 9162, section 2.1.3.1.

        Raises:
            NotFoundError: the tree has not so many leaves, or `index` is not among them.
        """
        if not 0 <= index < self._known(size):
            raise NotFoundError("the tree of that size has no such leaf")
        path: list[Digest] = []
        start, end = 0, size
        while end - start > 1:
            middle = start + _split(end - start)
            if index < middle:
                path.append(self._range_root(middle, end))
                end = middle
            else:
                path.append(self._range_root(start, middle))
                start = middle
        return InclusionProof(index, size, tuple(reversed(path)))

    def consistency_proof(self, old_size: int, new_size: int) -> ConsistencyProof:
        """Prove that the first `old_size` leaves are a prefix of the first `new_size`. RFC 9162, section 2.1.4.1.

        From size 0 the proof is empty, as c2sp.org/tlog-witness wants it.

        Raises:
            NotFoundError: the tree has not so many leaves, or the older size is the larger.
        """
        if not 0 <= old_size <= self._known(new_size):
            raise NotFoundError("the older tree is not within the newer")
        path: list[Digest] = []
        start, end = 0, new_size
        if old_size:
            while end != old_size:
                middle = start + _split(end - start)
                if old_size <= middle:
                    path.append(self._range_root(middle, end))
                    end = middle
                else:
                    path.append(self._range_root(start, middle))
                    start = middle
            # A subtree that begins at 0 is the older tree itself: its root is known to whoever checks.
            if start:
                path.append(self._range_root(start, end))
        return ConsistencyProof(old_size, new_size, tuple(reversed(path)))

    def subtree_hashes(self, height: int, first: int, end: int) -> bytes:
        """The hashes of the complete subtrees `first` to `end - 1` of 2**height leaves, one after the other.

        Raises:
            NotFoundError: one of them is not complete.
        """
        if height < 0 or not 0 <= first <= end <= self.size >> height:
            raise NotFoundError("the tree has no such complete subtrees")
        return bytes(self._levels[height][32 * first:32 * end]) if first < end else b""

    def _known(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise NotFoundError("the tree has not so many leaves")
        return size

    def _subtree(self, height: int, index: int) -> Digest:
        return Digest(bytes(self._levels[height][32 * index:32 * index + 32]))

    def _range_root(self, start: int, end: int) -> Digest:
        """Root of a range made by the splitting rule: its largest power of two divides `start`."""
        subtrees: list[Digest] = []
        while start < end:
            height = (end - start).bit_length() - 1
            subtrees.append(self._subtree(height, start >> height))
            start += 1 << height
        return fold_subtrees(subtrees)


def _split(count: int) -> int:
    """The largest power of two strictly below `count`, which is 2 or more."""
    return 1 << ((count - 1).bit_length() - 1)
