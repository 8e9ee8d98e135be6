"""Waiting for a call's message: not for ever, and not on behalf of whom nobody has looked at."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from sfrl_secure.errors import MalformedError, UnavailableError
from sfrl_secure.rpc.first_message import MessageWatch


class Call:
    """A call as gRPC shows it: requests, and a context that ends them."""

    def __init__(self, *messages: bytes) -> None:
        self.arriving: queue.Queue[bytes | None] = queue.Queue()
        for message in messages:
            self.arriving.put(message)
        self.waits = threading.Event()
        self.is_cancelled = False

    def requests(self) -> Iterator[bytes]:
        while True:
            self.waits.set()
            message = self.arriving.get(timeout=10)
            if self.is_cancelled:
                raise grpc.RpcError
            if message is None:
                return
            yield message

    def cancel(self) -> None:
        self.is_cancelled = True
        self.arriving.put(None)


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def watch(time: Time) -> MessageWatch:
    return MessageWatch(5.0, monotonic=time)


def take(watch: MessageWatch, call: Call) -> bytes:
    context: Any = call
    taken: bytes = watch.take(call.requests(), context)
    return taken


def test_the_first_message_is_taken_and_an_empty_one_is_one(watch: MessageWatch, time: Time) -> None:
    for message in (b"hello", b""):
        call = Call(message, b"another")
        assert take(watch, call) == message
        time.now += 100
        watch.cut_overdue()
        assert not call.is_cancelled, "what was taken is not waited for any more"


def test_a_caller_that_ends_without_a_message_is_told_so(watch: MessageWatch) -> None:
    call = Call()
    call.arriving.put(None)
    with pytest.raises(MalformedError, match="no message"):
        take(watch, call)


def test_who_is_late_is_cut_and_who_is_not_goes_on_waiting(watch: MessageWatch, time: Time) -> None:
    calls, outcomes = [Call(), Call()], {}

    def wait(at: int) -> None:
        try:
            outcomes[at] = take(watch, calls[at])
        except UnavailableError as error:
            outcomes[at] = error

    waiting = []
    for at, call in enumerate(calls):
        time.now = 3.0 * at
        waiting.append(threading.Thread(target=wait, args=(at,)))
        waiting[-1].start()
        assert call.waits.wait(10)
    time.now = 4.9
    watch.cut_overdue()
    assert [call.is_cancelled for call in calls] == [False, False]
    time.now = 5.0
    watch.cut_overdue()
    assert [call.is_cancelled for call in calls] == [True, False]
    calls[1].arriving.put(b"in time")
    for thread in waiting:
        thread.join(10)
    assert isinstance(outcomes[0], UnavailableError)
    assert outcomes[1] == b"in time"


def test_a_watch_that_runs_cuts_by_itself() -> None:
    watch = MessageWatch(0.05)
    watch.start()
    call = Call()
    with pytest.raises(UnavailableError, match="in time"):
        take(watch, call)
    watch.stop()


def test_each_message_of_a_stream_is_waited_for_anew(watch: MessageWatch, time: Time) -> None:
    call = Call(b"one", b"", b"three")
    context: Any = call
    messages = watch.each(call.requests(), context)
    for wanted in (b"one", b"", b"three"):
        time.now += 4.9
        watch.cut_overdue()
        assert next(messages) == wanted
        time.now += 100
        watch.cut_overdue()
        assert not call.is_cancelled, "what was taken is not waited for any more"
    call.arriving.put(None)
    assert list(messages) == []


def test_a_stream_that_rests_too_long_is_cut(watch: MessageWatch, time: Time) -> None:
    call = Call(b"one")
    context: Any = call
    messages = watch.each(call.requests(), context)
    next(messages)
    ended: list[Exception] = []

    def wait() -> None:
        try:
            next(messages)
        except UnavailableError as error:
            ended.append(error)

    call.waits.clear()
    waiting = threading.Thread(target=wait)
    waiting.start()
    assert call.waits.wait(10)
    time.now += 5.0
    watch.cut_overdue()
    waiting.join(10)
    assert call.is_cancelled
    assert len(ended) == 1
