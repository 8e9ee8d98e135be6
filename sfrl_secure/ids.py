"""Names and digests: the small values that everything else is named by.

Each parser wants the exact form and refuses the rest, so that a value of these types is correct from then on.

Format: proto/README.md, "Names".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
import re
from typing import NewType

from sfrl_secure.errors import MalformedError

Digest = NewType("Digest", bytes)
"""SHA-256, 32 bytes. Made by a hash or by `parse_digest`."""

ZERO_DIGEST = Digest(bytes(32))
"""Stands for `no entry before`."""

_SEGMENT = re.compile(r"[a-z0-9-]{1,64}")
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?")
_TRUST_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?")
_SPIFFE_PATH = re.compile(
    r"(participant|operator|auditor)/([^/]+)|service/(gatekeeper|aggregator|audit_log|verifier)/([^/]+)"
)


def sha256(data: bytes | memoryview) -> Digest:
    """Hash `data` with SHA-256."""
    return Digest(hashlib.sha256(data).digest())


def parse_digest(raw: bytes) -> Digest:
    """Take exactly 32 bytes as a digest.

    Raises:
        MalformedError: any other length.
    """
    if len(raw) != 32:
        raise MalformedError("a digest is exactly 32 bytes")
    return Digest(bytes(raw))


def parse_hex_digest(text: str) -> Digest:
    """Take exactly 64 lower-case hexadecimal digits as a digest.

    Raises:
        MalformedError: any other form.
    """
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise MalformedError("a digest in text is exactly 64 lower-case hexadecimal digits")
    return Digest(bytes.fromhex(text))


def parse_segment(text: str) -> str:
    """Take a segment name: `[a-z0-9-]{1,64}`.

    Raises:
        MalformedError: any other form.
    """
    if not _SEGMENT.fullmatch(text):
        raise MalformedError("a segment name is 1 to 64 of a-z, 0-9 and '-'")
    return text


def parse_name(text: str) -> str:
    """Take the name of a participant, operator, auditor or service: 1 to 64 of a-z, 0-9, '.' and '-', no '.' or
    '-' at either end.

    Raises:
        MalformedError: any other form.
    """
    if not _NAME.fullmatch(text):
        raise MalformedError("a name is 1 to 64 of a-z, 0-9, '.' and '-', and starts and ends with a letter or digit")
    return text


def parse_trust_domain(text: str) -> str:
    """Take a SPIFFE trust domain, 1 to 128 characters.

    Raises:
        MalformedError: any other form.
    """
    if not _TRUST_DOMAIN.fullmatch(text) or ".." in text:
        raise MalformedError("a trust domain is 1 to 128 of a-z, 0-9, '.', '-' and '_', and never two dots in a row")
    return text


class SpiffeId(str):
    """A SPIFFE ID of one of our shapes: `spiffe://<trust domain>/{participant,operator,auditor}/<name>` or
    `spiffe://<trust domain>/service/<role>/<name>`.

    Equal to its text. Made only by `parse_spiffe_id`.
    """

    __slots__ = ()

    @property
    def trust_domain(self) -> str:
        """The part after `spiffe://`."""
        return self[len("spiffe://"):].split("/", 1)[0]

    @property
    def role(self) -> str:
        """`participant`, `operator`, `auditor`, or the service's role: `gatekeeper`, `aggregator`, `audit_log`,
        `verifier`."""
        return self.rsplit("/", 2)[1]

    @property
    def name(self) -> str:
        """The last path element."""
        return self.rsplit("/", 1)[1]


def parse_spiffe_id(text: str) -> SpiffeId:
    """Take a SPIFFE ID of one of our shapes, at most 255 characters.

    Raises:
        MalformedError: any other form.
    """
    if len(text) > 255 or not text.startswith("spiffe://") or text.count("/") < 4:
        raise MalformedError("not a SPIFFE ID of this federation's shapes")
    domain, _, path = text[len("spiffe://"):].partition("/")
    parse_trust_domain(domain)
    matched = _SPIFFE_PATH.fullmatch(path)
    if matched is None:
        raise MalformedError("not a SPIFFE ID of this federation's shapes")
    parse_name(matched[2] or matched[4])
    return SpiffeId(text)
