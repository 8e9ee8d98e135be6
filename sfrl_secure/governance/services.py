"""Services and auditors: which machines may write statements, who may ask for their records, and how one may connect.

A service is named with its signing key, so that a stolen certificate authority writes nothing by itself.

Format: proto/README.md, "Documents", services.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.fields import ObjectFields
from sfrl_secure.governance.header import DocumentHeader, parse_header
from sfrl_secure.ids import Digest, SpiffeId, parse_spiffe_id

SIGNATORIES_MAX = 64
SERVICE_ROLES = frozenset({"gatekeeper", "aggregator", "audit_log", "verifier"})
KEY_EXCHANGES = frozenset({"X25519", "X25519MLKEM768"})
"""TLS groups that a federation can admit, by their names in IANA's registry."""


@dataclass(frozen=True, slots=True)
class Signatory:
    """A service or auditor and its signing key."""

    spiffe_id: SpiffeId
    key: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicesDocument(DocumentHeader):
    """All services and auditors of the federation. No SPIFFE ID twice.

    Attributes:
        key_exchange: TLS groups that an interceptor admits, at least one of `KEY_EXCHANGES`.
    """

    payload_type: ClassVar[str] = "application/vnd.sfrl.services.v1+json"

    services: tuple[Signatory, ...]
    auditors: tuple[Signatory, ...]
    key_exchange: frozenset[str]

    @property
    def series(self) -> tuple[str, str]:
        """There is one services document."""
        return ("services", "")

    def service_by_key(self, key_id: Digest) -> Signatory | None:
        """The service with this signing key; auditors write no statements."""
        return next((service for service in self.services if service.key.key_id == key_id), None)

    def auditor_by_key(self, key_id: Digest) -> Signatory | None:
        """The auditor with this signing key."""
        return next((auditor for auditor in self.auditors if auditor.key.key_id == key_id), None)

    def signatory(self, spiffe_id: SpiffeId) -> Signatory | None:
        """The service or auditor of this name."""
        return next((named for named in (*self.services, *self.auditors) if named.spiffe_id == spiffe_id), None)


def parse_services(raw: bytes) -> ServicesDocument:
    """Parse a services document.

    Raises:
        MalformedError: any other form.
    """
    fields, header = parse_header(raw, "services", ("services", "auditors", "key_exchange"))
    services = _parse_signatories(fields, "services", 1, SERVICE_ROLES)
    auditors = _parse_signatories(fields, "auditors", 0, frozenset({"auditor"}))
    key_exchange = fields.sorted_choices("key_exchange", 1, KEY_EXCHANGES)
    return ServicesDocument(**header, services=services, auditors=auditors, key_exchange=key_exchange)


def _parse_signatories(fields: ObjectFields, key: str, least: int, roles: frozenset[str]) -> tuple[Signatory, ...]:
    where = fields.name_of(key)
    found: dict[SpiffeId, Signatory] = {}
    for item in fields.items(key, least, SIGNATORIES_MAX):
        entry = ObjectFields(item, where, ("spiffe_id", "suite", "public_key"))
        spiffe_id = parse_spiffe_id(entry.text("spiffe_id", 255))
        if spiffe_id.role not in roles:
            raise MalformedError(f"{where} has the roles {', '.join(sorted(roles))} only")
        if spiffe_id in found:
            raise MalformedError(f"{where} names no SPIFFE ID twice")
        found[spiffe_id] = Signatory(spiffe_id, entry.public_key())
    return tuple(found.values())
