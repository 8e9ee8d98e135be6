"""The federation's rules, decided by Cedar: once over header facts, once over measured facts.

Default deny; a forbid wins; an error anywhere denies, because a forbid whose condition errors would otherwise not
forbid. Every request and entity is validated against the schema. Rules are named by their `@id`, never by their
position.

Format: proto/README.md, "Policy".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: rules that the operators' threshold signed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files

from cedarpy import Entities, PolicySet, Schema, is_authorized, policies_to_json_str, validate_policies

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.cedar_text import PolicyText, split_policies
from sfrl_secure.governance.rules import RulesDocument

DENIED = "policy_denied"
ERROR = "policy_error"

_RULE_ID = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks: a participant as its record in force describes it."""

    name: str
    clearance: int
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What an update's signed header says; density is floor(nonzeros * 10**6 / coordinates)."""

    round: int
    weight: int
    nonzeros: int
    payload_bytes: int
    density_ppm: int
    value_type: str
    support_mode: str
    suite: str


@dataclass(frozen=True, slots=True)
class MeasuredPolicyFacts:
    """What was measured in the payload; norm and magnitude in grid units, tensors by name."""

    norm: int
    largest_magnitude: int
    tensors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PolicyDecision:
    """What the rules say.

    Attributes:
        reason: empty where allowed, else `policy_denied` or `policy_error`.
        rule_ids: the determining rules, sorted: the permits of an allow, the forbids of a denial; none of an error.
    """

    allowed: bool
    reason: str
    rule_ids: tuple[str, ...]


class AdmissionPolicy:
    """One rules document, parsed once. Shared by threads: nothing in it changes."""

    def __init__(self, rules: RulesDocument) -> None:
        """Parse and check the rules.

        Raises:
            MalformedError: the rules do not hold; `authority` lets none of those have effect.
        """
        self._ids = {f"policy{position}": rule_id for position, rule_id in enumerate(check_rules(rules.cedar))}
        self._policies = PolicySet.from_str(rules.cedar)

    def decide_submit(self, subject: Subject, segment: tuple[str, int], facts: HeaderFacts) -> PolicyDecision:
        """Decide step 9: may this update be sent?

        Args:
            segment: its name and sensitivity.
        """
        return self._decide("submit", subject, segment, asdict(facts))

    def decide_admit(
        self, subject: Subject, segment: tuple[str, int], facts: HeaderFacts, measured: MeasuredPolicyFacts
    ) -> PolicyDecision:
        """Decide step 14: may this update be counted?

        Args:
            segment: its name and sensitivity.
        """
        return self._decide("admit", subject, segment, asdict(facts) | asdict(measured))

    def _decide(
        self, action: str, subject: Subject, segment: tuple[str, int], context: Mapping[str, object]
    ) -> PolicyDecision:
        request = {
            "principal": {"type": "Participant", "id": subject.name},
            "action": {"type": "Action", "id": action},
            "resource": {"type": "Segment", "id": segment[0]},
            "context": dict(context),
        }
        try:
            answer = is_authorized(request, self._policies, _entities_of(subject, segment), _schema())
        except ValueError:
            return PolicyDecision(False, ERROR, ())
        # A request that does not fit the schema comes back as errors and no decision.
        if answer.diagnostics.errors:
            return PolicyDecision(False, ERROR, ())
        reasons = set(answer.diagnostics.reasons)
        if not reasons <= self._ids.keys():
            return PolicyDecision(False, ERROR, ())
        rule_ids = tuple(sorted(self._ids[position] for position in reasons))
        return PolicyDecision(answer.allowed, "" if answer.allowed else DENIED, rule_ids)


def check_rules(cedar: str) -> tuple[str, ...]:
    """Check that `cedar` are rules of ours, and give their ids in order of position.

    Raises:
        MalformedError: the text is out of bounds (`cedar_text`), is not Cedar, is a template, has a policy without an
            `@id` of `[a-z0-9-]{1,64}` or an id twice, or does not fit the schema. Names the line, and says why in
            Cedar's words, which may quote the text: for its author, not for a peer.
    """
    texts = split_policies(cedar)
    ids: list[str] = []
    for policy in texts:
        rule_id = _rule_id_of(policy)
        if rule_id in ids:
            raise MalformedError(f"line {policy.line}: two policies have one @id")
        ids.append(rule_id)
    # Each text was one policy by itself, so positions in the whole set are positions in `texts`.
    lines = {f"policy{position}": policy.line for position, policy in enumerate(texts)}
    answer = validate_policies(cedar, _schema())
    if not answer.validation_passed:
        reasons = (f"line {lines.get(error.policy_id, 1)}: {error.error}" for error in answer.errors)
        raise MalformedError(next(reasons, "the rules do not fit the schema"))
    return tuple(ids)


def _rule_id_of(policy: PolicyText) -> str:
    try:
        parsed = PolicySet.from_str(policy.text)
    except ValueError as error:
        raise MalformedError(f"line {policy.line}: {error}") from None
    # A template is no policy until it is linked, and is not counted.
    if len(parsed) != 1:
        raise MalformedError(f"line {policy.line}: a rule is one policy without slots")
    (static,) = json.loads(policies_to_json_str(policy.text))["staticPolicies"].values()
    rule_id = static.get("annotations", {}).get("id")
    if type(rule_id) is not str or not _RULE_ID.fullmatch(rule_id):
        raise MalformedError(f"line {policy.line}: every policy has an @id of 1 to 64 of a-z, 0-9 and '-'")
    return rule_id


@lru_cache(maxsize=1)
def _schema() -> Schema:
    text = files("sfrl_secure.governance").joinpath("sfrl.cedarschema").read_text(encoding="ascii")
    return Schema.from_str(text)


@lru_cache(maxsize=1024)
def _entities_of(subject: Subject, segment: tuple[str, int]) -> Entities:
    """The caller's slice of the world: the participant and the segment, and nobody else."""
    entities = [
        {
            "uid": {"type": "Participant", "id": subject.name},
            "attrs": {"clearance": subject.clearance, "groups": sorted(subject.groups)},
            "parents": [],
        },
        {"uid": {"type": "Segment", "id": segment[0]}, "attrs": {"sensitivity": segment[1]}, "parents": []},
    ]
    return Entities.from_json_str(json.dumps(entities), _schema())


def default_rules() -> str:
    """Cedar text to begin a federation with."""
    return files("sfrl_secure.governance").joinpath("default_rules.cedar").read_text(encoding="ascii")
