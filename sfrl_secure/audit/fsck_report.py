"""What a check of a log's folder has found, for machines and for people.

`damaged` over `missing` over `sound`. What harms no reader, such as a file that nobody reads, is a note and changes no
verdict.

Runs in: auditors' machines, the log's own machine.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

DAMAGED, MISSING, SOUND = "damaged", "missing", "sound"
_EXIT_CODES = {SOUND: 0, DAMAGED: 1, MISSING: 2}
_LINES_MAX = 20


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a file that does not hold, or a file that is not there.

    Attributes:
        path: of the file, below the folder that was checked.
        index: leaf index of the entry; None where it is about no entry.
        what: a sentence without its end, for people; holds no stranger's bytes.
    """

    path: str
    index: int | None
    what: str


@dataclass(frozen=True, slots=True)
class JournalState:
    """What the log's own journal holds beside the published files.

    Attributes:
        first_index, end_index: of its entries.
        signed_size: of the last note that the log signed; None where it has signed nothing.
        indexed: statements that the index names rightly; None where there is no index.
    """

    first_index: int
    end_index: int
    signed_size: int | None = None
    indexed: int | None = None


@dataclass(slots=True, kw_only=True)
class FsckReport:
    """The state of a log's folder.

    Attributes:
        origin, size, root: of the checkpoint; empty and 0 where none could be opened.
        quorum, quorum_met, witnesses: of the trust policy, and seconds since 1970 by its name of each witness.
        entries_read: whether the entries are a federation's, so that they were parsed and their chain was checked.
        entries_checked: entries from index 0 on that were read, and found canonical and chained.
        older: checkpoints under `checkpoints/` that are the log's, and consistent with it.
        files: how many the folder holds.
        ahead: files that hold more entries than the checkpoint covers.
        problems, missing, notes: in the order in which they were found.
    """

    origin: str = ""
    size: int = 0
    root: str = ""
    quorum: str = ""
    quorum_met: bool = False
    witnesses: Mapping[str, int] = field(default_factory=dict)
    entries_read: bool = False
    entries_checked: int = 0
    older: int = 0
    files: int = 0
    ahead: int = 0
    journal: JournalState | None = None
    problems: list[Problem] = field(default_factory=list)
    missing: list[Problem] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        """`damaged`, `missing` or `sound`."""
        if self.problems:
            return DAMAGED
        return MISSING if self.missing else SOUND

    @property
    def exit_code(self) -> int:
        """1 for damaged, 2 for missing, 0 for sound."""
        return _EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "verdict": self.verdict,
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "quorum": self.quorum,
            "quorum_met": self.quorum_met,
            "witnesses": dict(self.witnesses),
            "entries_read": self.entries_read,
            "entries_checked": self.entries_checked,
            "older_checkpoints": self.older,
            "files": self.files,
            "files_ahead": self.ahead,
            "journal": None if self.journal is None else asdict(self.journal),
            "problems": [asdict(each) for each in self.problems],
            "missing": [asdict(each) for each in self.missing],
            "notes": [asdict(each) for each in self.notes],
        }

    def to_text(self) -> str:
        """The report for people: first what is wrong, and where."""
        lines = [self._headline(), *_list(self.problems), *_list(self.missing)]
        if self.root:
            lines += ["", f"log         {self.origin}", f"size, root  {self.size}, {self.root}"]
            lines += [f"witnesses   {self._witness_line()}", f"entries     {self._entries_line()}"]
            lines += [f"files       {self.files}, {self.ahead} of them ahead of the checkpoint; "
                      f"{_count(self.older, 'older checkpoint')}, consistent"]  # fmt: skip
        if self.journal is not None:
            lines += [f"journal     {self._journal_line(self.journal)}"]
        if self.notes:
            lines += ["", "notes", *_list(self.notes)]
        return "\n".join(lines) + "\n"

    def _headline(self) -> str:
        if self.verdict == DAMAGED:
            return f"DAMAGED: {_count(len(self.problems), 'problem')}"
        if self.verdict == MISSING:
            if not self.root:
                return "MISSING: without a checkpoint that this trust policy can judge, nothing was checked"
            lacking = _count(len(self.missing), "file")
            verb = "is" if len(self.missing) == 1 else "are"
            return f"MISSING: {lacking} {verb} not there or cannot be read; what could be read holds"
        return f"SOUND: {self.size} entries, their tiles and the signed root belong together"

    def _witness_line(self) -> str:
        names = "; ".join(f"{name} at {_time(seconds)}" for name, seconds in self.witnesses.items())
        return f"quorum {self.quorum} {'met' if self.quorum_met else 'NOT met'}: {names or 'nobody'}"

    def _entries_line(self) -> str:
        if not self.entries_read:
            return "not a federation's: their hashes were compared, and nothing was read"
        if self.entries_checked < self.size:
            return f"the first {self.entries_checked} of {self.size} were read: canonical and chained"
        return "canonical and chained; what they mean is for `sfrl audit verify`"

    @staticmethod
    def _journal_line(journal: JournalState) -> str:
        signed = "nothing" if journal.signed_size is None else f"{journal.signed_size} entries"
        indexed = "no index" if journal.indexed is None else f"{journal.indexed} statements indexed"
        return f"entries {journal.first_index} to {journal.end_index - 1}; signed for {signed}; {indexed}"


def _list(problems: list[Problem]) -> list[str]:
    lines = [_line(each) for each in problems[:_LINES_MAX]]
    if len(problems) > _LINES_MAX:
        lines.append(f"  and {len(problems) - _LINES_MAX} more")
    return lines


def _line(problem: Problem) -> str:
    where = "" if problem.index is None else f", entry {problem.index}"
    return f"  {problem.path or 'the folder'}{where}: {problem.what}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{seconds} s"
