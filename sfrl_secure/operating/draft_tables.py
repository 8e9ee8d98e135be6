"""Drafts: what operators write about a document, in TOML and in people's units.

Every key is known; a key that is not written has no value that somebody would have to guess, so all but the marked ones
are required. What a draft leaves out is what the log knows: version, predecessor, the model of a segment, the key of a
participant, the trust domain.

Runs in: operators' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from sfrl_secure.operating.aggregation_tables import CapTable, ClipTable, NextMaskTable, RuleTable, ServerTable
from sfrl_secure.operating.draft_numbers import Duration, Moment, Name, Number, Segment, Size, Table


class KeyTable(Table):
    """A public key: `sfrl policy key FILE` prints it."""

    suite: str
    public_key: str


class TensorTable(Table):
    """A tensor of a model."""

    name: str
    shape: list[int]
    dtype: str


class ModelTable(Table):
    """A segment's model, for the first version of its terms.

    Attributes:
        initial: digest of the object to begin with, or `zeros`.
    """

    grid_exponent: int
    initial: str
    tensors: list[TensorTable]
    constants_exponent: int = 0
    constants: dict[str, list[int]] = Field(default_factory=dict)


class LimitsTable(Table):
    """Limits of one update; norm and magnitude in parameter units."""

    payload_bytes_max: Size
    nonzeros_max: int
    norm_max: Number
    magnitude_max: Number
    weight_max: int


class QuotaTable(Table):
    """What one participant may have admitted within the window."""

    window: Duration
    updates_max: int
    bytes_max: Size


class BoundTable(Table):
    """A tensor's axis, and how many different indices an update must touch along it."""

    tensor: str
    axis: int
    min: int


class LeakageTable(Table):
    """What an update must not fall short of; noise in parameter units."""

    nonzeros_min: int
    weight_min: int
    noise_std_min: Number
    rows: list[BoundTable] = Field(default_factory=list)
    labels: list[BoundTable] = Field(default_factory=list)


class RoundTable(Table):
    """Bounds of a round."""

    duration: Duration
    cohort_min: int
    cohort_max: int
    rounds_max: int


class MaskTable(Table):
    """The mask of the agreed support mode: SHA-256 of its object, how many coordinates it has, and how it changes."""

    digest: str
    nonzeros: int
    next: NextMaskTable | None = None


class TermsDraft(Table):
    """Segment terms. `model` is left out from version 2 on, `mask` where agreed is no support mode; `clip`, `cap` and
    `server` where there is none."""

    kind: Literal["segment-terms"]
    segment: Segment
    expires: Moment
    sensitivity: int
    groups: list[Name]
    relay_groups: list[Name] = Field(default_factory=list)
    operations: list[str]
    tensors: list[str]
    value_types: list[str]
    support_modes: list[str]
    mask: MaskTable | None = None
    suites: list[str]
    rule: RuleTable
    clip: ClipTable | None = None
    cap: CapTable | None = None
    server: ServerTable | None = None
    privacy: str
    evidence_days: int
    retention_days: int
    limits: LimitsTable
    quota: QuotaTable
    leakage: LeakageTable
    round: RoundTable
    model: ModelTable | None = None


class ServiceTable(KeyTable):
    """A service and its signing key."""

    role: Literal["gatekeeper", "aggregator", "audit_log", "verifier"]
    name: Name


class AuditorTable(KeyTable):
    """An auditor and its signing key."""

    name: Name


class ServicesDraft(Table):
    """All services and auditors, and how one may connect."""

    kind: Literal["services"]
    expires: Moment
    key_exchange: list[str]
    services: list[ServiceTable]
    auditors: list[AuditorTable] = Field(default_factory=list)


class ParticipantDraft(Table):
    """A participant's record. The key is left out where it stays; a new one comes with the participant's own proof."""

    kind: Literal["participant"]
    name: Name
    expires: Moment
    clearance: int
    groups: list[Name]
    state: Literal["active", "suspended", "revoked"]
    reason: str = ""
    suite: str | None = None
    public_key: str | None = None
    possession: str | None = None


class ThresholdsTable(Table):
    """How many operators it takes."""

    root: int
    governance: int
    enrolment: int
    revocation: int


class RootDraft(Table):
    """The next root: operators and thresholds."""

    kind: Literal["root"]
    expires: Moment
    operators: dict[Name, KeyTable]
    thresholds: ThresholdsTable


class RulesDraft(Table):
    """The rules: a Cedar file beside the draft, or the text itself."""

    kind: Literal["rules"]
    expires: Moment
    file: str | None = None
    cedar: str | None = None


Draft = TermsDraft | ServicesDraft | ParticipantDraft | RootDraft | RulesDraft

KINDS: dict[str, type[Draft]] = {
    "segment-terms": TermsDraft,
    "services": ServicesDraft,
    "participant": ParticipantDraft,
    "root": RootDraft,
    "rules": RulesDraft,
}
