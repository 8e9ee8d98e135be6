"""Documents, as the replay reads them. Nothing in them is believed: see `authority`.

Format: proto/README.md, "Documents".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sfrl_secure.crypto.envelope import Envelope, parse_envelope_json
from sfrl_secure.crypto.keys import SIGNATURE_BYTES, PublicKey
from sfrl_secure.crypto.strict_json import parse_strict_json
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId, parse_name, parse_spiffe_id, parse_trust_domain, sha256
from sfrl_secure.limits import CLEARANCE_MAX, DOCUMENT_BYTES_MAX, GROUPS_MAX
from sfrl_secure.replay.cedar_text import cut_policies
from sfrl_secure.replay.interventions import (
    JOIN_KEYS,
    KEY_REVOCATION_KEYS,
    ORDER_KEYS,
    Join,
    KeyRevocation,
    Order,
    parse_join,
    parse_key_revocation,
    parse_order,
)
from sfrl_secure.replay.json_fields import (
    INTEGER_MAX,
    take_choice,
    take_digest,
    take_hex,
    take_integer,
    take_list,
    take_mapping,
    take_name,
    take_object,
    take_public_key,
    take_reason,
    take_sorted,
    take_subset,
    take_text,
)
from sfrl_secure.replay.terms import TERMS_KEYS, Terms, parse_terms
from sfrl_secure.translog.note import ED25519, ML_DSA_44_COSIGNATURE, parse_vkey

ROOT_TYPE: Final = "application/vnd.sfrl.root.v1+json"
GENESIS_TYPE: Final = "application/vnd.sfrl.genesis.v1+json"

_COMMON = frozenset({"type", "federation_id", "version", "previous", "expires_us"})
_LOG_HOST = re.compile(r"[a-z0-9.:-]{1,128}")
_SERVICE_ROLES = frozenset({"gatekeeper", "aggregator", "audit_log", "verifier"})
_KEY_EXCHANGE = frozenset({"X25519", "X25519MLKEM768"})
_THRESHOLDS = frozenset({"root", "governance", "enrolment", "revocation"})
_FORMATS = {"entry": 1, "codec": 2, "model": 1, "arithmetic": 1}


@dataclass(frozen=True, slots=True)
class Root:
    """Operators and thresholds."""

    expires_us: int
    trust_domain: str
    log_host: str
    operators: Mapping[str, PublicKey]
    thresholds: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Genesis:
    """Entry 0; `root` is the document inside `root_envelope`, of digest `root_digest`."""

    federation_id: Digest
    origin: str
    root_envelope: Envelope
    root: Root
    root_digest: Digest
    log_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Services:
    """Signing keys of services and auditors by SPIFFE ID."""

    services: Mapping[SpiffeId, PublicKey]
    auditors: Mapping[SpiffeId, PublicKey]


@dataclass(frozen=True, slots=True)
class Rules:
    """Cedar policies as text."""

    cedar: str


@dataclass(frozen=True, slots=True)
class Participant:
    """One participant's record."""

    name: str
    key: PublicKey
    possession: bytes
    clearance: int
    groups: frozenset[str]
    state: str


Content = Root | Genesis | Services | Rules | Terms | Participant | Join | KeyRevocation | Order


@dataclass(frozen=True, slots=True)
class Document:
    """A document with what all of them have.

    Attributes:
        digest: SHA-256 of its bytes.
        federation_id: of root version 1 its own digest.
        series: what its versions have in common: type, and segment, name or public key where there is one.
        version, previous, expires_us: of genesis 1, zeros and never.
    """

    digest: Digest
    federation_id: Digest
    series: tuple[str, str]
    version: int
    previous: Digest
    expires_us: int
    content: Content


def parse_document(payload_type: str, raw: bytes) -> Document:
    """Read a document of this payload type.

    Raises:
        MalformedError: no type of a document, a key missing or unknown, or a value out of its range.
    """
    kind = _KINDS.get(payload_type)
    if kind is None:
        raise MalformedError("the payload type is a document's")
    fields = parse_strict_json(raw, bytes_max=DOCUMENT_BYTES_MAX)
    is_first_root = kind.name == "root" and fields.get("version") == 1
    take_object(fields, kind.keys - {"federation_id"} if is_first_root else kind.keys)
    if fields["type"] != kind.name:
        raise MalformedError("the type is the payload type's")
    content = kind.parse(fields)
    digest = sha256(raw)
    if isinstance(content, Genesis):
        return Document(digest, content.federation_id, ("genesis", ""), 1, ZERO_DIGEST, INTEGER_MAX, content)
    return Document(
        digest=digest,
        federation_id=digest if is_first_root else take_digest(fields["federation_id"]),
        series=(kind.name, _subject(content)),
        version=take_integer(fields["version"], 1, INTEGER_MAX),
        previous=take_digest(fields["previous"]),
        expires_us=take_integer(fields["expires_us"], 1, INTEGER_MAX),
        content=content,
    )


def _subject(content: Content) -> str:
    match content:
        case Terms(segment=subject) | Order(segment=subject) | Participant(name=subject) | Join(name=subject):
            return subject
        case KeyRevocation(spki_sha256=key):
            return key.hex()
        case _:
            return ""


def _root(fields: dict[str, Any]) -> Root:
    if take_integer(fields["version"], 1, INTEGER_MAX) == 1 and take_digest(fields["previous"]) != ZERO_DIGEST:
        raise MalformedError("no root is before version 1")
    log_host = take_text(fields["log_host"], 128)
    if not _LOG_HOST.fullmatch(log_host):
        raise MalformedError("a log host is 1 to 128 of a-z, 0-9, '.', ':' and '-'")
    operators = {
        parse_name(name): take_public_key(take_object(value, {"suite", "public_key"}))
        for name, value in take_mapping(fields["operators"], 1, 64).items()
    }
    thresholds = take_object(fields["thresholds"], _THRESHOLDS)
    return Root(
        expires_us=take_integer(fields["expires_us"], 1, INTEGER_MAX),
        trust_domain=parse_trust_domain(take_text(fields["trust_domain"], 128)),
        log_host=log_host,
        operators=operators,
        thresholds={name: take_integer(thresholds[name], 1, len(operators)) for name in _THRESHOLDS},
    )


def _genesis(fields: dict[str, Any]) -> Genesis:
    formats = take_object(fields["formats"], _FORMATS.keys())
    for name, version in _FORMATS.items():
        take_integer(formats[name], version, version)
    origin = take_text(fields["origin"], 255)
    envelope = parse_envelope_json(_base64(take_text(fields["root"], DOCUMENT_BYTES_MAX)))
    if envelope.payload_type != ROOT_TYPE:
        raise MalformedError("genesis carries the envelope of root")
    log_keys = tuple(take_text(item, 2048) for item in take_list(fields["log_keys"], 2, 2))
    for vkey, key_type in zip(log_keys, (ED25519, ML_DSA_44_COSIGNATURE), strict=True):
        key = parse_vkey(vkey)
        if key.name != origin or key.key_type != key_type:
            raise MalformedError("the log's keys are Ed25519, then ML-DSA-44, under the origin")
    document = parse_document(ROOT_TYPE, envelope.statement)
    assert isinstance(document.content, Root), "the payload type says so"
    if document.version != 1:
        raise MalformedError("genesis carries version 1 of root")
    return Genesis(take_digest(fields["federation_id"]), origin, envelope, document.content, document.digest, log_keys)


def _services(fields: dict[str, Any]) -> Services:
    take_subset(fields["key_exchange"], 1, _KEY_EXCHANGE)
    return Services(
        _signatories(fields["services"], 1, _SERVICE_ROLES), _signatories(fields["auditors"], 0, frozenset({"auditor"}))
    )


def _signatories(value: Any, least: int, roles: frozenset[str]) -> dict[SpiffeId, PublicKey]:
    found: dict[SpiffeId, PublicKey] = {}
    for item in take_list(value, least, 64):
        fields = take_object(item, {"spiffe_id", "suite", "public_key"})
        spiffe_id = parse_spiffe_id(take_text(fields["spiffe_id"], 255))
        if spiffe_id.role not in roles or spiffe_id in found:
            raise MalformedError("SPIFFE IDs have the list's roles, and none stands twice")
        found[spiffe_id] = take_public_key(fields)
    return found


def _rules(fields: dict[str, Any]) -> Rules:
    cedar = take_text(fields["cedar"], DOCUMENT_BYTES_MAX)
    cut_policies(cedar)
    return Rules(cedar)


def _participant(fields: dict[str, Any]) -> Participant:
    key = take_public_key(fields)
    take_reason(fields["reason"])
    return Participant(
        name=take_name(fields["name"]),
        key=key,
        possession=take_hex(fields["possession"], sum(SIGNATURE_BYTES[key.suite])),
        clearance=take_integer(fields["clearance"], 0, CLEARANCE_MAX),
        groups=frozenset(take_sorted(fields["groups"], 0, GROUPS_MAX, take_name)),
        state=take_choice(fields["state"], frozenset({"active", "suspended", "revoked"})),
    )


def _base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        raise MalformedError("standard base64") from None
    if base64.b64encode(raw).decode("ascii") != text:
        raise MalformedError("standard base64, with its padding and no stray bits")
    return raw


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    keys: frozenset[str]
    parse: Callable[[dict[str, Any]], Content]


_KINDS: dict[str, _Kind] = {
    ROOT_TYPE: _Kind(
        "root", _COMMON | {"trust_domain", "log_host", "operators", "thresholds"}, _root
    ),
    GENESIS_TYPE: _Kind(
        "genesis", frozenset({"type", "federation_id", "origin", "root", "log_keys", "formats"}), _genesis
    ),
    "application/vnd.sfrl.services.v1+json": _Kind(
        "services", _COMMON | {"services", "auditors", "key_exchange"}, _services
    ),
    "application/vnd.sfrl.rules.v1+json": _Kind("rules", _COMMON | {"cedar"}, _rules),
    "application/vnd.sfrl.segment-terms.v1+json": _Kind("segment-terms", _COMMON | TERMS_KEYS, parse_terms),
    "application/vnd.sfrl.participant.v1+json": _Kind(
        "participant",
        _COMMON | {"name", "suite", "public_key", "possession", "clearance", "groups", "state", "reason"},
        _participant,
    ),
    "application/vnd.sfrl.join.v1+json": _Kind("join", _COMMON | JOIN_KEYS, parse_join),
    "application/vnd.sfrl.key-revocation.v1+json": _Kind(
        "key-revocation", _COMMON | KEY_REVOCATION_KEYS, parse_key_revocation
    ),
    "application/vnd.sfrl.order.v1+json": _Kind("order", _COMMON | ORDER_KEYS, parse_order),
}
