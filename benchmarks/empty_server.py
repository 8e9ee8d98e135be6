"""A server whose one method is empty: what a call over mutual TLS costs before anybody does anything.

Two kinds, each a process of its own with the log's certificate and as many threads as the log. `bare` is gRPC's own
server with nothing in between: the yardstick. `intercepted` is our `RpcServer`, which judges the peer and writes a
line for every call.

    python -m benchmarks.empty_server KIND CONFIG IDENTITIES

CONFIG is the audit log's configuration, IDENTITIES a JSON object from SPIFFE ID to SHA-256 of a public key.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from sfrl_secure.clock import SystemClock
from sfrl_secure.governance.services import KEY_EXCHANGES
from sfrl_secure.ids import Digest, parse_hex_digest, parse_spiffe_id
from sfrl_secure.rpc.identity import DoorTerms, RecordedIdentity, TransportPolicy
from sfrl_secure.rpc.logs import configure_logs
from sfrl_secure.rpc.server import Method, RpcServer, ServerSettings
from sfrl_secure.services.config import AuditLogConfig, read_config
from sfrl_secure.services.placement import share_one_cpu
from sfrl_secure.services.tls_files import ServiceTls

EMPTY = "/sfrl.benchmark.v1.EmptyService/Empty"
_FAR_FUTURE_US = 2**62


class KnownPeers:
    """The interceptor's registry: a table."""

    def __init__(self, identities: dict[str, str]) -> None:
        self._recorded = {
            parse_hex_digest(spki): RecordedIdentity(parse_spiffe_id(name), None, _FAR_FUTURE_US)
            for name, spki in identities.items()
        }

    def lookup(self, spki_sha256: Digest) -> RecordedIdentity | None:
        """What the table says of a public key."""
        return self._recorded.get(spki_sha256)

    def door_terms(self) -> DoorTerms:
        """Both groups, at any time."""
        return DoorTerms(KEY_EXCHANGES, _FAR_FUTURE_US)


def serve(kind: str, config: AuditLogConfig, identities: dict[str, str]) -> None:
    """Serve on a free port, say which on standard output, and end at SIGTERM."""
    # As the log does: a server of the same kind, and a faster yardstick than one whose threads are spread.
    share_one_cpu()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopping.set())
    tls = ServiceTls(config).server()
    if kind == "bare":
        server = grpc.server(ThreadPoolExecutor(config.threads))
        handler: grpc.RpcMethodHandler[bytes, bytes]
        handler = grpc.unary_unary_rpc_method_handler(lambda _request, _context: b"")
        _, service, name = EMPTY.split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
        credentials = grpc.ssl_server_credentials(
            [(tls.key.expose(), tls.chain)], tls.client_roots, require_client_auth=True
        )
        port = server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        _say(port)
        stopping.wait()
        server.stop(0).wait()
        return
    configure_logs("audit_log")
    intercepted = RpcServer(
        ServerSettings("127.0.0.1:0", config.threads),
        tls=lambda: tls,
        methods=(Method(EMPTY, lambda _request, _context: b"", frozenset({"gatekeeper"})),),
        registry=KnownPeers(identities),
        policy=TransportPolicy(config.trust_domain),
        clock=SystemClock(),
        on_refused=lambda _reason, _peer_class, _digest: None,
    )
    intercepted.start()
    _say(intercepted.port)
    stopping.wait()
    intercepted.stop(0)


def _say(port: int) -> None:
    print(json.dumps({"port": port}), flush=True)


if __name__ == "__main__":
    serve(sys.argv[1], read_config(Path(sys.argv[2]), AuditLogConfig), json.loads(sys.argv[3]))
