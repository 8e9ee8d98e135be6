"""A gRPC server over mutual TLS whose every method names the roles that may call it.

Enrolment alone is served without client certificates, by a server that has nothing else: see `open_door`.

Methods take and give bytes: `wire` parses them, so that a request which is not canonical is refused with its reason
and its exact bytes can be hashed. A certificate can be renewed without dropping a connection; no connection outlives
`connection_age_ms` plus its grace, so none outlives a revocation by more.

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: the client roots that it is given, for the handshake; `identity` for everything else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import UnavailableError, UncertainStateError
from sfrl_secure.limits import MESSAGE_BYTES_MAX
from sfrl_secure.rpc.first_message import MessageWatch
from sfrl_secure.rpc.identity import ROLES, IdentityRegistry, TransportPolicy
from sfrl_secure.rpc.interceptor import CallInterceptor, IdentityInterceptor, OnRefused
from sfrl_secure.rpc.open_door import CALLS_OF_ADDRESS_MAX, OpenDoorInterceptor

MESSAGE_ROOM_BYTES = 64 * 1024
"""gRPC takes this much more than our limit, so that the answer to a message over it is ours and says the limit."""

WAITING_PER_THREAD = 4
"""Calls that are served or wait, for each thread; more are refused at once, as RESOURCE_EXHAUSTED."""

OPEN_MESSAGE_BYTES_MAX = 256 * 1024
"""A message to a server without client certificates: a record, a request and a CSR take half of it."""

ANYBODY = frozenset({"anybody"})
"""The roles of a method that a caller without a certificate may call; it is served where nobody has one."""

MESSAGE_SECONDS, OPEN_MESSAGE_SECONDS = 60.0, 5.0
"""A call that has not brought its message by then is cut: of somebody who was admitted, of a stranger."""

HEALTH_CHECK = "/grpc.health.v1.Health/Check"

UnaryMethod = Callable[[bytes, grpc.ServicerContext], bytes]
StreamMethod = Callable[[bytes, grpc.ServicerContext], Iterator[bytes]]
ExchangeMethod = Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]


@dataclass(frozen=True, slots=True)
class Method:
    """A method that a server has.

    Attributes:
        path: `/package.Service/Method`, a constant of `wire`.
        behaviour: takes the request's bytes, or a stream of them; raises typed errors; gives the answer's bytes, or a
            stream of them.
        roles: the roles that may call it; or `ANYBODY`, on a server without client certificates.
        is_stream: whether it answers with a stream. A stream keeps a thread for as long as it lasts.
        takes_stream: whether its requests are a stream too. The peer is judged before each of them.
        is_watched: whether each message of such a stream has to come within `MESSAGE_SECONDS`; else the caller may
            rest as long as it likes.
    """

    path: str
    behaviour: UnaryMethod | StreamMethod | ExchangeMethod
    roles: frozenset[str]
    is_stream: bool = False
    takes_stream: bool = False
    is_watched: bool = False

    def __post_init__(self) -> None:
        assert self.roles == ANYBODY or self.roles <= ROLES
        assert self.is_stream or not self.takes_stream, "no method of ours takes a stream and answers once"
        assert self.takes_stream or not self.is_watched, "a call's one message is always watched for"


@dataclass(frozen=True, slots=True, eq=False)
class ServerTls:
    """A server's certificate and whom it lets shake hands. All in PEM.

    Attributes:
        chain: the leaf and what is between it and a root.
        client_roots: CAs of the peers: the client CA, and the service CA where services call.
    """

    key: SecretBytes
    chain: bytes
    client_roots: bytes


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Where and how a server listens.

    Attributes:
        listen: `host:port`; port 0 takes a free one.
        threads: calls served at once, streams among them.
        window_bytes: what a stream may have under way to us; without it gRPC measures the path and takes more.
        connection_age_ms: a connection is asked to end after this, and cut after `connection_grace_ms` more.
    """

    listen: str
    threads: int = 32
    connection_age_ms: int = 600_000
    connection_grace_ms: int = 30_000
    window_bytes: int | None = None


class RpcServer:
    """Serves `methods`, and to those it knows the health check. `start`, then `stop` once.

    `tls` is asked before each handshake; a new value takes effect with it.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        tls: Callable[[], ServerTls],
        methods: Sequence[Method],
        registry: IdentityRegistry,
        policy: TransportPolicy,
        clock: Clock,
        on_refused: OnRefused,
        on_uncertain: Callable[[UncertainStateError], None] = lambda error: None,
        client_auth: bool = True,
    ) -> None:
        """Bind the port.

        Args:
            client_auth: whether callers show a certificate. Where not, every method is for `ANYBODY` and answers once,
                and there is nothing else.

        Raises:
            UnavailableError: the port cannot be bound.
        """
        self._tls, self._tls_lock, self._in_use = tls, threading.Lock(), tls()
        self._executor = ThreadPoolExecutor(settings.threads, thread_name_prefix="rpc")
        roles = {method.path: method.roles for method in methods}
        self._watch = MessageWatch(MESSAGE_SECONDS if client_auth else OPEN_MESSAGE_SECONDS)
        door: grpc.ServerInterceptor
        if client_auth:
            assert ANYBODY not in roles.values(), "a method for strangers has a server of its own"
            roles[HEALTH_CHECK] = ROLES
            door = IdentityInterceptor(
                registry=registry,
                policy=policy,
                roles=roles,
                clock=clock,
                on_refused=on_refused,
                watch=self._watch,
                watched=[method.path for method in methods if method.is_watched],
            )
        else:
            assert set(roles.values()) <= {ANYBODY}, "a server that knows nobody has nothing for those it knows"
            assert not any(method.is_stream for method in methods), "a stranger keeps no thread"
            assert settings.threads > CALLS_OF_ADDRESS_MAX, "one address must not keep all threads"
            door = OpenDoorInterceptor(registry=registry, methods=roles, on_refused=on_refused, watch=self._watch)
        self._interceptors = (CallInterceptor(on_uncertain, methods=roles), door)
        self._server = grpc.server(
            self._executor,
            interceptors=list(self._interceptors),
            options=_options(
                settings, MESSAGE_BYTES_MAX + MESSAGE_ROOM_BYTES if client_auth else OPEN_MESSAGE_BYTES_MAX
            ),
            maximum_concurrent_rpcs=settings.threads * WAITING_PER_THREAD,
        )
        for service, handlers in _handlers_of(methods).items():
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        self._health = health.HealthServicer()
        self._health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        if client_auth:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        credentials = grpc.dynamic_ssl_server_credentials(
            _configuration(self._in_use),
            self._renewed,  # type: ignore[arg-type]  # gRPC takes None for "no change", its stubs do not say so
            require_client_authentication=client_auth,
        )
        try:
            self.port = self._server.add_secure_port(settings.listen, credentials)
        except RuntimeError:  # what gRPC raises when it cannot bind
            raise UnavailableError("the server cannot listen on its address") from None

    def start(self) -> None:
        """Begin to serve; the health check says SERVING from then on."""
        self._watch.start()
        self._server.start()
        self._health.set("", health_pb2.HealthCheckResponse.SERVING)

    def stop(self, grace_seconds: float) -> None:
        """Say NOT_SERVING, take no new call, let the running ones end within `grace_seconds`, cut the rest."""
        self._health.enter_graceful_shutdown()
        self._server.stop(grace_seconds).wait()
        self._executor.shutdown(wait=True)
        self._watch.stop()

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        # An error here is not fatal to anybody: gRPC goes on with the certificate in use.
        latest = self._tls()
        with self._tls_lock:
            # Secrets are not compared; a new key has a new certificate.
            if (latest.chain, latest.client_roots) == (self._in_use.chain, self._in_use.client_roots):
                return None
            self._in_use = latest
        return _configuration(latest)


def _configuration(tls: ServerTls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(tls.key.expose(), tls.chain)], tls.client_roots)


def _handlers_of(methods: Sequence[Method]) -> dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]]:
    handlers: dict[str, dict[str, grpc.RpcMethodHandler[bytes, bytes]]] = {}
    for method in methods:
        _, service, name = method.path.split("/")
        make: Callable[..., grpc.RpcMethodHandler[bytes, bytes]] = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[method.takes_stream, method.is_stream]
        handlers.setdefault(service, {})[name] = make(method.behaviour)
    return handlers


def _options(settings: ServerSettings, message_bytes_max: int) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_receive_message_length", message_bytes_max),
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX + MESSAGE_ROOM_BYTES),
        ("grpc.max_metadata_size", 8 * 1024),
        ("grpc.max_concurrent_streams", 128),
        ("grpc.max_connection_age_ms", settings.connection_age_ms),
        ("grpc.max_connection_age_grace_ms", settings.connection_grace_ms),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Who pings more often than this is cut off.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        # A second process on our port would share it silently.
        ("grpc.so_reuseport", 0),
        *(() if settings.window_bytes is None else _window(settings.window_bytes)),
    )


def _window(window_bytes: int) -> tuple[tuple[str, int], ...]:
    # Without the probe, gRPC takes in what it is told here and no more, whatever the path would carry.
    return (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", window_bytes))
