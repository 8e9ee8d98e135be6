"""The yardstick of uploads: gRPC's own asyncio server over mutual TLS, which receives a stream and drops it.

    python -m benchmarks.uploads.sink CONFIG

CONFIG is a gatekeeper's configuration: the sink shows that gatekeeper's certificate, and wants its callers' as it does.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from sfrl_secure.services.config import GatekeeperConfig, read_config
from sfrl_secure.services.tls_files import ServiceTls

DROP = "/sfrl.benchmark.v1.SinkService/Drop"


async def drop(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    """Take all there is, and say so once."""
    async for _ in requests:
        pass
    yield b""


async def serve(config: GatekeeperConfig) -> None:
    """Serve on a free port, say which on standard output, and end at SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    tls = ServiceTls(config).server()
    server = grpc.aio.server()
    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.stream_stream_rpc_method_handler(drop)
    _, service, name = DROP.split("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: handler}),))
    credentials = grpc.ssl_server_credentials(
        [(tls.key.expose(), tls.chain)], tls.client_roots, require_client_auth=True
    )
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    await stopping.wait()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(serve(read_config(Path(sys.argv[1]), GatekeeperConfig)))
