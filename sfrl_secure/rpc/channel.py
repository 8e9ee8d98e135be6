"""Calls over mutual TLS: a deadline on every one, and a typed error for every failure.

A client trusts the service CA alone, and wants the DNS name of the role in the server's certificate. gRPC never looks
at URI names, so a participant with the right DNS name could pose as a service if the client CA were trusted too.

Only UNAVAILABLE is tried again, and only within the caller's deadline: every method of ours is idempotent.

Runs in: everything that calls a service.
Trusts: the service CA that it is given.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

import grpc

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import UnavailableError
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


def service_dns_name(role: str, trust_domain: str) -> str:
    """Return the DNS name in the certificates of a role's servers; DNS names have no underscore."""
    return f"{role}.{trust_domain}".replace("_", "-")


class RpcChannel:
    """A connection to one service, kept and renewed by gRPC. Safe for several threads. Close it."""

    def __init__(self, address: str, *, role: str, trust_domain: str, tls: ClientTls) -> None:
        credentials = grpc.ssl_channel_credentials(tls.service_roots, tls.key.expose(), tls.chain)
        self._channel = grpc.secure_channel(
            address,
            credentials,
            options=(
                ("grpc.ssl_target_name_override", service_dns_name(role, trust_domain)),
                ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX + MESSAGE_ROOM_BYTES),
                ("grpc.max_send_message_length", MESSAGE_BYTES_MAX + MESSAGE_ROOM_BYTES),
                ("grpc.keepalive_time_ms", 30_000),
                ("grpc.keepalive_timeout_ms", 20_000),
                ("grpc.initial_reconnect_backoff_ms", 100),
                ("grpc.min_reconnect_backoff_ms", 500),
                ("grpc.max_reconnect_backoff_ms", 2_000),
                ("grpc.enable_retries", 0),  # we retry, where we can see it
                ("grpc.enable_http_proxy", 0),  # an environment variable must not send us elsewhere
            ),
        )

    def call(self, path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        """Call a method and return its answer.

        Raises:
            SfrlError: the typed error that the status stands for.
        """
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
        try:
            return method(request, timeout=deadline_seconds)
        except grpc.RpcError as failed:
            raise error_of(failed) from None

    def stream(self, path: str, request: bytes, *, deadline_seconds: float) -> RpcStream:
        """Call a method that answers with a stream."""
        method: grpc.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        return RpcStream(method(request, timeout=deadline_seconds))

    def exchange(self, path: str, requests: Iterator[bytes], *, deadline_seconds: float) -> RpcStream:
        """Call a method that takes a stream and answers with one. gRPC draws from `requests` in a thread of its own."""
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
        return RpcStream(method(requests, timeout=deadline_seconds))

    def close(self) -> None:
        """End every call and the connection."""
        self._channel.close()

    def __enter__(self) -> RpcChannel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _StreamCall(Protocol):
    def __iter__(self) -> Iterator[bytes]: ...

    def cancel(self) -> object: ...


class RpcStream:
    """The messages of one call, in order, as they come. `cancel` ends it, from any thread."""

    def __init__(self, call: _StreamCall) -> None:
        self._call = call

    def __iter__(self) -> Iterator[bytes]:
        """Yield each message.

        Raises:
            SfrlError: the typed error that the status stands for; UnavailableError after `cancel`.
        """
        try:
            yield from self._call
        except grpc.RpcError as failed:
            raise error_of(failed) from None

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
        SfrlError: any other error of an attempt, at once.
    """
    end = monotonic() + deadline_seconds
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return attempt(max(end - monotonic(), 0.001))
        except UnavailableError:
            shortened = pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, hides nothing
            if monotonic() + shortened >= end:
                raise
            sleep(shortened)
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)
