"""Entries of the log with their paths, for proofs.

The log is asked for them, since we keep neither; what it gives is held against the root that we have followed it to.
The last ones are kept: whoever asks for the same round is shown the same entries.

Runs in: gatekeeper.
Trusts: the follower's checkpoints. Nothing that the log answers.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from threading import Lock
from typing import Protocol

import structlog

from sfrl_secure.errors import SfrlError, UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import PROVE_ENTRIES_MAX
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.translog.proofs import InclusionProof, verify_inclusion

PROVED_MAX = 128
"""Entries that are kept with their paths: 8 MiB at most."""

_log = structlog.get_logger()


class CoveredLog(Protocol):
    """A checkpoint that the follower has verified."""

    @property
    def tree_size(self) -> int:
        """Leaves under the checkpoint; 0 before the first."""
        ...

    @property
    def root(self) -> Digest:
        """Their root."""
        ...

    @property
    def note(self) -> bytes:
        """The signed note."""
        ...


class EntrySource(Protocol):
    """Who gives entries with their paths: the audit log."""

    def prove(self, indices: Sequence[int], tree_size: int) -> tuple[LoggedEntry, ...]:
        """Give 1 to 64 entries, ascending, with their paths to the root at `tree_size`."""
        ...


class ProvedEntries:
    """Entries with their paths, verified. Safe for several threads."""

    def __init__(self, entries: EntrySource) -> None:
        """Begin with none kept."""
        self._entries = entries
        # By tree size and index.
        self._proved: OrderedDict[tuple[int, int], LoggedEntry] = OrderedDict()
        self._lock = Lock()

    def prove(self, indices: AbstractSet[int], covered: CoveredLog) -> dict[int, LoggedEntry]:
        """Get entries with their paths to `covered`, which we have followed the log to.

        Raises:
            UnavailableError: the log gives no entries, or others than it has signed for.
        """
        size = covered.tree_size
        with self._lock:
            proved = {each: known for each in indices if (known := self._proved.get((size, each))) is not None}
        wanted = sorted(indices - proved.keys())
        if wanted:
            try:
                proved |= self._ask(wanted, covered)
            except SfrlError as error:
                # Whatever the log says, it is not the caller's doing, and it is no decision.
                _log.warning("proof_not_given", error=f"{type(error).__name__}: {error}", tree_size=size)
                raise UnavailableError("the log does not give what it has signed for: try again") from error
        with self._lock:
            for index, logged in proved.items():
                self._proved[size, index] = logged
                self._proved.move_to_end((size, index))
            while len(self._proved) > PROVED_MAX:
                self._proved.popitem(last=False)
        return proved

    def _ask(self, wanted: list[int], covered: CoveredLog) -> dict[int, LoggedEntry]:
        """Ask the log, in as few calls as it takes, and verify each answer under the root that it has signed."""
        found: list[LoggedEntry] = []
        for start in range(0, len(wanted), PROVE_ENTRIES_MAX):
            found += self._entries.prove(wanted[start : start + PROVE_ENTRIES_MAX], covered.tree_size)
        if [logged.index for logged in found] != wanted:
            raise UnavailableError("the log gives other entries than those asked for")
        for logged in found:
            verify_inclusion(logged.raw, InclusionProof(logged.index, covered.tree_size, logged.path), covered.root)
        return dict(zip(wanted, found, strict=True))
