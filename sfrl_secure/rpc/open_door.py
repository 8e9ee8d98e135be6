"""The door for those who have no certificate yet: a server of its own, where enrolment is all there is.

Nobody is known here, so the connection is judged and the caller is not: what a call brings authenticates itself. What
strangers can hold is bounded: calls of one address, and the time until a call says what it wants. An address is one of
IPv4, or a /64 of IPv6, which is what one customer of a provider has.

Format: proto/README.md, "Admission", step 1, and "Enrolment".

Runs in: gatekeeper.
Trusts: nothing but the registry's terms.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

import grpc

from sfrl_secure.errors import DeniedError, ExhaustedError
from sfrl_secure.governance.statements import PeerClass
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.rpc.first_message import MessageWatch
from sfrl_secure.rpc.handlers import Handler, auth_of, behaviour_of, refuse_all, taking_stream
from sfrl_secure.rpc.identity import IdentityRegistry, check_transport

CALLS_OF_ADDRESS_MAX = 8
"""Calls of one address that are served at once."""


class OpenDoorInterceptor(grpc.ServerInterceptor):
    """Admits anybody to a few methods, over a connection that the federation admits."""

    def __init__(
        self,
        *,
        registry: IdentityRegistry,
        methods: Collection[str],
        on_refused: Callable[[str, PeerClass, Digest], None],
        watch: MessageWatch,
    ) -> None:
        self._registry, self._on_refused = registry, on_refused
        self._methods = frozenset(methods)
        self._watch = watch
        self._addresses = AddressBound(CALLS_OF_ADDRESS_MAX)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return a handler that judges the connection before the real one runs."""
        method = handler_call_details.method
        handler = continuation(handler_call_details) if method in self._methods else None
        if handler is None:
            return refuse_all(self._refuse)
        inner = behaviour_of(handler)

        def behaviour(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            self._check(context)
            with self._addresses.call_of(address_of(context.peer())):
                return inner(self._watch.take(requests, context), context)

        return taking_stream(handler, behaviour)

    def _check(self, context: grpc.ServicerContext) -> None:
        try:
            check_transport(auth_of(context), self._registry.door_terms())
        except DeniedError as refused:
            self._on_refused(refused.reason, PeerClass.UNKNOWN, ZERO_DIGEST)
            raise

    def _refuse(self, context: grpc.ServicerContext) -> None:
        self._check(context)
        self._on_refused("role", PeerClass.UNKNOWN, ZERO_DIGEST)


class AddressBound:
    """Counts the calls of each address that are served. Safe for any number of threads."""

    def __init__(self, one_max: int) -> None:
        """Allow `one_max` calls of one address at once."""
        self._one_max = one_max
        self._calls: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def call_of(self, address: str) -> Iterator[None]:
        """Count one call for as long as the block lasts.

        Raises:
            ExhaustedError: the bound is reached.
        """
        with self._lock:
            if self._calls[address] >= self._one_max:
                raise ExhaustedError(f"one address has at most {self._one_max} calls at once")
            self._calls[address] += 1
        try:
            yield
        finally:
            with self._lock:
                self._calls[address] -= 1
                if not self._calls[address]:
                    del self._calls[address]


def address_of(peer: str) -> str:
    """Return what calls are counted by: an IPv4 address, the /64 of an IPv6 one, `other` for everything else.

    Args:
        peer: what gRPC says of a call's other end, such as `ipv4:192.0.2.7:50123`.
    """
    host = unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]")
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return "other"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is None:
            return str(ipaddress.IPv6Network((int(found) >> 64 << 64, 64)))
        found = found.ipv4_mapped
    return str(found)
