"""An HTTP server in a thread: bound at once, bounded in connections and in time, silent.

What it serves is public, so anybody may hold its connections open. Their number is bounded where they are accepted:
file descriptors belong to the whole process, and a log that has none left for its journal stops. A connection on
which no request begins for `REQUEST_SECONDS` is cut, whether it idles, sends byte by byte or does not read.

Runs in: audit_log, verifier.
Trusts: nothing.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from sfrl_secure.errors import UnavailableError

CONNECTIONS_MAX = 64
"""Connections that are served at once. As many more get a 503; what comes on top is cut before it is heard."""

REQUEST_SECONDS = 10.0
"""A request has this long to begin, and as long again to be answered and read."""

_START_SECONDS = 15.0
_HEAD_BYTES_MAX = 8 * 1024


class HttpServer:
    """One ASGI application on one address; `start`, then `stop` once."""

    def __init__(
        self,
        app: ASGIApp,
        listen: str,
        *,
        name: str,
        grace_seconds: float,
        connections_max: int = CONNECTIONS_MAX,
        request_seconds: float = REQUEST_SECONDS,
    ) -> None:
        """Bind the address, `host:port`; port 0 takes a free one.

        Args:
            name: of the thread.
            grace_seconds: running requests have this long at a stop.

        Raises:
            UnavailableError: the address cannot be bound.
        """
        self._socket = _bound_socket(listen, name)
        self._grace_seconds = grace_seconds
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=_protocol(connections_max, request_seconds),
                loop="asyncio",
                ws="none",
                lifespan="off",
                log_config=None,
                # Strangers cause its warnings, and service logs are JSON lines: the application writes its own faults.
                log_level="critical",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                limit_concurrency=connections_max,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=int(grace_seconds) + 1,
                h11_max_incomplete_event_size=_HEAD_BYTES_MAX,
            )
        )
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name=name, daemon=True)

    @property
    def port(self) -> int:
        """The real port."""
        return int(self._socket.getsockname()[1])

    def start(self) -> None:
        """Serve.

        Raises:
            UnavailableError: the server did not begin to listen.
        """
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise UnavailableError(f"the {self._thread.name} server cannot listen on its address")
            time.sleep(0.01)

    def stop(self) -> None:
        """Take no new request, let running ones end, end. Fine where it never started."""
        self._server.should_exit = True
        if self._thread.ident is not None:
            self._thread.join(self._grace_seconds + 2)
        self._socket.close()


def _bound_socket(listen: str, name: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    # The protocol by name: asyncio turns Nagle's algorithm off only where it reads TCP, and an answer is two writes.
    bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A restart must not wait for the connections of the run before.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host.strip("[]"), int(port)))
    except OSError:
        bound.close()
        raise UnavailableError(f"the {name} server cannot listen on its address") from None
    return bound


def _protocol(connections_max: int, request_seconds: float) -> type[asyncio.Protocol]:
    """Uvicorn's HTTP/1.1 with the two bounds that it lacks."""

    class BoundedProtocol(H11Protocol):
        _seen: object = None
        _watch: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > 2 * connections_max:
                transport.abort()
                return
            self._watch = self.loop.call_later(request_seconds, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            if self._watch is not None:
                self._watch.cancel()
            super().connection_lost(exc)

        def _look(self) -> None:
            # Each request has a cycle of its own: the same one as before, or still none, and nothing began meanwhile.
            if self.cycle is self._seen:
                self.transport.abort()
                return
            self._seen = self.cycle
            self._watch = self.loop.call_later(request_seconds, self._look)

    return BoundedProtocol
