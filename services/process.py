"""A service as a process: signals, one line when it is ready, exit codes, and the emergency exit.

0: ended by SIGTERM or SIGINT. 1 to 4: could not start (DESIGN 9). 70: our own state became uncertain; the process
ends at that moment, without any answer that is still on its way, and a start finds out what is on the disk.

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: nothing.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Protocol

import structlog

from sfrl_secure.errors import SfrlError, UncertainStateError
from sfrl_secure.rpc.logs import configure_logs
from sfrl_secure.rpc.status import exit_code_of

EXIT_UNCERTAIN = 70
"""EX_SOFTWARE of sysexits.h: whoever supervises must not take it for an end."""

GARBAGE_OBJECTS = 20_000
"""So many new objects that could be garbage are looked at together."""

_log = structlog.get_logger()


class Service(Protocol):
    """What `run_service` runs."""

    def start(self) -> int:
        """Begin to serve; give the port of the gRPC server."""
        ...

    def stop(self) -> None:
        """Say NOT_SERVING, let running calls end, end."""
        ...


def run_service(role: str, make: Callable[[threading.Event], Service]) -> int:
    """Run a service until SIGTERM or SIGINT; give the exit code. Call it from the main thread.

    Args:
        role: stands in each log line.
        make: reads configuration and state, and makes the service. The event is set when the process is to end:
            whatever waits during the start waits on it too.
    """
    configure_logs(role)
    # A service sets `stopping` itself when its start fails: only a signal is an end that was asked for.
    stopping, asked = threading.Event(), threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        asked.set()
        stopping.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        return _run(make, stopping)
    except UncertainStateError as error:
        _write_uncertain(error)
        return EXIT_UNCERTAIN
    except SfrlError as error:
        # An end that was asked for during the start is no failure.
        if asked.is_set():
            return 0
        _log.error("failed", error=f"{type(error).__name__}: {error}", exit_code=exit_code_of(error))
        return exit_code_of(error)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _run(make: Callable[[threading.Event], Service], stopping: threading.Event) -> int:
    service = make(stopping)
    try:
        port = service.start()
        # What a start has made stays: the collector need not look at it again, nor as often as by default.
        gc.freeze()
        gc.set_threshold(GARBAGE_OBJECTS, 20, 20)
        _log.info("ready", port=port)
        stopping.wait()
        _log.info("stopping")
    finally:
        service.stop()
    _log.info("stopped")
    return 0


def exit_uncertain(error: UncertainStateError) -> None:
    """End the process at this moment: one log line, exit code 70, nothing flushed, nobody answered.

    For any thread: `sys.exit` would end only its own.
    """
    try:
        _write_uncertain(error)
        sys.stderr.flush()
    finally:
        os._exit(EXIT_UNCERTAIN)


def _write_uncertain(error: UncertainStateError) -> None:
    cause = error.__cause__
    frames = "" if cause is None else "".join(traceback.format_tb(cause.__traceback__)[-6:])
    _log.critical(
        "uncertain_state",
        error=str(error),
        reason="" if cause is None else type(cause).__name__,
        frames=frames,
        exit_code=EXIT_UNCERTAIN,
    )
