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
from sfrl_secure.crypto.svid import PeerCertificate
from sfrl_secure.crypto.x509 import open_csr
from sfrl_secure.errors import UncertainStateError
from sfrl_secure.governance.statements import RefusalsCounted
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity import TransportPolicy
from sfrl_secure.rpc.identity_requests import AskedIdentity
from sfrl_secure.rpc.server import RpcServer, ServerSettings
from sfrl_secure.services.config import GatekeeperConfig
from sfrl_secure.services.following import FollowedFederation, follow_federation
from sfrl_secure.services.gatekeeper.admit import Admitter, ByteBudget
from sfrl_secure.services.gatekeeper.complaints import ComplaintAnswerer
from sfrl_secure.services.gatekeeper.decoders import Decoders
from sfrl_secure.services.gatekeeper.enrolment import IdentityServicer
from sfrl_secure.services.gatekeeper.fetches import FetchLog
from sfrl_secure.services.gatekeeper.issuing import IdentityIssuer, open_authorities
from sfrl_secure.services.gatekeeper.proofs import ProofBuilder
from sfrl_secure.services.gatekeeper.refuse import Refuser
from sfrl_secure.services.gatekeeper.servicer import GatekeeperServicer
from sfrl_secure.services.gatekeeper.sweeping import UploadSweeper
from sfrl_secure.services.gatekeeper.upload_bounds import UploadBounds, forget_in
from sfrl_secure.services.gatekeeper.uploads import UploadIntake
from sfrl_secure.services.gatekeeper.words import WordTaker
from sfrl_secure.services.masks import Masks
from sfrl_secure.services.refusals import RefusalWriter
from sfrl_secure.services.renewal import Renewal, federation_id_of, open_renewal, spiffe_id_of
from sfrl_secure.services.writer import Proposal, StatementWriter
from sfrl_secure.storage.objects import open_objects
from sfrl_secure.storage.uploads import open_uploads

WINDOW_BYTES = 256 * 1024
"""What a stream may have under way to us beside the message that is being read."""

NEWCOMER_THREADS = 16
"""Calls of newcomers served at once; one address has half of them at most."""

EVIDENCE_BYTES_MAX = 256 * 1024 * 1024
"""Bytes of refused payloads that one run keeps as evidence."""


@dataclass(slots=True)
class Gatekeeper:
    """The running parts; `start`, then `stop` once."""

    federation: FollowedFederation
    fetches: FetchLog
    complaints: ComplaintAnswerer
    intake: UploadIntake
    sweeper: UploadSweeper
    refusals: RefusalWriter
    server: RpcServer
    newcomers: RpcServer | None
    renewal: Renewal | None
    grace_seconds: float
    _has_started: bool = False

    def start(self) -> int:
        """Read the log, then serve; give the port."""
        self.federation.start()
        self.fetches.start()
        self.complaints.start()
        self.intake.start()
        self.sweeper.start()
        self.refusals.start()
        self._has_started = True
        self.server.start()
        if self.newcomers is not None:
            self.newcomers.start()
        if self.renewal is not None:
            self.renewal.start()
        return self.server.port

    def stop(self) -> None:
        """Let running calls end, write what is pending, end."""
        if self._has_started:
            self.federation.view.wake()
            if self.renewal is not None:
                self.renewal.stop()
            if self.newcomers is not None:
                self.newcomers.stop(self.grace_seconds)
            self.server.stop(self.grace_seconds)
            self.fetches.stop()
            self.complaints.stop()
            self.intake.stop()
            self.sweeper.stop()
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
        admitter = Admitter(view, writer, refuser, Masks(objects), clock, ByteBudget(EVIDENCE_BYTES_MAX))
        uploads = open_uploads(config.uploads_place)
        bounds = UploadBounds(
            min(config.uploads_max, config.threads // 2), config.upload_bytes_max, forget_in(uploads)
        )
        intake = UploadIntake(uploads, objects, bounds, Decoders())
        proofs = ProofBuilder(view, federation.follower, federation.log)
        words = WordTaker(writer, counter)
        servicer = GatekeeperServicer(view, admitter, refuser, proofs, fetches, words, intake, objects, clock)
        issuer = IdentityIssuer(writer, open_authorities(config), clock)
        identities = IdentityServicer(view, federation.log, issuer, counter, config.trust_domain, clock)
        renewal = _open_renewal(config, federation, issuer, clock)
        server = RpcServer(
            ServerSettings(config.listen, config.threads, window_bytes=WINDOW_BYTES),
            tls=federation.tls.server,
            methods=[*servicer.methods(), *identities.methods()],
            registry=view,
            policy=TransportPolicy(config.trust_domain),
            clock=clock,
            on_refused=counter.count,
            on_uncertain=on_uncertain,
        )
        newcomers = _open_newcomers(config, federation, identities, counter, clock, on_uncertain)
        refusals = RefusalWriter(
            counter, lambda body: write_counted(writer, body), interval_seconds=config.refusals_seconds
        )
        opening.pop_all()
        complaints = ComplaintAnswerer(view, writer, proofs)
        return Gatekeeper(
            federation, fetches, complaints, intake, UploadSweeper(uploads, clock), refusals, server, newcomers,
            renewal, config.grace_seconds,
        )  # fmt: skip


def _open_newcomers(
    config: GatekeeperConfig,
    federation: FollowedFederation,
    identities: IdentityServicer,
    counter: RefusalCounter,
    clock: Clock,
    on_uncertain: Callable[[UncertainStateError], None],
) -> RpcServer | None:
    """The server for those who have no certificate yet, where the configuration has one."""
    if config.issuing is None or config.issuing.enrol_listen is None:
        return None
    return RpcServer(
        ServerSettings(config.issuing.enrol_listen, NEWCOMER_THREADS),
        tls=federation.tls.server,
        methods=identities.open_methods(),
        registry=federation.view,
        policy=TransportPolicy(config.trust_domain),
        clock=clock,
        on_refused=counter.count,
        on_uncertain=on_uncertain,
        client_auth=False,
    )


def _open_renewal(
    config: GatekeeperConfig, federation: FollowedFederation, issuer: IdentityIssuer, clock: Clock
) -> Renewal | None:
    """What keeps this gatekeeper's own identity good: itself where it issues to services, else another."""
    key = config.signing.open()
    if config.issuing is None or config.issuing.service_ca_key is None:
        again = federation.follower.call_again
        return open_renewal(config, federation.tls, key, config.open_trust_policy(), clock, again)

    def obtain(asked: AskedIdentity, current: PeerCertificate) -> bytes:
        issued = issuer.issue(asked.request, asked.identity, open_csr(asked.csr), current.spki_sha256)
        return issued.certificate

    return Renewal(
        federation.tls, spiffe_id_of(config), federation_id_of(config), key, clock, obtain,
        on_renewed=federation.follower.call_again,
    )  # fmt: skip


def write_counted(writer: StatementWriter, body: RefusalsCounted) -> None:
    """Append counted refusals."""

    def decide(_state: FederationState, _now_us: int) -> Proposal:
        return Proposal("log", body)

    writer.write(decide)
