"""Issuing TLS identities: the log records it, then the certificate is built from what the log records.

Whether somebody may have an identity is decided by the fold's own rule, on the newest state: a gatekeeper that issued
anything else would write a void entry, and a certificate without an effective entry opens no door. A repeated call
for the same key, by a newer request, gets a new certificate for it; the newest entry is the one that counts. A request
has effect once: what the log shows of it is of no use to whoever has a gatekeeper's signing key.

Format: proto/README.md, "Enrolment"; certs/README.md.

Runs in: gatekeeper.
Trusts: the CAs' keys, from its configuration, and the view. Nothing in a request.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from weakref import WeakValueDictionary

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.svid import open_svid
from sfrl_secure.crypto.x509 import SKEW_US, CertificateAuthority
from sfrl_secure.errors import DeniedError, ExhaustedError, MalformedError
from sfrl_secure.governance.statements import IdentityRequest
from sfrl_secure.ids import Digest, SpiffeId, sha256
from sfrl_secure.rounds.identities import check_identity
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.channel import service_dns_name
from sfrl_secure.rpc.identity import SERVICE_ROLES
from sfrl_secure.rpc.identity_requests import issued_body
from sfrl_secure.services.config import CERTIFICATES_BYTES_MAX, GatekeeperConfig
from sfrl_secure.services.writer import Proposal, StatementWriter
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.wire.audit_service import AppendedEntry

LOCK_SECONDS = 20.0
"""How long a call waits for another one of the same name."""

_PEOPLE = frozenset({"operator", "auditor"})

_END = b"-----END CERTIFICATE-----\n"

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Authorities:
    """The CAs whose keys this gatekeeper holds, and how long their leaves live.

    Attributes:
        client: for participants, operators and auditors; None where another gatekeeper issues them. `service` likewise.
    """

    client: CertificateAuthority | None
    service: CertificateAuthority | None
    lifetime_us: int
    people_lifetime_us: int

    def of(self, spiffe_id: SpiffeId) -> CertificateAuthority:
        """The CA for a name.

        Raises:
            DeniedError: `not_issuing`.
        """
        authority = self.service if spiffe_id.role in SERVICE_ROLES else self.client
        if authority is None:
            raise DeniedError("not_issuing", "this gatekeeper issues no identity of this kind: ask another")
        return authority

    def not_after_us(self, spiffe_id: SpiffeId, now_us: int) -> int:
        """When a leaf that is made now ends: people's later, never after its CA.

        Raises:
            DeniedError: `not_issuing`.
        """
        lifetime_us = self.people_lifetime_us if spiffe_id.role in _PEOPLE else self.lifetime_us
        return min(now_us + lifetime_us, self.of(spiffe_id).not_after_us)


def open_authorities(config: GatekeeperConfig) -> Authorities:
    """Read the CAs of a configuration; none where it issues nothing.

    Raises:
        NotFoundError, DeniedError, MalformedError: no file, a key that others can read, or not a CA of the profile.
    """
    issuing = config.issuing
    if issuing is None:
        return Authorities(None, None, 0, 0)
    found = [
        None if key is None else CertificateAuthority.from_pem(_first_of(path), read_secret(key))
        for path, key in (
            (config.tls.client_ca, issuing.client_ca_key),
            (config.tls.service_ca, issuing.service_ca_key),
        )
    ]
    return Authorities(
        found[0], found[1], issuing.lifetime_seconds * 1_000_000, issuing.people_lifetime_seconds * 1_000_000
    )


@dataclass(frozen=True, slots=True)
class Issued:
    """An identity: its entry under the log's checkpoint, and the certificate in PEM."""

    acknowledged: AppendedEntry
    certificate: bytes


class IdentityIssuer:
    """Issues identities. Safe for several threads; those of one name come one after another."""

    def __init__(self, writer: StatementWriter, authorities: Authorities, clock: Clock) -> None:
        self._writer, self._authorities, self._clock = writer, authorities, clock
        self._lock = Lock()
        self._locks: WeakValueDictionary[SpiffeId, _NameLock] = WeakValueDictionary()

    def check_issues(self, spiffe_id: SpiffeId) -> None:
        """Check that it has the key of the CA for a name.

        Raises:
            DeniedError: `not_issuing`.
        """
        self._authorities.of(spiffe_id)

    def issue(
        self,
        request: Envelope,
        identity: IdentityRequest,
        spki: bytes,
        renews: Digest | None,
        *,
        still_wanted: Callable[[], bool] = lambda: True,
        check: Callable[[FederationState, int], None] = lambda state, now_us: None,
    ) -> Issued:
        """Record an identity for a public key whose holder was shown to hold it, and make its certificate.

        Args:
            spki: DER SubjectPublicKeyInfo, from a verified PKCS #10 request.
            renews: SHA-256 of the public key over whose connection it was asked for; None for a first identity.
            still_wanted: whether the caller waits for it yet; asked once it is the caller's turn.
            check: what must hold beside the fold's own rule, on the state and at the time for which the entry is
                signed; raises DeniedError.

        Raises:
            DeniedError: with a reason of proto/README.md, "Enrolment"; `not_renewed` where only the one with the
                identity in force could ask; what `check` raises.
            ConflictError, ExhaustedError, UnavailableError: nothing was issued; try again.
        """
        authority = self._authorities.of(identity.spiffe_id)
        if sha256(spki) != identity.spki_sha256:
            raise DeniedError("wrong_peer", "the request names another public key than the one that asks")
        with self._one_of(identity.spiffe_id):
            # An answer that nobody reads would make the key's newest entry another than the one its holder knows.
            if not still_wanted():
                raise ExhaustedError("the caller has gone")
            return self._issue(authority, request, identity, spki, renews, check)

    def _issue(
        self,
        authority: CertificateAuthority,
        request: Envelope,
        identity: IdentityRequest,
        spki: bytes,
        renews: Digest | None,
        check: Callable[[FederationState, int], None],
    ) -> Issued:
        spiffe_id = identity.spiffe_id
        now_us = self._clock.now_us()
        is_service = spiffe_id.role in SERVICE_ROLES
        try:
            certificate = authority.issue_svid(
                spiffe_id,
                spki,
                not_before_us=now_us - SKEW_US,
                not_after_us=self._authorities.not_after_us(spiffe_id, now_us),
                dns_names=[service_dns_name(spiffe_id.role, spiffe_id.trust_domain)] if is_service else [],
            )
        except MalformedError:
            # The key was looked at with the request: what is left is a CA at the end of its own life.
            raise DeniedError("not_issuing", "this gatekeeper's CA makes no certificate any more") from None
        body = issued_body(spiffe_id, open_svid(certificate, spiffe_id.trust_domain), request, identity, renews)

        def decide(state: FederationState, now_us: int) -> Proposal:
            check(state, now_us)
            check_identity(state, body, now_us)
            return Proposal("identity", body)

        acknowledged = self._writer.write(decide)
        _log.info("identity_issued", peer=str(spiffe_id), index=acknowledged.logged.index)
        return Issued(acknowledged, certificate)

    def _one_of(self, spiffe_id: SpiffeId) -> AbstractContextManager[object]:
        with self._lock:
            found = self._locks.get(spiffe_id)
            if found is None:
                found = self._locks[spiffe_id] = _NameLock()
        return found


class _NameLock:
    """A lock that is forgotten when nobody has it or waits for it."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = Lock()

    def __enter__(self) -> _NameLock:
        if not self._lock.acquire(timeout=LOCK_SECONDS):
            raise ExhaustedError("another call of this name is being served: try again")
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _first_of(path: Path) -> bytes:
    """The first certificate of a PEM file: the CA that issues; others in it are trusted and issue nothing here."""
    first, separator, _ = read_bounded(path, CERTIFICATES_BYTES_MAX).partition(_END)
    return first + separator
