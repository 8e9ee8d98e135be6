"""A call's messages: one ahead of who takes them, waited for with a bound, and ended from outside."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

import pytest

from sfrl_secure.errors import ConflictError, DeniedError, UnavailableError
from sfrl_secure.services.gatekeeper.arrivals import Arrivals, CallEndedError


class Caller:
    """Sends what a test puts; an exception is raised, None ends the stream."""

    def __init__(self) -> None:
        self.sent: queue.Queue[bytes | Exception | None] = queue.Queue()
        self.taken = 0

    def requests(self) -> Iterator[bytes]:
        while (message := self.sent.get(timeout=10)) is not None:
            if isinstance(message, Exception):
                raise message
            self.taken += 1
            yield message


def test_messages_come_in_order_and_then_the_end() -> None:
    with Arrivals(iter([b"1", b"2", b"3"])) as arrivals:
        assert [arrivals.next(10) for _ in range(3)] == [b"1", b"2", b"3"]
        assert arrivals.next(10) is None
        assert arrivals.has_ended


def test_who_waits_in_vain_can_look_up() -> None:
    caller = Caller()
    with Arrivals(caller.requests()) as arrivals:
        assert arrivals.next(0.01) is None
        assert not arrivals.has_ended
        caller.sent.put(b"late")
        assert arrivals.next(10) == b"late"
        caller.sent.put(None)


@pytest.mark.parametrize(("ahead", "taken"), [(True, 2), (False, 1)])
def test_one_message_and_no_more_is_taken_ahead_and_that_one_only_where_it_may_be(ahead: bool, taken: int) -> None:
    caller = Caller()
    for n in range(9):
        caller.sent.put(b"%d" % n)
    with Arrivals(caller.requests(), lambda: ahead) as arrivals:
        assert arrivals.next(10) == b"0"
        time.sleep(0.05)
        assert caller.taken == taken
        assert [arrivals.next(10) for _ in range(8)] == [b"%d" % n for n in range(1, 9)]
    caller.sent.put(None)


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (DeniedError("unknown_identity", "revoked"), DeniedError),
        (UnavailableError("not in time"), UnavailableError),
        (OSError("what gRPC may raise"), UnavailableError),
    ],
)
def test_an_error_of_the_stream_is_the_calls(raised: Exception, told: type[Exception]) -> None:
    """It says nothing about the update: whoever decides must not take it for a refusal."""
    caller = Caller()
    caller.sent.put(raised)
    with Arrivals(caller.requests()) as arrivals:
        with pytest.raises(CallEndedError) as ended:
            arrivals.next(10)
        assert type(ended.value.error) is told
        with pytest.raises(CallEndedError):
            arrivals.next(10)


def test_who_waits_is_ended_from_outside_at_once() -> None:
    caller = Caller()
    with Arrivals(caller.requests()) as arrivals:
        ending = threading.Timer(0.05, arrivals.end, [ConflictError("another call")])
        ending.start()
        begun = time.monotonic()
        with pytest.raises(CallEndedError) as ended:
            arrivals.next(None)
        assert time.monotonic() - begun < 5
        assert isinstance(ended.value.error, ConflictError)
        ending.join()
    caller.sent.put(None)


def test_a_call_that_is_left_takes_no_more_of_its_messages() -> None:
    caller = Caller()
    with Arrivals(caller.requests()) as arrivals:
        caller.sent.put(b"1")
        assert arrivals.next(10) == b"1"
    waiting = [thread for thread in threading.enumerate() if thread.name == "arrivals"]
    caller.sent.put(b"2")
    for thread in waiting:
        thread.join(10)
        assert not thread.is_alive()


def test_nothing_is_waited_for_before_the_first_look() -> None:
    caller = Caller()
    caller.sent.put(b"1")
    with Arrivals(caller.requests()):
        time.sleep(0.02)
    assert caller.taken == 0
