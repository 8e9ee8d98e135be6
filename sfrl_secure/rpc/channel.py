"""Calls over mutual TLS: a deadline on every one, and a typed error for every failure.

A client trusts the service CA alone, and wants the DNS name of the role in the server's certificate. gRPC never looks
at URI names, so a participant with the right DNS name could pose as a service if the client CA were trusted too.

A certificate that was renewed takes effect with the next call, on a connection of its own; calls that are under way end
on the old one, which is closed behind them.

Only UNAVAILABLE is tried again, and only within the caller's deadline: every method of ours is idempotent.

Runs in: everything that calls a service.
Trusts: the service CA that it is given.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import ClosedError, UnavailableError
from sfrl_secure.limits import MESSAGE_BYTES_MAX
from sfrl_secure.rpc.server import MESSAGE_ROOM_BYTES
from sfrl_secure.rpc.status import error_of

T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, eq=False)
class ClientTls:
    """A client's certificate and the one CA whose servers it talks to. All in PEM."""

    key: SecretBytes
    chain: bytes
    service_roots: bytes


@dataclass(frozen=True, slots=True, eq=False)
class AnonymousTls:
    """The CA whose servers are talked to by somebody who has no certificate yet, in PEM. For enrolment alone."""

    service_roots: bytes


Tls = ClientTls | AnonymousTls


def service_dns_name(role: str, trust_domain: str) -> str:
    """Return the DNS name in the certificates of a role's servers; DNS names have no underscore."""
    return f"{role}.{trust_domain}".replace("_", "-")


class _Connection:
    """gRPC's channel under one certificate, and the calls that use it."""

    def __init__(self, address: str, server_name: str, tls: Tls) -> None:
        self.tls = tls
        self.users = 0
        credentials = (
            grpc.ssl_channel_credentials(tls.service_roots, tls.key.expose(), tls.chain)
            if isinstance(tls, ClientTls)
            else grpc.ssl_channel_credentials(tls.service_roots)
        )
        self.channel = grpc.secure_channel(
            address,
            credentials,
            options=(
                ("grpc.ssl_target_name_override", server_name),
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX + MESSAGE_ROOM_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES_MAX + MESSAGE_ROOM_BYTES),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.initial_reconnect_backoff_ms", 100),
                # gRPC gives up a connection that takes longer than this: a handshake over 32 kbit/s takes seconds.
                ("grpc.min_reconnect_backoff_ms", 10_000),
                ("grpc.max_reconnect_backoff_ms", 2_000),
                ("grpc.enable_retries", 0),  # we retry, where we can see it
                ("grpc.enable_http_proxy", 0),  # an environment variable must not send us elsewhere
            ),
        )

    def is_under(self, tls: Tls) -> bool:
        """Whether a call under `tls` may use it. Secrets are not compared: a new key has a new certificate."""
        return self.tls is tls or _public_part(self.tls) == _public_part(tls)


class RpcChannel:
    """A connection to one service, kept and renewed. Safe for several threads. Close it."""

    def __init__(self, address: str, *, role: str, trust_domain: str, tls: Tls | Callable[[], Tls]) -> None:
        """Connect with the first call.

        Args:
            tls: asked before each call where it is a function; it answers at once, from memory.
        """
        self._address, self._server_name = address, service_dns_name(role, trust_domain)
        self._tls = tls if callable(tls) else lambda: tls
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self._retired: list[_Connection] = []
        self._is_closed = False

    def call(self, path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        """Call a method and return its answer.

        Raises:
            ClosedError: after `close`.
            SfrlError: the typed error that the status stands for.
        """
        connection = self._take()
        try:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = connection.channel.unary_unary(path)
            return method(request, timeout=deadline_seconds)
        except grpc.RpcError as failed:
            raise error_of(failed, self._address) from None
        except ValueError:  # what gRPC raises once another thread has closed the channel
            raise _closed() from None
        finally:
            self._give_back(connection)
            self._close_unused()

    def stream(self, path: str, request: bytes, *, deadline_seconds: float) -> RpcStream:
        """Call a method that answers with a stream."""

        def begin(channel: grpc.Channel) -> _StreamCall:
            method: grpc.UnaryStreamMultiCallable[bytes, bytes] = channel.unary_stream(path)
            return method(request, timeout=deadline_seconds)

        return self._streamed(begin)

    def exchange(self, path: str, requests: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
        """Call a method that takes a stream and answers with one. gRPC draws from `requests` in a thread of its own."""

        def begin(channel: grpc.Channel) -> _StreamCall:
            method: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(path)
            return method(requests, timeout=deadline_seconds)

        return self._streamed(begin)

    def close(self) -> None:
        """End every call and the connection."""
        with self._lock:
            self._is_closed = True
            connections = [*self._retired, *filter(None, (self._connection,))]
            self._retired, self._connection = [], None
        for connection in connections:
            connection.channel.close()

    def __enter__(self) -> RpcChannel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _streamed(self, begin: Callable[[grpc.Channel], _StreamCall]) -> RpcStream:
        connection = self._take()
        try:
            call = begin(connection.channel)
        except ValueError:
            self._give_back(connection)
            raise _closed() from None
        # In gRPC's own thread, which must not close its channel: the next call does.
        if not call.add_callback(lambda: self._give_back(connection)):
            self._give_back(connection)
        return RpcStream(call, self._address)

    def _take(self) -> _Connection:
        """The connection for a call that begins now, under the certificate of now."""
        tls = self._tls()
        with self._lock:
            if self._is_closed:
                raise _closed()
            connection = self._connection
            if connection is None or not connection.is_under(tls):
                if connection is not None:
                    self._retired.append(connection)
                connection = self._connection = _Connection(self._address, self._server_name, tls)
            connection.users += 1
        self._close_unused()
        return connection

    def _give_back(self, connection: _Connection) -> None:
        with self._lock:
            connection.users -= 1

    def _close_unused(self) -> None:
        with self._lock:
            unused = [each for each in self._retired if not each.users]
            self._retired = [each for each in self._retired if each.users]
        for connection in unused:
            connection.channel.close()


def _closed() -> ClosedError:
    return ClosedError("the channel was closed: open another, or another participant, to go on")


def _public_part(tls: Tls) -> tuple[bytes, bytes]:
    return (tls.chain if isinstance(tls, ClientTls) else b"", tls.service_roots)


class _Messages(Protocol):
    def __iter__(self) -> Iterator[bytes]: ...

    def cancel(self) -> object: ...


class _StreamCall(_Messages, Protocol):
    def add_callback(self, callback: Callable[[], None]) -> bool: ...


class RpcStream:
    """The messages of one call, in order, as they come. `cancel` ends it, from any thread."""

    def __init__(self, call: _Messages, address: str = "") -> None:
        self._call, self._address = call, address

    def __iter__(self) -> Iterator[bytes]:
        """Yield each message.

        Raises:
            SfrlError: the typed error that the status stands for; UnavailableError after `cancel`.
        """
        try:
            yield from self._call
        except grpc.RpcError as failed:
            raise error_of(failed, self._address) from None

    def cancel(self) -> None:
        """End the call."""
        self._call.cancel()


def call_with_retry(
    attempt: Callable[[float], T],
    *,
    deadline_seconds: float,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return `attempt(seconds left)`, tried again while the service is unavailable and time is left.

    Pauses double from 0.1 s to 2 s, less a random part, so that many callers do not come back at once.

    Raises:
        UnavailableError: the last one, when no time is left for another attempt.
        SfrlError: any other error of an attempt, at once; `ClosedError` among them.
    """
    end = monotonic() + deadline_seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return attempt(max(end - monotonic(), 0.001))
        except ClosedError:
            raise
        except UnavailableError:
            shortened = pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
            if monotonic() + shortened >= end:
                raise
            sleep(shortened)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
