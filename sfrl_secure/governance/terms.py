"""Segment terms: one learning task with its model, limits and rounds.

A round freezes the terms that are in force when it opens. A later version keeps `model` as it was.

Format: proto/README.md, "Documents", segment-terms.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import (
    CapTerms,
    ClipTerms,
    MaskTerms,
    RuleTerms,
    ServerTerms,
    parse_cap,
    parse_clip,
    parse_mask,
    parse_rule,
    parse_server,
)
from sfrl_secure.governance.fields import SUITES, ObjectFields
from sfrl_secure.governance.header import DocumentHeader, parse_header
from sfrl_secure.governance.manifest import ModelManifest, parse_manifest, parse_tensor_name
from sfrl_secure.ids import Digest, parse_name, parse_segment
from sfrl_secure.limits import (
    CLEARANCE_MAX,
    COHORT_MAX,
    GRID_EXPONENT_MAX,
    GROUPS_MAX,
    LEAKAGE_BOUNDS_MAX,
    PAYLOAD_BYTES_MAX,
    QUOTA_BYTES_MAX,
    QUOTA_UPDATES_MAX,
    QUOTA_WINDOW_US_MAX,
    QUOTA_WINDOW_US_MIN,
    RETENTION_DAYS_MAX,
    ROUND_US_MAX,
    ROUND_US_MIN,
    ROUNDS_MAX,
    TENSORS_MAX,
    VALUE_MAX,
    WEIGHT_SUM_MAX,
)

OPERATIONS = frozenset({"fetch", "record", "submit"})
VALUE_TYPES = frozenset({"bf16", "exact", "fp32", "int8", "packed", "sign"})
SUPPORT_MODES = frozenset({"agreed", "dense", "free"})
PRIVACY_MODES = frozenset({"open"})
NORM_MAX = 2**62

_KEYS = (
    "segment", "sensitivity", "groups", "operations", "model", "tensors", "value_types", "support_modes", "mask",
    "relay_groups", "suites", "limits", "quota", "leakage", "round", "rule", "clip", "cap", "server", "privacy",
    "evidence_days", "retention_days",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ModelTerms:
    """What a segment's model is: manifest, grid (one unit is 2**-grid_exponent) and the model before round 1."""

    manifest: ModelManifest
    grid_exponent: int
    initial: Digest


@dataclass(frozen=True, slots=True)
class UpdateLimits:
    """Bounds of one update; norm and magnitude in grid units."""

    payload_bytes_max: int
    nonzeros_max: int
    norm_max: int
    magnitude_max: int
    weight_max: int


@dataclass(frozen=True, slots=True)
class QuotaTerms:
    """What one participant may have admitted in the segment within `window_us`, by count and by payload bytes."""

    window_us: int
    updates_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class LeakageBound:
    """An update that touches `tensor` has at least `least` different indices along `axis`, counted from 0."""

    tensor: str
    axis: int
    least: int


@dataclass(frozen=True, slots=True)
class LeakageTerms:
    """What an update must not fall short of, so that it betrays no single example.

    Attributes:
        noise_std_min: in grid units.
        rows: of the touched coordinates, by tensor and axis.
        labels: of the indices whose values have a sum above an eighth of the largest there, either way.
    """

    nonzeros_min: int
    weight_min: int
    noise_std_min: int
    rows: tuple[LeakageBound, ...]
    labels: tuple[LeakageBound, ...]


@dataclass(frozen=True, slots=True)
class RoundTerms:
    """Bounds of one round, and how many rounds the segment has in all."""

    duration_us: int
    cohort_min: int
    cohort_max: int
    rounds_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentTerms(DocumentHeader):
    """Terms of one segment.

    Attributes:
        sensitivity: 0 to 1,000,000; compared by the rules with a participant's clearance.
        groups: a participant with one of them is granted.
        operations: of `fetch`, `record` and `submit`.
        tensors: names of the tensors that updates may touch, each in the manifest.
        mask: None exactly where no agreed support is allowed.
        relay_groups: a participant with one of them may bring others' updates.
        rule: how a round's updates become one step; `clip`, before it; `cap` and `server`, after it.
        evidence_days: how long refused payloads are kept; `retention_days`, admitted ones.
    """

    payload_type: ClassVar[str] = "application/vnd.sfrl.segment-terms.v1+json"

    segment: str
    sensitivity: int
    groups: frozenset[str]
    operations: frozenset[str]
    model: ModelTerms
    tensors: tuple[str, ...]
    value_types: frozenset[str]
    support_modes: frozenset[str]
    mask: MaskTerms | None
    relay_groups: frozenset[str]
    suites: frozenset[str]
    limits: UpdateLimits
    quota: QuotaTerms
    leakage: LeakageTerms
    round: RoundTerms
    rule: RuleTerms
    clip: ClipTerms | None
    cap: CapTerms | None
    server: ServerTerms | None
    privacy: str
    evidence_days: int
    retention_days: int
    allowed_tensor_indices: frozenset[int]
    """Positions of `tensors` in the manifest."""

    @property
    def series(self) -> tuple[str, str]:
        """One series a segment."""
        return ("segment-terms", self.segment)


def parse_terms(raw: bytes) -> SegmentTerms:
    """Parse segment terms.

    Raises:
        MalformedError: any other form.
    """
    fields, header = parse_header(raw, "segment-terms", _KEYS)
    model = _parse_model(fields["model"])
    positions = {tensor.name: position for position, tensor in enumerate(model.manifest.tensors)}
    tensors = fields.texts("tensors", 1, TENSORS_MAX, parse_tensor_name)
    if not positions.keys() >= set(tensors):
        raise MalformedError("segment-terms.tensors are names of the manifest")
    limits = _parse_limits(fields["limits"], model.manifest.coordinates)
    rounds = _parse_round(fields["round"])
    support_modes = fields.sorted_choices("support_modes", 1, SUPPORT_MODES)
    mask = parse_mask(fields["mask"], limits.nonzeros_max, model.manifest, tensors)
    if (mask is not None) != ("agreed" in support_modes):
        raise MalformedError("segment-terms.mask is there exactly where the agreed support mode is allowed")
    if rounds.cohort_max * limits.weight_max > WEIGHT_SUM_MAX:
        raise MalformedError(f"cohort_max * weight_max is at most {WEIGHT_SUM_MAX}")
    return SegmentTerms(
        **header,
        segment=parse_segment(fields.text("segment", 64)),
        sensitivity=fields.integer("sensitivity", 0, CLEARANCE_MAX),
        groups=fields.sorted_texts("groups", 1, GROUPS_MAX, parse_name),
        operations=fields.sorted_choices("operations", 0, OPERATIONS),
        model=model,
        tensors=tensors,
        value_types=fields.sorted_choices("value_types", 1, VALUE_TYPES),
        support_modes=support_modes,
        mask=mask,
        relay_groups=fields.sorted_texts("relay_groups", 0, GROUPS_MAX, parse_name),
        suites=fields.sorted_choices("suites", 1, SUITES),
        limits=limits,
        quota=_parse_quota(fields["quota"]),
        leakage=_parse_leakage(fields["leakage"], limits, model.manifest),
        round=rounds,
        rule=parse_rule(fields["rule"]),
        clip=parse_clip(fields["clip"]),
        cap=parse_cap(fields["cap"]),
        server=parse_server(fields["server"], model.manifest.coordinates),
        privacy=fields.choice("privacy", PRIVACY_MODES),
        evidence_days=fields.integer("evidence_days", 1, RETENTION_DAYS_MAX),
        retention_days=fields.integer("retention_days", 1, RETENTION_DAYS_MAX),
        allowed_tensor_indices=frozenset(positions[name] for name in tensors),
    )


def _parse_model(value: object) -> ModelTerms:
    fields = ObjectFields(value, "model", ("manifest", "grid_exponent", "initial"))
    return ModelTerms(
        manifest=parse_manifest(fields["manifest"]),
        grid_exponent=fields.integer("grid_exponent", 0, GRID_EXPONENT_MAX),
        initial=fields.digest("initial"),
    )


def _parse_limits(value: object, coordinates: int) -> UpdateLimits:
    keys = ("payload_bytes_max", "nonzeros_max", "norm_max", "magnitude_max", "weight_max")
    fields = ObjectFields(value, "limits", keys)
    return UpdateLimits(
        payload_bytes_max=fields.integer("payload_bytes_max", 1, PAYLOAD_BYTES_MAX),
        nonzeros_max=fields.integer("nonzeros_max", 1, coordinates),
        norm_max=fields.integer("norm_max", 1, NORM_MAX),
        magnitude_max=fields.integer("magnitude_max", 1, VALUE_MAX),
        weight_max=fields.integer("weight_max", 1, WEIGHT_SUM_MAX),
    )


def _parse_quota(value: object) -> QuotaTerms:
    fields = ObjectFields(value, "quota", ("window_us", "updates_max", "bytes_max"))
    return QuotaTerms(
        window_us=fields.integer("window_us", QUOTA_WINDOW_US_MIN, QUOTA_WINDOW_US_MAX),
        updates_max=fields.integer("updates_max", 1, QUOTA_UPDATES_MAX),
        bytes_max=fields.integer("bytes_max", 1, QUOTA_BYTES_MAX),
    )


def _parse_leakage(value: object, limits: UpdateLimits, manifest: ModelManifest) -> LeakageTerms:
    fields = ObjectFields(value, "leakage", ("nonzeros_min", "weight_min", "noise_std_min", "rows", "labels"))
    return LeakageTerms(
        nonzeros_min=fields.integer("nonzeros_min", 1, limits.nonzeros_max),
        weight_min=fields.integer("weight_min", 1, limits.weight_max),
        noise_std_min=fields.integer("noise_std_min", 0, VALUE_MAX),
        rows=_parse_bounds(fields, "rows", manifest),
        labels=_parse_bounds(fields, "labels", manifest),
    )


def _parse_bounds(fields: ObjectFields, key: str, manifest: ModelManifest) -> tuple[LeakageBound, ...]:
    where = fields.name_of(key)
    shapes = {tensor.name: tensor.shape for tensor in manifest.tensors}
    bounds = []
    for item in fields.items(key, 0, LEAKAGE_BOUNDS_MAX):
        bound = ObjectFields(item, where, ("tensor", "axis", "min"))
        tensor = bound.text("tensor", 128)
        if tensor not in shapes:
            raise MalformedError(f"{where}.tensor is a name of the manifest")
        axis = bound.integer("axis", 0, len(shapes[tensor]) - 1)
        bounds.append(LeakageBound(tensor, axis, bound.integer("min", 1, shapes[tensor][axis])))
    places = [(bound.tensor, bound.axis) for bound in bounds]
    if any(earlier >= later for earlier, later in pairwise(places)):
        raise MalformedError(f"{where} is sorted by tensor, then axis, and has no pair twice")
    return tuple(bounds)


def _parse_round(value: object) -> RoundTerms:
    fields = ObjectFields(value, "round", ("duration_us", "cohort_min", "cohort_max", "rounds_max"))
    cohort_max = fields.integer("cohort_max", 1, COHORT_MAX)
    return RoundTerms(
        duration_us=fields.integer("duration_us", ROUND_US_MIN, ROUND_US_MAX),
        cohort_min=fields.integer("cohort_min", 1, cohort_max),
        cohort_max=cohort_max,
        rounds_max=fields.integer("rounds_max", 1, ROUNDS_MAX),
    )
