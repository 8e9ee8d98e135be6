"""A writer: one process with one connection over mutual TLS, which appends what was signed before.

It takes one JSON object a line on standard input and answers each with one. While a clock runs it looks at nothing but
status and time; what came back is read and counted afterwards, and a sample of it is verified in full.

    python -m benchmarks.writer CONFIG

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import grpc

from benchmarks.acknowledged import Call, count_logged, index_of, verify_message, verify_some
from benchmarks.empty_server import EMPTY
from benchmarks.entries import PresignedEntries
from sfrl_secure.clock import SystemClock
from sfrl_secure.crypto.keys import signing_key_from_pem
from sfrl_secure.ids import parse_hex_digest, parse_spiffe_id
from sfrl_secure.rpc.channel import service_dns_name
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.translog.policy import parse_trust_policy
from sfrl_secure.wire import audit_service
from sfrl_secure.wire.audit_service import APPEND_ENTRY

WARM_UP_SECONDS = 0.5
"""From the first call until the clock starts: what is on its way when it stops was on its way when it started."""

CALL_SECONDS = 60.0
EMPTY_BODY = bytes(700)
MESSAGE_ENTRIES = 64
_FILL_ENTRIES = 4 * MESSAGE_ENTRIES

Stub = Any
"""gRPC's multi-callables are generic over messages, and their stubs differ by kind."""


class Measurement:
    """What a phase gathers while the clock runs; read afterwards."""

    def __init__(self, start: float, seconds: float) -> None:
        self.start, self.stop = start, start + seconds
        self.in_time: list[Call] = []
        self.before_and_after: list[Call] = []
        self.errors: Counter[str] = Counter()
        self.ran_dry = False

    def keep(self, request: bytes, answer: bytes) -> None:
        """Note an answer."""
        is_in_time = self.start <= time.monotonic() <= self.stop
        (self.in_time if is_in_time else self.before_and_after).append((request, answer))


class Writer:
    """Appends as one gatekeeper."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._key = signing_key_from_pem(config["suite"], read_secret(Path(config["signing_key"])))
        self._policy = parse_trust_policy(Path(config["trust_policy"]).read_bytes())
        self._entries = PresignedEntries(
            self._key,
            parse_spiffe_id(config["name"]),
            federation_id=parse_hex_digest(config["federation_id"]),
            governance_head=parse_hex_digest(config["governance_head"]),
            now_us=SystemClock().now_us(),
            entry_bytes=config["entry_bytes"],
        )
        self._pool: deque[bytes] = deque()
        self._channels: dict[str, grpc.Channel] = {}

    def run(self, line: dict[str, Any]) -> dict[str, Any]:
        """Do what a line asks for."""
        methods: dict[str, Callable[..., dict[str, Any]]] = {
            "sign": self.sign,
            "rate": self.rate,
            "open_loop": self.open_loop,
            "fill": self.fill,
            "reconnect": self.reconnect,
        }
        return methods[line.pop("do")](**line)

    # Preparation

    def sign(self, count: int) -> dict[str, Any]:
        """Have `count` entries ready, signed."""
        self._pool.extend(self._entries.make(max(count - len(self._pool), 0)))
        return {"pool": len(self._pool), "entry_bytes": self._entries.entry_bytes}

    def reconnect(self) -> dict[str, Any]:
        """Forget all connections."""
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()
        return {}

    # Measurements

    def rate(
        self, method: str, address: str, start: float, seconds: float, in_flight: int
    ) -> dict[str, Any]:
        """Keep `in_flight` calls going until `start + seconds`; count what was acknowledged from `start` on."""
        measured = Measurement(start, seconds)
        channel = self._channel(address)
        time.sleep(max(start - WARM_UP_SECONDS - time.monotonic(), 0))
        cpu_begun = time.process_time()
        if method in ("bare", "intercepted"):
            self._closed_loop(channel.unary_unary(EMPTY), lambda: EMPTY_BODY, measured, in_flight)
        elif method == "unary":
            self._closed_loop(channel.unary_unary(APPEND_ENTRY), self._take, measured, in_flight)
        elif method == "batch":
            batch: Stub = channel.unary_unary(audit_service.APPEND_ENTRIES)
            self._closed_loop(batch, self._take_message, measured, in_flight)
        else:
            self._stream(channel.stream_stream(audit_service.STREAM_ENTRIES), measured, in_flight)
        cpu_seconds = time.process_time() - cpu_begun
        count, not_counted, verified = len(measured.in_time), len(measured.before_and_after), 0
        if method in ("batch", "stream"):
            count, not_counted = (
                sum(count_logged(answer, measured.errors) for _, answer in calls)
                for calls in (measured.in_time, measured.before_and_after)
            )
        if method not in ("bare", "intercepted"):
            verified = verify_some(measured.in_time, self._policy, is_message=method != "unary")
        return {
            "count": count,
            "not_counted": not_counted,
            "verified": verified,
            "errors": dict(measured.errors),
            "ran_dry": measured.ran_dry,
            "cpu_seconds": cpu_seconds,
        }

    def open_loop(self, address: str, start: float, seconds: float, per_second: float) -> dict[str, Any]:
        """Append at fixed times, whatever is still on its way; give when each was due, answered, and its index."""
        call: Stub = self._channel(address).unary_unary(APPEND_ENTRY)
        count = int(seconds * per_second)
        begun, done, calls = [0.0] * count, [0.0] * count, []
        errors: Counter[str] = Counter()

        def answered(number: int) -> Callable[[Any], None]:
            def note(_future: Any) -> None:
                done[number] = time.monotonic()

            return note

        for number in range(count):
            begun[number] = due = start + number / per_second
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            request = self._pool.popleft()
            future = call.future(request, timeout=CALL_SECONDS)
            future.add_done_callback(answered(number))
            calls.append((request, future))
        answers = []
        for request, future in calls:
            code = future.code()
            if code is grpc.StatusCode.OK:
                answers.append((request, future.result()))
            else:
                errors[code.name] += 1
        rows = []
        for number, (_, future) in enumerate(calls):
            if future.code() is grpc.StatusCode.OK:
                rows.append([begun[number], done[number], index_of(future.result())])
        return {"rows": rows, "errors": dict(errors), "verified": verify_some(answers, self._policy, is_message=False)}

    def fill(self, address: str, count: int) -> dict[str, Any]:
        """Append `count` entries in messages, signing as it goes."""
        call: Stub = self._channel(address).unary_unary(audit_service.APPEND_ENTRIES)
        errors: Counter[str] = Counter()
        done = verified = 0
        while done < count and not errors:
            step = min(count - done, _FILL_ENTRIES)
            self.sign(step)
            sizes = [min(MESSAGE_ENTRIES, step - at) for at in range(0, step, MESSAGE_ENTRIES)]
            requests = [self._take_message(size) for size in sizes]
            futures = [call.future(request, timeout=CALL_SECONDS) for request in requests]
            for request, future in zip(requests, futures, strict=True):
                if future.code() is not grpc.StatusCode.OK:
                    errors[future.code().name] += 1
                    continue
                done += count_logged(future.result(), errors)
                if request is requests[0]:
                    verified += verify_message(request, future.result(), self._policy)
        return {"count": done, "verified": verified, "errors": dict(errors)}

    # Calls

    def _channel(self, address: str) -> grpc.Channel:
        found = self._channels.get(address)
        if found is None:
            config = self._config
            credentials = grpc.ssl_channel_credentials(
                Path(config["service_ca"]).read_bytes(),
                read_secret(Path(config["tls_key"])).expose(),
                Path(config["certificate"]).read_bytes(),
            )
            found = grpc.secure_channel(
                address,
                credentials,
                options=(
                    ("grpc.ssl_target_name_override", service_dns_name("audit_log", config["trust_domain"])),
                    ("grpc.max_receive_message_length", 8 * 1024 * 1024),
                    ("grpc.max_reconnect_backoff_ms", 100),
                    ("grpc.enable_http_proxy", 0),
                    ("grpc.use_local_subchannel_pool", 1),
                ),
            )
            grpc.channel_ready_future(found).result(timeout=CALL_SECONDS)
            self._channels[address] = found
        return found

    def _take(self) -> bytes:
        return self._pool.popleft()

    def _take_message(self, count: int = MESSAGE_ENTRIES) -> bytes:
        # A request of many envelopes is what requests of one are, put together.
        return b"".join([self._pool.popleft() for _ in range(count)])

    def _closed_loop(
        self, call: Stub, take: Callable[[], bytes], measured: Measurement, in_flight: int
    ) -> None:
        """The answer to one call begins the next, in gRPC's own thread: no other thread has to be woken."""
        ended = threading.Semaphore(0)

        def begin() -> None:
            try:
                request = take()
            except IndexError:
                measured.ran_dry = True
                ended.release()
                return
            future = call.future(request, timeout=CALL_SECONDS)
            future.add_done_callback(lambda done: answered(request, done))

        def answered(request: bytes, done: Any) -> None:
            code = done.code()
            if code is grpc.StatusCode.OK:
                measured.keep(request, done.result())
            else:
                measured.errors[code.name] += 1
            if time.monotonic() < measured.stop:
                begin()
            else:
                ended.release()

        for _ in range(in_flight):
            begin()
        for _ in range(in_flight):
            ended.acquire()

    def _stream(self, call: Stub, measured: Measurement, in_flight: int) -> None:
        """One stream with `in_flight` messages on their way; answers come in the order of requests."""
        window = threading.Semaphore(in_flight)
        sent: queue.SimpleQueue[bytes] = queue.SimpleQueue()

        def requests() -> Iterator[bytes]:
            while True:
                window.acquire()
                if time.monotonic() >= measured.stop:
                    return
                try:
                    message = self._take_message()
                except IndexError:
                    measured.ran_dry = True
                    return
                sent.put(message)
                yield message

        try:
            for answer in call(requests(), timeout=CALL_SECONDS):
                measured.keep(sent.get(), answer)
                window.release()
        except grpc.RpcError as failed:
            measured.errors[cast(grpc.Call, failed).code().name] += 1
        finally:
            window.release()


def main() -> None:
    """Answer line by line until standard input ends."""
    writer = Writer(json.loads(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(writer.run(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
