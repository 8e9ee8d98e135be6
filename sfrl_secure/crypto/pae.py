"""DSSE's pre-authentication encoding: the exact bytes that a signature covers.

Format: DSSE 1.0.2, protocol; proto/README.md, "Signatures".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from sfrl_secure.ids import Digest, sha256


def pae(payload_type: str, body: bytes) -> bytes:
    """Bind type and body: `DSSEv1 LEN(type) type LEN(body) body`."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(body), body)


def statement_digest(payload_type: str, statement: bytes) -> Digest:
    """SHA-256 of the PAE: identity and idempotency key of what is signed."""
    return sha256(pae(payload_type, statement))
