"""The verdict of an audit, for machines and for people.

`false` over `missing` over `verified`: one thing that does not hold outweighs whatever else is lacking. The text says
first what is false and where.

Format: PROTOCOL 9 and 10.

Runs in: verifier, auditors' machines.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from sfrl_secure.audit.witnessed_time import Contradiction
from sfrl_secure.replay.docket import Superseded
from sfrl_secure.replay.findings import CODES, Finding, Missing, Untold

FALSE, MISSING, VERIFIED = "false", "missing", "verified"
_EXIT_CODES = {VERIFIED: 0, FALSE: 1, MISSING: 2}
_LINES_MAX = 20


@dataclass(frozen=True, slots=True)
class Witnessed:
    """Who cosigned the checkpoint.

    Attributes:
        times: seconds since 1970 by the trust policy's name of each witness whose cosignature holds.
        quorum: the trust policy's quorum, and whether it is met.
        same_operator: those of them that the log's own operator runs, as far as the caller said so.
    """

    times: Mapping[str, int] = field(default_factory=dict)
    quorum: str = ""
    quorum_met: bool = False
    same_operator: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """A finding that operators know and accept, by the order at `order_index`."""

    finding: Finding
    order_index: int


@dataclass(frozen=True, slots=True)
class Unmatched:
    """What the order at `order_index` accepts, and is no finding that can be accepted: it changes nothing."""

    code: str
    index: int
    order_index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an audit found out about one log at one size.

    Attributes:
        origin, size, root: of the checkpoint; empty and 0 where none could be opened.
        log_time_us: of the last entry that was replayed.
        replayed: entries whose meaning was checked.
        rounds, models, admitted: effective ones.
        refused: effective refusals by reason; `refusals_counted` those without an entry of their own.
        refusals_on_word: refusals for which there is nothing but the gatekeeper's word.
        withdrawals, complaints, decisions: effective ones; `overridden`, decisions that operators gave another class.
        orders: effective ones by action; `superseded`, models whose place another one took.
        anchors: effective ones under the quorum.
        gap_us: longest time from an entry to the quorum time that covers it; None where no witness's clock was asked.
        contradictions: of each equivocation the two notes.
        results_sound: every published model was computed again and is right.
        untold: what of published models nobody can compute again, because of what is false or missing.
        conduct_clean: nobody wrote anything that does not hold, but for what operators accept.
        findings: those that make the log false; `accepted`, those that operators accept by an order in it;
            `unmatched`, what such orders name and nobody found.
    """

    origin: str = ""
    size: int = 0
    root: str = ""
    witnessed: Witnessed = field(default_factory=Witnessed)
    log_time_us: int = 0
    replayed: int = 0
    rounds: int = 0
    models: int = 0
    admitted: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    refusals_counted: int = 0
    refusals_on_word: int = 0
    withdrawals: int = 0
    complaints: int = 0
    decisions: int = 0
    overridden: int = 0
    orders: Mapping[str, int] = field(default_factory=dict)
    superseded: tuple[Superseded, ...] = ()
    anchors: int = 0
    gap_us: int | None = None
    results_sound: bool = False
    conduct_clean: bool = False
    findings: tuple[Finding, ...] = ()
    accepted: tuple[Accepted, ...] = ()
    unmatched: tuple[Unmatched, ...] = ()
    missing: tuple[Missing, ...] = ()
    untold: tuple[Untold, ...] = ()
    contradictions: tuple[Contradiction, ...] = ()

    @property
    def verdict(self) -> str:
        """`false`, `missing` or `verified`."""
        if self.findings:
            return FALSE
        return MISSING if self.missing else VERIFIED

    @property
    def exit_code(self) -> int:
        """1 for false, 2 for missing, 0 for verified."""
        return _EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "verdict": self.verdict,
            "origin": self.origin,
            "size": self.size,
            "root": self.root,
            "log_time_us": self.log_time_us,
            "quorum": self.witnessed.quorum,
            "quorum_met": self.witnessed.quorum_met,
            "witnesses": dict(self.witnessed.times),
            "witnesses_same_operator": list(self.witnessed.same_operator),
            "replayed": self.replayed,
            "rounds": self.rounds,
            "models": self.models,
            "admitted": self.admitted,
            "refused": dict(sorted(self.refused.items())),
            "refusals_counted": self.refusals_counted,
            "refusals_on_word": self.refusals_on_word,
            "withdrawals": self.withdrawals,
            "complaints": self.complaints,
            "decisions": self.decisions,
            "overridden": self.overridden,
            "orders": dict(sorted(self.orders.items())),
            "superseded": [asdict(each) for each in self.superseded],
            "anchors": self.anchors,
            "gap_us": self.gap_us,
            "results_sound": self.results_sound,
            "conduct_clean": self.conduct_clean,
            "findings": [asdict(each) for each in self.findings],
            "accepted": [asdict(each.finding) | {"order_index": each.order_index} for each in self.accepted],
            "unmatched": [asdict(each) for each in self.unmatched],
            "missing": [_missing_json(each) for each in self.missing],
            "untold": [asdict(each) for each in self.untold],
            "contradictions": [_contradiction_json(each) for each in self.contradictions],
        }

    def to_text(self) -> str:
        """The report for people."""
        lines = [self._headline()]
        lines += _first(self.findings, _finding_line, "findings")
        lines += _first(self.missing, _missing_line, "missing")
        lines += _first(self.untold, _untold_line, "models")
        lines += _first(self.accepted, _accepted_line, "accepted findings")
        if self.root:
            lines += ["", f"log         {self.origin}", f"size, root  {self.size}, {self.root}"]
            lines += [f"witnesses   {self._witness_line()}"]
        if self.replayed:
            refused = _counts(self.refused)
            models, admitted = _count(self.models, "model"), _count(self.admitted, "admitted update")
            lines += [
                f"replayed    {self.replayed} entries up to {_time(self.log_time_us)}",
                f"time        {self._time_line()}",
                f"rounds      {self.rounds}, with {models} and {admitted}",
                f"refused     {refused}; {self.refusals_counted} more counted, {self.refusals_on_word} on word",
                f"said        {self._words_line()}",
                f"orders      {_counts(self.orders)}",
                *_first(self.unmatched, _unmatched_line, "orders"),
                *_first(self.superseded, _superseded_line, "models"),
                f"results     {'sound' if self.results_sound else 'not shown to be sound'}",
                f"conduct     {self._conduct_line()}",
            ]
        return "\n".join(lines) + "\n"

    def _headline(self) -> str:
        if self.verdict == FALSE:
            return f"FALSE: {_count(len(self.findings), 'finding')}"
        if self.verdict == MISSING:
            return f"MISSING: nothing is false, and {_count(len(self.missing), 'piece')} of evidence lacking"
        but = f", but for {_count(len(self.accepted), 'finding')} that operators accept" if self.accepted else ""
        return f"VERIFIED: all {self.size} entries, every admission and every model{but}"

    def _words_line(self) -> str:
        said = [_count(self.withdrawals, "withdrawal"), _count(self.complaints, "complaint")]
        return ", ".join(said) + f", {_count(self.decisions, 'decision')} with {self.overridden} overridden"

    def _conduct_line(self) -> str:
        if not self.conduct_clean:
            return "not clean"
        return f"clean but for {_count(len(self.accepted), 'accepted finding')}" if self.accepted else "clean"

    def _time_line(self) -> str:
        anchors = _count(self.anchors, "anchor")
        if self.gap_us is None:
            return f"{anchors}; the trust policy asks for no witness, so that the log's time is its word"
        return f"{anchors}; longest time from an entry to its witnesses {_seconds(self.gap_us)} s"

    def _witness_line(self) -> str:
        met = "met" if self.witnessed.quorum_met else "NOT met"
        names = []
        for name, seconds in self.witnessed.times.items():
            own = " (same operator as the log)" if name in self.witnessed.same_operator else ""
            names.append(f"{name}{own} at {_time(seconds * 1_000_000)}")
        return f"quorum {self.witnessed.quorum} {met}: {'; '.join(names) or 'nobody'}"


def _first(items: tuple[Any, ...], line: Any, what: str) -> list[str]:
    lines = [line(item) for item in items[:_LINES_MAX]]
    if len(items) > _LINES_MAX:
        lines.append(f"  and {len(items) - _LINES_MAX} more {what}")
    return lines


def _counts(by_word: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(by_word.items())) or "none"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _finding_line(finding: Finding) -> str:
    where = "the log" if finding.index is None else f"entry {finding.index}"
    subject = f", {finding.subject}" if finding.subject else ""
    return (
        f"  {where}{subject}: {finding.code}: {CODES[finding.code]}\n"
        f"    by {finding.writer}{_compared(finding)}"
    )


def _accepted_line(accepted: Accepted) -> str:
    return f"{_finding_line(accepted.finding)}\n    accepted by the operators' order at entry {accepted.order_index}"


def _unmatched_line(unmatched: Unmatched) -> str:
    return (
        f"  the order at entry {unmatched.order_index} accepts {unmatched.code} at entry {unmatched.index}: "
        "no such finding that can be accepted"
    )


def _superseded_line(superseded: Superseded) -> str:
    left_out = superseded.left_out
    why = f"without {_count(left_out, 'update')}" if left_out else "from its new base"
    return (
        f"  round {superseded.round} of {superseded.segment}: the model of entry {superseded.was_index}"
        f" is superseded by that of entry {superseded.index}, derived again {why}"
    )


def _compared(finding: Finding) -> str:
    """What was expected and what found; where there is no such pair, the one sentence."""
    if not finding.expected:
        return f": {finding.found}"
    return f"; expected {finding.expected}" + (f"; found {finding.found}" if finding.found else "")


def _missing_line(missing: Missing) -> str:
    if missing.digest is None and missing.index is not None:
        return f"  entry {missing.index}: {missing.why}"
    if missing.digest is None:
        return f"  {missing.path}: {missing.why}"
    return f"  object {missing.digest.hex()}: {missing.why}, for entry {missing.index}"


def _untold_line(untold: Untold) -> str:
    what = ", ".join(each.replace("_", " ") for each in untold.what)
    return f"  entry {untold.index}: round {untold.round} cannot be worked out again from what is here: {what}"


def _missing_json(missing: Missing) -> dict[str, Any]:
    digest = None if missing.digest is None else missing.digest.hex()
    return {"digest": digest, "index": missing.index, "path": missing.path, "why": missing.why}


def _contradiction_json(contradiction: Contradiction) -> dict[str, Any]:
    # Both were parsed as notes, which are UTF-8.
    return {
        "index": contradiction.index,
        "older": contradiction.older.decode("utf-8"),
        "newer": contradiction.newer.decode("utf-8"),
    }


def _seconds(microseconds: int) -> int:
    """Whole seconds, rounded up; 0 where the log's clock is ahead of the witnesses'."""
    return max(0, -(-microseconds // 1_000_000))


def _time(microseconds: int) -> str:
    try:
        return datetime.fromtimestamp(microseconds // 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{microseconds} us"
