"""Log lines: one JSON object a line on standard error, with fields from a list.

A field that is not on the list is dropped and counted in `fields_dropped`, so that a payload, a support, a key or a
grant cannot get into a log by a careless call. Values are numbers, truths and short text; nothing else is written
either.

The lines of calls wait for a moment and are then made and written together, by one thread: where many threads serve,
what each of them does besides costs several times its own time. Any other line is written at once, after all that
came before it. What waits at a kill is lost.

Runs in: every service and command.
Trusts: nothing.
"""

from __future__ import annotations

import atexit
import json
import sys
import threading
import time
from collections import deque
from collections.abc import MutableMapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

FIELDS = frozenset(
    {
        # Set by structlog and by every line.
        "event",
        "level",
        "timestamp",
        "service",
        # Calls.
        "method",
        "peer",
        "code",
        "reason",
        "elapsed_ms",
        "error",
        "frames",
        # The log and the federation.
        "address",
        "port",
        "origin",
        "index",
        "log_size",
        "tree_size",
        "entries",
        "witness",
        "witnessed_size",
        "segment",
        "stream",
        "round",
        "participant",
        "outcome",
        "cause",
        "counted",
        "dropped",
        "admitted",
        "refused",
        "coordinates",
        "nonzeros",
        "weight",
        "payload_bytes",
        "digest",
        "verdict",
        "findings",
        "finding",
        "attempt",
        "count",
        "bytes",
        "exit_code",
        "fields_dropped",
    }
)
TEXT_CHARACTERS_MAX = 500
FRAMES_CHARACTERS_MAX = 4_000

CALL = "call"
"""The event of a call that ended without a fault of ours."""

DELAY_SECONDS = 0.05
"""How long the line of a call may wait for others."""

WAITING_MAX = 4_096
"""Lines that wait; whoever adds one more writes them all."""

_to_json = json.JSONEncoder().encode


def keep_listed_fields(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop what is not on the list or not a plain value, cut long text, count what was dropped.

    A structlog processor.
    """
    kept: dict[str, Any] = {}
    dropped = 0
    for field, value in event.items():
        if field not in FIELDS or not (value is None or isinstance(value, (bool, int, float, str))):
            dropped += 1
        elif isinstance(value, str):
            kept[field] = value[: FRAMES_CHARACTERS_MAX if field == "frames" else TEXT_CHARACTERS_MAX]
        else:
            kept[field] = value
    if dropped:
        kept["fields_dropped"] = dropped
    return kept


class LineWriter:
    """Makes lines of events and writes them, those of calls together. Safe for any number of threads."""

    def __init__(self, service: str, stream: TextIO, delay_seconds: float) -> None:
        """Begin with nothing that waits; with a delay of 0, each line is written at once."""
        self._service, self._stream, self._delay_seconds = service, stream, delay_seconds
        self._waiting: deque[MutableMapping[str, Any]] = deque()
        self._lock = threading.Lock()
        self._is_due = threading.Event()
        self._thread: threading.Thread | None = None

    def write(self, event: MutableMapping[str, Any]) -> None:
        """Write a line; one of a call a little later."""
        self._waiting.append(event)
        if event.get("event") != CALL or not self._delay_seconds or len(self._waiting) > WAITING_MAX:
            self.flush()
        elif not self._is_due.is_set():
            self._is_due.set()
            if self._thread is None:
                self._start()

    # structlog calls the method that bears the level's name.
    debug = info = warning = error = critical = exception = write

    def flush(self) -> None:
        """Write what waits."""
        with self._lock:
            lines = []
            with suppress(IndexError):
                while True:
                    lines.append(self._line(self._waiting.popleft()))
            # A stream that was closed or broken under us takes no call down with it.
            with suppress(OSError, ValueError):
                self._stream.write("".join(lines))
                self._stream.flush()

    def _line(self, event: MutableMapping[str, Any]) -> str:
        at = datetime.fromtimestamp(event["timestamp"] / 1e9, UTC)
        event["timestamp"] = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
        event["service"] = self._service
        return _to_json(keep_listed_fields(None, "", event)) + "\n"

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None:
                return
            self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the interpreter is ending and starts no thread
            self.flush()

    def _run(self) -> None:
        while self._is_due.wait():
            time.sleep(self._delay_seconds)
            self._is_due.clear()  # before the look: a line that comes after it makes the next round due
            self.flush()


def configure_logs(service: str, stream: TextIO | None = None, *, delay_seconds: float = DELAY_SECONDS) -> None:
    """Send the log lines of this process to standard error, or to `stream`, with the service's name in each."""
    writer = LineWriter(service, sys.stderr if stream is None else stream, delay_seconds)
    atexit.register(writer.flush)
    structlog.reset_defaults()
    structlog.configure(
        processors=[structlog.processors.add_log_level, _hand_over],
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=False,
    )


def _hand_over(
    logger: object, method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[MutableMapping[str, Any]], dict[str, Any]]:
    event["timestamp"] = time.time_ns()
    return (event,), {}
