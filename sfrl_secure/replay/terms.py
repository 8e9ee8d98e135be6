"""Segment terms, as the replay reads them.

Format: proto/README.md, "Documents", segment-terms.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sfrl_secure.crypto.keys import PUBLIC_BYTES
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, parse_segment
from sfrl_secure.limits import (
    CLEARANCE_MAX,
    COHORT_MAX,
    GRID_EXPONENT_MAX,
    GROUPS_MAX,
    PAYLOAD_BYTES_MAX,
    RETENTION_DAYS_MAX,
    ROUND_US_MAX,
    ROUND_US_MIN,
    ROUNDS_MAX,
    TENSORS_MAX,
    VALUE_MAX,
    WEIGHT_SUM_MAX,
)
from sfrl_secure.replay.aggregation_terms import (
    Cap,
    Clip,
    MaskOfTerms,
    Rule,
    Server,
    parse_cap,
    parse_clip,
    parse_mask,
    parse_rule,
    parse_server,
)
from sfrl_secure.replay.json_fields import (
    take_choice,
    take_digest,
    take_integer,
    take_list,
    take_name,
    take_object,
    take_sorted,
    take_subset,
    take_text,
)
from sfrl_secure.replay.leakage import Leakage, parse_leakage
from sfrl_secure.replay.manifest import Manifest, parse_manifest, parse_tensor_name
from sfrl_secure.replay.payload_header import SUPPORTS, VALUE_TYPES

TERMS_KEYS = frozenset({
    "segment", "sensitivity", "groups", "operations", "model", "tensors", "value_types", "support_modes", "mask",
    "relay_groups", "suites", "limits", "quota", "leakage", "round", "rule", "clip", "cap", "server", "privacy",
    "evidence_days", "retention_days",
})  # fmt: skip

_QUOTA_US_MAX = 2_678_400_000_000


@dataclass(frozen=True, slots=True)
class Terms:
    """One segment's terms.

    Attributes:
        model: the value of `model` as it stands; later terms keep it.
        tensors: positions in the manifest of the tensors that updates may touch.
        mask: None exactly where no agreed support is allowed.
        relay_groups: a participant with one of them may bring others' updates.
        quota_us, quota_updates, quota_bytes: what one participant may have admitted in a window of that length.
    """

    segment: str
    sensitivity: int
    groups: frozenset[str]
    operations: frozenset[str]
    model: Any
    manifest: Manifest
    grid_exponent: int
    initial: Digest
    tensors: frozenset[int]
    value_types: frozenset[str]
    support_modes: frozenset[str]
    mask: MaskOfTerms | None
    relay_groups: frozenset[str]
    suites: frozenset[str]
    payload_bytes_max: int
    nonzeros_max: int
    norm_max: int
    magnitude_max: int
    weight_max: int
    quota_us: int
    quota_updates: int
    quota_bytes: int
    leakage: Leakage
    duration_us: int
    cohort_min: int
    cohort_max: int
    rounds_max: int
    rule: Rule
    clip: Clip | None
    cap: Cap | None
    server: Server | None
    evidence_days: int
    retention_days: int


def parse_terms(fields: dict[str, Any]) -> Terms:
    """Read the members of segment terms, beyond those that all documents have.

    Raises:
        MalformedError: any other form.
    """
    model = take_object(fields["model"], {"manifest", "grid_exponent", "initial"})
    manifest = parse_manifest(model["manifest"])
    names = [parse_tensor_name(item) for item in take_list(fields["tensors"], 1, TENSORS_MAX)]
    positions = {tensor.name: position for position, tensor in enumerate(manifest.tensors)}
    if len(set(names)) != len(names) or not positions.keys() >= set(names):
        raise MalformedError("the tensors are of the manifest, none twice")
    limits = take_object(
        fields["limits"], {"payload_bytes_max", "nonzeros_max", "norm_max", "magnitude_max", "weight_max"}
    )
    rounds = take_object(fields["round"], {"duration_us", "cohort_min", "cohort_max", "rounds_max"})
    quota = take_object(fields["quota"], {"window_us", "updates_max", "bytes_max"})
    nonzeros_max = take_integer(limits["nonzeros_max"], 1, manifest.coordinates)
    weight_max = take_integer(limits["weight_max"], 1, WEIGHT_SUM_MAX)
    cohort_max = take_integer(rounds["cohort_max"], 1, COHORT_MAX)
    if cohort_max * weight_max > WEIGHT_SUM_MAX:
        raise MalformedError(f"cohort_max * weight_max is at most {WEIGHT_SUM_MAX}")
    support_modes = take_subset(fields["support_modes"], 1, frozenset(SUPPORTS.values()))
    tensors = frozenset(positions[name] for name in names)
    mask = parse_mask(fields["mask"], manifest, tensors, nonzeros_max)
    if (mask is not None) != ("agreed" in support_modes):
        raise MalformedError("a mask is there exactly where the agreed support mode is allowed")
    take_choice(fields["privacy"], frozenset({"open"}))
    return Terms(
        segment=parse_segment(take_text(fields["segment"], 64)),
        sensitivity=take_integer(fields["sensitivity"], 0, CLEARANCE_MAX),
        groups=frozenset(take_sorted(fields["groups"], 1, GROUPS_MAX, take_name)),
        operations=take_subset(fields["operations"], 0, frozenset({"fetch", "record", "submit"})),
        model=model,
        manifest=manifest,
        grid_exponent=take_integer(model["grid_exponent"], 0, GRID_EXPONENT_MAX),
        initial=take_digest(model["initial"]),
        tensors=tensors,
        value_types=take_subset(fields["value_types"], 1, frozenset(VALUE_TYPES.values()) - {"none"}),
        support_modes=support_modes,
        mask=mask,
        relay_groups=frozenset(take_sorted(fields["relay_groups"], 0, GROUPS_MAX, take_name)),
        suites=take_subset(fields["suites"], 1, PUBLIC_BYTES.keys()),
        payload_bytes_max=take_integer(limits["payload_bytes_max"], 1, PAYLOAD_BYTES_MAX),
        nonzeros_max=nonzeros_max,
        norm_max=take_integer(limits["norm_max"], 1, 2**62),
        magnitude_max=take_integer(limits["magnitude_max"], 1, VALUE_MAX),
        weight_max=weight_max,
        quota_us=take_integer(quota["window_us"], 1_000_000, _QUOTA_US_MAX),
        quota_updates=take_integer(quota["updates_max"], 1, 10**6),
        quota_bytes=take_integer(quota["bytes_max"], 1, 2**53),
        leakage=parse_leakage(fields["leakage"], manifest, nonzeros_max=nonzeros_max, weight_max=weight_max),
        duration_us=take_integer(rounds["duration_us"], ROUND_US_MIN, ROUND_US_MAX),
        cohort_min=take_integer(rounds["cohort_min"], 1, cohort_max),
        cohort_max=cohort_max,
        rounds_max=take_integer(rounds["rounds_max"], 1, ROUNDS_MAX),
        rule=parse_rule(fields["rule"]),
        clip=parse_clip(fields["clip"]),
        cap=parse_cap(fields["cap"]),
        server=parse_server(fields["server"], manifest.coordinates),
        evidence_days=take_integer(fields["evidence_days"], 1, RETENTION_DAYS_MAX),
        retention_days=take_integer(fields["retention_days"], 1, RETENTION_DAYS_MAX),
    )

