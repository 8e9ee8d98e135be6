"""Reading the demo's own log, for its table: what it proves is the verifier's to say.

Runs in: demo.
Trusts: the folder, which the demo itself has written.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from sfrl_secure.governance.statements import (
    ModelPublished,
    RefusalsCounted,
    RoundClosed,
    Statement,
    UpdateAdmitted,
    UpdateRefused,
)
from sfrl_secure.ids import Digest
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.translog.checkpoint import parse_checkpoint
from sfrl_secure.translog.note import parse_note
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX, bundles_of, parse_bundle
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry


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
    checkpoint = parse_checkpoint(parse_note(read_bounded(log_dir / "checkpoint", NOTE_BYTES_MAX)).text)
    summary = LogSummary(checkpoint.size)
    for bundle in bundles_of(checkpoint.size):
        for raw in parse_bundle(read_bounded(log_dir / bundle.path, BUNDLE_BYTES_MAX), bundle.width):
            content = parse_content(parse_entry(raw).envelope)
            if isinstance(content, Statement):
                _take(summary, content)
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
