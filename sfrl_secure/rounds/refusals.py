"""Refusals that get no entry of their own, counted: unknown peers, and the fourth of a kind.

Memory is bounded however many come: one number a pair of reason and class, and the border of a Merkle tree over the
request digests. What was taken to be written stays as it is until it is confirmed; what comes meanwhile belongs to
the next interval.

Format: proto/README.md, "Admission"; proto/sfrl/audit/v1/entry.proto, `RefusalsCounted`.

Runs in: gatekeeper, audit_log.
Trusts: nothing.
"""

from __future__ import annotations

import threading

from sfrl_secure.clock import Clock
from sfrl_secure.governance.statements import PeerClass, RefusalCount, RefusalsCounted
from sfrl_secure.ids import Digest
from sfrl_secure.translog.merkle import fold_subtrees, leaf_hash, node_hash

PAIRS_MAX = 256
"""Pairs of reason and class in one interval."""

OTHER = ("other", PeerClass.UNKNOWN)
"""Where the 256th pair and those after it are counted. Our code has far fewer reasons."""


class RefusalCounter:
    """Counts refusals. Safe for any number of threads."""

    def __init__(self, clock: Clock) -> None:
        """Begin an interval now."""
        self._clock = clock
        self._lock = threading.Lock()
        self._pending: RefusalsCounted | None = None
        self._begin(clock.now_us())

    def count(self, reason: str, peer_class: PeerClass, request_digest: Digest) -> None:
        """Count one refusal."""
        with self._lock:
            pair = (reason, peer_class)
            if pair not in self._counts and len(self._counts) >= PAIRS_MAX - 1:
                pair = OTHER
            self._counts[pair] = self._counts.get(pair, 0) + 1
            self._add_leaf(leaf_hash(request_digest))

    @property
    def counted(self) -> int:
        """Refusals that nobody has taken yet."""
        with self._lock:
            return self._total

    def take(self) -> RefusalsCounted | None:
        """End the interval and give what to write; None where nothing was refused.

        Until `confirm`, the same interval is given again.
        """
        with self._lock:
            if self._pending is None and self._total:
                now_us = max(self._clock.now_us(), self._from_us)
                counts = tuple(
                    RefusalCount(reason, peer_class, count)
                    for (reason, peer_class), count in sorted(self._counts.items())
                )
                self._pending = RefusalsCounted(self._from_us, now_us, counts, fold_subtrees(self._border))
                self._begin(now_us)
            return self._pending

    def confirm(self, written: RefusalsCounted) -> None:
        """Note that what `take` gave is in the log."""
        with self._lock:
            if self._pending == written:
                self._pending = None

    def _begin(self, from_us: int) -> None:
        self._from_us = from_us
        self._counts: dict[tuple[str, PeerClass], int] = {}
        self._total = 0
        # Complete subtrees, largest first: one for each bit set in the count (RFC 9162, section 2.1.1).
        self._border: list[Digest] = []

    def _add_leaf(self, subtree: Digest) -> None:
        count = self._total
        while count & 1:
            subtree = node_hash(self._border.pop(), subtree)
            count >>= 1
        self._border.append(subtree)
        self._total += 1
