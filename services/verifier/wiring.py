"""The verifier's service, put together: the witness over HTTP, and the health check over gRPC.

It follows no log of its own accord: whoever may ask for its health stands in its configuration, by name and key.

Runs in: verifier.
Trusts: configuration, trust policy and the witness's keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from sfrl_secure.clock import Clock
from sfrl_secure.errors import UncertainStateError
from sfrl_secure.governance.services import KEY_EXCHANGES
from sfrl_secure.ids import Digest, parse_hex_digest
from sfrl_secure.rpc.identity import DoorTerms, RecordedIdentity, TransportPolicy
from sfrl_secure.rpc.server import RpcServer, ServerSettings
from sfrl_secure.services.config import VerifierConfig
from sfrl_secure.services.http import HttpServer
from sfrl_secure.services.renewal import Renewal, open_renewal
from sfrl_secure.services.tls_files import ServiceTls
from sfrl_secure.services.verifier.http import witness_app
from sfrl_secure.services.verifier.witness import Witness
from sfrl_secure.storage.files import FolderLock, make_folder
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.translog.witness_keys import parse_witness_key

_FAR_FUTURE_US = 2**62
_TERMS = DoorTerms(KEY_EXCHANGES, _FAR_FUTURE_US)


class ConfiguredCallers:
    """The interceptor's registry where no log is followed, nor any services document: both groups will do.

    A configuration names keys, and no serials: which certificate a key has is left to the CA.
    """

    def __init__(self, config: VerifierConfig) -> None:
        self._callers = {
            parse_hex_digest(caller.spki_sha256): RecordedIdentity(caller.identity, None, _FAR_FUTURE_US)
            for caller in config.callers
        }

    def lookup(self, spki_sha256: Digest) -> RecordedIdentity | None:
        """What the configuration says of a public key."""
        return self._callers.get(spki_sha256)

    def door_terms(self) -> DoorTerms:
        """Both groups, at any time."""
        return _TERMS


@dataclass(slots=True)
class VerifierService:
    """The running parts; `start`, then `stop` once."""

    http: HttpServer
    server: RpcServer
    renewal: Renewal | None
    resources: ExitStack
    grace_seconds: float
    _has_started: bool = False

    def start(self) -> int:
        """Serve; give the port of the health check.

        Raises:
            UnavailableError: the witness does not begin to listen.
        """
        self.http.start()
        self._has_started = True
        self.server.start()
        if self.renewal is not None:
            self.renewal.start()
        return self.server.port

    def stop(self) -> None:
        """Let running answers end, and end."""
        if self._has_started:
            if self.renewal is not None:
                self.renewal.stop()
            self.server.stop(self.grace_seconds)
        self.resources.close()


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
    cosigners = [parse_witness_key(read_secret(path)).cosigner(policy) for path in config.witness_keys]
    tls = ServiceTls(config)
    make_folder(config.state_dir)
    with ExitStack() as opening:
        opening.enter_context(FolderLock(config.state_dir))
        witness = Witness(config.state_dir, policy, cosigners, clock)
        http = HttpServer(
            witness_app(witness, on_uncertain),
            config.witness_listen,
            name="witness",
            grace_seconds=config.grace_seconds,
        )
        opening.callback(http.stop)
        server = RpcServer(
            ServerSettings(config.listen, config.threads),
            tls=tls.server,
            methods=(),
            registry=ConfiguredCallers(config),
            policy=TransportPolicy(config.trust_domain),
            clock=clock,
            on_refused=lambda _reason, _peer_class, _digest: None,
            on_uncertain=on_uncertain,
        )
        signing_key = None if config.signing is None else config.signing.open()
        renewal = open_renewal(config, tls, signing_key, policy, clock)
        return VerifierService(http, server, renewal, opening.pop_all(), config.grace_seconds)
