"""When the log says that there is nothing new: only when that was so half a second ago at most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from sfrl_secure.sequencer.sequencer import LogHead
from sfrl_secure.services.audit_log.servicer import HEAD_AGE_SECONDS, HEARTBEAT_SECONDS, AuditLogServicer
from sfrl_secure.wire.audit_service import FollowBatch


@dataclass
class Log:
    """A sequencer on a clock of its own.

    Attributes:
        arrivals: size of the log from a time on.
    """

    arrivals: list[tuple[float, int]]
    now: float = 0.0
    waits: list[float] = field(default_factory=list)
    is_over: bool = False

    @property
    def head(self) -> LogHead:
        size = max(size for begins, size in self.arrivals if begins <= self.now)
        return LogHead(size, b"note of %d" % size)

    @property
    def history(self) -> Log:
        return self

    def entries(self, index: int, size: int, _bytes_max: int) -> Sequence[bytes]:
        return [b"entry %d" % index] if index < size else []

    def wait_for_change(self, known: LogHead, seconds: float) -> LogHead:
        self.waits.append(seconds)
        if self.head == known:
            self.now += seconds
        return self.head

    def is_active(self) -> bool:
        return not self.is_over

    def follow(self, *, slow: float = 0.0) -> Iterator[tuple[float, FollowBatch]]:
        """What a caller gets, and when it asks for it; one that is slow takes so long for each message."""
        anything: Any = self
        servicer = AuditLogServicer(
            anything, anything, anything, followers_max=4, monotonic=lambda: self.now
        )
        for batch in servicer._batches(0, anything):
            yield self.now, batch
            self.now += slow


def test_an_idle_log_says_so_at_once_and_then_each_second() -> None:
    log = Log([(0.0, 3)])
    seen = []
    for at, batch in log.follow():
        seen.append((at, batch))
        log.is_over = len(seen) == 8
    assert [batch.is_heartbeat for _, batch in seen] == [False] * 3 + [True] * 5
    beats = [at for at, batch in seen if batch.is_heartbeat]
    assert beats[0] == 0.0
    assert {later - earlier for earlier, later in pairwise(beats)} == {HEARTBEAT_SECONDS}
    assert max(log.waits) + HEARTBEAT_SECONDS <= 1.0


def test_a_busy_log_says_so_too() -> None:
    # One more entry each 10 ms: its head is never the one that was sent.
    log = Log([(number / 100, number + 1) for number in range(500)])
    beats = []
    for at, batch in log.follow(slow=0.004):
        if batch.is_heartbeat:
            beats.append(at)
        log.is_over = at > 4
    assert len(beats) >= 4
    assert max(later - earlier for earlier, later in pairwise(beats)) <= 1.0


def test_behind_a_slow_caller_what_came_meanwhile_is_sent_before_it_is_told_that_nothing_is_new() -> None:
    # Ten entries that it takes one second each to take; the eleventh, a revocation, comes after half a second.
    log = Log([(0.0, 10), (0.5, 11)])
    order = []
    for _, batch in log.follow(slow=1.0):
        order.append("beat" if batch.is_heartbeat else batch.first_index)
        if batch.is_heartbeat:
            break
    assert order == [*range(11), "beat"]


def test_what_a_heartbeat_says_was_true_a_moment_ago() -> None:
    log = Log([(0.0, 1), (2.0, 2), (2.9, 3), (5.0, 4), (7.3, 5)])
    taken = 0
    for at, batch in log.follow(slow=0.2):
        taken = batch.first_index + 1 if batch.entries else taken
        if batch.is_heartbeat:
            there = max(size for begins, size in log.arrivals if begins <= at - HEAD_AGE_SECONDS or begins == 0.0)
            assert taken >= there
        log.is_over = at > 9
    assert taken == 5
