"""The gatekeeper, put together.

Runs in: gatekeeper.
Trusts: configuration, trust policy and keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from sfrl_secure.clock import Clock
from sfrl_secure.errors import UncertainStateError
from sfrl_secure.governance.statements import RefusalsCounted
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity import TransportPolicy
from sfrl_secure.rpc.server import RpcServer, ServerSettings
from sfrl_secure.services.config import GatekeeperConfig
from sfrl_secure.services.following import FollowedFederation, follow_federation, server_tls_of
from sfrl_secure.services.gatekeeper.admit import Admitter, ByteBudget
from sfrl_secure.services.gatekeeper.fetches import FetchLog
from sfrl_secure.services.gatekeeper.proofs import ProofBuilder
from sfrl_secure.services.gatekeeper.refuse import Refuser
from sfrl_secure.services.gatekeeper.servicer import GatekeeperServicer
from sfrl_secure.services.refusals import RefusalWriter
from sfrl_secure.services.writer import Proposal, StatementWriter
from sfrl_secure.storage.objects import open_objects

PAYLOAD_BYTES_MAX = 64 * 1024 * 1024
"""Payload bytes in work at once."""

EVIDENCE_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of refused payloads that one run keeps as evidence."""


@dataclass(slots=True)
class Gatekeeper:
    """The running parts; `start`, then `stop` once."""

    federation: FollowedFederation
    fetches: FetchLog
    refusals: RefusalWriter
    server: RpcServer
    grace_seconds: float
    _has_started: bool = False

    def start(self) -> int:
        """Read the log, then serve; give the port."""
        self.federation.start()
        self.fetches.start()
        self.refusals.start()
        self._has_started = True
        self.server.start()
        return self.server.port

    def stop(self) -> None:
        """Let running calls end, write what is pending, end."""
        if self._has_started:
            self.federation.view.wake()
            self.server.stop(self.grace_seconds)
            self.fetches.stop()
            self.refusals.stop()
        self.federation.stop()


def open_gatekeeper(
    config: GatekeeperConfig,
    clock: Clock,
    stopping: threading.Event,
    *,
    on_uncertain: Callable[[UncertainStateError], None],
) -> Gatekeeper:
    """Open the gatekeeper of a configuration.

    Raises:
        UnavailableError: the port cannot be bound.
        UncertainStateError: another process owns the state folder.
        NotFoundError, MalformedError, DeniedError: files of the configuration.
    """
    federation = follow_federation(config, "gatekeeper", clock, stopping, on_uncertain=on_uncertain)
    with ExitStack() as opening:
        opening.callback(federation.stop)
        view, writer = federation.view, federation.writer
        objects = open_objects(config.objects_url or config.objects_dir)
        counter = RefusalCounter(clock)
        refuser = Refuser(writer, counter)
        fetches = FetchLog(writer, clock)
        admitter = Admitter(
            view, writer, refuser, objects, clock, ByteBudget(PAYLOAD_BYTES_MAX), ByteBudget(EVIDENCE_BYTES_MAX)
        )
        proofs = ProofBuilder(view, federation.follower, federation.log)
        servicer = GatekeeperServicer(view, admitter, refuser, proofs, fetches, objects, clock)
        tls = server_tls_of(config)
        server = RpcServer(
            ServerSettings(config.listen, config.threads),
            tls=lambda: tls,
            methods=servicer.methods(),
            registry=view,
            policy=TransportPolicy(config.trust_domain),
            clock=clock,
            on_refused=counter.count,
            on_uncertain=on_uncertain,
        )
        refusals = RefusalWriter(
            counter, lambda body: write_counted(writer, body), interval_seconds=config.refusals_seconds
        )
        opening.pop_all()
        return Gatekeeper(federation, fetches, refusals, server, config.grace_seconds)


def write_counted(writer: StatementWriter, body: RefusalsCounted) -> None:
    """Append counted refusals."""

    def decide(_state: FederationState, _now_us: int) -> Proposal:
        return Proposal("log", body)

    writer.write(decide)
