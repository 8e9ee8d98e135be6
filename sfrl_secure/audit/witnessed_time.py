"""The log's time against its witnesses' clocks, entry by entry.

Three rules, from both sides of each anchor (proto/README.md, "Time"). No entry that an anchor covers is later than the
anchor's quorum time: it existed when the witnesses signed. No anchor stands in the log earlier than the quorum time in
it: what holds a signature was written after it. Both are findings. And each entry is covered soon: else its time is
not shown, which is missing evidence and no finding, because a log that dates back looks like one whose witnesses were
away. What an anchor says of the tree is compared with the tree; another root is equivocation, and both notes are kept.

Format: proto/README.md, "Time".

Runs in: verifier, auditors' machines.
Trusts: the trust policy; the tree and the checkpoint that the caller has verified.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.ids import Digest
from sfrl_secure.replay.findings import LOG, Finding, Missing
from sfrl_secure.replay.fold import Taken
from sfrl_secure.replay.statements import TimeAnchored
from sfrl_secure.translog.anchor import open_anchor
from sfrl_secure.translog.policy import NO_QUORUM, TrustPolicy

SKEW_SECONDS = 120
"""How far log time and witnessed time may lie apart (PROTOCOL V7)."""

_US = 1_000_000
_FOUNDING_STREAMS = frozenset({"governance", "identity"})


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two notes that the log signed and that cannot both be true.

    Attributes:
        index: leaf index of the entry that holds the first; None where the caller had it.
        older, newer: as they stand.
    """

    index: int | None
    older: bytes
    newer: bytes


@dataclass(slots=True)
class _Run:
    """Entries, one after the other, for which the same does not hold; `worst_us` is by how much at most."""

    first: int
    last: int
    worst_us: int

    def in_words(self, than: str) -> str:
        """By how much, and for which entries."""
        seconds = f"{-(-self.worst_us // _US)} s {than}"
        return seconds if self.first == self.last else f"up to {seconds}, entries {self.first} to {self.last}"


class _Runs:
    """Gathers runs: a log that is wrong all along is told of once."""

    def __init__(self) -> None:
        self.all: list[_Run] = []
        self._is_open = False

    def add(self, index: int, by_us: int) -> None:
        """The rule does not hold for this entry."""
        if not self._is_open:
            self.all.append(_Run(index, index, by_us))
            self._is_open = True
        run = self.all[-1]
        run.last, run.worst_us = index, max(run.worst_us, by_us)

    def end(self) -> None:
        """It holds for an entry."""
        self._is_open = False


class WitnessedTime:
    """Takes what the replay took, in order; then `finish`.

    Attributes:
        anchors: effective ones under the quorum.
        gap_us: longest time from an entry to the quorum time that covers it; those apart to which no limit applies.
        findings, missing, contradictions: complete after `finish`.
    """

    def __init__(self, policy: TrustPolicy, root_at: Callable[[int], Digest], newest_note: bytes) -> None:
        """Begin before entry 0.

        Args:
            root_at: the verified tree's root at a size that it has.
            newest_note: the note that was verified: the other half of a contradiction.
        """
        self.anchors = 0
        self.gap_us = 0
        self.findings: list[Finding] = []
        self.missing: list[Missing] = []
        self.contradictions: list[Contradiction] = []
        self._policy = policy
        self._root_at = root_at
        self._newest_note = newest_note
        # Entries that no anchor covers yet: 9 bytes each, since a log without anchors has all of them here.
        self._first = 0
        self._times = array("Q")
        self._is_anchor = bytearray()
        self._founding_end: int | None = None
        self._ahead, self._behind, self._unshown = _Runs(), _Runs(), _Runs()

    def take(self, taken: Taken) -> None:
        """Take the next entry in, from index 0 on."""
        assert taken.index == self._first + len(self._times), "entries come in order, each once"
        if self._founding_end is None and taken.stream not in _FOUNDING_STREAMS:
            self._founding_end = taken.index
        size, seconds = (0, None) if taken.anchor is None else self._judge(taken, taken.anchor)
        self._times.append(taken.log_time_us)
        self._is_anchor.append(seconds is not None)
        if seconds is not None:
            self.anchors += 1
            self._cover(size, seconds)
            early_us = seconds * _US - taken.log_time_us
            if early_us > SKEW_SECONDS * _US:
                self._behind.add(taken.index, early_us)
            else:
                self._behind.end()

    def finish(self, seconds: int | None, *, is_whole: bool) -> None:
        """Hold what no anchor covers against the checkpoint that was verified.

        Args:
            seconds: its quorum time; None where the policy asks for none: then no time is asked for.
            is_whole: every entry was taken; else what covers the last ones may be among those that were not.
        """
        if seconds is not None:
            self._cover(self._first + len(self._times), seconds, is_bounded=is_whole)
        limit = f"at most {SKEW_SECONDS} s"
        for run in self._ahead.all:
            expected = f"{limit} after the quorum time of the first checkpoint with it"
            self.findings.append(Finding("time_ahead", run.first, LOG, expected, run.in_words("after")))
        for run in self._behind.all:
            expected = f"{limit} before the quorum time of the anchor in it"
            self.findings.append(Finding("time_behind", run.first, LOG, expected, run.in_words("before")))
        for run in self._unshown.all:
            why = f"time not witnessed within {SKEW_SECONDS} s, but {run.in_words('later')}"
            self.missing.append(Missing(None, run.first, why))

    def _judge(self, taken: Taken, anchor: TimeAnchored) -> tuple[int, int | None]:
        """Give an effective anchor's size, and its quorum time; None where it anchors nothing."""
        checkpoint = anchor.checkpoint
        root = self._root_at(checkpoint.size)
        try:
            opened = open_anchor(anchor.note, self._policy)
        except (MalformedError, SignatureError) as error:
            self.findings.append(Finding("anchor", taken.index, taken.writer, "lines of the trust policy", str(error)))
            return checkpoint.size, None
        if checkpoint.root != root:
            expected = f"root {checkpoint.root.hex()} at size {checkpoint.size}, which the log signed"
            self.findings.append(Finding("equivocation", taken.index, LOG, expected, f"root {root.hex()}"))
            self.contradictions.append(Contradiction(taken.index, anchor.note, self._newest_note))
            return checkpoint.size, None
        if opened.time_seconds is None and self._policy.quorum != NO_QUORUM:
            expected = f"quorum {self._policy.quorum} in Ed25519 lines"
            self.findings.append(Finding("anchor", taken.index, taken.writer, expected, "not met"))
        return checkpoint.size, opened.time_seconds

    def _cover(self, size: int, seconds: int, *, is_bounded: bool = True) -> None:
        """The entries below `size` that nothing covered yet existed at this quorum time."""
        count = size - self._first
        # Whatever was written before the witnesses were first asked has no time but its writers' word.
        founding = size if self._founding_end is None else min(size, self._founding_end)
        founding = founding if self._first == 0 else 0
        for at in range(count):
            index, log_time_us = self._first + at, self._times[at]
            late_us = seconds * _US - log_time_us
            if late_us < -SKEW_SECONDS * _US:
                self._ahead.add(index, -late_us)
                continue
            self._ahead.end()
            if self._is_anchor[at] or index < founding or not is_bounded:
                continue
            self.gap_us = max(self.gap_us, late_us)
            if late_us > SKEW_SECONDS * _US:
                self._unshown.add(index, late_us)
            else:
                self._unshown.end()
        del self._times[:count]
        del self._is_anchor[:count]
        self._first = size
