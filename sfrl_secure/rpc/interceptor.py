"""The two interceptors of every server: the outer one ends and records calls, the inner one says who may call.

Handlers raise typed errors and never touch a status. Whatever else goes wrong, in a handler or in the judgement of
the peer, ends the call as INTERNAL without a word, so a fault of ours never lets anybody in.

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: what `identity` trusts.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any

import grpc
import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.errors import DeniedError, UncertainStateError
from sfrl_secure.governance.statements import PeerClass
from sfrl_secure.ids import Digest
from sfrl_secure.rpc.first_message import MessageWatch
from sfrl_secure.rpc.handlers import (
    Handler,
    auth_of,
    behaviour_of,
    certificate_digest,
    refuse_all,
    taking_stream,
    with_behaviour,
)
from sfrl_secure.rpc.identity import (
    IdentityRegistry,
    Peer,
    TransportPolicy,
    check_door_open,
    check_recorded,
    check_role,
    check_transport,
    check_valid_now,
    open_certificate,
    peer_class_of,
    peer_of,
    record_peer,
)
from sfrl_secure.rpc.logs import CALL
from sfrl_secure.rpc.status import abort_with, status_of

OnRefused = Callable[[str, PeerClass, Digest], None]
"""Counts a refusal: reason, class of the peer, SHA-256 of its certificate (zeros where it showed none)."""

_Rejudge = Callable[[], None]
"""Raises DeniedError when the peer of a call that goes on is no longer whom the server would admit."""

_Before = Callable[[grpc.ServicerContext], _Rejudge]


LONG_CALL_SECONDS = 1.0
"""A call that answers once and takes longer has its peer judged again before the answer goes out."""


class IdentityInterceptor(grpc.ServerInterceptor):
    """Admits a call when the connection, the certificate, the log's record and the method's roles allow it.

    A method that is not in `roles` is refused to everybody, whether it exists or not. The peer is judged before its
    request is waited for, and again before each message of a stream, and before an answer that was long in coming: a
    revocation ends the call at the next.
    """

    def __init__(
        self,
        *,
        registry: IdentityRegistry,
        policy: TransportPolicy,
        roles: Mapping[str, Collection[str]],
        clock: Clock,
        on_refused: OnRefused,
        watch: MessageWatch,
        watched: Collection[str] = (),
    ) -> None:
        """Bind to what says who may call.

        Args:
            watched: methods that take a stream, each message of which `watch` waits for; others' may rest for ever.
        """
        self._registry, self._policy, self._clock, self._on_refused = registry, policy, clock, on_refused
        self._watch, self._watched = watch, frozenset(watched)
        self._roles = {method: frozenset(allowed) for method, allowed in roles.items()}
        # One for each method of ours, so bounded: a server's handlers do not change.
        self._handlers: dict[str, Handler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Return a handler that judges the peer before the real one runs."""
        method = handler_call_details.method
        made = self._handlers.get(method)
        if made is not None:
            return made
        handler = continuation(handler_call_details) if method in self._roles else None
        roles = self._roles.get(method) if handler is not None else None

        def judge(context: grpc.ServicerContext) -> _Rejudge:
            return self._admit(context, roles)

        if handler is None:
            return refuse_all(judge)
        made = self._handlers[method] = _judged(handler, judge, self._watch, is_watched=method in self._watched)
        return made

    def _admit(self, context: grpc.ServicerContext, roles: Collection[str] | None) -> _Rejudge:
        """Admit the call's peer; return what says later on whether it may still go on."""
        auth = auth_of(context)
        now_us = self._clock.now_us()
        try:
            check_transport(auth, self._registry.door_terms())
            certificate = open_certificate(auth, self._policy, now_us)
        except DeniedError as refused:
            self._on_refused(refused.reason, PeerClass.UNKNOWN, certificate_digest(auth))
            raise

        def judge_now(now_us: int) -> None:
            peer_class = PeerClass.UNKNOWN
            try:
                # The connection's group does not change; the groups that the federation admits do.
                terms = self._registry.door_terms()
                check_transport(auth, terms)
                check_valid_now(certificate, now_us)
                recorded = self._registry.lookup(certificate.spki_sha256)
                if recorded is not None and recorded.spiffe_id == certificate.spiffe_id:
                    peer_class = peer_class_of(recorded.spiffe_id)
                check_recorded(certificate, recorded, now_us)
                check_door_open(certificate, terms, now_us)
                check_role(certificate, roles)
            except DeniedError as refused:
                self._on_refused(refused.reason, peer_class, certificate_digest(auth))
                raise

        judge_now(now_us)
        record_peer(context, Peer(certificate.spiffe_id, certificate.serial, certificate.spki_sha256))
        return lambda: judge_now(self._clock.now_us())


class CallInterceptor(grpc.ServerInterceptor):
    """Turns errors into statuses and writes one line per call. The outermost interceptor.

    `on_uncertain` is called after a handler found the process's own state uncertain: it stops the process.
    """

    def __init__(self, on_uncertain: Callable[[UncertainStateError], None], *, methods: Collection[str]) -> None:
        """Serve a server that has `methods`; their handlers are made once, and bounded in number by that."""
        self._on_uncertain = on_uncertain
        self._log = structlog.get_logger().bind()
        self._handlers: dict[str, Handler | None] = dict.fromkeys(methods)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return a handler that never lets an exception through to gRPC."""
        method = handler_call_details.method
        made = self._handlers.get(method)
        if made is not None:
            return made
        handler = continuation(handler_call_details)
        if handler is None:
            return None
        made = self._ending(method, handler)
        if method in self._handlers:
            self._handlers[method] = made
        return made

    def _ending(self, method: str, handler: Handler) -> Handler:
        inner = behaviour_of(handler)

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            begun = time.monotonic()
            try:
                response = inner(request, context)
            except Exception as error:  # noqa: BLE001 - every error ends the call, none reaches gRPC with its text
                self._end(method, context, begun, error)
            self._write(method, context, begun, None)
            return response

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            begun = time.monotonic()
            try:
                yield from inner(request, context)
            except Exception as error:  # noqa: BLE001 - as above; a caller that goes away is a GeneratorExit
                self._end(method, context, begun, error)
            self._write(method, context, begun, None)

        return with_behaviour(handler, stream if handler.response_streaming else unary)

    def _end(self, method: str, context: grpc.ServicerContext, begun: float, error: Exception) -> None:
        self._write(method, context, begun, error)
        try:
            abort_with(context, error)
        finally:
            if isinstance(error, UncertainStateError):
                self._on_uncertain(error)

    def _write(self, method: str, context: grpc.ServicerContext, begun: float, error: Exception | None) -> None:
        code = grpc.StatusCode.OK if error is None else status_of(error)
        fields: dict[str, object] = {
            "method": method,
            "code": code.name,
            "elapsed_ms": round((time.monotonic() - begun) * 1000, 3),
        }
        with suppress(DeniedError):  # refused before it had a name
            fields["peer"] = str(peer_of(context).spiffe_id)
        if isinstance(error, DeniedError):
            fields["reason"] = error.reason
        if code is grpc.StatusCode.INTERNAL and error is not None:
            # Frames and class only: an exception's text may quote what a peer sent.
            frames = "".join(traceback.format_tb(error.__traceback__)[-6:])
            self._log.error("call_failed", error=type(error).__name__, frames=frames, **fields)
        else:
            self._log.info(CALL, **fields)


def _judged(handler: Handler, judge: _Before, watch: MessageWatch, *, is_watched: bool) -> Handler:
    inner = behaviour_of(handler)

    def unary(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        rejudge = judge(context)
        request, begun = watch.take(requests, context), time.monotonic()
        response = inner(request, context)
        if time.monotonic() - begun > LONG_CALL_SECONDS:
            rejudge()
        return response

    def streaming(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        rejudge = judge(context)
        return _rejudged(inner(watch.take(requests, context), context), rejudge)

    def exchange(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        # Answers belong to requests that were admitted: what is under way is answered.
        rejudge = judge(context)
        arriving = watch.each(requests, context) if is_watched else requests
        return inner(_rejudged(arriving, rejudge), context)

    if handler.request_streaming:
        return with_behaviour(handler, exchange)
    return taking_stream(handler, streaming if handler.response_streaming else unary)


def _rejudged(messages: Iterator[Any], rejudge: _Rejudge) -> Iterator[Any]:
    try:
        for message in messages:
            rejudge()
            yield message
            del message  # whoever takes long over the next keeps no memory of this one
    finally:
        # A handler's own stream lets go of what it holds at once; gRPC's requests have nothing to close.
        close = getattr(messages, "close", None)
        if close is not None:
            close()
