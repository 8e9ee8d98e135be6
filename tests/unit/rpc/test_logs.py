from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from sfrl_secure.errors import DeniedError, SfrlError
from sfrl_secure.rpc import logs
from sfrl_secure.rpc.logs import LineWriter, configure_logs
from sfrl_secure.rpc.server import Method


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    configure_logs("gatekeeper", stream, delay_seconds=0)
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


def call(text: str) -> dict[str, Any]:
    return {"event": "call", "peer": text, "timestamp": 1_000_000_000}


def peers(stream: io.StringIO) -> list[str]:
    return [line.get("peer", line["event"]) for line in read(stream)]


def wait_for(stream: io.StringIO, expected: list[str]) -> None:
    until = time.monotonic() + 10
    while peers(stream) != expected:
        assert time.monotonic() < until
        time.sleep(0.005)


def test_lines_of_calls_wait_for_others_and_are_written_soon() -> None:
    stream = io.StringIO()
    writer = LineWriter("gatekeeper", stream, 0.05)
    for text in ("one", "two"):
        writer.info(call(text))
    assert stream.getvalue() == ""
    wait_for(stream, ["one", "two"])
    writer.info(call("three"))
    wait_for(stream, ["one", "two", "three"])


def test_a_line_says_when_it_was_said_and_not_when_it_was_written() -> None:
    stream = io.StringIO()
    LineWriter("gatekeeper", stream, 0).info({"event": "call", "timestamp": 1_700_000_000_123_456_789})
    assert read(stream)[0]["timestamp"] == "2023-11-14T22:13:20.123457Z"


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error", "critical", "exception"])
def test_any_other_line_is_written_at_once_and_after_what_came_before_it(level: str) -> None:
    stream = io.StringIO()
    writer = LineWriter("gatekeeper", stream, 3_600)
    writer.info(call("one"))
    getattr(writer, level)({"event": "two", "timestamp": 1})
    assert peers(stream) == ["one", "two"]


def test_what_waits_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAITING_MAX", 3)
    stream = io.StringIO()
    writer = LineWriter("gatekeeper", stream, 3_600)
    for text in "abcd":
        writer.info(call(text))
    assert peers(stream) == ["a", "b", "c", "d"]


def test_lines_of_many_threads_are_all_written_and_none_in_parts() -> None:
    stream = io.StringIO()
    writer = LineWriter("gatekeeper", stream, 0.001)
    threads = [
        threading.Thread(target=lambda name=name: [writer.info(call(f"{name} {at}")) for at in range(500)])
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()
    written = peers(stream)
    assert sorted(written) == sorted(f"{name} {at}" for name in "abcd" for at in range(500))
    # Each thread's lines stand in the order in which it wrote them.
    for name in "abcd":
        assert [text for text in written if text[0] == name] == [f"{name} {at}" for at in range(500)]


def test_a_stream_that_is_closed_takes_no_caller_down() -> None:
    stream = io.StringIO()
    writer = LineWriter("gatekeeper", stream, 0)
    stream.close()
    writer.info(call("one"))
    writer.error(call("two"))
