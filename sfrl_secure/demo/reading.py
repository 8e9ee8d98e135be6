"""Reading the demo's own log, for its table: what it proves is the verifier's to say.

Runs in: demo.
Trusts: the folder, which the demo itself has written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sfrl_secure.audit.published import read_unverified_checkpoint, read_unverified_entries
from sfrl_secure.governance.statements import (
    ModelPublished,
    RefusalsCounted,
    RoundClosed,
    Statement,
    UpdateAdmitted,
    UpdateRefused,
)
from sfrl_secure.ids import Digest


@dataclass(slots=True)
class LogSummary:
    """What the log says of itself.

    Attributes:
        refused: by reason, entries and counted ones together; `counted` the latter alone.
        models: digest of each published model, by round.
        admitted_of_round: by round.
    """

    size: int
    admitted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    counted: Counter[str] = field(default_factory=Counter)
    models: dict[int, Digest] = field(default_factory=dict)
    counted_of_round: dict[int, int] = field(default_factory=dict)


def summarise(log_dir: Path) -> LogSummary:
    """Read the published log once."""
    summary = LogSummary(read_unverified_checkpoint(log_dir).size)
    for each in read_unverified_entries(log_dir, summary.size):
        if isinstance(each.content, Statement):
            _take(summary, each.content)
    return summary


def _take(summary: LogSummary, statement: Statement) -> None:
    match statement.body:
        case UpdateAdmitted():
            summary.admitted += 1
        case UpdateRefused(reason=reason):
            summary.refused[reason] += 1
        case RefusalsCounted(counts=counts):
            for each in counts:
                summary.refused[each.reason] += each.count
                summary.counted[each.reason] += each.count
        case RoundClosed(round=number, counted_count=counted):
            summary.counted_of_round[number] = counted
        case ModelPublished(round=number, model=model):
            summary.models[number] = model
        case _:
            pass
