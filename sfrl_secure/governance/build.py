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
from sfrl_secure.governance.documents import parse_document
from sfrl_secure.governance.manifest import ModelManifest
from sfrl_secure.governance.origin import origin_of
from sfrl_secure.governance.participants import ParticipantRecord
from sfrl_secure.governance.policy import check_rules, default_rules
from sfrl_secure.governance.root import FORMATS, GenesisDocument, RootDocument, Thresholds, parse_root
from sfrl_secure.governance.rules import RulesDocument
from sfrl_secure.governance.services import ServicesDocument, Signatory
from sfrl_secure.governance.terms import ModelTerms, RoundTerms, SegmentTerms, UpdateLimits
from sfrl_secure.ids import ZERO_DIGEST, Digest

DEFAULT_RULES = default_rules()
"""Cedar text to begin a federation with (`default_rules.cedar`)."""


def build_root(
    *, expires_us: int, trust_domain: str, log_host: str, operators: Mapping[str, PublicKey], thresholds: Thresholds
) -> bytes:
    """Build a root document; its digest is the federation id.

    Raises:
        MalformedError: an argument is out of its range, or a threshold takes more signatures than an envelope holds.
    """
    if max(astuple(thresholds)) > SIGNATURES_MAX:
        raise MalformedError(f"an envelope holds {SIGNATURES_MAX} signatures, so no threshold is higher")
    return _build(RootDocument.payload_type, {
        "type": "root",
        "version": 1,
        "previous": ZERO_DIGEST.hex(),
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
) -> bytes:
    """Build a services document.

    Raises:
        MalformedError: an argument is out of its range.
    """
    return _build(ServicesDocument.payload_type, {
        **_header("services", federation_id, version, previous, expires_us),
        "services": [_signatory(service) for service in services],
        "auditors": [_signatory(auditor) for auditor in auditors],
    })  # fmt: skip


def build_rules(
    *,
    federation_id: Digest,
    version: int = 1,
    previous: Digest = ZERO_DIGEST,
    expires_us: int,
    cedar: str = DEFAULT_RULES,
) -> bytes:
    """Build a rules document.

    Raises:
        MalformedError: an argument is out of its range, or the rules do not hold; the message names the line.
    """
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
    suites: Collection[str] = ("ed25519", "ed25519+ml-dsa-44"),
    limits: UpdateLimits,
    round_terms: RoundTerms,
    rule: str = "weighted_mean/v1",
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
        "suites": sorted(suites),
        "limits": asdict(limits),
        "round": asdict(round_terms),
        "rule": rule,
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
