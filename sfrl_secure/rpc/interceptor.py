"""The two interceptors of every server: the outer one ends and records calls, the inner one says who may call.

Handlers raise typed errors and never touch a status. Whatever else goes wrong, in a handler or in the judgement of
the peer, ends the call as INTERNAL without a word, so a fault of ours never lets anybody in.

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: what `identity` trusts.
"""

from __future__ import annotations

import hashlib
import ssl
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from typing import Any, TypeAlias

import grpc
import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.errors import DeniedError, UncertainStateError
from sfrl_secure.governance.statements import PeerClass
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.rpc.identity import (
    AuthContext,
    IdentityRegistry,
    Peer,
    TransportPolicy,
    check_recorded,
    check_role,
    check_transport,
    check_valid_now,
    open_certificate,
    peer_class_of,
    peer_of,
    peer_pem,
    record_peer,
)
from sfrl_secure.rpc.logs import CALL
from sfrl_secure.rpc.status import abort_with, status_of

OnRefused = Callable[[str, PeerClass, Digest], None]
"""Counts a refusal: reason, class of the peer, SHA-256 of its certificate (zeros where it showed none)."""

# Any: gRPC's handlers are generic over messages; ours see bytes, the health service its own messages.
_Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Rejudge = Callable[[], None]
"""Raises DeniedError when the peer of a call that goes on is no longer whom the server would admit."""

_Before = Callable[[grpc.ServicerContext], _Rejudge]


class IdentityInterceptor(grpc.ServerInterceptor):
    """Admits a call when the connection, the certificate, the log's record and the method's roles allow it.

    A method that is not in `roles` is refused to everybody, whether it exists or not. Where requests are a stream, the
    peer is judged again before each of them: a revocation ends the stream at the next.
    """

    def __init__(
        self,
        *,
        registry: IdentityRegistry,
        policy: TransportPolicy,
        roles: Mapping[str, Collection[str]],
        clock: Clock,
        on_refused: OnRefused,
    ) -> None:
        self._registry, self._policy, self._clock, self._on_refused = registry, policy, clock, on_refused
        self._roles = {method: frozenset(allowed) for method, allowed in roles.items()}
        # One for each method of ours, so bounded: a server's handlers do not change.
        self._handlers: dict[str, _Handler] = {}

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
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
            return _refuse_all(judge)
        made = self._handlers[method] = _judged(handler, judge)
        return made

    def _admit(self, context: grpc.ServicerContext, roles: Collection[str] | None) -> _Rejudge:
        """Admit the call's peer; return what says later on whether it may still go on."""
        # The values are lists of bytes, whatever the type stubs say.
        auth: AuthContext = context.auth_context()  # type: ignore[assignment]
        now_us = self._clock.now_us()
        try:
            check_transport(auth, self._policy)
            certificate = open_certificate(auth, self._policy, now_us)
        except DeniedError as refused:
            self._on_refused(refused.reason, PeerClass.UNKNOWN, _certificate_digest(auth))
            raise

        def judge_now(now_us: int) -> None:
            peer_class = PeerClass.UNKNOWN
            try:
                check_valid_now(certificate, now_us)
                recorded = self._registry.lookup(certificate.spki_sha256)
                if recorded is not None and recorded.spiffe_id == certificate.spiffe_id:
                    peer_class = peer_class_of(recorded.spiffe_id)
                check_recorded(certificate, recorded, now_us)
                check_role(certificate, roles)
            except DeniedError as refused:
                self._on_refused(refused.reason, peer_class, _certificate_digest(auth))
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
        self._handlers: dict[str, _Handler | None] = dict.fromkeys(methods)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
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

    def _ending(self, method: str, handler: _Handler) -> _Handler:
        inner = _behaviour_of(handler)

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

        return _with_behaviour(handler, stream if handler.response_streaming else unary)

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


def _certificate_digest(auth: AuthContext) -> Digest:
    pem = peer_pem(auth)
    if pem is None:
        return ZERO_DIGEST
    try:
        return Digest(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))).digest())
    except ValueError:
        return Digest(hashlib.sha256(pem).digest())


def _behaviour_of(handler: _Handler) -> Callable[[Any, grpc.ServicerContext], Any]:
    behaviour = (
        (handler.stream_stream if handler.response_streaming else handler.stream_unary)
        if handler.request_streaming
        else (handler.unary_stream if handler.response_streaming else handler.unary_unary)
    )
    assert behaviour is not None
    return behaviour


def _with_behaviour(handler: _Handler, behaviour: Callable[[Any, grpc.ServicerContext], Any]) -> _Handler:
    make: Callable[..., _Handler] = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def _judged(handler: _Handler, judge: _Before) -> _Handler:
    inner = _behaviour_of(handler)

    def behaviour(request: Any, context: grpc.ServicerContext) -> Any:
        rejudge = judge(context)
        return inner(_rejudged(request, rejudge) if handler.request_streaming else request, context)

    return _with_behaviour(handler, behaviour)


def _rejudged(requests: Iterator[Any], rejudge: _Rejudge) -> Iterator[Any]:
    for request in requests:
        rejudge()
        yield request


def _refuse_all(judge: _Before) -> _Handler:
    # Nothing is known of the method, its messages included; streams both ways fit every caller and read nothing.
    def behaviour(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        judge(context)
        raise DeniedError("role", "there is no such method")

    return grpc.stream_stream_rpc_method_handler(behaviour)
