"""Log lines: one JSON object a line on standard error, with fields from a list.

A field that is not on the list is dropped and counted in `fields_dropped`, so that a payload, a support, a key or a
grant cannot get into a log by a careless call. Values are numbers, truths and short text; nothing else is written
either.

Runs in: every service and command.
Trusts: nothing.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
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


def configure_logs(service: str, stream: TextIO | None = None) -> None:
    """Send the log lines of this process to standard error, or to `stream`, with the service's name in each."""
    structlog.reset_defaults()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _with_service(service),
            keep_listed_fields,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(sys.stderr if stream is None else stream),
        cache_logger_on_first_use=False,
    )


def _with_service(service: str) -> structlog.typing.Processor:
    def add(logger: object, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    return add
