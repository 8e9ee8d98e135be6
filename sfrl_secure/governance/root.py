"""Root and genesis: who governs, and entry 0 of the log.

The federation id is the digest of the root document, so a federation cannot get other first operators without getting
another name. The first root stands inside genesis, in the envelope that its operators signed; each later one is an
entry, signed for the root before and for itself.

Format: proto/README.md, "Documents", root and genesis.

Runs in: everything.
Trusts: nothing. `governance.authority` ties a genesis to a trust policy, and a root to the one before.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from sfrl_secure.crypto.envelope import Envelope, parse_envelope_json
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.crypto.strict_json import parse_strict_json
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.fields import INTEGER_MAX, ObjectFields
from sfrl_secure.governance.header import COMMON_KEYS, DocumentHeader, parse_object, take_document
from sfrl_secure.ids import ZERO_DIGEST, parse_name, parse_trust_domain, sha256
from sfrl_secure.limits import DOCUMENT_BYTES_MAX
from sfrl_secure.translog.note import ED25519, ML_DSA_44_COSIGNATURE, parse_vkey

OPERATORS_MAX = 64
FORMATS = {"entry": 1, "codec": 2, "model": 1, "arithmetic": 1}
"""Versions of the formats that this federation's log is written in."""

_LOG_HOST = re.compile(r"[a-z0-9.:-]{1,128}")
_VKEY_CHARACTERS_MAX = 2_048
_ROLES = ("root", "governance", "enrolment", "revocation")
_KEYS = COMMON_KEYS | {"trust_domain", "log_host", "operators", "thresholds"}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """How many operators must sign, by what they sign; each from 1 to the number of operators."""

    root: int
    governance: int
    enrolment: int
    revocation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RootDocument(DocumentHeader):
    """The federation's operators, and how many of them it takes.

    Attributes:
        federation_id: of version 1, its own digest.
        operators: public key by operator's name, 1 to 64.
    """

    payload_type: ClassVar[str] = "application/vnd.sfrl.root.v1+json"

    trust_domain: str
    log_host: str
    operators: Mapping[str, PublicKey] = field(hash=False)
    thresholds: Thresholds

    @property
    def series(self) -> tuple[str, str]:
        """There is one root."""
        return ("root", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisDocument(DocumentHeader):
    """Entry 0: the root that governs and the keys that the log signs with.

    It has one version, no document before it, and does not expire.

    Attributes:
        origin: the log's.
        root_envelope: the root document as its operators signed it; `root` is that document.
        log_keys: vkeys of the origin, Ed25519 and ML-DSA-44.
    """

    payload_type: ClassVar[str] = "application/vnd.sfrl.genesis.v1+json"

    origin: str
    root_envelope: Envelope
    root: RootDocument
    log_keys: tuple[str, str]

    @property
    def series(self) -> tuple[str, str]:
        """There is one genesis."""
        return ("genesis", "")


def parse_root(raw: bytes) -> RootDocument:
    """Parse a root document.

    Raises:
        MalformedError: any other form.
    """
    members = parse_strict_json(raw, bytes_max=DOCUMENT_BYTES_MAX)
    is_first = members.get("version") == 1
    fields = take_document(members, "root", _KEYS - {"federation_id"} if is_first else _KEYS)
    previous = fields.digest("previous")
    if is_first and previous != ZERO_DIGEST:
        raise MalformedError("there is no root before version 1")
    log_host = fields.text("log_host", 128)
    if not _LOG_HOST.fullmatch(log_host):
        raise MalformedError("root.log_host is 1 to 128 of a-z, 0-9, '.', ':' and '-'")
    operators = {
        parse_name(name): ObjectFields(value, "root.operators", ("suite", "public_key")).public_key()
        for name, value in fields.mapping("operators", 1, OPERATORS_MAX).items()
    }
    counts = ObjectFields(fields["thresholds"], "root.thresholds", _ROLES)
    digest = sha256(raw)
    return RootDocument(
        raw=raw,
        digest=digest,
        # The first root is what the federation id is the digest of, so it cannot name it.
        federation_id=digest if is_first else fields.digest("federation_id"),
        version=fields.integer("version", 1, INTEGER_MAX),
        previous=previous,
        expires_us=fields.integer("expires_us", 1, INTEGER_MAX),
        trust_domain=parse_trust_domain(fields.text("trust_domain", 128)),
        log_host=log_host,
        operators=MappingProxyType(operators),
        thresholds=Thresholds(*(counts.integer(role, 1, len(operators)) for role in _ROLES)),
    )


def parse_genesis(raw: bytes) -> GenesisDocument:
    """Parse a genesis document and the root inside it. No signature is looked at.

    Raises:
        MalformedError: any other form, of either.
    """
    fields = parse_object(raw, "genesis", ("type", "federation_id", "origin", "root", "log_keys", "formats"))
    formats = ObjectFields(fields["formats"], "genesis.formats", FORMATS)
    for name, version in FORMATS.items():
        formats.integer(name, version, version)
    origin = fields.text("origin", 255)
    root_envelope = parse_envelope_json(_parse_base64(fields.text("root", DOCUMENT_BYTES_MAX)))
    if root_envelope.payload_type != RootDocument.payload_type:
        raise MalformedError("genesis.root holds the envelope of a root document")
    root = parse_root(root_envelope.statement)
    if root.version != 1:
        raise MalformedError("genesis.root is version 1 of the root document")
    return GenesisDocument(
        raw=raw,
        digest=sha256(raw),
        federation_id=fields.digest("federation_id"),
        version=1,
        previous=ZERO_DIGEST,
        expires_us=INTEGER_MAX,
        origin=origin,
        root_envelope=root_envelope,
        root=root,
        log_keys=_parse_log_keys(fields, origin),
    )


def _parse_log_keys(fields: ObjectFields, origin: str) -> tuple[str, str]:
    vkeys = fields.texts("log_keys", 2, 2, str, length_max=_VKEY_CHARACTERS_MAX)
    for vkey, key_type in zip(vkeys, (ED25519, ML_DSA_44_COSIGNATURE), strict=True):
        key = parse_vkey(vkey)
        if key.name != origin or key.key_type != key_type:
            raise MalformedError("genesis.log_keys are the origin's keys, Ed25519 first and ML-DSA-44 second")
    return (vkeys[0], vkeys[1])


def _parse_base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise MalformedError("genesis.root is standard base64") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise MalformedError("genesis.root is standard base64 without stray bits")
    return raw
