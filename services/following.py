"""What gatekeeper and aggregator have in common: a channel to the log, the follower, the view and the writer.

Runs in: gatekeeper, aggregator.
Trusts: its configuration and the trust policy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from sfrl_secure.clock import Clock
from sfrl_secure.errors import MalformedError, SfrlError, UncertainStateError
from sfrl_secure.ids import parse_spiffe_id
from sfrl_secure.rpc.channel import RpcChannel
from sfrl_secure.rpc.clients import AuditLogClient
from sfrl_secure.rpc.follower import FollowSource, LogFollower
from sfrl_secure.services.config import AggregatorConfig, GatekeeperConfig
from sfrl_secure.services.kept_fold import KeptFold
from sfrl_secure.services.tls_files import ServiceTls
from sfrl_secure.services.view import FederationView
from sfrl_secure.services.writer import StatementWriter
from sfrl_secure.translog.policy import TrustPolicy

CATCH_UP_SECONDS = 60.0
"""How long a start waits for the entries that the log has."""


@dataclass(slots=True)
class FollowedFederation:
    """The running parts; `start`, then `stop` once.

    Attributes:
        tls: the service's own identity, for its server and its channels.
    """

    tls: ServiceTls
    channel: RpcChannel
    follower: LogFollower
    view: FederationView
    kept: KeptFold
    log: AuditLogClient
    writer: StatementWriter
    stopping: threading.Event

    def start(self) -> None:
        """Follow the log, and return once it has agreed with what we go on from, and what is witnessed has been read.

        Raises:
            UnavailableError: the log did not answer in time.
            VerificationError: the log contradicts itself, its trust policy, or what it signed before.
        """
        self.kept.start()
        self.follower.start()
        self.follower.wait_agreed(CATCH_UP_SECONDS)
        self.follower.wait_witnessed(1, CATCH_UP_SECONDS)

    def stop(self) -> None:
        """End the following and the channel; keep the fold."""
        self.stopping.set()
        self.view.wake()
        self.follower.stop()
        # What a log that contradicts itself has left in memory is not worth keeping.
        failed = self.follower.failure is not None
        self.kept.stop(None if failed else lambda: (self.follower.position(), self.view.freeze()))
        self.channel.close()


def follow_federation(
    config: GatekeeperConfig | AggregatorConfig,
    role: str,
    clock: Clock,
    stopping: threading.Event,
    *,
    on_uncertain: Callable[[UncertainStateError], None],
) -> FollowedFederation:
    """Put the parts together; nothing is running yet.

    Raises:
        NotFoundError, MalformedError, DeniedError: files of the configuration; another process owns the state
            folder.
        UncertainStateError, ExhaustedError: its disk failed or is full.
    """
    policy = config.open_trust_policy()
    name = parse_spiffe_id(f"spiffe://{config.trust_domain}/service/{role}/{config.name}")
    key = config.signing.open()
    tls = ServiceTls(config)
    channel = RpcChannel(
        config.log_address,
        role="audit_log",
        trust_domain=config.trust_domain,
        tls=tls.client,
    )
    log = AuditLogClient(channel)
    kept = KeptFold(config.state_dir, config.origin, log_vkeys_of(policy, config.origin), policy)
    view, follower = follow_kept(kept, log, config.origin, policy, on_uncertain=on_uncertain)
    writer = StatementWriter(log, view, key, name, clock)
    return FollowedFederation(tls, channel, follower, view, kept, log, writer, stopping)


def follow_kept(
    kept: KeptFold,
    source: FollowSource,
    origin: str,
    policy: TrustPolicy,
    *,
    on_uncertain: Callable[[UncertainStateError], None],
) -> tuple[FederationView, LogFollower]:
    """Make the view and the follower that go on from what was kept."""
    view = FederationView(kept.fold)

    def contradicted(failure: SfrlError) -> None:
        if isinstance(failure, UncertainStateError):
            kept.forget()
        # It leaves nothing to decide on: the process ends rather than serve an old view.
        error = UncertainStateError("the log that we follow contradicts itself")
        error.__cause__ = failure
        on_uncertain(error)

    follower = LogFollower(
        source,
        origin=origin,
        policy=policy,
        on_entry=view.on_entry,
        on_witnessed=view.on_witnessed,
        on_heard=view.on_heard,
        on_covered=lambda: kept.offer(follower.size, follower.position, view.freeze),
        on_failed=contradicted,
        start=kept.begin,
        floor=kept.floor,
        on_restart=lambda: view.restart(kept.begin_anew()),
    )
    view.on_witnessed(follower.witnessed_size)
    return view, follower


def log_vkeys_of(policy: TrustPolicy, origin: str) -> tuple[str, str]:
    """The Ed25519 and ML-DSA-44 vkeys that genesis names: the log's first generation.

    Raises:
        MalformedError: the trust policy does not list the log, or not one of each.
    """
    log = policy.log(origin)
    if log is None:
        raise MalformedError("the trust policy does not list the log")
    return log.genesis_vkeys
