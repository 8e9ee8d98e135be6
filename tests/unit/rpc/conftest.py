"""A PKI in memory that lives for minutes, and servers on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sfrl_secure.clock import FixedClock, SystemClock
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.x509 import CertificateAuthority, generate_tls_key
from sfrl_secure.errors import UnavailableError
from sfrl_secure.governance.services import KEY_EXCHANGES
from sfrl_secure.governance.statements import PeerClass
from sfrl_secure.ids import Digest, SpiffeId, parse_spiffe_id, sha256
from sfrl_secure.rpc.channel import ClientTls, RpcChannel, service_dns_name
from sfrl_secure.rpc.identity import DoorTerms, RecordedIdentity, TransportPolicy
from sfrl_secure.rpc.server import Method, RpcServer, ServerSettings, ServerTls

DOMAIN = "farm_1.example"
MINUTE = 60_000_000


@dataclass(frozen=True)
class Identity:
    spiffe_id: SpiffeId
    key: SecretBytes
    spki: bytes
    chain: bytes

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.chain).serial_number

    @property
    def spki_sha256(self) -> Digest:
        return sha256(self.spki)


class Pki:
    def __init__(self) -> None:
        self.now_us = SystemClock().now_us()
        self.clients = self._authority("clients")
        self.services = self._authority("services")

    def _authority(self, name: str) -> CertificateAuthority:
        return CertificateAuthority.create(name, self.now_us - MINUTE, self.now_us + 60 * MINUTE)

    def identity(self, path: str, *, authority: CertificateAuthority | None = None, dns: str = "") -> Identity:
        spiffe_id = parse_spiffe_id(f"spiffe://{DOMAIN}/{path}")
        is_service = path.startswith("service/")
        key, spki = generate_tls_key()
        chain = (authority or (self.services if is_service else self.clients)).issue_svid(
            spiffe_id,
            spki,
            not_before_us=self.now_us - MINUTE,
            not_after_us=self.now_us + 30 * MINUTE,
            dns_names=(dns or service_dns_name(spiffe_id.role, DOMAIN),) if is_service else (),
        )
        return Identity(spiffe_id, key, spki, chain)

    def odd_identity(self, path: str, names: list[x509.GeneralName]) -> Identity:
        """A leaf of the client CA that breaks the profile only in its names."""
        good = self.identity(path)
        leaf = x509.load_pem_x509_certificate(good.chain)
        builder = x509.CertificateBuilder(
            issuer_name=leaf.issuer,
            subject_name=leaf.subject,
            public_key=leaf.public_key(),
            serial_number=leaf.serial_number,
            not_valid_before=leaf.not_valid_before_utc,
            not_valid_after=leaf.not_valid_after_utc,
        )
        for extension in leaf.extensions:
            if isinstance(extension.value, x509.SubjectAlternativeName):
                if names:
                    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
            else:
                builder = builder.add_extension(extension.value, extension.critical)
        key: Any = load_pem_private_key(self.clients.key_pem.expose(), None)
        chain = builder.sign(key, hashes.SHA256()).public_bytes(encoding=_pem())
        return Identity(good.spiffe_id, good.key, good.spki, chain)


def _pem() -> Any:
    from cryptography.hazmat.primitives.serialization import Encoding

    return Encoding.PEM


@dataclass
class Registry:
    recorded: dict[Digest, RecordedIdentity] = field(default_factory=dict)
    terms: DoorTerms = field(default_factory=lambda: DoorTerms(KEY_EXCHANGES, 2**62))
    is_stale: bool = False

    def record(
        self, identity: Identity, not_after_us: int, *, spiffe_id: SpiffeId | None = None, serial: int | None = None
    ) -> None:
        self.recorded[identity.spki_sha256] = RecordedIdentity(
            spiffe_id or identity.spiffe_id, serial or identity.serial, not_after_us
        )

    def lookup(self, spki_sha256: Digest) -> RecordedIdentity | None:
        self._check_fresh()
        return self.recorded.get(spki_sha256)

    def door_terms(self) -> DoorTerms:
        self._check_fresh()
        return self.terms

    def _check_fresh(self) -> None:
        if self.is_stale:
            raise UnavailableError("the log has not been heard lately")


@dataclass
class Site:
    """One server, and everybody who calls it."""

    pki: Pki
    registry: Registry
    clock: FixedClock
    refused: list[tuple[str, PeerClass, Digest]] = field(default_factory=list)
    uncertain: list[Exception] = field(default_factory=list)
    tls: ServerTls | None = None
    _open: list[Any] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def server_tls(self, path: str = "service/gatekeeper/g1", **options: Any) -> ServerTls:
        identity = self.pki.identity(path, **options)
        roots = self.pki.clients.certificate_pem + self.pki.services.certificate_pem
        return ServerTls(identity.key, identity.chain, roots)

    def serve(
        self, *methods: Method, registry: Any = None, client_auth: bool = True, threads: int = 8, **settings: int
    ) -> RpcServer:
        self.tls = self.tls or self.server_tls()
        server = RpcServer(
            ServerSettings("127.0.0.1:0", threads=threads, **settings),
            tls=lambda: self.tls,  # type: ignore[arg-type,return-value]
            methods=methods,
            registry=registry or self.registry,
            policy=TransportPolicy(DOMAIN),
            clock=self.clock,
            on_refused=lambda reason, peer_class, digest: self.refused.append((reason, peer_class, digest)),
            on_uncertain=self.uncertain.append,
            client_auth=client_auth,
        )
        server.start()
        self._open.append(lambda: server.stop(0))
        return server

    def known(self, path: str) -> Identity:
        identity = self.pki.identity(path)
        self.registry.record(identity, self.pki.now_us + 30 * MINUTE)
        return identity

    def client_tls(self, identity: Identity) -> ClientTls:
        return ClientTls(identity.key, identity.chain, self.pki.services.certificate_pem)

    def channel(self, server: RpcServer, identity: Any, *, role: str = "gatekeeper") -> RpcChannel:
        """A channel for an identity, or for what `RpcChannel` takes as its `tls`."""
        tls = self.client_tls(identity) if isinstance(identity, Identity) else identity
        channel = RpcChannel(f"127.0.0.1:{server.port}", role=role, trust_domain=DOMAIN, tls=tls)
        self._open.append(channel.close)
        return channel

    def close(self) -> None:
        for close in reversed(self._open):
            close()


@pytest.fixture(scope="session")
def pki() -> Pki:
    return Pki()


@pytest.fixture
def site(pki: Pki) -> Iterator[Site]:
    site = Site(pki, Registry(), FixedClock(pki.now_us))
    yield site
    site.close()
