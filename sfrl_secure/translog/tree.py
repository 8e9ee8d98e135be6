"""The tree in memory: every complete subtree's hash, so that any root and any proof costs O(log n).

Level h holds the hashes of the complete subtrees of 2**h leaves: 64 bytes a leaf in all. A tree that grows without
end `forget`s the levels below a tile's height as far as they lie in files; it asks `older` for them, and keeps 0.25
bytes a leaf. Nothing is ever changed, so every older size keeps its root and its proofs.

Not locked: one thread appends and forgets, and whoever reads beside it asks for sizes that it has seen.

Source: RFC 9162, sections 2.1.1, 2.1.3.1 and 2.1.4.1.

Runs in: audit_log, verifier, participant, and whatever follows a log.
Trusts: the leaf hashes that it is given, and `older`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from sfrl_secure.errors import NotFoundError
from sfrl_secure.ids import Digest, parse_digest
from sfrl_secure.translog.merkle import fold_subtrees, node_hash
from sfrl_secure.translog.proofs import ConsistencyProof, InclusionProof

TILE_HEIGHT = 8
"""A tile holds this many levels (c2sp.org/tlog-tiles): those above are kept in memory for good."""

Older = Callable[[int, int], Digest]
"""Gives the hash of a complete subtree by height and index, from files."""


@dataclass(slots=True)
class _Level:
    """Hashes of one height from index `first` on. Replaced as a whole where hashes are forgotten."""

    first: int = 0
    hashes: bytearray = field(default_factory=bytearray)

    @property
    def end(self) -> int:
        """Index behind the last hash."""
        return self.first + len(self.hashes) // 32


class MerkleTree:
    """An append-only tree over leaf hashes."""

    __slots__ = ("_border", "_levels", "_older")

    def __init__(self, leaf_hashes: Iterable[Digest] = ()) -> None:
        self._levels = [_Level()]
        self._older: Older | None = None
        self._border: tuple[int, dict[int, Digest]] = (0, {})
        self.extend(leaf_hashes)

    @classmethod
    def over_tiles(cls, tile_roots: Iterable[Digest], older: Older) -> MerkleTree:
        """Go on from full tiles: the hashes of the first complete subtrees of 256 leaves, in order.

        Args:
            older: gives the hashes below them.

        Raises:
            MalformedError: one is not 32 bytes.
        """
        tree = cls()
        tree._older = older
        tree._levels = [_Level() for _ in range(TILE_HEIGHT + 1)]
        for root in tile_roots:
            tree._complete(TILE_HEIGHT, parse_digest(root))
        size = tree._levels[TILE_HEIGHT].end << TILE_HEIGHT
        for height in range(TILE_HEIGHT):
            tree._levels[height] = _Level(size >> height)
        return tree

    @property
    def size(self) -> int:
        """Leaves in the tree."""
        return self._levels[0].end

    def append(self, leaf_hash: Digest) -> int:
        """Add a leaf at the right and give its index.

        Raises:
            MalformedError: not 32 bytes; the tree is as it was.
        """
        index = self.size
        self._complete(0, parse_digest(leaf_hash))
        return index

    def extend(self, leaf_hashes: Iterable[Digest]) -> None:
        """Add leaves at the right, in order.

        Raises:
            MalformedError: one is not 32 bytes; those before it were added.
        """
        for leaf in leaf_hashes:
            self.append(leaf)

    def forget(self, size: int, older: Older) -> None:
        """Keep no hash below a tile's height of the first `size` leaves: `older` gives them from now on.

        The last 256 leaves are kept, forgotten or not: their siblings are still to come.
        """
        self._older = older
        keep_from = min(size, self.size - (1 << TILE_HEIGHT)) >> TILE_HEIGHT << TILE_HEIGHT
        for height in range(min(TILE_HEIGHT, len(self._levels))):
            level, first = self._levels[height], keep_from >> height
            if first > level.first:
                self._levels[height] = _Level(first, level.hashes[32 * (first - level.first):])

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
        return InclusionProof(index, size, self.inclusion_path(index, size))

    def inclusion_path(self, index: int, size: int) -> tuple[Digest, ...]:
        """Give the audit path alone, from the leaf upwards.

        Raises:
            NotFoundError: as `inclusion_proof`.
        """
        if not 0 <= index < self._known(size):
            raise NotFoundError("the tree of that size has no such leaf")
        path: list[Digest] = []
        height, node = 0, index
        while 1 << height < size:
            sibling = node ^ 1
            start = sibling << height
            # On the right border: a node without a sibling goes up as it is.
            if start < size:
                end = start + (1 << height)
                path.append(self._subtree(height, sibling) if end <= size else self._range_root(start, size))
            height, node = height + 1, node >> 1
        return tuple(path)

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
        if first == end:
            return b""
        level = self._levels[height]
        if first >= level.first:
            return bytes(level.hashes[32 * (first - level.first):32 * (end - level.first)])
        return b"".join(self._subtree(height, index) for index in range(first, end))

    def _complete(self, height: int, subtree: Digest) -> None:
        """Add a complete subtree at the right of its level, and those that it completes above."""
        position = self._levels[height].end
        self._levels[height].hashes += subtree
        # Each odd position completes a subtree one level up.
        while position & 1:
            subtree = node_hash(self._subtree(height, position - 1), subtree)
            height, position = height + 1, position >> 1
            if height == len(self._levels):
                self._levels.append(_Level())
            self._levels[height].hashes += subtree

    def _known(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise NotFoundError("the tree has not so many leaves")
        return size

    def _subtree(self, height: int, index: int) -> Digest:
        level = self._levels[height]
        at = 32 * (index - level.first)
        if at >= 0:
            return Digest(bytes(level.hashes[at:at + 32]))
        assert self._older is not None, "only what lies in files was forgotten"
        return self._older(height, index)

    def _range_root(self, start: int, end: int) -> Digest:
        """Root of a range made by the splitting rule: its largest power of two divides `start`."""
        border = self._border
        if border[0] != end:
            # The proofs of one batch end at one size, and share the right border.
            self._border = border = (end, {})
        known = border[1].get(start)
        if known is None:
            subtrees: list[Digest] = []
            at = start
            while at < end:
                height = (end - at).bit_length() - 1
                subtrees.append(self._subtree(height, at >> height))
                at += 1 << height
            known = border[1][start] = fold_subtrees(subtrees)
        return known


def _split(count: int) -> int:
    """The largest power of two strictly below `count`, which is 2 or more."""
    return 1 << ((count - 1).bit_length() - 1)
