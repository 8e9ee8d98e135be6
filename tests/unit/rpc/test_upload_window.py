"""What is under way on simulated links: slow, far, lossy, fast, cut. The clock is the simulation's own."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import CHUNK_BYTES_MAX
from sfrl_secure.rpc.pace import FIRST_BYTES, LEAP_BYTES, LEAST_BYTES, MOST_BYTES, TARGET_SECONDS, Pace, UnderWay

PACKET_BYTES = 536
SAY_SECONDS, SAY_BYTES = 0.2, 4 * 2**20
RECONNECT_SECONDS = 0.5
SLOW = 3_600
"""Bytes of payload a second over 32 kbit/s."""

UPDATE = 226_000


def never(rng: random.Random) -> float:
    return 0.0


def twentieth(rng: random.Random) -> float:
    """A packet in twenty is lost, and what comes behind it waits until it was sent again."""
    wait, again = 0.0, 0.4
    while rng.random() < 0.05:
        wait, again = wait + again, again * 2
    return wait


@dataclass
class Simulated:
    """An upload over a link, with a gatekeeper at its end by the letter of the protocol.

    Attributes:
        bytes_per_second: of the link; a bucket lets the first `burst_bytes` through at once.
        latency: seconds there and back.
        stall: seconds for which a lost packet holds back all that comes behind it.
        held: for so many seconds from an instant on nothing arrives; then all of it at once.
        cuts: when so much is there, the connection breaks.
        leap_bytes: as far may the window go with one answer; else it doubles at most.
    """

    bytes_per_second: float
    latency: float = 0.1
    stall: Callable[[random.Random], float] = never
    seed: int = 1
    burst_bytes: int = 0
    held: tuple[float, float] = (0.0, 0.0)
    cuts: list[int] = field(default_factory=list)
    leap_bytes: int = 0

    now: float = 0.0
    sent: int = 0
    calls: int = 0
    lost: list[int] = field(default_factory=list)
    chunks: list[int] = field(default_factory=list)
    windows: list[int] = field(default_factory=list)

    def upload(self, size: int, pace: Pace) -> Simulated:
        rng, durable, is_decided = random.Random(self.seed), 0, False
        while not is_decided:
            self.calls += 1
            durable, is_decided = self._call(size, pace, durable, rng)
            self.now += RECONNECT_SECONDS
        return self

    def _call(self, size: int, pace: Pace, durable: int, rng: random.Random) -> tuple[int, bool]:
        way = UnderWay(pace, size, is_fresh=self.calls == 1)
        here, said, said_at = durable, durable, self.now
        free_at, silence_at = self.now, None
        arriving: list[tuple[float, int]] = []
        answers: list[tuple[float, int]] = []
        if length := way.room():
            free_at = self._send(way, length, free_at, arriving, rng)
        else:
            answers.append((self.now + self.latency, durable))
        while True:
            while way.durable is not None and (length := way.room()):
                free_at = self._send(way, length, free_at, arriving, rng)
                assert way.unconfirmed_bytes <= pace.window, "never more than the window"
            coming = [each[0] for each in (*arriving[:1], *answers[:1])] + ([silence_at] if silence_at else [])
            assert coming, "nothing is due: it would wait for ever"
            self.now = min(coming)
            if answers and answers[0][0] <= self.now:
                before = pace.window
                way.answered(answers.pop(0)[1], self.now)
                assert pace.window <= max(2 * before, self.leap_bytes)
                self.windows.append(pace.window)
                continue
            if arriving and arriving[0][0] <= self.now:
                is_first = way.durable is None and not answers
                here = arriving.pop(0)[1]
                if here == size:
                    return size, True
                if self.cuts and here >= self.cuts[0]:
                    self.cuts.pop(0)
                    self.lost.append(way.unconfirmed_bytes)
                    pace.broke()
                    return said, False
                if is_first:  # the first answer, before anything is durable
                    said_at = self.now
                    answers.append((self.now + self.latency / 2, 0))
                silence_at = max(said_at + SAY_SECONDS, self.now)
                if silence_at > self.now and here - said < SAY_BYTES:
                    continue
            said, said_at, silence_at = here, self.now, None
            answers.append((self.now + self.latency / 2, said))

    def _send(
        self, way: UnderWay, length: int, free_at: float, arriving: list[tuple[float, int]], rng: random.Random
    ) -> float:
        way.hand_over(way.sent, length, self.now)
        self.sent += length
        self.chunks.append(length)
        free_at = max(free_at, self.now)
        through = min(self.burst_bytes, length)
        self.burst_bytes -= through
        free_at += (length - through) / self.bytes_per_second
        free_at += sum(self.stall(rng) for _ in range(-(-length // PACKET_BYTES)))
        begin, seconds = self.held
        if begin <= free_at < begin + seconds:
            arriving[:] = [(begin + seconds if at >= begin else at, end) for at, end in arriving]
            free_at = begin + seconds
        arriving.append((free_at + self.latency / 2, way.sent))
        return free_at


@pytest.mark.parametrize("bytes_per_second", [2_000, SLOW, 16_000, 125_000, 700_000])
def test_a_chunk_is_a_second_or_two_of_the_link_and_nothing_else_is_under_way(bytes_per_second: int) -> None:
    went = Simulated(bytes_per_second).upload(40 * bytes_per_second, Pace())
    settled = went.chunks[len(went.chunks) // 2 : -1]
    assert all(bytes_per_second <= each <= 2 * bytes_per_second for each in settled)
    assert went.now < 1.25 * 40 + FIRST_BYTES / bytes_per_second


@pytest.mark.parametrize("seed", range(20))
def test_losses_that_let_go_of_a_burst_look_like_no_fast_link(seed: int) -> None:
    went = Simulated(SLOW, stall=twentieth, seed=seed).upload(UPDATE, Pace())
    assert max(went.chunks) <= 4 * SLOW
    assert sorted(went.chunks)[len(went.chunks) // 2] <= 2.25 * SLOW
    assert went.sent == UPDATE


@pytest.mark.parametrize("begin", [0.5, 3.0, 5.0, 7.0, 9.0, 11.0])
def test_what_was_held_back_and_comes_at_once_is_timed_from_when_it_was_handed_over(begin: float) -> None:
    went = Simulated(SLOW, held=(begin, 6.0)).upload(UPDATE, Pace())
    assert max(went.chunks) <= FIRST_BYTES


@pytest.mark.parametrize("burst_bytes", [20_000, 40_000, 100_000])
def test_a_link_that_lets_a_burst_through_at_first_is_found_out_with_the_next_answer(burst_bytes: int) -> None:
    pace = Pace()
    went = Simulated(SLOW, latency=0.3, burst_bytes=burst_bytes).upload(UPDATE, pace)
    assert max(went.chunks) <= 2 * burst_bytes, "twice what came at once, at most"
    assert pace.window <= 2.5 * SLOW


def test_cuts_cost_the_chunk_that_was_under_way_and_the_next_is_smaller() -> None:
    for seed in range(10):
        cuts = [UPDATE * (i + 1) // 12 for i in range(10)]
        went = Simulated(SLOW, stall=twentieth, seed=seed, cuts=cuts).upload(UPDATE, Pace())
        assert len(went.lost) == 10
        assert went.calls == 11
        assert went.sent - UPDATE <= sum(went.lost)
        assert max(went.lost) <= 3 * SLOW


def test_a_link_that_becomes_slow_is_taken_for_it_with_the_first_answer() -> None:
    pace = Pace()
    Simulated(1_000_000, latency=0.02, leap_bytes=LEAP_BYTES).upload(20_000_000, pace)
    fast = pace.window
    assert fast > 500_000
    pace.confirmed(fast // 2, 60.0, fast // 2)
    assert pace.window < 2 * TARGET_SECONDS * (fast // 2 / 60.0)


def test_loopback_is_at_full_speed_within_a_few_answers() -> None:
    pace = Pace()
    went = Simulated(500_000_000, latency=0.005, leap_bytes=LEAP_BYTES).upload(45_000_000, pace)
    assert went.chunks[:2] == [FIRST_BYTES, LEAP_BYTES - FIRST_BYTES]
    assert sum(went.chunks[:8]) >= 6 * CHUNK_BYTES_MAX
    assert pace.window == MOST_BYTES
    assert went.now - RECONNECT_SECONDS < 1.0


def test_an_update_of_some_hundred_kilobytes_waits_for_one_answer_at_hand() -> None:
    went = Simulated(500_000_000, latency=0.01, leap_bytes=LEAP_BYTES).upload(UPDATE, Pace())
    assert went.chunks == [FIRST_BYTES, UPDATE - FIRST_BYTES]


def test_a_fast_link_further_away_doubles_with_each_answer() -> None:
    went = Simulated(50_000_000, latency=0.15).upload(45_000_000, Pace())
    assert went.windows[8] > CHUNK_BYTES_MAX
    assert max(went.windows) == MOST_BYTES
    assert went.now - RECONNECT_SECONDS < 6.0


@pytest.mark.parametrize("bytes_per_second", [20_000, 125_000, 1_000_000])
@pytest.mark.parametrize("latency", [0.3, 0.7, 1.2, 1.5, 2.6, 4.0])
def test_latency_is_not_taken_for_a_slow_link(bytes_per_second: int, latency: float) -> None:
    """About half of what the link carries, at least: by way of a satellite, or of the Moon."""
    went = Simulated(bytes_per_second, latency=latency).upload(160 * bytes_per_second, Pace())
    assert went.now < 2.2 * 160


def test_chunks_are_no_scraps_and_as_long_as_they_may_be_on_a_fast_link() -> None:
    pace = Pace()
    pace.window = 4 * CHUNK_BYTES_MAX
    way = UnderWay(pace, 2**30, is_fresh=False)
    assert way.room() == 0, "whoever goes on asks what is durable first"
    way.answered(0, 0.0)
    for _ in range(4):
        assert way.room() == CHUNK_BYTES_MAX
        way.hand_over(way.sent, CHUNK_BYTES_MAX, 0.0)
    assert way.room() == 0
    pace.window += CHUNK_BYTES_MAX // 2 - 1
    assert way.room() == 0, "a scrap waits until there is room for half a chunk"
    pace.window += 1
    assert way.room() == CHUNK_BYTES_MAX // 2
    pace.window = CHUNK_BYTES_MAX
    assert way.room() == 0, "it has become smaller than what is under way"


def test_a_second_chunk_is_half_of_the_window_at_least() -> None:
    pace = Pace()
    way = UnderWay(pace, 2**30, is_fresh=True)
    way.hand_over(0, way.room(), 0.0)
    pace.window = 2 * FIRST_BYTES - 2
    way.durable = 0
    assert way.room() == 0
    pace.window = 2 * FIRST_BYTES
    assert way.room() == FIRST_BYTES


def test_what_an_earlier_process_sent_is_not_sent_again_and_says_nothing_of_the_link() -> None:
    pace = Pace()
    way = UnderWay(pace, 10_000_000, is_fresh=True)
    way.hand_over(0, way.room(), 0.0)
    assert (way.room(), way.is_all_sent) == (0, False)
    way.answered(9_000_000, 4.0)
    assert (way.sent, way.unconfirmed_bytes) == (9_000_000, 0)
    assert pace.window <= 2 * FIRST_BYTES


@pytest.mark.parametrize("says", [[5, 4], [101], [51]])
def test_answers_that_cannot_be_true_are_refused(says: list[int]) -> None:
    way = UnderWay(Pace(), 100, is_fresh=True)
    way.hand_over(0, 50, 0.0)
    way.answered(0, 0.1)
    for each in says[:-1]:
        way.answered(each, 0.2)
    with pytest.raises(MalformedError, match="the gatekeeper says"):
        way.answered(says[-1], 0.3)


def test_the_least_that_is_under_way_is_not_nothing() -> None:
    pace = Pace()
    went = Simulated(20, cuts=[10_000, 20_000, 30_000]).upload(60_000, pace)
    assert set(went.windows[1:]) == {LEAST_BYTES}
