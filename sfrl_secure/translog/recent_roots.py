"""The roots of a growing tree at its newest sizes, in bounded memory.

A frontier alone knows one root, that of now. A witnessed checkpoint comes later than the entries under it, so the last
leaves are kept too, with the frontier at every 1,024th size among them: any root back to the first of those is hashed
again from there.

Source: RFC 9162, section 2.1.1.

Runs in: gatekeeper, aggregator, and whatever else follows a log.
Trusts: the leaf hashes that it is given, and its owner for the frontier that it goes on from.
"""

from __future__ import annotations

from bisect import bisect_right

from sfrl_secure.ids import Digest
from sfrl_secure.translog.frontier import Frontier

LEAVES_KEPT = 65_536
"""Sizes back from the newest of which the root is known, at least: 2 MiB."""

_STRIDE = 1_024


class RecentRoots:
    """An append-only tree that knows its newest roots. Not locked: one thread uses it."""

    __slots__ = ("_frontier", "_leaves", "_leaves_kept", "_marks")

    def __init__(self, frontier: Frontier, *, leaves_kept: int = LEAVES_KEPT) -> None:
        """Go on from `frontier`, whose owner lets it go. No root before its size is known."""
        self._frontier = frontier
        self._leaves_kept = leaves_kept
        # Ascending; the leaves kept are those from the first mark's size on.
        self._marks = [(frontier.size, frontier.hashes)]
        self._leaves = bytearray()

    @property
    def size(self) -> int:
        """Leaves in the tree."""
        return self._frontier.size

    @property
    def hashes(self) -> tuple[Digest, ...]:
        """The frontier's."""
        return self._frontier.hashes

    def append(self, leaf: Digest) -> None:
        """Add a leaf hash.

        Raises:
            MalformedError: it is not 32 bytes.
        """
        self._frontier.append(leaf)
        self._leaves += leaf
        if self.size % _STRIDE == 0:
            self._marks.append((self.size, self._frontier.hashes))
            while self._marks[1][0] <= self.size - self._leaves_kept:
                first, _ = self._marks.pop(0)
                del self._leaves[: 32 * (self._marks[0][0] - first)]

    def root(self, size: int) -> Digest | None:
        """The root of the first `size` leaves; None where it is not known, any more or yet."""
        if size == self.size:
            return self._frontier.root()
        first = self._marks[0][0]
        if not first <= size < self.size:
            return None
        mark, hashes = self._marks[bisect_right(self._marks, size, key=lambda each: each[0]) - 1]
        then = Frontier(mark, hashes)
        for at in range(32 * (mark - first), 32 * (size - first), 32):
            then.append(Digest(bytes(self._leaves[at : at + 32])))
        return then.root()
