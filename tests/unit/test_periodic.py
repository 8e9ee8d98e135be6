"""What is done again and again: when, and that it ends."""

from __future__ import annotations

import threading

from sfrl_secure.periodic import PeriodicThread


def test_it_is_done_again_and_again_until_it_is_stopped() -> None:
    third, count = threading.Event(), 0

    def do() -> None:
        nonlocal count
        count += 1
        if count == 3:
            third.set()

    made = PeriodicThread("again", do, every_seconds=0.01)
    made.start()
    assert third.wait(10)
    made.stop()
    assert "again" not in {each.name for each in threading.enumerate()}


def test_the_first_time_is_at_the_start_only_where_that_was_asked_for() -> None:
    for at_once in (True, False):
        done = threading.Event()
        made = PeriodicThread("once", done.set, every_seconds=3_600.0, at_once=at_once)
        made.start()
        assert done.wait(10 if at_once else 0.1) is at_once
        made.stop()


def test_a_stop_waits_for_what_is_being_done_and_for_nothing_else() -> None:
    inside, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

    def do() -> None:
        inside.set()
        goes_on.wait(10)
        ended.set()

    made = PeriodicThread("busy", do, every_seconds=3_600.0, at_once=True)
    made.start()
    assert inside.wait(10)
    stopping = threading.Thread(target=made.stop)
    stopping.start()
    stopping.join(0.05)
    assert stopping.is_alive()
    goes_on.set()
    stopping.join(10)
    assert not stopping.is_alive()
    assert ended.is_set()


def test_what_was_never_started_is_stopped_all_the_same() -> None:
    done = threading.Event()
    PeriodicThread("never", done.set, every_seconds=0.01, at_once=True).stop()
    assert not done.is_set()
