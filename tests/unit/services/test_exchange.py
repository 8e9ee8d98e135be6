from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sfrl_secure.clock import SystemClock
from sfrl_secure.errors import DeniedError, ExhaustedError, MalformedError, UnavailableError, UncertainStateError
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.services.audit_log import exchange as module
from sfrl_secure.services.audit_log.appending import Appending
from sfrl_secure.services.audit_log.exchange import WINDOW_REQUESTS, EntryExchange
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.append_entries import encode_entries_request, parse_entries_response

from .memory import PEER, Intake, Memory, envelope

SECONDS = 10.0


def request(*statements: bytes) -> bytes:
    return encode_entries_request([envelope(each) for each in statements])


def statements(answer: bytes) -> list[bytes]:
    return [each.raw for each in parse_entries_response(answer).results if isinstance(each, LoggedEntry)]


def wait_until(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + SECONDS
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.002)


class Site:
    def __init__(self) -> None:
        self.memory = Memory()
        self.closing = threading.Event()
        self.taken = 0

    def answers(self, requests: Iterator[bytes]) -> Iterator[bytes]:
        appending = Appending(self.memory, Intake(), RefusalCounter(SystemClock()))  # type: ignore[arg-type]
        return EntryExchange(appending, PEER, self.closing).answers(self.counted(requests))

    def counted(self, requests: Iterator[bytes]) -> Iterator[bytes]:
        for each in requests:
            self.taken += 1
            yield each


@pytest.fixture
def site() -> Iterator[Site]:
    before = threading.active_count()
    yield Site()
    wait_until(lambda: threading.active_count() <= before)  # every reader has ended


def test_each_request_is_answered_in_its_order(site: Site) -> None:
    answers = list(site.answers(request(b"%d" % at, b"forged") for at in range(100)))
    assert [statements(answer) for answer in answers] == [[b"%d" % at] for at in range(100)]


def test_requests_are_read_ahead_until_the_window_is_full_and_no_further(site: Site) -> None:
    site.memory.holds = True
    answers = site.answers(request(b"%d" % at) for at in range(100))
    got: list[bytes] = []
    asking = threading.Thread(target=lambda: got.append(next(answers)))
    asking.start()
    # One in the hand of the answering thread, the window, and one in the hand of the reader.
    wait_until(lambda: site.taken == WINDOW_REQUESTS + 2)
    time.sleep(0.05)
    assert site.taken == WINDOW_REQUESTS + 2
    assert got == []
    site.memory.holds = False
    site.memory.release()
    asking.join(SECONDS)
    assert [statements(answer) for answer in (*got, *answers)] == [[b"%d" % at] for at in range(100)]


def test_a_full_queue_holds_the_stream_back_and_refuses_nothing(site: Site) -> None:
    site.memory.holds, site.memory.room = True, 2
    done: list[bytes] = []
    answering = threading.Thread(target=lambda: done.extend(site.answers(request(b"a", b"b") for _ in range(5))))
    answering.start()
    while answering.is_alive():
        assert site.taken <= len(site.memory.groups) + 2
        site.memory.release()
    assert [statements(answer) for answer in done] == [[b"a", b"b"]] * 5


def test_a_queue_that_stays_full_ends_the_stream(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "APPEND_SECONDS", 0.05)
    site.memory.room = 1
    with pytest.raises(ExhaustedError):
        list(site.answers(iter([request(b"a", b"b")])))


@pytest.mark.parametrize("error", [DeniedError("unknown_identity", "revoked"), RuntimeError("a fault of ours")])
def test_what_ends_the_requests_ends_the_stream_after_what_is_under_way(site: Site, error: Exception) -> None:
    def requests() -> Iterator[bytes]:
        yield request(b"one")
        yield request(b"two")
        raise error

    answers = site.answers(requests())
    assert [statements(next(answers)), statements(next(answers))] == [[b"one"], [b"two"]]
    with pytest.raises(type(error)):
        next(answers)


def test_a_request_that_is_malformed_as_a_whole_ends_the_stream(site: Site) -> None:
    answers = site.answers(iter([request(b"one"), b"\xff", request(b"two")]))
    assert statements(next(answers)) == [b"one"]
    with pytest.raises(MalformedError):
        next(answers)
    assert site.memory.groups == [[b"one"]]


def test_a_log_that_fails_ends_the_stream(site: Site) -> None:
    site.memory.refuse[b"two"] = UncertainStateError("fsync failed")
    answers = site.answers(iter([request(b"one"), request(b"two")]))
    next(answers)
    with pytest.raises(UncertainStateError):
        next(answers)


def test_a_log_that_is_too_slow_ends_the_stream(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sfrl_secure.services.audit_log.appending.APPEND_SECONDS", 0.05)
    site.memory.holds = True
    with pytest.raises(UnavailableError):
        next(site.answers(iter([request(b"one")])))


def test_closing_answers_what_is_under_way_and_ends_a_stream_that_is_idle(site: Site) -> None:
    goes_on = threading.Event()

    def requests() -> Iterator[bytes]:
        yield request(b"one")
        goes_on.wait(SECONDS)

    answers = site.answers(requests())
    site.closing.set()
    begun = time.monotonic()
    assert [statements(answer) for answer in answers] == [[b"one"]]
    assert time.monotonic() - begun < 2
    goes_on.set()


def test_a_caller_that_goes_away_lets_the_reader_go(site: Site) -> None:
    answers = site.answers(request(b"%d" % at) for at in range(10**9))
    next(answers)
    answers.close()  # type: ignore[attr-defined]
