"""Where each statement of the log stands: what is in the log once has no effect a second time.

Beside the state and not in it: it grows with the log for ever, and services keep it in a file of its own.

Runs in: gatekeeper, aggregator, audit_log.
Trusts: the fold, which adds to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from sfrl_secure.ids import Digest


class StatementIndex(Protocol):
    """Where each statement stands in the log, by its digest. A digest that was added keeps its first index.

    An index that was kept over a restart may be ahead of the state: what stands at or after `size` is not there yet.
    """

    def get(self, digest: Digest) -> int | None:
        """Leaf index of the statement with this digest."""
        ...

    def add(self, digest: Digest, index: int) -> None:
        """Record a statement."""
        ...


@dataclass(slots=True)
class MemoryStatements:
    """A statement index without a file."""

    indices: dict[Digest, int] = field(default_factory=dict)

    def get(self, digest: Digest) -> int | None:
        """Leaf index of the statement with this digest."""
        return self.indices.get(digest)

    def add(self, digest: Digest, index: int) -> None:
        """Record a statement."""
        self.indices.setdefault(digest, index)
