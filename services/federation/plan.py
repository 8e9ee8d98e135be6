"""The plan of a new federation: who takes part, and under which terms.

`sfrl init` reads it from a TOML file, or takes the default: three operators of whom two must sign, three participants
and one small segment to try things with.

Runs in: cli, demo.
Trusts: whoever starts it.
"""

from __future__ import annotations

import re
import tomllib

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import WEIGHTED_MEAN
from sfrl_secure.governance.build import DEFAULT_QUOTA
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.services import KEY_EXCHANGES
from sfrl_secure.limits import (
    CLEARANCE_MAX,
    COHORT_MAX,
    GRID_EXPONENT_MAX,
    RETENTION_DAYS_MAX,
    ROUND_US_MAX,
    ROUND_US_MIN,
    ROUNDS_MAX,
    WEIGHT_SUM_MAX,
)
from sfrl_secure.operating.aggregation_tables import RuleTable
from sfrl_secure.operating.toml_lines import key_lines, line_of
from sfrl_secure.services.federation.plan_values import (
    Cap,
    Clip,
    Limit,
    MaskNext,
    Name,
    PayloadSize,
    Rule,
    SegmentName,
    Server,
    Suite,
    SupportMode,
    ValueType,
)
from sfrl_secure.services.federation.sizes import payload_bytes_of
from sfrl_secure.storage.settings import sentence_of

PLAN_BYTES_MAX = 256 * 1024

PROBLEMS_MAX = 8
"""Problems that one error names."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ParticipantPlan(_Strict):
    """A participant: its groups grant it segments, its clearance answers their sensitivity."""

    name: Name
    groups: list[Name]
    clearance: int = Field(default=0, ge=0, le=1_000_000)
    suite: Suite = "ed25519"


class TensorPlan(_Strict):
    """A tensor of a segment's model."""

    name: str
    shape: list[int]
    dtype: str = "int32"


class QuotaPlan(_Strict):
    """What one participant may have admitted in a window; without it, more than anybody can send in a day."""

    window_seconds: int = Field(default=86_400, ge=1, le=31 * 86_400)
    updates_max: int = Field(default=DEFAULT_QUOTA.updates_max, ge=1)
    bytes_max: int = Field(default=DEFAULT_QUOTA.bytes_max, ge=1)


class LeakageBoundPlan(_Strict):
    """An update that touches `tensor` has at least `min` different indices along `axis`."""

    tensor: str
    axis: int = Field(default=0, ge=0)
    min: int = Field(ge=1)


class LeakagePlan(_Strict):
    """What an update must not fall short of; the noise in parameter units. Without it, nothing is refused for it."""

    nonzeros_min: int = Field(default=1, ge=1)
    weight_min: int = Field(default=1, ge=1)
    noise_std_min: float = Field(default=0.0, ge=0)
    rows: list[LeakageBoundPlan] = Field(default_factory=list)
    labels: list[LeakageBoundPlan] = Field(default_factory=list)


class SegmentPlan(_Strict):
    """A segment and the terms of its rounds; norm and magnitude in parameter units, the grid makes them integers.

    Attributes:
        relay_groups: who may bring others' updates.
        mask: name of the mask's file beside the plan, exactly where `agreed` is among the support modes. `mask_next`:
            how it changes from round to round; without it, it stays.
        rule: as in a draft of terms, and so are `clip`, `cap` and `server`; without them the weighted mean alone, which
            is for a federation whose participants are believed.
        payload_bytes_max: bytes, or text such as "45 MiB"; without it what `nonzeros_max` values take at most in any of
            the value types and support modes.
    """

    name: SegmentName
    groups: list[Name]
    relay_groups: list[Name] = Field(default_factory=list)
    sensitivity: int = Field(default=0, ge=0, le=CLEARANCE_MAX)
    operations: list[str] = Field(default_factory=lambda: ["fetch", "record", "submit"])
    tensors: list[TensorPlan]
    grid_exponent: int = Field(default=24, ge=0, le=GRID_EXPONENT_MAX)
    constants_exponent: int = 0
    constants: dict[str, list[int]] = Field(default_factory=dict)
    value_types: list[ValueType] = Field(default_factory=lambda: ["fp32", "int8", "packed"])
    support_modes: list[SupportMode] = Field(default_factory=lambda: ["free"])
    mask: str | None = None
    mask_next: MaskNext | None = None
    rule: Rule = Field(default_factory=lambda: RuleTable(name=WEIGHTED_MEAN))
    clip: Clip | None = None
    cap: Cap | None = None
    server: Server | None = None
    suites: list[Suite] = Field(default_factory=lambda: ["ed25519", "ed25519+ml-dsa-44"])
    payload_bytes_max: PayloadSize | None = None
    nonzeros_max: int = Field(ge=1)
    norm_max: Limit
    magnitude_max: Limit
    weight_max: int = Field(ge=1, le=WEIGHT_SUM_MAX)
    quota: QuotaPlan = Field(default_factory=QuotaPlan)
    leakage: LeakagePlan = Field(default_factory=LeakagePlan)
    duration_seconds: int = Field(default=60, ge=ROUND_US_MIN // 1_000_000, le=ROUND_US_MAX // 1_000_000)
    cohort_min: int = Field(default=1, ge=1, le=COHORT_MAX)
    cohort_max: int = Field(ge=1, le=COHORT_MAX)
    rounds_max: int = Field(ge=1, le=ROUNDS_MAX)
    evidence_days: int = Field(default=30, ge=1, le=RETENTION_DAYS_MAX)
    retention_days: int = Field(default=365, ge=1, le=RETENTION_DAYS_MAX)

    @property
    def longest_payload_bytes(self) -> int:
        """The longest payload that is taken: what the plan names, or what its formats need."""
        return self.payload_bytes_max or payload_bytes_of(self.nonzeros_max, self.value_types, self.support_modes)

    @property
    def manifest(self) -> ModelManifest:
        """The model's tensors and constants."""
        return ModelManifest(
            tensors=tuple(TensorSpec(t.name, tuple(t.shape), t.dtype) for t in self.tensors),
            constants_exponent=self.constants_exponent,
            constants={name: tuple(values) for name, values in self.constants.items()},
        )


class FederationPlan(_Strict):
    """A federation on one machine; each service is its own process and can be moved by its configuration.

    Attributes:
        certificate_hours: life of a TLS identity of services and participants, the first ones and those that are issued
            later; ten seconds at least. They renew theirs by themselves.
        people_certificate_hours: the same for operators and auditors, who come now and then. It outlasts a document
            that was left to expire: nobody else brings the next one.
        key_exchange: the TLS groups that the services admit.
        log_url: `s3://bucket/prefix` of the log, where it does not lie in a folder; the store's address and credentials
            come from the environment.
        objects_url: the same for the objects.
    """

    trust_domain: str = "sfrl.example"
    log_host: str = "log.sfrl.example"
    host: str = "127.0.0.1"
    operators: list[Name] = Field(default_factory=lambda: ["alice", "bob", "carol"])
    threshold: int = Field(default=2, ge=1)
    operator_suite: Suite = "ed25519"
    gatekeepers: list[Name] = Field(default_factory=lambda: ["gatekeeper-1"])
    aggregator: Name = "aggregator-1"
    audit_log: Name = "audit-log-1"
    verifier: Name = "verifier-1"
    auditor: Name = "auditor-1"
    participants: list[ParticipantPlan]
    segments: list[SegmentPlan]
    years: int = Field(default=5, ge=1, le=30)
    certificate_hours: float = Field(default=24.0, ge=1 / 360, le=24 * 365)
    people_certificate_hours: float = Field(default=90.0 * 24, ge=1 / 360, le=24 * 365)
    key_exchange: list[str] = Field(default_factory=lambda: sorted(KEY_EXCHANGES))
    refusals_seconds: float = Field(default=10.0, gt=0, le=3600)
    log_url: str | None = None
    objects_url: str | None = None

    @property
    def certificate_seconds(self) -> int:
        """Life of a TLS identity of a service or participant."""
        return round(self.certificate_hours * 3600)

    @property
    def people_certificate_seconds(self) -> int:
        """Life of a TLS identity of an operator or auditor."""
        return round(self.people_certificate_hours * 3600)


def parse_plan(raw: bytes) -> FederationPlan:
    """Parse a plan file.

    Raises:
        MalformedError: not TOML, an unknown or missing key, or a value out of range; names lines and keys.
    """
    if len(raw) > PLAN_BYTES_MAX:
        raise MalformedError(f"a plan is at most {PLAN_BYTES_MAX} bytes")
    try:
        text = raw.decode("utf-8")
        values = tomllib.loads(text)
    except UnicodeDecodeError:
        raise MalformedError("the plan is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise MalformedError(f"the plan is not TOML{_where_not_toml(error)}") from None
    try:
        return FederationPlan.model_validate(values)
    except ValidationError as error:
        lines = key_lines(text)
        found = error.errors(include_url=False, include_input=False)
        # What is missing stands nowhere: the line of the table around it. A number has two problems, one for each kind.
        problems = sorted({(line_of(lines, each["loc"]), _sentence_of(each)) for each in found})
        said = [f"line {line}: {sentence}" for line, sentence in problems[:PROBLEMS_MAX]]
        more = len(problems) - len(said)
        raise MalformedError(f"the plan, {'; '.join(said)}{f'; and {more} more' if more else ''}") from None


def _sentence_of(problem: ErrorDetails) -> str:
    *place, last = problem["loc"]
    if last in ("int", "decimal") and "constants" not in place:
        return f"`{'.'.join(map(str, place))}` is a number"
    return sentence_of(problem, {})


def _where_not_toml(error: tomllib.TOMLDecodeError) -> str:
    """The place that the parser names, and none of the text."""
    at = re.search(r"line ([0-9]+), column ([0-9]+)", str(error))
    return "" if at is None else f": line {at[1]}, column {at[2]}"


def default_plan() -> FederationPlan:
    """The federation to try things with: a linear model of 16 weights and a bias."""
    return FederationPlan(
        participants=[ParticipantPlan(name=f"rover-{number}", groups=["rovers"]) for number in (1, 2, 3)],
        segments=[
            SegmentPlan(
                name="example",
                groups=["rovers"],
                tensors=[TensorPlan(name="weight", shape=[16]), TensorPlan(name="bias", shape=[1])],
                nonzeros_max=8,
                norm_max=100.0,
                magnitude_max=10.0,
                weight_max=1_000_000,
                cohort_min=2,
                cohort_max=3,
                rounds_max=1_000,
            )
        ],
    )
