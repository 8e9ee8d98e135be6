"""The aggregator, put together. Its only door is the health check.

Runs in: aggregator.
Trusts: configuration, trust policy and keys.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from sfrl_secure.clock import Clock
from sfrl_secure.errors import UncertainStateError
from sfrl_secure.rpc.identity import TransportPolicy
from sfrl_secure.rpc.server import RpcServer, ServerSettings
from sfrl_secure.services.aggregator.work import Aggregator
from sfrl_secure.services.config import AggregatorConfig
from sfrl_secure.services.following import FollowedFederation, follow_federation
from sfrl_secure.services.renewal import Renewal, open_renewal
from sfrl_secure.storage.objects import open_objects


@dataclass(slots=True)
class AggregatorService:
    """The running parts; `start`, then `stop` once."""

    federation: FollowedFederation
    aggregator: Aggregator
    server: RpcServer
    grace_seconds: float
    on_uncertain: Callable[[UncertainStateError], None]
    stopping: threading.Event
    renewal: Renewal | None
    _thread: threading.Thread | None = None

    def start(self) -> int:
        """Read the log, then work; give the port of the health check."""
        self.federation.start()
        self._thread = threading.Thread(target=self._work, name="aggregator", daemon=True)
        self._thread.start()
        self.server.start()
        if self.renewal is not None:
            self.renewal.start()
        return self.server.port

    def stop(self) -> None:
        """End the work between two steps, and everything else."""
        self.stopping.set()
        if self._thread is not None and self.renewal is not None:
            self.renewal.stop()
        if self._thread is not None:
            self.federation.view.wake()
            self.server.stop(self.grace_seconds)
            self._thread.join(self.grace_seconds)
        self.federation.stop()

    def _work(self) -> None:
        try:
            self.aggregator.run(self.stopping)
        except Exception as error:  # noqa: BLE001 - whatever it is, an aggregator that works no more must not look alive
            uncertain = UncertainStateError("the aggregator's work failed")
            uncertain.__cause__ = error
            self.on_uncertain(uncertain)


def open_aggregator(
    config: AggregatorConfig,
    clock: Clock,
    stopping: threading.Event,
    *,
    on_uncertain: Callable[[UncertainStateError], None],
) -> AggregatorService:
    """Open the aggregator of a configuration.

    Raises:
        UnavailableError: the port cannot be bound.
        UncertainStateError: another process owns the state folder.
        NotFoundError, MalformedError, DeniedError: files of the configuration.
    """
    federation = follow_federation(config, "aggregator", clock, stopping, on_uncertain=on_uncertain)
    with ExitStack() as opening:
        opening.callback(federation.stop)
        renewal = open_renewal(
            config, federation.tls, config.signing.open(), config.open_trust_policy(), clock,
            federation.follower.call_again,
        )
        objects = open_objects(config.objects_url or config.objects_dir)
        aggregator = Aggregator(
            federation.view, federation.writer, objects, clock, threads=os.cpu_count() or 1
        )
        server = RpcServer(
            ServerSettings(config.listen, config.threads),
            tls=federation.tls.server,
            methods=(),
            registry=federation.view,
            policy=TransportPolicy(config.trust_domain),
            clock=clock,
            on_refused=lambda _reason, _peer_class, _digest: None,
            on_uncertain=on_uncertain,
        )
        opening.pop_all()
        return AggregatorService(
            federation, aggregator, server, config.grace_seconds, on_uncertain, stopping, renewal
        )
