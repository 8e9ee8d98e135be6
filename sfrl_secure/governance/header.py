"""What every governance document begins with: its bytes, its digest, and its place in its series.

A document is named by the digest of exactly the bytes that were signed; nothing is ever serialised again to be
verified. A series is the versions of one document: its type and, where there is one, the segment or name that it is
about.

Format: proto/README.md, "Documents".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import ClassVar, TypedDict

from sfrl_secure.crypto.strict_json import parse_strict_json
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.fields import INTEGER_MAX, ObjectFields
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import DOCUMENT_BYTES_MAX

COMMON_KEYS = frozenset({"type", "federation_id", "version", "previous", "expires_us"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentHeader:
    """Common part of all documents.

    Attributes:
        raw: the exact bytes that operators sign.
        digest: SHA-256 of `raw`.
        version: 1 to 2**63 - 1.
        previous: digest of the version before; zeros for version 1.
        expires_us: log time from which on the document forbids, 1 to 2**63 - 1.
    """

    payload_type: ClassVar[str]

    raw: bytes = field(repr=False)
    digest: Digest
    federation_id: Digest
    version: int
    previous: Digest
    expires_us: int


class HeaderFields(TypedDict):
    """Arguments of `DocumentHeader`."""

    raw: bytes
    digest: Digest
    federation_id: Digest
    version: int
    previous: Digest
    expires_us: int


def parse_object(raw: bytes, kind: str, keys: Collection[str]) -> ObjectFields:
    """Parse a document's bytes as strict JSON with exactly `keys` and the type `kind`.

    Raises:
        MalformedError: any other form.
    """
    return take_document(parse_strict_json(raw, bytes_max=DOCUMENT_BYTES_MAX), kind, keys)


def take_document(members: dict[str, object], kind: str, keys: Collection[str]) -> ObjectFields:
    """Take the members of a document with exactly `keys` and the type `kind`.

    Raises:
        MalformedError: any other form.
    """
    fields = ObjectFields(members, kind, keys)
    if fields["type"] != kind:
        raise MalformedError(f"the document's type is {kind}")
    return fields


def parse_header(raw: bytes, kind: str, keys: Collection[str]) -> tuple[ObjectFields, HeaderFields]:
    """Parse a document that has the common keys and exactly `keys` besides.

    Raises:
        MalformedError: any other form.
    """
    fields = parse_object(raw, kind, COMMON_KEYS | set(keys))
    return fields, HeaderFields(
        raw=raw,
        digest=sha256(raw),
        federation_id=fields.digest("federation_id"),
        version=fields.integer("version", 1, INTEGER_MAX),
        previous=fields.digest("previous"),
        expires_us=fields.integer("expires_us", 1, INTEGER_MAX),
    )
