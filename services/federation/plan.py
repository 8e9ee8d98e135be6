"""The plan of a new federation: who takes part, and under which terms.

`sfrl init` reads it from a TOML file, or takes the default: three operators of whom two must sign, three participants
and one small segment to try things with.

Runs in: cli, demo.
Trusts: whoever starts it.
"""

from __future__ import annotations

import re
import tomllib
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.build import DEFAULT_QUOTA
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.services import KEY_EXCHANGES
from sfrl_secure.operating.toml_lines import key_lines, line_of
from sfrl_secure.storage.settings import sentence_of

PLAN_BYTES_MAX = 256 * 1024

PROBLEMS_MAX = 8
"""Problems that one error names."""


def _worded(pattern: str, words: str) -> AfterValidator:
    """Text of a pattern, with the words for what is not."""

    def check(text: str) -> str:
        if re.fullmatch(pattern, text) is None:
            raise ValueError(words)
        return text

    return AfterValidator(check)


Name = Annotated[
    str,
    _worded(
        r"[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?",
        "a name is 1 to 64 lower-case letters, digits, dots and hyphens, and begins and ends with a letter or digit",
    ),
]
Suite = Annotated[str, _worded(r"ed25519(\+ml-dsa-44)?", "a suite is ed25519 or ed25519+ml-dsa-44")]
SegmentName = Annotated[
    str, _worded(r"[a-z0-9-]{1,64}", "a segment's name is 1 to 64 lower-case letters, digits and hyphens")
]


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
    """A segment and the terms of its rounds; norm and magnitude in parameter units, the grid makes them integers."""

    name: SegmentName
    groups: list[Name]
    sensitivity: int = 0
    operations: list[str] = Field(default_factory=lambda: ["fetch", "record", "submit"])
    tensors: list[TensorPlan]
    grid_exponent: int = 24
    constants_exponent: int = 0
    constants: dict[str, list[int]] = Field(default_factory=dict)
    value_types: list[str] = Field(default_factory=lambda: ["fp32", "int8"])
    suites: list[Suite] = Field(default_factory=lambda: ["ed25519", "ed25519+ml-dsa-44"])
    payload_bytes_max: int = 1_048_576
    nonzeros_max: int
    norm_max: float
    magnitude_max: float
    weight_max: int
    quota: QuotaPlan = Field(default_factory=QuotaPlan)
    leakage: LeakagePlan = Field(default_factory=LeakagePlan)
    duration_seconds: int = 60
    cohort_min: int = 1
    cohort_max: int
    rounds_max: int
    evidence_days: int = 30
    retention_days: int = 365

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
        # What is missing stands nowhere: the line of the table around it.
        problems = sorted((line_of(lines, each["loc"]), sentence_of(each, {})) for each in found)
        said = [f"line {line}: {sentence}" for line, sentence in problems[:PROBLEMS_MAX]]
        more = len(problems) - len(said)
        raise MalformedError(f"the plan, {'; '.join(said)}{f'; and {more} more' if more else ''}") from None


def _where_not_toml(error: tomllib.TOMLDecodeError) -> str:
    """The place that the parser names, and none of the text."""
    at = re.search(r"line ([0-9]+), column ([0-9]+)", str(error))
    return "" if at is None else f": line {at[1]}, column {at[2]}"


def check_plan(plan: FederationPlan) -> None:
    """Check what no key of a plan shows alone.

    Raises:
        MalformedError: a name twice, nobody to sign or to answer, or more signatures wanted than there are operators.
    """
    names = {
        "operators": plan.operators,
        "gatekeepers": plan.gatekeepers,
        "participants": [each.name for each in plan.participants],
        "segments": [each.name for each in plan.segments],
    }
    for key, given in names.items():
        if len(set(given)) != len(given):
            raise MalformedError(f"the plan's {key}: no name stands there twice")
    if not plan.gatekeepers:
        raise MalformedError("the plan's gatekeepers: there is at least one")
    if plan.threshold > len(plan.operators):
        raise MalformedError("the plan's threshold: the operators can meet it")


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
