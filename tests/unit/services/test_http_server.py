"""The HTTP server: bound at once, connections bounded in number and in time, and an end."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sfrl_secure.errors import UnavailableError
from sfrl_secure.services.http import HttpServer

GET = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
Serve = Callable[..., HttpServer]


@pytest.fixture
def gate() -> threading.Event:
    """Lets the application answer."""
    opened = threading.Event()
    opened.set()
    return opened


@pytest.fixture
def serve(gate: threading.Event) -> Iterator[Serve]:
    servers: list[HttpServer] = []

    async def get(_request: Request) -> Response:
        await run_in_threadpool(gate.wait, 20)
        return Response(b"here\n")

    def start(**bounds: float) -> HttpServer:
        app = Starlette(routes=[Route("/", get, methods=["GET"])])
        server = HttpServer(app, "127.0.0.1:0", name="test", grace_seconds=1, **bounds)  # type: ignore[arg-type]
        servers.append(server)
        server.start()
        return server

    yield start
    gate.set()
    for server in servers:
        server.stop()


def connect(server: HttpServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=10)


def answer(connected: socket.socket) -> bytes:
    try:
        return connected.recv(4096)
    except ConnectionResetError:
        return b""


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def open_connections(server: HttpServer) -> int:
    return len(server._server.server_state.connections)


def running_requests(server: HttpServer) -> int:
    return len(server._server.server_state.tasks)


def test_an_address_that_is_taken_is_refused_before_anything_runs() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UnavailableError, match="the test server cannot listen"):
            HttpServer(Starlette(), f"127.0.0.1:{other.getsockname()[1]}", name="test", grace_seconds=0)


def test_an_ipv6_address_is_listened_on() -> None:
    server = HttpServer(Starlette(), "[::1]:0", name="test", grace_seconds=0)
    server.start()
    try:
        with socket.create_connection(("::1", server.port), timeout=10) as connected:
            connected.sendall(GET)
            assert answer(connected).startswith(b"HTTP/1.1 404")
    finally:
        server.stop()


def test_a_stop_ends_thread_and_port_and_a_server_that_never_started_too(serve: Serve) -> None:
    server = serve()
    port = server.port
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)
    assert not any(thread.name == "test" for thread in threading.enumerate())
    HttpServer(Starlette(), "127.0.0.1:0", name="test", grace_seconds=0).stop()


def test_a_running_request_is_answered_before_the_end(serve: Serve, gate: threading.Event) -> None:
    server = serve()
    gate.clear()
    with connect(server) as connected:
        connected.sendall(GET)
        wait_for(lambda: running_requests(server) == 1)
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        time.sleep(0.2)
        gate.set()
        assert answer(connected).startswith(b"HTTP/1.1 200")
        stopping.join()


def test_connections_over_the_bound_get_503_and_twice_as_many_are_cut_unheard(
    serve: Serve, gate: threading.Event
) -> None:
    server = serve(connections_max=4)
    gate.clear()
    held = [connect(server) for _ in range(12)]
    try:
        wait_for(lambda: open_connections(server) == 8)
        for each in held:
            with suppress(ConnectionError):
                each.sendall(GET)
        gate.set()
        # All twelve came before the first request: eight are heard, and told that there are too many.
        said = [answer(each).partition(b"\r\n")[0] for each in held]
    finally:
        for each in held:
            each.close()
    assert said.count(b"HTTP/1.1 503 Service Unavailable") == 8
    assert said.count(b"") == 4
    wait_for(lambda: open_connections(server) == 0)
    with connect(server) as connected:
        connected.sendall(GET)
        assert answer(connected).startswith(b"HTTP/1.1 200")


def test_up_to_the_bound_all_are_served(serve: Serve, gate: threading.Event) -> None:
    server = serve(connections_max=4)
    gate.clear()
    held = []
    try:
        for _ in range(3):
            held.append(connect(server))
            held[-1].sendall(GET)
        wait_for(lambda: running_requests(server) == 3)
        gate.set()
        assert [answer(each)[:12] for each in held] == [b"HTTP/1.1 200"] * 3
    finally:
        for each in held:
            each.close()


def closes_within(connected: socket.socket, seconds: float) -> bool:
    connected.settimeout(seconds)
    try:
        while connected.recv(4096):
            pass
    except TimeoutError:
        return False
    except ConnectionResetError:
        pass
    return True


def test_whoever_says_nothing_is_cut(serve: Serve) -> None:
    with connect(serve(request_seconds=0.5)) as connected:
        assert closes_within(connected, 3)


def test_whoever_sends_byte_by_byte_is_cut(serve: Serve) -> None:
    with connect(serve(request_seconds=0.5)) as connected:
        begun = time.monotonic()
        with suppress(ConnectionError):
            while time.monotonic() - begun < 8:
                connected.sendall(b"G")
                time.sleep(0.05)
        assert time.monotonic() - begun < 8


def test_whoever_keeps_an_answered_connection_alive_by_a_byte_is_cut(serve: Serve) -> None:
    with connect(serve(request_seconds=0.5)) as connected:
        connected.sendall(GET)
        assert answer(connected).startswith(b"HTTP/1.1 200")
        connected.sendall(b"G")
        assert closes_within(connected, 3)


def test_whoever_goes_on_asking_is_not_cut(serve: Serve) -> None:
    with connect(serve(request_seconds=0.5)) as connected:
        for _ in range(8):
            connected.sendall(GET)
            whole = b""
            while not whole.endswith(b"here\n"):
                whole += connected.recv(4096)
            assert whole.startswith(b"HTTP/1.1 200")
            time.sleep(0.2)


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head(serve: Serve) -> None:
    # The other side acknowledges a lone head after 40 ms.
    fastest = 1.0
    with connect(serve()) as connected:
        for _ in range(10):
            begun, whole = time.perf_counter(), b""
            connected.sendall(GET)
            while not whole.endswith(b"here\n"):
                whole += connected.recv(4096)
            fastest = min(fastest, time.perf_counter() - begun)
    assert fastest < 0.03


def test_an_answer_that_takes_too_long_is_cut(serve: Serve, gate: threading.Event) -> None:
    gate.clear()
    with connect(serve(request_seconds=0.4)) as connected:
        connected.sendall(GET)
        assert closes_within(connected, 3)


def test_a_head_without_end_is_refused(serve: Serve) -> None:
    with connect(serve()) as connected:
        connected.sendall(b"GET / HTTP/1.1\r\nhost: a\r\nlong: " + b"x" * 20_000)
        assert answer(connected).startswith(b"HTTP/1.1 400")
