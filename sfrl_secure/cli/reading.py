"""A published log, folded for people: the documents in force, the rounds, and what is void.

The fold is the services' own, and the log's keys are those that its genesis names, so this shows what the log says and
proves nothing to a stranger.

Runs in: cli.
Trusts: the folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sfrl_secure.audit.published import read_unverified_checkpoint, read_unverified_entries
from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.governance.documents import GenesisDocument
from sfrl_secure.governance.statements import ModelPublished, Statement
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.state import FederationState, SegmentState
from sfrl_secure.translog.merkle import leaf_hash


@dataclass(slots=True)
class LogReading:
    """What a log amounts to.

    Attributes:
        voids: why an entry has no effect, by its index.
        published: model_published entries that have one, by theirs.
    """

    state: FederationState
    voids: dict[int, str] = field(default_factory=dict)
    published: dict[int, ModelPublished] = field(default_factory=dict)

    def segments(self, name: str | None) -> list[SegmentState]:
        """The segment of this name, or all by name.

        Raises:
            NotFoundError: there is none of this name.
        """
        if name is None:
            return [self.state.segments[each] for each in sorted(self.state.segments)]
        if name not in self.state.segments:
            known = ", ".join(sorted(self.state.segments)) or "none"
            raise NotFoundError(f"the log has no such segment; it has: {known}")
        return [self.state.segments[name]]


def read_folded(log_dir: Path) -> LogReading:
    """Fold a published log.

    Raises:
        NotFoundError, MissingEvidenceError: it is not there, or not all of it.
        MalformedError: entry 0 is not the genesis of its origin, or something is not an entry: says which.
    """
    checkpoint = read_unverified_checkpoint(log_dir)
    reading: LogReading | None = None
    fold: FederationFold | None = None
    for each in read_unverified_entries(log_dir, checkpoint.size):
        if each.entry is None:
            raise MalformedError(f"the bytes at index {each.index} are not an entry: see `sfrl audit verify`")
        if fold is None or reading is None:
            if not isinstance(each.content, GenesisDocument):
                raise MalformedError("entry 0 is not a genesis document: this is no federation's log")
            fold = FederationFold(checkpoint.origin, each.content.log_keys)
            reading = LogReading(fold.state)
        void = fold.apply(each.index, leaf_hash(each.raw), each.entry, each.content)
        if void is not None:
            reading.voids[each.index] = void
            if each.index == 0:
                raise MalformedError(f"the genesis has no effect ({void}): see `sfrl audit verify`")
        elif isinstance(each.content, Statement) and isinstance(each.content.body, ModelPublished):
            reading.published[each.index] = each.content.body
    if reading is None:
        raise MalformedError("the log is empty")
    return reading
