"""How much of an upload is under way at once, answer by answer, and how long somebody waits: by numbers alone."""

from __future__ import annotations

import pytest

from sfrl_secure.errors import ConflictError, DeniedError, ExhaustedError, SfrlError, UnavailableError
from sfrl_secure.rpc.pace import ANSWERS, FIRST_BYTES, LEAP_BYTES, LEAST_BYTES, MOST_BYTES, Pace
from sfrl_secure.rpc.trying import LONGEST_PAUSE_SECONDS, Patience


def after(bytes_per_second: float, latency: float, answers: int) -> Pace:
    """A pace that has seen so many answers of a link, each about all that was under way."""
    pace = Pace()
    for _ in range(answers):
        pace.confirmed(pace.window, pace.window / bytes_per_second + latency, pace.window)
    return pace


@pytest.mark.parametrize("bytes_per_second", [4_000, 16_000, 125_000, 1_000_000])
def test_what_is_under_way_is_a_second_or_two_of_the_link(bytes_per_second: int) -> None:
    assert bytes_per_second <= after(bytes_per_second, 0.1, 12).window <= 2 * bytes_per_second


def test_a_link_at_hand_leaps_once_and_no_further_than_it_may() -> None:
    assert after(500_000_000, 0.002, 1).window == LEAP_BYTES
    assert after(500_000_000, 0.002, 2).window == 2 * LEAP_BYTES
    assert after(500_000_000, 0.002, 5).window == MOST_BYTES


def test_a_leap_is_no_longer_than_the_link_carries_in_the_time_that_is_aimed_at() -> None:
    pace = Pace()
    pace.confirmed(FIRST_BYTES, 0.1, FIRST_BYTES)
    assert 10 * FIRST_BYTES < pace.window < 20 * FIRST_BYTES


def test_a_link_further_away_grows_by_what_was_confirmed() -> None:
    assert after(500_000_000, 0.2, 1).window == 2 * FIRST_BYTES
    pace = Pace()
    pace.confirmed(FIRST_BYTES, 0.2, 1_000)
    assert pace.window == FIRST_BYTES + 1_000


def test_a_link_that_broke_leaps_no_more_than_half_of_what_was_under_way() -> None:
    pace = after(4_000, 0.1, 10)
    before = pace.window
    pace.broke()
    assert pace.window == before // 2
    pace.confirmed(pace.window, 0.001, pace.window)
    assert pace.window == before // 2 * 2


def test_a_loss_that_looked_like_latency_is_forgotten() -> None:
    pace, windows = Pace(), []
    for lost_seconds in (0.0, 0.9, 0.9, 0.6, *[0.0] * (2 * ANSWERS)):
        pace.confirmed(pace.window, pace.window / 3_600 + lost_seconds, pace.window)
        windows.append(pace.window)
    assert max(windows[:ANSWERS]) > 2 * 3_600
    assert max(windows[-10:]) < 1.75 * 3_600


def test_an_answer_about_little_says_nothing() -> None:
    pace = after(100_000_000, 0.01, 5)
    before = pace.window
    pace.confirmed(300, 0.25, 300)
    assert pace.window == before


def test_an_answer_that_took_long_is_heard_whatever_it_is_about() -> None:
    pace = after(100_000_000, 0.01, 5)
    pace.confirmed(20_000, 5.0, 20_000)
    assert pace.window < 20_000


def test_an_answer_in_no_time_at_all_is_taken_for_a_quick_one() -> None:
    pace = Pace()
    pace.confirmed(FIRST_BYTES, 0.0, FIRST_BYTES)
    assert pace.window == LEAP_BYTES


def test_a_break_makes_it_small_again_and_never_nothing() -> None:
    pace = after(100_000_000, 0.01, 6)
    pace.broke()
    assert pace.window == FIRST_BYTES
    for _ in range(10):
        pace.broke()
    assert pace.window == LEAST_BYTES
    pace.confirmed(1, 1_000.0, 1)
    assert pace.window == LEAST_BYTES


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def patience(self) -> Patience:
        return Patience(lambda: self.now, self.sleep, lambda: 1.0)


@pytest.mark.parametrize("error", [ConflictError("lost"), ExhaustedError("busy"), UnavailableError("away")])
def test_what_decides_nothing_is_tried_again_until_the_deadline(error: SfrlError) -> None:
    time, lefts = Time(), []

    def attempt(left: float) -> None:
        lefts.append(left)
        raise error

    with pytest.raises(type(error)):
        time.patience().keep_trying(attempt, deadline_seconds=30.0)
    assert time.slept[:4] == [0.1, 0.2, 0.4, 0.8]
    assert max(time.slept) == LONGEST_PAUSE_SECONDS
    assert lefts[0] == 30.0
    assert 0 < lefts[-1] <= LONGEST_PAUSE_SECONDS


def test_what_is_decided_ends_it() -> None:
    time = Time()

    def attempt(left: float) -> None:
        raise DeniedError("halted", "no")

    with pytest.raises(DeniedError):
        time.patience().keep_trying(attempt, deadline_seconds=30.0)
    assert not time.slept


def test_work_that_goes_on_is_not_waited_for_longer_and_longer() -> None:
    time, done = Time(), [0]

    def attempt(left: float) -> str:
        done[0] += 1
        if done[0] < 6:
            raise UnavailableError("away")
        return "done"

    assert time.patience().keep_trying(attempt, deadline_seconds=30.0, done=lambda: done[0]) == "done"
    assert time.slept == [0.1] * 5
