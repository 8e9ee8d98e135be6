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
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rpc.channel import ClientTls, RpcChannel
from sfrl_secure.rpc.clients import AuditLogClient
from sfrl_secure.rpc.follower import LogFollower
from sfrl_secure.rpc.server import ServerTls
from sfrl_secure.services.config import AggregatorConfig, GatekeeperConfig
from sfrl_secure.services.view import FederationView
from sfrl_secure.services.writer import StatementWriter
from sfrl_secure.translog.note import ED25519, ML_DSA_44_COSIGNATURE
from sfrl_secure.translog.policy import TrustPolicy

CATCH_UP_SECONDS = 60.0
"""How long a start waits for the entries that the log has."""


@dataclass(slots=True)
class FollowedFederation:
    """The running parts; `start`, then `stop` once."""

    channel: RpcChannel
    follower: LogFollower
    view: FederationView
    writer: StatementWriter
    stopping: threading.Event

    def start(self) -> None:
        """Follow the log, and return once genesis and what is witnessed has been read.

        Raises:
            UnavailableError: the log did not answer in time.
            VerificationError: the log contradicts itself or its trust policy.
        """
        self.follower.start()
        self.follower.wait_witnessed(1, CATCH_UP_SECONDS)

    def stop(self) -> None:
        """End the following and the channel."""
        self.stopping.set()
        self.view.wake()
        self.follower.stop()
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
        NotFoundError, MalformedError, DeniedError: files of the configuration.
    """
    policy = config.open_trust_policy()
    view = FederationView(FederationFold(config.origin, log_vkeys_of(policy, config.origin)))
    channel = RpcChannel(
        config.log_address,
        role="audit_log",
        trust_domain=config.trust_domain,
        tls=ClientTls(config.read_tls_key(), config.read_certificate(), config.read_service_roots()),
    )
    log = AuditLogClient(channel)

    def contradicted(failure: SfrlError) -> None:
        # It leaves nothing to decide on: the process ends rather than serve an old view.
        error = UncertainStateError("the log that we follow contradicts itself")
        error.__cause__ = failure
        on_uncertain(error)

    follower = LogFollower(
        log,
        origin=config.origin,
        policy=policy,
        on_entry=view.on_entry,
        on_witnessed=view.on_witnessed,
        on_failed=contradicted,
    )
    name = parse_spiffe_id(f"spiffe://{config.trust_domain}/service/{role}/{config.name}")
    writer = StatementWriter(log, view, config.signing.open(), name, clock)
    return FollowedFederation(channel, follower, view, writer, stopping)


def server_tls_of(config: GatekeeperConfig | AggregatorConfig) -> ServerTls:
    """The server's certificate, and the CAs of its callers."""
    return ServerTls(config.read_tls_key(), config.read_certificate(), config.read_client_roots())


def log_vkeys_of(policy: TrustPolicy, origin: str) -> tuple[str, str]:
    """The log's Ed25519 and ML-DSA-44 vkeys.

    Raises:
        MalformedError: the trust policy does not list exactly one of each.
    """
    log = policy.log(origin)
    keys = () if log is None else log.keys
    by_type = {key.key_type: key.vkey for key in keys}
    if len(keys) != 2 or by_type.keys() != {ED25519, ML_DSA_44_COSIGNATURE}:
        raise MalformedError("the trust policy lists an Ed25519 and an ML-DSA-44 key of the log")
    return by_type[ED25519], by_type[ML_DSA_44_COSIGNATURE]
