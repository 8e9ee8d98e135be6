"""Key revocations: a TLS public key that opens nothing any more, for ever.

It takes back one connection key, and nobody's name: a participant whose signing key is lost is revoked by its record.

Format: proto/README.md, "Documents", key-revocation.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.header import DocumentHeader, parse_header
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId, parse_spiffe_id


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRevocation(DocumentHeader):
    """One TLS key, revoked. It has one version.

    Attributes:
        spiffe_id: whose key it is thought to be; for people.
        spki_sha256: SHA-256 of the DER SubjectPublicKeyInfo.
        reason: for people; 0 to 200 printable ASCII characters.
    """

    payload_type: ClassVar[str] = "application/vnd.sfrl.key-revocation.v1+json"

    spiffe_id: SpiffeId
    spki_sha256: Digest
    reason: str

    @property
    def series(self) -> tuple[str, str]:
        """One series a key, which ends with its first version."""
        return ("key-revocation", self.spki_sha256.hex())


def parse_key_revocation(raw: bytes) -> KeyRevocation:
    """Parse a key revocation.

    Raises:
        MalformedError: any other form.
    """
    fields, header = parse_header(raw, "key-revocation", ("spiffe_id", "spki_sha256", "reason"))
    if header["version"] != 1 or header["previous"] != ZERO_DIGEST:
        raise MalformedError("a key is revoked once: version is 1, and there is none before")
    return KeyRevocation(
        **header,
        spiffe_id=parse_spiffe_id(fields.text("spiffe_id", 255)),
        spki_sha256=fields.digest("spki_sha256"),
        reason=fields.reason("reason"),
    )
