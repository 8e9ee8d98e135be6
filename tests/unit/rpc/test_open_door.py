"""The server without client certificates: whoever comes is judged by the connection, and bounded."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from sfrl_secure.errors import DeniedError, ExhaustedError, MalformedError, UnavailableError
from sfrl_secure.governance.statements import PeerClass
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.rpc.channel import AnonymousTls
from sfrl_secure.rpc.identity import NOBODY, ROLES, DoorTerms, peer_of
from sfrl_secure.rpc.open_door import CALLS_OF_ADDRESS_MAX, AddressBound, address_of
from sfrl_secure.rpc.server import ANYBODY, HEALTH_CHECK, OPEN_MESSAGE_BYTES_MAX, Method

ENROL = "/test.Service/Enrol"
DEADLINE = 10.0


def enrol(behaviour: Any = lambda request, context: b"welcome " + request) -> Method:
    return Method(ENROL, behaviour, ANYBODY)


def open_door(site: Any, *methods: Method, threads: int = 16) -> Any:
    return site.serve(*(methods or (enrol(),)), client_auth=False, threads=threads)


def stranger(site: Any, server: Any, roots: bytes | None = None) -> Any:
    return site.channel(server, AnonymousTls(roots or site.pki.services.certificate_pem))


def test_a_stranger_is_served_and_stays_one(site: Any) -> None:
    def who(request: bytes, context: grpc.ServicerContext) -> bytes:
        with pytest.raises(DeniedError):
            peer_of(context)
        return request

    server = open_door(site, enrol(who))
    assert stranger(site, server).call(ENROL, b"record", deadline_seconds=DEADLINE) == b"record"
    assert site.refused == []


def test_a_stranger_talks_to_nobody_but_a_gatekeeper_of_the_service_ca(site: Any) -> None:
    server = open_door(site)
    with pytest.raises(UnavailableError):
        stranger(site, server, site.pki.clients.certificate_pem).call(ENROL, b"", deadline_seconds=2)
    tls = AnonymousTls(site.pki.services.certificate_pem)
    with pytest.raises(UnavailableError):
        site.channel(server, tls, role="aggregator").call(ENROL, b"", deadline_seconds=2)


@pytest.mark.parametrize("terms", [NOBODY, DoorTerms(frozenset({"P-256"}), 2**62)])
def test_the_connection_is_judged(site: Any, terms: DoorTerms) -> None:
    site.registry.terms = terms
    channel = stranger(site, open_door(site))
    for path in (ENROL, "/test.Service/Other"):
        with pytest.raises(DeniedError) as caught:
            channel.call(path, b"", deadline_seconds=DEADLINE)
        assert caught.value.reason == "transport_group"
    assert site.refused == [("transport_group", PeerClass.UNKNOWN, ZERO_DIGEST)] * 2


def test_a_registry_that_may_be_out_of_date_admits_no_stranger(site: Any) -> None:
    site.registry.is_stale = True
    with pytest.raises(UnavailableError, match="not been heard"):
        stranger(site, open_door(site)).call(ENROL, b"", deadline_seconds=DEADLINE)
    assert site.refused == []


@pytest.mark.parametrize("path", ["/test.Service/Other", HEALTH_CHECK])
def test_there_is_nothing_else_to_call(site: Any, path: str) -> None:
    channel = stranger(site, open_door(site))
    with pytest.raises(DeniedError) as caught:
        channel.call(path, b"", deadline_seconds=DEADLINE)
    assert caught.value.reason == "role"
    assert site.refused == [("role", PeerClass.UNKNOWN, ZERO_DIGEST)]


def test_methods_for_known_callers_and_for_strangers_have_servers_of_their_own(site: Any) -> None:
    with pytest.raises(AssertionError):
        site.serve(enrol())
    with pytest.raises(AssertionError):
        open_door(site, Method(ENROL, lambda request, context: b"", ROLES))
    with pytest.raises(AssertionError):
        open_door(site, Method(ENROL, lambda request, context: iter(()), ANYBODY, is_stream=True))
    with pytest.raises(AssertionError):
        open_door(site, threads=CALLS_OF_ADDRESS_MAX)
    with pytest.raises(AssertionError):
        Method(ENROL, lambda request, context: b"", ANYBODY | ROLES)


def test_one_address_has_so_many_calls_at_once(site: Any) -> None:
    release, begun = threading.Event(), threading.Semaphore(0)

    def wait(request: bytes, context: grpc.ServicerContext) -> bytes:
        begun.release()
        release.wait(DEADLINE)
        return b"done"

    channel = stranger(site, open_door(site, enrol(wait)))
    with ThreadPoolExecutor(CALLS_OF_ADDRESS_MAX) as threads:
        calls = [
            threads.submit(channel.call, ENROL, b"", deadline_seconds=DEADLINE) for _ in range(CALLS_OF_ADDRESS_MAX)
        ]
        for _ in calls:
            assert begun.acquire(timeout=DEADLINE)
        with pytest.raises(ExhaustedError, match="one address"):
            channel.call(ENROL, b"", deadline_seconds=DEADLINE)
        release.set()
        assert [call.result(DEADLINE) for call in calls] == [b"done"] * CALLS_OF_ADDRESS_MAX
    assert channel.call(ENROL, b"", deadline_seconds=DEADLINE) == b"done"


def test_a_message_is_small(site: Any) -> None:
    channel = stranger(site, open_door(site, enrol(lambda request, context: b"%d" % len(request))))
    largest = OPEN_MESSAGE_BYTES_MAX
    assert channel.call(ENROL, bytes(largest), deadline_seconds=DEADLINE) == b"%d" % largest
    with pytest.raises(ExhaustedError):
        channel.call(ENROL, bytes(largest + 1), deadline_seconds=DEADLINE)


def test_a_call_that_brings_no_message_is_cut_and_keeps_nobody_waiting(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sfrl_secure.rpc.server.OPEN_MESSAGE_SECONDS", 0.2)
    server = open_door(site)
    raw = stranger(site, server)._take().channel
    silent = threading.Event()

    def nothing() -> Any:
        silent.wait(DEADLINE)
        yield b""

    calls = [raw.stream_unary(ENROL).future(nothing(), timeout=DEADLINE) for _ in range(CALLS_OF_ADDRESS_MAX)]
    begun = time.monotonic()
    for call in calls:
        assert call.code() is grpc.StatusCode.CANCELLED
    assert time.monotonic() - begun < DEADLINE / 2
    assert stranger(site, server).call(ENROL, b"now", deadline_seconds=DEADLINE) == b"welcome now"
    silent.set()


def test_a_call_that_ends_without_a_message_is_malformed(site: Any) -> None:
    raw = stranger(site, open_door(site))._take().channel
    with pytest.raises(grpc.RpcError) as caught:
        raw.stream_unary(ENROL)(iter(()), timeout=DEADLINE)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv4:192.0.2.7:50123", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:50123", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:1", "2001:db8:1:2::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:1", "192.0.2.7"),
        ("unix:/tmp/socket", "other"),
        ("", "other"),
        ("ipv4:not-an-address:1", "other"),
    ],
)
def test_calls_are_counted_by_address(peer: str, address: str) -> None:
    assert address_of(peer) == address


def test_a_bound_counts_each_address_for_itself_and_forgets() -> None:
    bound = AddressBound(1)
    with bound.call_of("a"), bound.call_of("b"), pytest.raises(ExhaustedError), bound.call_of("a"):
        pass
    assert not bound._calls
    with pytest.raises(MalformedError), bound.call_of("a"):
        raise MalformedError("what the handler says")
    assert not bound._calls
