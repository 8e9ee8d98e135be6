"""The simulated federation's identity desk: a gatekeeper's real issuer and servicer, and channels that end there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from simulated_federation import DAY_US, DOMAIN, service_id
from simulator import LaggingView, Simulator

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.crypto.x509 import SKEW_US, CertificateAuthority
from sfrl_secure.errors import SfrlError
from sfrl_secure.participant.join_file import JoinFile, generate_token, join_key_of
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rpc.channel import ClientTls, RpcChannel, RpcStream
from sfrl_secure.rpc.identity import Peer, record_peer
from sfrl_secure.services.gatekeeper.enrolment import IdentityServicer
from sfrl_secure.services.gatekeeper.issuing import Authorities, IdentityIssuer
from sfrl_secure.translog.policy import format_trust_policy
from sfrl_secure.wire import identity_service as wire

LIFETIME_US = DAY_US
"""Of the certificates that a desk makes."""


@dataclass(eq=False)
class Caller:
    """Stands where gRPC's context stands; it waits for its answer, or has gone."""

    is_there: bool = True

    def is_active(self) -> bool:
        return self.is_there


@dataclass
class IdentityDesk:
    """A gatekeeper's identity service.

    Attributes:
        authorities: CAs of its own.
    """

    sim: Simulator
    view: LaggingView
    counter: RefusalCounter
    authorities: Authorities
    servicer: IdentityServicer


def open_desk(
    sim: Simulator, *, client: bool = True, service: bool = True, ca_us: int = 500 * DAY_US
) -> IdentityDesk:
    """Make a desk that has the keys of one CA, or of both."""
    now_us = sim.clock.now_us()
    made = [CertificateAuthority.create(f"{each} CA", now_us - SKEW_US, now_us + ca_us) for each in ("a", "b")]
    authorities = Authorities(made[0] if client else None, made[1] if service else None, LIFETIME_US, LIFETIME_US)
    view = sim.view()
    issuer = IdentityIssuer(sim.writer(service_id("gatekeeper", "g1"), view), authorities, sim.clock)
    counter = RefusalCounter(sim.clock)
    servicer = IdentityServicer(view, sim.log, issuer, counter, DOMAIN, sim.clock)
    return IdentityDesk(sim, view, counter, authorities, servicer)


def invitation(sim: Simulator, name: str, token: SecretBytes | None = None) -> JoinFile:
    """Invite a name as the operators would, and give the join file that they hand over."""
    token = token or generate_token()
    sim.invite(name, join_key_of(token))
    join, before = sim.state.join(name), sim.succession(("participant", name))
    assert join is not None
    return JoinFile(
        name=name,
        trust_domain=DOMAIN,
        federation_id=sim.federation_id,
        origin=sim.origin,
        gatekeepers=("gatekeeper.example:7001", "gatekeeper.example:7002"),
        enrol_address="gatekeeper.example:7443",
        service_ca="-----BEGIN CERTIFICATE-----\n",
        trust_policy=format_trust_policy(sim.policy).decode(),
        token=token,
        expires_us=join.expires_us,
        clearance=join.clearance,
        groups=join.groups,
        record_expires_us=join.record_expires_us,
        record_version=before["version"],
        record_previous=before["previous"],
    )


@dataclass
class DeskChannel(RpcChannel):
    """A channel that ends at a desk, under an identity or none.

    Attributes:
        broken: raised instead of the next calls, one each.
        lost: raised instead of the next answers, one each: the desk has served them.
        answers: changes an answer's bytes on the way.
    """

    desk: IdentityDesk
    tls: Callable[[], ClientTls] | None = None
    broken: list[SfrlError] = field(default_factory=list)
    lost: list[SfrlError] = field(default_factory=list)
    answers: Callable[[bytes], bytes] = lambda raw: raw
    calls: list[str] = field(default_factory=list)

    def call(self, path: str, request: bytes, *, deadline_seconds: float) -> bytes:
        assert deadline_seconds > 0
        self.calls.append(path)
        if self.broken:
            raise self.broken.pop(0)
        context = Caller()
        if path == wire.ENROL:
            answer = self.desk.servicer.enrol(request, context)  # type: ignore[arg-type]
        elif path == wire.RENEW_IDENTITY:
            assert self.tls is not None
            leaf = open_svid(self.tls().chain, DOMAIN)
            record_peer(context, Peer(leaf.spiffe_id, leaf.serial, leaf.spki_sha256))  # type: ignore[arg-type]
            answer = self.desk.servicer.renew(request, context)  # type: ignore[arg-type]
        else:
            return b""
        if self.lost:
            raise self.lost.pop(0)
        return self.answers(answer)

    def stream(self, path: str, request: bytes, *, deadline_seconds: float) -> RpcStream:
        self.calls.append(path)
        return RpcStream(_Nothing())

    def close(self) -> None:
        pass


class _Nothing:
    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def cancel(self) -> None:
        pass
