"""Who calls: step 1 of "Admission".

Python cannot set a minimum TLS version or the key exchange groups, and BoringSSL does not know the SPIFFE rules, so a
connection that stands proves only that a CA of ours signed the certificate. What the connection says of itself is
judged here, on every call, in the order of the specification; whatever is missing is a refusal. A public key opens
the door only from its `identity_issued` entry on, under the SPIFFE ID that the entry names: whoever steals a CA gets
nothing by it.

Format: proto/README.md, "Admission", step 1; certs/README.md.

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: TLS for the chain and for possession of the key; the log, through the registry. Nothing that the peer says.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol
from weakref import WeakKeyDictionary

import grpc

from sfrl_secure.crypto.svid import PeerCertificate, open_svid
from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.services import ServicesDocument
from sfrl_secure.governance.statements import PeerClass
from sfrl_secure.ids import Digest, SpiffeId, parse_trust_domain

SERVICE_ROLES = frozenset({"gatekeeper", "aggregator", "audit_log", "verifier"})
ROLES = SERVICE_ROLES | {"participant", "operator", "auditor"}

# What the leaf rules say depends on the certificate's bytes alone; time, record and role are judged on every call.
_open_svid = lru_cache(maxsize=1024)(open_svid)

AuthContext = Mapping[str, Sequence[bytes]]
"""What gRPC tells of a connection: names and lists of values."""


@dataclass(frozen=True, slots=True)
class RecordedIdentity:
    """A TLS identity as the log has it.

    Attributes:
        spiffe_id: the ID that the public key may be used under.
        serial: of its one certificate; None where a configuration names the key alone.
        not_after_us: end of its validity, microseconds since 1970.
    """

    spiffe_id: SpiffeId
    serial: int | None
    not_after_us: int


@dataclass(frozen=True, slots=True)
class DoorTerms:
    """What the services document in force says of connections.

    Attributes:
        key_exchange: names of the groups that are admitted. The hybrid one is what two current peers agree on; the
            other serves peers with an older TLS library; a federation that wants none of those leaves it out.
        expires_us: from then on operators alone are admitted.
    """

    key_exchange: frozenset[str]
    expires_us: int


NOBODY = DoorTerms(frozenset(), 0)
"""The terms where no services document is in force: no connection is good enough."""


class IdentityRegistry(Protocol):
    """Knows whom the log admits. Asked by several threads at once.

    Either method raises UnavailableError where what it knows may be out of date: then nobody is admitted, and nobody is
    refused.
    """

    def lookup(self, spki_sha256: Digest) -> RecordedIdentity | None:
        """Return what is recorded for a public key, or None; whoever is revoked is not recorded any more."""
        ...

    def door_terms(self) -> DoorTerms:
        """Return what connections must be; `NOBODY` where no services document is in force."""
        ...


@dataclass(frozen=True, slots=True)
class Peer:
    """An admitted caller."""

    spiffe_id: SpiffeId
    serial: int
    spki_sha256: Digest


@dataclass(frozen=True, slots=True)
class TransportPolicy:
    """What does not change: the trust domain of every SPIFFE ID."""

    trust_domain: str

    def __post_init__(self) -> None:
        parse_trust_domain(self.trust_domain)


def door_terms_of(services: ServicesDocument | None) -> DoorTerms:
    """Return the terms that a services document sets; those for nobody where there is none."""
    return NOBODY if services is None else DoorTerms(services.key_exchange, services.expires_us)


def check_transport(auth: AuthContext, terms: DoorTerms) -> None:
    """Check that the connection is TLS 1.3, encrypted, in an admitted group.

    Raises:
        DeniedError: `transport_version`, `transport_group`.
    """
    if _one(auth, "transport_security_type") not in (b"ssl", b"tls"):
        raise DeniedError("transport_version", "the connection is not TLS")
    if _one(auth, "security_level") != b"TSI_PRIVACY_AND_INTEGRITY":
        raise DeniedError("transport_version", "the connection does not keep privacy and integrity")
    if _one(auth, "ssl_tls_version") != b"TLSv1.3":
        raise DeniedError("transport_version", "the connection is not TLS 1.3")
    if (_one(auth, "ssl_negotiated_key_exchange_group") or b"").decode("latin-1") not in terms.key_exchange:
        groups = ", ".join(sorted(terms.key_exchange)) or "none: no services document is in force"
        raise DeniedError("transport_group", f"the key exchange groups of the federation are {groups}")


def open_certificate(auth: AuthContext, policy: TransportPolicy, now_us: int) -> PeerCertificate:
    """Read the peer's leaf certificate under the SPIFFE rules. TLS has verified its chain.

    Raises:
        DeniedError: `certificate`.
    """
    pem = peer_pem(auth)
    if pem is None:
        raise DeniedError("certificate", "the peer shows exactly one certificate")
    certificate = _open_svid(pem, policy.trust_domain)
    check_valid_now(certificate, now_us)
    return certificate


def check_valid_now(certificate: PeerCertificate, now_us: int) -> None:
    """Check the certificate's times: a connection may outlive the certificate that TLS accepted when it began.

    Raises:
        DeniedError: `certificate`.
    """
    if not certificate.not_before_us <= now_us < certificate.not_after_us:
        raise DeniedError("certificate", "the certificate is not valid now")


def check_recorded(certificate: PeerCertificate, recorded: RecordedIdentity | None, now_us: int) -> None:
    """Check that the log has recorded this public key for this SPIFFE ID and certificate, and that it is in force.

    Raises:
        DeniedError: `unknown_identity`.
    """
    if recorded is None or recorded.spiffe_id != certificate.spiffe_id:
        raise DeniedError(
            "unknown_identity",
            "the log has no entry for this identity and key that is in force: revoked, removed, or never issued; "
            "ask an operator",
        )
    if recorded.serial not in (None, certificate.serial):
        raise DeniedError("unknown_identity", "the log has recorded another certificate for this key")
    if now_us >= recorded.not_after_us:
        raise DeniedError("unknown_identity", "the identity's entry has expired")


def check_door_open(certificate: PeerCertificate, terms: DoorTerms, now_us: int) -> None:
    """Check that the services document in force has not expired, or an operator calls, who can bring the next one.

    Raises:
        DeniedError: `unknown_identity`.
    """
    if now_us >= terms.expires_us and certificate.spiffe_id.role != "operator":
        raise DeniedError("unknown_identity", "the services document has expired: operators alone are admitted")


def check_role(certificate: PeerCertificate, roles: Collection[str] | None) -> None:
    """Check that the method is one that the peer's role may call; None stands for a method that nobody may.

    Raises:
        DeniedError: `role`.
    """
    if roles is None or certificate.spiffe_id.role not in roles:
        raise DeniedError("role", "the role may not call this method")


def peer_pem(auth: AuthContext) -> bytes | None:
    """Return the peer's leaf certificate in PEM, or None where there is not exactly one."""
    return _one(auth, "x509_pem_cert")


def peer_class_of(spiffe_id: SpiffeId) -> PeerClass:
    """Return the class under which refusals of an identity are counted."""
    if spiffe_id.role in SERVICE_ROLES:
        return PeerClass.SERVICE
    return {
        "participant": PeerClass.PARTICIPANT,
        "operator": PeerClass.OPERATOR,
        "auditor": PeerClass.AUDITOR,
    }[spiffe_id.role]


_peers: WeakKeyDictionary[grpc.ServicerContext, Peer] = WeakKeyDictionary()
_peers_lock = threading.Lock()


def record_peer(context: grpc.ServicerContext, peer: Peer) -> None:
    """Note who calls, for `peer_of`. The interceptor calls this, and nothing else does but tests."""
    with _peers_lock:
        _peers[context] = peer


def peer_of(context: grpc.ServicerContext) -> Peer:
    """Return the caller that the interceptor admitted.

    Raises:
        DeniedError: none was, which a server made by `server` cannot show.
    """
    with _peers_lock:
        peer = _peers.get(context)
    if peer is None:
        raise DeniedError("unknown_identity", "nobody was admitted to this call")
    return peer


def _one(auth: AuthContext, key: str) -> bytes | None:
    values = auth.get(key, ())
    return values[0] if len(values) == 1 else None
