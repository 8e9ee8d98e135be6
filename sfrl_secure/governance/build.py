"""Building documents: readable bytes for operators to sign.

The same arguments give the same bytes: keys in the order of proto/README.md, sets sorted, one space of indent. What
is built is parsed back before it is given out, so that nobody signs a document that could have no effect for its
form.

Format: proto/README.md, "Documents".

Runs in: the operators' command line.
Trusts: its caller.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, astuple

from sfrl_secure.crypto.envelope import SIGNATURES_MAX, Envelope, envelope_to_json
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import CapTerms, ClipTerms, MaskTerms, RuleTerms, ServerTerms
from sfrl_secure.governance.documents import parse_document
from sfrl_secure.governance.joins import JoinDocument
from sfrl_secure.governance.key_revocations import KeyRevocation
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.governance.orders import (
    AcceptTarget,
    ExcludeTarget,
    NoTarget,
    Order,
    OrderAction,
    OrderTarget,
    OverrideTarget,
    ReaggregateTarget,
    RollbackTarget,
)
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.participants import ParticipantRecord
from sfrl_secure.governance.policy import check_rules, default_rules
from sfrl_secure.governance.root import FORMATS, GenesisDocument, RootDocument, Thresholds, parse_root
from sfrl_secure.governance.rule_review import review_rules
from sfrl_secure.governance.rules import RulesDocument
from sfrl_secure.governance.services import KEY_EXCHANGES, ServicesDocument, Signatory
from sfrl_secure.governance.terms import (
    LeakageBound,
    LeakageTerms,
    ModelTerms,
    QuotaTerms,
    RoundTerms,
    SegmentTerms,
    UpdateLimits,
)
from sfrl_secure.ids import ZERO_DIGEST, Digest, SpiffeId
from sfrl_secure.limits import QUOTA_BYTES_MAX, QUOTA_UPDATES_MAX

DEFAULT_RULES = default_rules()
"""Cedar text to begin a federation with (`default_rules.cedar`)."""

DEFAULT_QUOTA = QuotaTerms(window_us=86_400_000_000, updates_max=QUOTA_UPDATES_MAX, bytes_max=QUOTA_BYTES_MAX)
"""No bound that a participant meets in a day."""

DEFAULT_LEAKAGE = LeakageTerms(nonzeros_min=1, weight_min=1, noise_std_min=0, rows=(), labels=())
"""Refuses nothing that the limits allow."""

DEFAULT_RULE = RuleTerms()
"""The weighted mean."""

_NO_TARGET = NoTarget()


def build_root(
    *,
    federation_id: Digest | None = None,
    version: int = 1,
    previous: Digest = ZERO_DIGEST,
    expires_us: int,
    trust_domain: str,
    log_host: str,
    operators: Mapping[str, PublicKey],
    thresholds: Thresholds,
) -> bytes:
    """Build a root document; the digest of version 1 is the federation id.

    Args:
        federation_id: None for version 1, which cannot name its own digest, and for no other.

    Raises:
        MalformedError: an argument is out of its range, or a threshold takes more signatures than an envelope holds.
    """
    if (federation_id is None) != (version == 1):
        raise MalformedError("a root names the federation id from version 2 on")
    named = {} if federation_id is None else {"federation_id": federation_id.hex()}
    if max(astuple(thresholds)) > SIGNATURES_MAX:
        raise MalformedError(f"an envelope holds {SIGNATURES_MAX} signatures, so no threshold is higher")
    return _build(RootDocument.payload_type, {
        "type": "root",
        **named,
        "version": version,
        "previous": previous.hex(),
        "expires_us": expires_us,
        "trust_domain": trust_domain,
        "log_host": log_host,
        "operators": {name: _key(key) for name, key in sorted(operators.items())},
        "thresholds": asdict(thresholds),
    })  # fmt: skip


def build_genesis(*, root_envelope: Envelope, log_keys: tuple[str, str]) -> bytes:
    """Build the genesis of the federation whose signed root is `root_envelope`.

    Args:
        log_keys: vkeys of the origin, Ed25519 and ML-DSA-44.

    Raises:
        MalformedError: the envelope holds no root, or the keys are not of its origin.
    """
    root = parse_root(root_envelope.statement)
    return _build(GenesisDocument.payload_type, {
        "type": "genesis",
        "federation_id": root.digest.hex(),
        "origin": origin_of(root.log_host, root.digest),
        "root": base64.b64encode(envelope_to_json(root_envelope)).decode("ascii"),
        "log_keys": list(log_keys),
        "formats": FORMATS,
    })  # fmt: skip


def build_services(
    *,
    federation_id: Digest,
    version: int = 1,
    previous: Digest = ZERO_DIGEST,
    expires_us: int,
    services: Sequence[Signatory],
    auditors: Sequence[Signatory] = (),
    key_exchange: Collection[str] = KEY_EXCHANGES,
) -> bytes:
    """Build a services document.

    Args:
        key_exchange: TLS groups that interceptors admit.

    Raises:
        MalformedError: an argument is out of its range.
    """
    return _build(ServicesDocument.payload_type, {
        **_header("services", federation_id, version, previous, expires_us),
        "services": [_signatory(service) for service in services],
        "auditors": [_signatory(auditor) for auditor in auditors],
        "key_exchange": sorted(key_exchange),
    })  # fmt: skip


def build_rules(
    *,
    federation_id: Digest,
    version: int = 1,
    previous: Digest = ZERO_DIGEST,
    expires_us: int,
    cedar: str = DEFAULT_RULES,
    review: bool = True,
) -> bytes:
    """Build a rules document.

    Args:
        review: whether rules are refused that are valid and cannot be meant (`rule_review`).

    Raises:
        MalformedError: an argument is out of its range, or the rules do not hold; the message names the line.
    """
    if review:
        review_rules(cedar)
    else:
        check_rules(cedar)
    return _build(RulesDocument.payload_type, {
        **_header("rules", federation_id, version, previous, expires_us),
        "cedar": cedar,
    })  # fmt: skip


def build_terms(
    *,
    federation_id: Digest,
    version: int = 1,
    previous: Digest = ZERO_DIGEST,
    expires_us: int,
    segment: str,
    sensitivity: int,
    groups: Collection[str],
    operations: Collection[str] = ("fetch", "submit"),
    model: ModelTerms,
    tensors: Sequence[str] | None = None,
    value_types: Collection[str] = ("fp32", "int8"),
    support_modes: Collection[str] = ("free",),
    mask: MaskTerms | None = None,
    relay_groups: Collection[str] = (),
    suites: Collection[str] = ("ed25519", "ed25519+ml-dsa-44"),
    limits: UpdateLimits,
    quota: QuotaTerms = DEFAULT_QUOTA,
    leakage: LeakageTerms = DEFAULT_LEAKAGE,
    round_terms: RoundTerms,
    rule: RuleTerms = DEFAULT_RULE,
    clip: ClipTerms | None = None,
    cap: CapTerms | None = None,
    server: ServerTerms | None = None,
    privacy: str = "open",
    evidence_days: int,
    retention_days: int,
) -> bytes:
    """Build segment terms.

    Args:
        tensors: names of the tensors that updates may touch; all of the manifest's where it is None.

    Raises:
        MalformedError: an argument is out of its range.
    """
    names = [tensor.name for tensor in model.manifest.tensors] if tensors is None else list(tensors)
    return _build(SegmentTerms.payload_type, {
        **_header("segment-terms", federation_id, version, previous, expires_us),
        "segment": segment,
        "sensitivity": sensitivity,
        "groups": sorted(groups),
        "operations": sorted(operations),
        "model": {
            "manifest": _manifest(model.manifest),
            "grid_exponent": model.grid_exponent,
            "initial": model.initial.hex(),
        },
        "tensors": names,
        "value_types": sorted(value_types),
        "support_modes": sorted(support_modes),
        "mask": None if mask is None else _mask(mask),
        "relay_groups": sorted(relay_groups),
        "suites": sorted(suites),
        "limits": asdict(limits),
        "quota": asdict(quota),
        "leakage": asdict(leakage) | {"rows": _bounds(leakage.rows), "labels": _bounds(leakage.labels)},
        "round": asdict(round_terms),
        "rule": rule.members(),
        "clip": None if clip is None else clip.members(),
        "cap": None if cap is None else asdict(cap),
        "server": None if server is None else asdict(server),
        "privacy": privacy,
        "evidence_days": evidence_days,
        "retention_days": retention_days,
    })  # fmt: skip


def build_participant(
    *,
    federation_id: Digest,
    version: int = 1,
    previous: Digest = ZERO_DIGEST,
    expires_us: int,
    name: str,
    key: PublicKey,
    possession: bytes,
    clearance: int,
    groups: Collection[str],
    state: str = "active",
    reason: str = "",
) -> bytes:
    """Build a participant record.

    Args:
        possession: the participant's own signature (`crypto.possession`); operators cannot make it.

    Raises:
        MalformedError: an argument is out of its range.
    """
    return _build(ParticipantRecord.payload_type, {
        **_header("participant", federation_id, version, previous, expires_us),
        "name": name,
        **_key(key),
        "possession": possession.hex(),
        "clearance": clearance,
        "groups": sorted(groups),
        "state": state,
        "reason": reason,
    })  # fmt: skip


def build_join(
    *,
    federation_id: Digest,
    version: int = 1,
    previous: Digest = ZERO_DIGEST,
    expires_us: int,
    name: str,
    join_key: PublicKey,
    clearance: int,
    groups: Collection[str],
    record_expires_us: int,
) -> bytes:
    """Build a join document.

    Raises:
        MalformedError: an argument is out of its range, or the join key is not Ed25519.
    """
    return _build(JoinDocument.payload_type, {
        **_header("join", federation_id, version, previous, expires_us),
        "name": name,
        "join_key": join_key.raw.hex(),
        "clearance": clearance,
        "groups": sorted(groups),
        "record_expires_us": record_expires_us,
    })  # fmt: skip


def build_key_revocation(
    *, federation_id: Digest, expires_us: int, spiffe_id: SpiffeId, spki_sha256: Digest, reason: str = ""
) -> bytes:
    """Build a key revocation.

    Raises:
        MalformedError: an argument is out of its range.
    """
    return _build(KeyRevocation.payload_type, {
        **_header("key-revocation", federation_id, 1, ZERO_DIGEST, expires_us),
        "spiffe_id": spiffe_id,
        "spki_sha256": spki_sha256.hex(),
        "reason": reason,
    })  # fmt: skip


def build_order(
    *,
    federation_id: Digest,
    version: int = 1,
    previous: Digest = ZERO_DIGEST,
    expires_us: int,
    segment: str,
    action: OrderAction,
    target: OrderTarget = _NO_TARGET,
    reason: str = "",
) -> bytes:
    """Build an order.

    Args:
        target: of the action's type; none for halt and resume.

    Raises:
        MalformedError: an argument is out of its range, or the target is another action's.
    """
    return _build(Order.payload_type, {
        **_header("order", federation_id, version, previous, expires_us),
        "segment": segment,
        "action": action,
        "target": _target(target),
        "reason": reason,
    })  # fmt: skip


def _build(payload_type: str, members: Mapping[str, object]) -> bytes:
    try:
        raw = json.dumps(members, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError):
        raise MalformedError("an argument has no form in JSON") from None
    parse_document(payload_type, raw)
    return raw


def _header(kind: str, federation_id: Digest, version: int, previous: Digest, expires_us: int) -> dict[str, object]:
    return {
        "type": kind,
        "federation_id": federation_id.hex(),
        "version": version,
        "previous": previous.hex(),
        "expires_us": expires_us,
    }


def _key(key: PublicKey) -> dict[str, str]:
    return {"suite": key.suite, "public_key": key.raw.hex()}


def _signatory(signatory: Signatory) -> dict[str, str]:
    return {"spiffe_id": signatory.spiffe_id, **_key(signatory.key)}


def _manifest(manifest: ModelManifest) -> dict[str, object]:
    return {
        "tensors": [
            {"name": tensor.name, "shape": list(tensor.shape), "dtype": tensor.dtype} for tensor in manifest.tensors
        ],
        "constants_exponent": manifest.constants_exponent,
        "constants": {name: list(values) for name, values in manifest.constants.items()},
    }


def _mask(mask: MaskTerms) -> dict[str, object]:
    chosen = mask.next
    following = None if chosen is None else asdict(chosen) | {"protected": sorted(chosen.protected)}
    return {"digest": mask.digest.hex(), "nonzeros": mask.nonzeros, "next": following}


def _bounds(bounds: Sequence[LeakageBound]) -> list[dict[str, object]]:
    ordered = sorted(bounds, key=lambda bound: (bound.tensor, bound.axis))
    return [{"tensor": bound.tensor, "axis": bound.axis, "min": bound.least} for bound in ordered]


def _target(target: OrderTarget) -> dict[str, object]:
    match target:
        case NoTarget():
            return {}
        case ExcludeTarget(update):
            return {"update": update.hex()}
        case RollbackTarget(model):
            return {"model": model.hex()}
        case ReaggregateTarget(from_round, reveals):
            return {"from_round": from_round, "reveals": sorted(reveals)}
        case AcceptTarget(index, code):
            return {"index": index, "code": code}
        case OverrideTarget(decision, decided_class):
            return {"decision": decision.hex(), "class": decided_class}
