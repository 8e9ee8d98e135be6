"""The log's anchors: when one is written, of what, and what becomes of it when the log takes nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from simulator import SEGMENT, Simulator, service_id

from sfrl_secure.errors import ConflictError, DeniedError, MalformedError, SfrlError, UnavailableError
from sfrl_secure.governance.statements import PeerClass, RefusalCount, RefusalsCounted, TimeAnchored
from sfrl_secure.ids import sha256
from sfrl_secure.sequencer.sequencer import LogHead
from sfrl_secure.services.audit_log.anchors import CHOSEN_MAX, QUIET_SECONDS, RETRY_SECONDS, AnchorWriter, is_anchor
from sfrl_secure.translog.anchor import open_anchor
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint

LOG = service_id("audit_log", "l1")
BEGIN = 1_000.0


@dataclass
class Running:
    """A simulated log as its sequencer shows it, and an `AnchorWriter` on it; `now` is a clock of its own."""

    simulator: Simulator
    witnessed_size: int = 0
    witnessed_note: bytes = b""
    refusal: SfrlError | None = None
    now: float = BEGIN
    lock: threading.RLock = field(default_factory=threading.RLock)
    written: list[TimeAnchored] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.witness()
        self.anchors = self.made()
        self.anchors.begin(self.now)

    def made(self, *, published: OpenedCheckpoint | None = None, interval_seconds: float = 30.0) -> AnchorWriter:
        # Any: what the writer uses of the sequencer is here.
        return AnchorWriter(
            self, self.simulator.state, self.simulator.policy, self.write,  # type: ignore[arg-type]
            interval_seconds=interval_seconds, published=published,
        )  # fmt: skip

    # What a sequencer has

    @property
    def history(self) -> Running:
        return self

    @property
    def head(self) -> LogHead:
        return LogHead(self.size, b"", self.witnessed_size, self.witnessed_note)

    def entry(self, index: int) -> bytes:
        return self.simulator.log.raw[index]

    # What happens

    @property
    def size(self) -> int:
        return len(self.simulator.log.raw)

    def write(self, body: TimeAnchored) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.simulator.write(LOG, "log", body)
        self.written.append(body)

    def witness(self) -> None:
        log = self.simulator.log
        self.witnessed_size = self.size
        self.witnessed_note = log.note(self.size, log.witnesses[:2])

    def grow(self) -> None:
        """One entry more, witnessed at once."""
        counted = RefusalsCounted(1, self.size, (RefusalCount("role", PeerClass.UNKNOWN, 1),), sha256(b"requests"))
        self.simulator.write(LOG, "log", counted)
        self.witness()

    def look(self, seconds: float = 0.25) -> None:
        """Look after so much time has passed."""
        self.now += seconds
        self.simulator.clock.advance(int(seconds * 1_000_000))
        self.anchors.look(self.now)

    @property
    def sizes(self) -> list[int]:
        return [body.checkpoint.size for body in self.written]


@pytest.fixture
def running(tmp_path: Path) -> Running:
    """A log with its founding entries anchored."""
    made = Running(Simulator(tmp_path))
    made.look()
    assert made.sizes == [made.size - 1]
    made.witness()
    made.written.clear()
    return made


def test_an_anchor_alone_asks_for_no_other(running: Running) -> None:
    for _ in range(50):
        running.look(100.0)
        running.witness()
    assert running.written == []


def test_an_idle_log_is_not_read_again_and_again(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    whole = running.entry
    monkeypatch.setattr(running, "entry", lambda index: read.append(index) or whole(index))  # type: ignore[func-returns-value]
    for _ in range(10):
        running.look()
    assert read == [running.size - 1]


def test_a_log_that_grows_is_anchored_after_the_interval(running: Running) -> None:
    begin = running.size
    for _ in range(29):
        running.grow()
        running.look(1.0)
    assert running.written == []
    for _ in range(5):
        running.grow()
        running.look(1.0)
    # 30 s after the first entry was seen, and all that was witnessed by then.
    assert running.sizes == [begin + 31]
    for _ in range(40):
        running.grow()
        running.look(1.0)
    assert len(running.written) == 2


def test_a_log_that_falls_silent_is_anchored_before_the_interval(running: Running) -> None:
    running.grow()
    size = running.size
    running.look()
    running.look(QUIET_SECONDS - 0.5)
    assert running.written == []
    running.look(0.5)
    assert running.sizes == [size]


def test_what_is_not_witnessed_yet_is_not_anchored(running: Running) -> None:
    running.grow()
    covered = running.size
    running.witnessed_size -= 1
    for _ in range(10):
        running.look(60.0)
    assert running.written == []
    running.witness()
    running.look()
    assert running.sizes == [covered]


def test_an_anchor_bears_the_witnesses_and_is_small(running: Running) -> None:
    running.grow()
    running.look()
    running.look(QUIET_SECONDS)
    (body,) = running.written
    opened = open_anchor(body.note, running.simulator.policy)
    assert opened.checkpoint == body.checkpoint
    assert opened.time_seconds == open_checkpoint(
        running.witnessed_note, running.simulator.policy, quorum=True
    ).witness_times["w2"]
    assert len(body.note) < 1_000 < len(running.witnessed_note)
    assert is_anchor(running.entry(running.size - 1))
    assert not is_anchor(running.entry(running.size - 2))
    assert not is_anchor(running.entry(0))
    assert not is_anchor(b"none")


def test_entries_of_every_kind_are_anchored(running: Running) -> None:
    running.simulator.open_round()
    assert running.simulator.state.segments[SEGMENT].open_round is not None
    running.witness()
    running.look()
    running.look(QUIET_SECONDS)
    assert running.sizes == [running.size - 1]


# A log that was away


def restarted(running: Running, seconds: float, published: OpenedCheckpoint | None = None) -> None:
    """Stop, and start so much later; by then the witnesses have signed the old size anew."""
    running.now += seconds
    running.simulator.clock.advance(int(seconds * 1_000_000))
    running.anchors = running.made(published=published)
    running.anchors.begin(running.now)
    running.witness()


def test_what_was_published_before_a_start_is_anchored_with_the_time_that_it_had(running: Running) -> None:
    running.grow()
    running.look()
    before = running.simulator.clock.now_us() // 1_000_000
    restarted(running, 86_400.0)
    running.look()
    (body,) = running.written
    assert open_anchor(body.note, running.simulator.policy).time_seconds == before


def test_what_was_published_under_retired_keys_is_given_to_it(running: Running) -> None:
    running.grow()
    published = open_checkpoint(running.witnessed_note, running.simulator.policy, quorum=True)
    size, running.witnessed_size, running.witnessed_note = running.size, 0, b""
    restarted(running, 86_400.0, replace(published, is_current=False))
    running.look()
    assert running.sizes == [size]
    assert open_anchor(running.written[0].note, running.simulator.policy).time_seconds == published.witness_times["w1"]


def test_a_published_checkpoint_without_the_quorum_is_not_anchored_but_the_next_with_it(running: Running) -> None:
    running.grow()
    log = running.simulator.log
    published = open_checkpoint(log.note(running.size), running.simulator.policy, quorum=False)
    running.witnessed_size -= 1
    restarted(running, 1.0, published)
    running.look()
    assert running.written == []
    running.look(QUIET_SECONDS)
    assert running.sizes == [published.checkpoint.size]


def test_a_start_of_a_log_that_is_anchored_writes_nothing(running: Running) -> None:
    restarted(running, 86_400.0)
    for _ in range(10):
        running.look(10.0)
    assert running.written == []


# A log that takes nothing


@pytest.mark.parametrize("refusal", [UnavailableError("full"), ConflictError("moved on", reason="stale")])
def test_what_is_due_is_kept_until_it_is_written(running: Running, refusal: SfrlError) -> None:
    """Each minute without an anchor would be one whose time nobody can show."""
    running.refusal = refusal
    times = []
    for _ in range(4):
        running.grow()
        times.append(running.simulator.clock.now_us() // 1_000_000)
        running.look()
        running.look(31.0)
    assert running.written == []
    running.refusal = None
    running.look(RETRY_SECONDS)
    opened = [open_anchor(body.note, running.simulator.policy) for body in running.written]
    assert [each.time_seconds for each in opened] == times
    assert running.sizes == sorted(running.sizes)


def test_a_log_that_takes_nothing_is_not_asked_at_each_look(running: Running) -> None:
    asked: list[TimeAnchored] = []

    def refuse(body: TimeAnchored) -> None:
        asked.append(body)
        raise UnavailableError("full")

    running.write = refuse  # type: ignore[method-assign]
    restarted(running, 1.0)
    running.grow()
    running.look()
    running.look(QUIET_SECONDS)
    for _ in range(20):
        running.look(RETRY_SECONDS / 10)
    assert len(asked) == 3


def test_what_waits_is_bounded(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    assert CHOSEN_MAX < 1_000
    monkeypatch.setattr("sfrl_secure.services.audit_log.anchors.CHOSEN_MAX", 5)
    running.refusal = UnavailableError("full")
    for _ in range(8):
        running.grow()
        running.look()
        running.look(QUIET_SECONDS)
    running.refusal = None
    running.look(RETRY_SECONDS)
    assert len(running.written) == 5
    running.look()
    running.look(QUIET_SECONDS)
    # The entries that came when there was no room are covered by what is newest.
    assert running.sizes[-1] == running.witnessed_size


def test_an_anchor_that_would_be_void_is_given_up(running: Running) -> None:
    running.grow()
    running.refusal = DeniedError("writer", "the services document does not name us")
    running.look()
    running.look(QUIET_SECONDS)
    running.refusal = None
    running.look(RETRY_SECONDS)
    assert running.written == []
    running.grow()
    running.look()
    running.look(QUIET_SECONDS)
    assert len(running.written) == 1


@pytest.mark.parametrize("quorum", ["none", "everybody"])
def test_what_a_verifier_would_find_is_not_written(running: Running, quorum: str) -> None:
    policy = running.simulator.policy
    group = replace(policy.groups[0], name="everybody", threshold=3)
    running.simulator.policy = replace(policy, groups=(group,), quorum=quorum)
    restarted(running, 1.0)
    running.grow()
    for _ in range(10):
        running.look(10.0)
    assert running.written == []


# Its thread


def wait_until(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_it_looks_by_itself_until_it_is_stopped(running: Running) -> None:
    anchors = running.made(interval_seconds=0.01)
    anchors.start()
    running.grow()
    wait_until(lambda: len(running.written) == 1)
    anchors.stop()
    running.grow()
    time.sleep(0.4)
    assert len(running.written) == 1


def test_a_damaged_bundle_does_not_end_it(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    whole = running.entry

    def once_damaged(index: int) -> bytes:
        asked.append(index)
        if len(asked) == 1:
            raise MalformedError("a bundle is damaged")
        return whole(index)

    anchors = running.made(interval_seconds=0.01)
    anchors.start()
    monkeypatch.setattr(running, "entry", once_damaged)
    running.grow()
    wait_until(lambda: len(running.written) == 1)
    anchors.stop()
    assert len(asked) > 1
