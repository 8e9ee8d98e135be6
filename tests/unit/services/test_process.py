"""A service as a process: ready, ended by a signal, or gone at once when its state is uncertain."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest
import structlog

from sfrl_secure.clock import FixedClock
from sfrl_secure.errors import DeniedError, MalformedError, UnavailableError, UncertainStateError
from sfrl_secure.governance.statements import PeerClass, RefusalsCounted
from sfrl_secure.ids import sha256
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.services import refusals
from sfrl_secure.services.process import run_service
from sfrl_secure.services.refusals import RefusalWriter


@pytest.fixture(autouse=True)
def _own_logs():
    yield
    structlog.reset_defaults()


class Idle:
    """A service that does nothing until it is stopped."""

    def __init__(self) -> None:
        self.is_stopped = False

    def start(self) -> int:
        return 7000

    def stop(self) -> None:
        self.is_stopped = True


def events(captured: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in captured.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_service_and_the_process_ends_well(number: int, capfd) -> None:
    service, before = Idle(), signal.getsignal(number)
    killer = threading.Timer(0.2, os.kill, [os.getpid(), number])
    killer.start()
    assert run_service("audit_log", lambda _: service) == 0
    assert service.is_stopped
    assert signal.getsignal(number) is before
    lines = events(capfd.readouterr().err)
    assert [line["event"] for line in lines] == ["ready", "stopping", "stopped"]
    assert (lines[0]["port"], lines[0]["service"]) == (7000, "audit_log")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (MalformedError("the configuration does not fit"), 2),
        (DeniedError("key_permissions", "readable"), 3),
        (UnavailableError("the port"), 4),
        (UncertainStateError("the journal is damaged"), 70),
    ],
)
def test_a_start_that_fails_says_why_in_one_line_and_in_the_exit_code(error, code: int, capfd) -> None:
    def make(_: threading.Event) -> Idle:
        raise error

    assert run_service("audit_log", make) == code
    (line,) = events(capfd.readouterr().err)
    assert line["exit_code"] == code
    assert str(error) in str(line["error"])


def test_a_service_whose_start_fails_half_way_is_stopped(capfd) -> None:
    service = Idle()

    def failing() -> int:
        raise UnavailableError("the port")

    service.start = failing  # type: ignore[method-assign]
    assert run_service("audit_log", lambda _: service) == 4
    assert service.is_stopped


def test_a_start_that_fails_is_a_failure_even_where_it_stops_the_others(capfd) -> None:
    """A service that cleans up sets the event that its threads wait on: nobody asked for that end."""

    def make(stopping: threading.Event) -> Idle:
        service = Idle()

        def failing() -> int:
            stopping.set()
            raise UnavailableError("the log does not answer")

        service.start = failing  # type: ignore[method-assign]
        return service

    assert run_service("gatekeeper", make) == 4
    (line,) = events(capfd.readouterr().err)
    assert (line["event"], line["exit_code"]) == ("failed", 4)


def test_an_end_asked_for_during_the_start_is_no_failure(capfd) -> None:
    def make(stopping: threading.Event) -> Idle:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.wait(5)
        raise UnavailableError("stopped before a quorum of witnesses had answered")

    assert run_service("audit_log", make) == 0


def test_an_uncertain_state_in_any_thread_ends_the_process_at_once() -> None:
    program = textwrap.dedent(
        """
        import atexit, threading
        from sfrl_secure.errors import UncertainStateError
        from sfrl_secure.rpc.logs import configure_logs
        from sfrl_secure.services.process import exit_uncertain

        configure_logs("audit_log")
        atexit.register(print, "not reached")
        error = UncertainStateError("the disk did not confirm a write")
        error.__cause__ = OSError("peer bytes")
        threading.Thread(target=exit_uncertain, args=(error,)).start()
        threading.Event().wait(30)
        """
    )
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=30, check=False)
    assert ended.returncode == 70
    assert time.monotonic() - begun < 25
    assert ended.stdout == b""
    (line,) = events(ended.stderr.decode())
    assert line["event"] == "uncertain_state"
    assert line["error"] == "the disk did not confirm a write"
    assert (line["reason"], "peer bytes" in json.dumps(line)) == ("OSError", False)


# Counted refusals


def counted(clock: FixedClock, count: int) -> RefusalCounter:
    counter = RefusalCounter(clock)
    for number in range(count):
        counter.count("role", PeerClass.OPERATOR, sha256(b"%d" % number))
    return counter


def test_refusals_are_written_from_time_to_time_and_the_rest_at_the_end() -> None:
    counter, written = counted(FixedClock(1), 1), []
    writer = RefusalWriter(counter, written.append, interval_seconds=0.02)
    writer.start()
    until = time.monotonic() + 5
    while not written:
        assert time.monotonic() < until
        time.sleep(0.005)
    counter.count("role", PeerClass.OPERATOR, sha256(b"last"))
    writer.stop()
    assert sum(each.count for body in written for each in body.counts) == 2
    assert counter.take() is None


def test_many_refusals_are_written_before_their_time(monkeypatch) -> None:
    monkeypatch.setattr(refusals, "_LOOK_SECONDS", 0.01)
    counter, written = counted(FixedClock(1), refusals.COUNT_MAX), []
    writer = RefusalWriter(counter, written.append, interval_seconds=1000)
    writer.start()
    until = time.monotonic() + 5
    while not written:
        assert time.monotonic() < until
        time.sleep(0.005)
    writer.stop()


def test_what_could_not_be_written_is_written_later_unchanged() -> None:
    counter, seen = counted(FixedClock(1), 3), []

    def write(body: RefusalsCounted) -> None:
        seen.append(body)
        if len(seen) == 1:
            raise UnavailableError("the log is away")

    writer = RefusalWriter(counter, write, interval_seconds=1000)
    assert not writer.flush()
    assert writer.flush()
    assert seen[0] == seen[1]
    assert writer.flush()
    assert len(seen) == 2
