from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sfrl_secure.errors import DeniedError, SfrlError
from sfrl_secure.rpc.logs import configure_logs
from sfrl_secure.rpc.server import Method


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logs("gatekeeper", stream)
    yield stream
    structlog.reset_defaults()


def read(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_a_line_is_one_json_object_with_time_level_and_service(lines: io.StringIO) -> None:
    structlog.get_logger().warning("round_closed", round=3, counted=12, segment="north")
    [line] = read(lines)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "round_closed",
        "level": "warning",
        "service": "gatekeeper",
        "round": 3,
        "counted": 12,
        "segment": "north",
    }


def test_fields_that_are_not_listed_are_dropped_and_counted(lines: io.StringIO) -> None:
    structlog.get_logger().info("submit", payload=b"secret", support=[1, 2], seed="secret", round=1)
    [line] = read(lines)
    assert line["fields_dropped"] == 3
    assert "secret" not in lines.getvalue()


def test_listed_fields_carry_plain_values_of_bounded_length_only(lines: io.StringIO) -> None:
    structlog.get_logger().info("submit", reason=b"secret", segment={"a": "secret"}, peer="x" * 10_000, count=2)
    [line] = read(lines)
    assert line["fields_dropped"] == 2
    assert len(line["peer"]) == 500
    assert "secret" not in lines.getvalue()


def test_a_line_break_in_a_value_makes_no_second_line(lines: io.StringIO) -> None:
    structlog.get_logger().info("call", reason='a\n{"event": "forged"}')
    assert len(read(lines)) == 1


def test_each_call_writes_one_line_with_its_outcome(lines: io.StringIO, site: Any) -> None:
    def decide(request: bytes, context: object) -> bytes:
        if request == b"deny":
            raise DeniedError("norm_limit", "at most 7")
        if request == b"fail":
            raise KeyError(request.decode() * 2)
        return b""

    server = site.serve(Method("/test.Service/Decide", decide, frozenset({"participant"})))
    rover = site.known("participant/rover-7")
    channel = site.channel(server, rover)
    channel.call("/test.Service/Decide", b"", deadline_seconds=10)
    for request in (b"deny", b"fail"):
        with pytest.raises(SfrlError):
            channel.call("/test.Service/Decide", request, deadline_seconds=10)
    with pytest.raises(DeniedError):
        site.channel(server, site.pki.identity("participant/rover-8")).call("/x/Y", b"", deadline_seconds=10)
    written = read(lines)
    assert [(line["event"], line["code"], line.get("reason"), line.get("peer")) for line in written] == [
        ("call", "OK", None, rover.spiffe_id),
        ("call", "INVALID_ARGUMENT", "norm_limit", rover.spiffe_id),
        ("call_failed", "INTERNAL", None, rover.spiffe_id),
        ("call", "UNAUTHENTICATED", "unknown_identity", None),
    ]
    assert all(line["elapsed_ms"] >= 0 and "fields_dropped" not in line for line in written)
    assert written[2]["error"] == "KeyError"
    assert "decide" in written[2]["frames"]
    # The frames quote our source; the exception's text may be what the peer sent.
    assert "failfail" not in lines.getvalue()
