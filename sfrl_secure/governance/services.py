"""Services and auditors: which machines may write statements, and who may ask for their records.

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


@dataclass(frozen=True, slots=True)
class Signatory:
    """A service or auditor and its signing key."""

    spiffe_id: SpiffeId
    key: PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicesDocument(DocumentHeader):
    """All services and auditors of the federation. No SPIFFE ID twice."""

    payload_type: ClassVar[str] = "application/vnd.sfrl.services.v1+json"

    services: tuple[Signatory, ...]
    auditors: tuple[Signatory, ...]

    @property
    def series(self) -> tuple[str, str]:
        """There is one services document."""
        return ("services", "")

    def service_by_key(self, key_id: Digest) -> Signatory | None:
        """The service with this signing key; auditors write no statements."""
        return next((service for service in self.services if service.key.key_id == key_id), None)


def parse_services(raw: bytes) -> ServicesDocument:
    """Parse a services document.

    Raises:
        MalformedError: any other form.
    """
    fields, header = parse_header(raw, "services", ("services", "auditors"))
    services = _parse_signatories(fields, "services", 1, SERVICE_ROLES)
    auditors = _parse_signatories(fields, "auditors", 0, frozenset({"auditor"}))
    return ServicesDocument(**header, services=services, auditors=auditors)


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
