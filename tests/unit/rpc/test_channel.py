"""A channel whose certificate is renewed: the next call uses the new one, and none fails because of it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from sfrl_secure.errors import DeniedError, UnavailableError
from sfrl_secure.rpc.channel import RpcChannel
from sfrl_secure.rpc.identity import peer_of
from sfrl_secure.rpc.server import Method

WHO = "/test.Service/Who"
COUNT = "/test.Service/Count"
PARTICIPANTS = frozenset({"participant"})
DEADLINE = 10.0


class Held:
    """What a holder of renewed files is to a channel."""

    def __init__(self, tls: Any) -> None:
        self.tls = tls
        self.asked = 0

    def __call__(self) -> Any:
        self.asked += 1
        return self.tls


@pytest.fixture
def release() -> threading.Event:
    return threading.Event()


@pytest.fixture
def server(site: Any, release: threading.Event) -> Any:
    def who(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request == b"slow":
            release.wait(DEADLINE)
        return peer_of(context).spki_sha256

    def count(request: bytes, context: grpc.ServicerContext) -> Any:
        for number in range(3):
            yield b"%d " % number + peer_of(context).spki_sha256
            release.wait(DEADLINE)

    return site.serve(Method(WHO, who, PARTICIPANTS), Method(COUNT, count, PARTICIPANTS, is_stream=True))


def two_keys(site: Any) -> tuple[Any, Any]:
    return site.known("participant/rover-7"), site.known("participant/rover-7")


def test_the_next_call_uses_the_renewed_certificate(site: Any, server: Any) -> None:
    first, second = two_keys(site)
    held = Held(site.client_tls(first))
    channel = site.channel(server, held)
    assert channel.call(WHO, b"", deadline_seconds=DEADLINE) == first.spki_sha256
    held.tls = site.client_tls(second)
    assert channel.call(WHO, b"", deadline_seconds=DEADLINE) == second.spki_sha256
    # The old one opens nothing any more, and nobody is asked under it.
    del site.registry.recorded[first.spki_sha256]
    assert channel.call(WHO, b"", deadline_seconds=DEADLINE) == second.spki_sha256


def test_the_same_certificate_keeps_its_connection(site: Any, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    inner = grpc.secure_channel
    monkeypatch.setattr(grpc, "secure_channel", lambda *args, **named: opened.append(args[0]) or inner(*args, **named))
    first, second = two_keys(site)
    held = Held(site.client_tls(first))
    channel = site.channel(server, held)
    for tls in (held.tls, site.client_tls(first), site.client_tls(second)):
        held.tls = tls
        channel.call(WHO, b"", deadline_seconds=DEADLINE)
    assert len(opened) == 2
    assert held.asked == 3


def test_a_stream_that_is_under_way_goes_on_and_its_connection_closes_behind_it(
    site: Any, server: Any, release: threading.Event
) -> None:
    first, second = two_keys(site)
    held = Held(site.client_tls(first))
    channel = site.channel(server, held)
    messages = iter(channel.stream(COUNT, b"", deadline_seconds=DEADLINE))
    assert next(messages) == b"0 " + first.spki_sha256
    held.tls = site.client_tls(second)
    assert channel.call(WHO, b"", deadline_seconds=DEADLINE) == second.spki_sha256
    assert len(channel._retired) == 1
    release.set()
    assert list(messages) == [b"1 " + first.spki_sha256, b"2 " + first.spki_sha256]
    deadline = time.monotonic() + 5
    while channel._retired and time.monotonic() < deadline:
        channel.call(WHO, b"", deadline_seconds=DEADLINE)
    assert channel._retired == []


def test_no_concurrent_call_fails_while_certificates_are_renewed(site: Any, server: Any) -> None:
    keys = [site.known("participant/rover-7") for _ in range(6)]
    known = {key.spki_sha256 for key in keys}
    held = Held(site.client_tls(keys[0]))
    channel = site.channel(server, held)
    stopping = threading.Event()

    def call_on() -> set[bytes]:
        seen = set()
        while not stopping.is_set():
            seen.add(channel.call(WHO, b"", deadline_seconds=DEADLINE))
        return seen

    with ThreadPoolExecutor(4) as threads:
        callers = [threads.submit(call_on) for _ in range(4)]
        for key in keys[1:]:
            held.tls = site.client_tls(key)
            assert channel.call(WHO, b"", deadline_seconds=DEADLINE) == key.spki_sha256
            time.sleep(0.05)
        stopping.set()
        seen = set().union(*(caller.result(DEADLINE) for caller in callers))
    assert len(seen) > 1
    assert seen <= known


def test_a_call_that_is_under_way_gets_its_answer_on_the_old_connection(
    site: Any, server: Any, release: threading.Event
) -> None:
    first, second = two_keys(site)
    held = Held(site.client_tls(first))
    channel = site.channel(server, held)
    channel.call(WHO, b"", deadline_seconds=DEADLINE)
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(channel.call, WHO, b"slow", deadline_seconds=DEADLINE)
        while channel._connection.users == 0:
            time.sleep(0.005)
        held.tls = site.client_tls(second)
        assert channel.call(WHO, b"", deadline_seconds=DEADLINE) == second.spki_sha256
        release.set()
        assert slow.result(DEADLINE) == first.spki_sha256
    assert channel._retired == []


def test_a_closed_channel_says_so(site: Any, server: Any) -> None:
    channel = site.channel(server, site.known("participant/rover-7"))
    channel.call(WHO, b"", deadline_seconds=DEADLINE)
    channel.close()
    with pytest.raises(UnavailableError, match="closed"):
        channel.call(WHO, b"", deadline_seconds=DEADLINE)
    with pytest.raises(UnavailableError, match="closed"):
        channel.stream(COUNT, b"", deadline_seconds=DEADLINE)


def test_an_old_certificate_that_runs_out_ends_its_stream_and_not_the_channel(
    site: Any, server: Any, release: threading.Event
) -> None:
    first, second = two_keys(site)
    held = Held(site.client_tls(first))
    channel = site.channel(server, held)
    messages = iter(channel.stream(COUNT, b"", deadline_seconds=DEADLINE))
    next(messages)
    del site.registry.recorded[first.spki_sha256]
    held.tls = site.client_tls(second)
    release.set()
    with pytest.raises(DeniedError):
        list(messages)
    assert channel.call(WHO, b"", deadline_seconds=DEADLINE) == second.spki_sha256


def test_whoever_does_not_answer_is_named_with_its_address(site: Any) -> None:
    tls = site.known("participant/rover-7")
    channel = RpcChannel("127.0.0.1:1", role="gatekeeper", trust_domain="mars.example", tls=site.client_tls(tls))
    with channel:
        with pytest.raises(UnavailableError, match=r"nobody answers at 127\.0\.0\.1:1 \((UNAV|DEADLINE_EXC)"):
            channel.call(WHO, b"", deadline_seconds=5.0)
        with pytest.raises(UnavailableError, match=r"127\.0\.0\.1:1"):
            list(channel.stream(COUNT, b"", deadline_seconds=5.0))
