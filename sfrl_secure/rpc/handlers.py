"""gRPC's method handlers: taking one apart, making one like it, and what a call tells of its connection.

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc

from sfrl_secure.errors import DeniedError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.rpc.identity import AuthContext, peer_pem

# Any: gRPC's handlers are generic over messages; ours see bytes, the health service its own messages.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


def behaviour_of(handler: Handler) -> Callable[[Any, grpc.ServicerContext], Any]:
    """The one function of a handler, whichever its kind."""
    behaviour = (
        (handler.stream_stream if handler.response_streaming else handler.stream_unary)
        if handler.request_streaming
        else (handler.unary_stream if handler.response_streaming else handler.unary_unary)
    )
    assert behaviour is not None
    return behaviour


_MAKERS: dict[tuple[bool, bool], Callable[..., Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


def with_behaviour(handler: Handler, behaviour: Callable[[Any, grpc.ServicerContext], Any]) -> Handler:
    """Make a handler of the same kind with another function."""
    make = _MAKERS[handler.request_streaming, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def taking_stream(handler: Handler, behaviour: Callable[[Iterator[Any], grpc.ServicerContext], Any]) -> Handler:
    """Make a handler that answers as this one does, whose function is given a stream of requests. Callers see no
    difference: on the wire one message is a stream of one."""
    make = _MAKERS[True, handler.response_streaming]
    return make(behaviour, handler.request_deserializer, handler.response_serializer)


def refuse_all(judge: Callable[[grpc.ServicerContext], object]) -> Handler:
    """Make a handler for a method that there is not: `judge` first, then a refusal."""
    # Nothing is known of the method, its messages included; streams both ways fit every caller and read nothing.
    def behaviour(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        judge(context)
        raise DeniedError("role", "there is no such method")

    return grpc.stream_stream_rpc_method_handler(behaviour)


def auth_of(context: grpc.ServicerContext) -> AuthContext:
    """What gRPC tells of the call's connection."""
    # The values are lists of bytes, whatever the type stubs say.
    return context.auth_context()  # type: ignore[return-value]


def certificate_digest(auth: AuthContext) -> Digest:
    """SHA-256 of the peer's certificate; zeros where it showed none."""
    pem = peer_pem(auth)
    if pem is None:
        return ZERO_DIGEST
    try:
        return Digest(hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))).digest())
    except ValueError:
        return Digest(hashlib.sha256(pem).digest())
