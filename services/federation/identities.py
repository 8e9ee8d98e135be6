"""TLS identities of a new federation: two CAs, and a leaf for everybody.

Clients trust the service CA alone, services the client CA, and each other's: no participant can pose as a service,
whatever name its certificate has.

Profile: certs/README.md.

Runs in: cli, demo.
Trusts: the plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.svid import PeerCertificate, open_svid
from sfrl_secure.crypto.x509 import SKEW_US, CertificateAuthority, generate_tls_key
from sfrl_secure.ids import SpiffeId
from sfrl_secure.rpc.channel import service_dns_name

_YEAR_US = 366 * 24 * 3_600_000_000


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """A certificate, its key, and what it says."""

    certificate: bytes
    key: SecretBytes
    peer: PeerCertificate


class IssuingAuthorities:
    """The service CA and the client CA."""

    def __init__(
        self, trust_domain: str, now_us: int, *, years: int, certificate_seconds: int, people_certificate_seconds: int
    ) -> None:
        """Make both."""
        not_after_us = now_us + years * _YEAR_US
        self._trust_domain = trust_domain
        self._not_before_us = now_us - SKEW_US
        self._leaf_not_after_us = min(now_us + certificate_seconds * 1_000_000, not_after_us)
        self._people_not_after_us = min(now_us + people_certificate_seconds * 1_000_000, not_after_us)
        self.service = CertificateAuthority.create("sfrl service CA", self._not_before_us, not_after_us)
        self.client = CertificateAuthority.create("sfrl client CA", self._not_before_us, not_after_us)

    def issue(self, spiffe_id: SpiffeId) -> TlsIdentity:
        """Make a key and a certificate; a service's has the DNS name of its role."""
        key, spki = generate_tls_key()
        is_service, is_person = "/service/" in spiffe_id, spiffe_id.role in ("operator", "auditor")
        certificate = (self.service if is_service else self.client).issue_svid(
            spiffe_id,
            spki,
            not_before_us=self._not_before_us,
            not_after_us=self._people_not_after_us if is_person else self._leaf_not_after_us,
            dns_names=[service_dns_name(spiffe_id.role, self._trust_domain)] if is_service else [],
        )
        return TlsIdentity(certificate, key, open_svid(certificate, self._trust_domain))
