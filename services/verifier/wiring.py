"""The verifier's service, put together: the witness over HTTP, and the health check over gRPC.

It follows no log of its own accord: whoever may ask for its health stands in its configuration, by name and key.

Runs in: verifier.
Trusts: configuration, trust policy and the witness's key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import uvicorn

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.keys import SigningKey, signing_key_from_pem
from sfrl_secure.errors import MalformedError, UnavailableError, UncertainStateError
from sfrl_secure.ids import Digest, parse_hex_digest
from sfrl_secure.rpc.identity import RecordedIdentity, TransportPolicy
from sfrl_secure.rpc.server import RpcServer, ServerSettings, ServerTls
from sfrl_secure.services.config import VerifierConfig
from sfrl_secure.services.verifier.http import witness_app
from sfrl_secure.services.verifier.witness import Witness
from sfrl_secure.storage.files import FolderLock, make_folder
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.translog.cosignature import Cosigner
from sfrl_secure.translog.note import ED25519_COSIGNATURE
from sfrl_secure.translog.policy import TrustPolicy

_START_SECONDS = 15.0
_FAR_FUTURE_US = 2**62


class ConfiguredCallers:
    """The interceptor's registry where no log is followed."""

    def __init__(self, config: VerifierConfig) -> None:
        self._callers = {
            parse_hex_digest(caller.spki_sha256): RecordedIdentity(caller.identity, _FAR_FUTURE_US)
            for caller in config.callers
        }

    def lookup(self, spki_sha256: Digest) -> RecordedIdentity | None:
        """What the configuration says of a public key."""
        return self._callers.get(spki_sha256)


@dataclass(slots=True)
class VerifierService:
    """The running parts; `start`, then `stop` once."""

    http: uvicorn.Server
    server: RpcServer
    lock: FolderLock
    grace_seconds: float
    _thread: threading.Thread | None = None

    def start(self) -> int:
        """Serve; give the port of the health check.

        Raises:
            UnavailableError: the witness's address cannot be bound.
        """
        self._thread = threading.Thread(target=self.http.run, name="witness", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _START_SECONDS
        while not self.http.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise UnavailableError("the witness cannot listen on its address")
            time.sleep(0.01)
        self.server.start()
        return self.server.port

    def stop(self) -> None:
        """Let running answers end, and end."""
        self.http.should_exit = True
        if self._thread is not None:
            self.server.stop(self.grace_seconds)
            self._thread.join(self.grace_seconds)
        self.lock.release()


def open_verifier(
    config: VerifierConfig,
    clock: Clock,
    stopping: threading.Event,
    *,
    on_uncertain: Callable[[UncertainStateError], None],
) -> VerifierService:
    """Open the verifier of a configuration.

    Raises:
        UncertainStateError: another process owns the witness's state, or it is damaged.
        UnavailableError: the port cannot be bound.
        NotFoundError, MalformedError, DeniedError: files of the configuration.
    """
    policy = config.open_trust_policy()
    key = signing_key_from_pem("ed25519", read_secret(config.witness_key))
    cosigner = witness_cosigner(policy, key)
    tls = ServerTls(config.read_tls_key(), config.read_certificate(), config.read_client_roots())
    make_folder(config.state_dir)
    lock = FolderLock(config.state_dir)
    try:
        witness = Witness(config.state_dir, policy, [cosigner], clock)
        host, _, port = config.witness_listen.rpartition(":")
        http = uvicorn.Server(
            uvicorn.Config(
                witness_app(witness, on_uncertain),
                host=host.strip("[]"),
                port=int(port),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                limit_concurrency=64,
                timeout_keep_alive=5,
                timeout_graceful_shutdown=int(config.grace_seconds) + 1,
            )
        )
        server = RpcServer(
            ServerSettings(config.listen, config.threads),
            tls=lambda: tls,
            methods=(),
            registry=ConfiguredCallers(config),
            policy=TransportPolicy(config.trust_domain),
            clock=clock,
            on_refused=lambda _reason, _peer_class, _digest: None,
            on_uncertain=on_uncertain,
        )
    except BaseException:
        lock.release()
        raise
    return VerifierService(http, server, lock, config.grace_seconds)


def witness_cosigner(policy: TrustPolicy, key: SigningKey) -> Cosigner:
    """The cosigner of the trust policy's witness that has this key.

    Raises:
        MalformedError: the trust policy names no such witness.
    """
    public = key.public_key.parts[0]
    for witness in policy.witnesses:
        if witness.key.key_type == ED25519_COSIGNATURE and witness.key.public_key == public:
            return Cosigner(witness.key, key.sign)
    raise MalformedError("the trust policy names no witness with this key")
