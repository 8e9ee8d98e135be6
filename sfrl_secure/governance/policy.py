"""The federation's rules, decided by Cedar: once over header facts, once over measured facts.

Default deny; a forbid wins; an error anywhere denies, because a forbid whose condition errors would otherwise not
forbid. Every request and entity is validated against the schema. Rules are named by their `@id`, never by their
position. Cedar is asked about those rules alone whose scope can match, so that the others cost nothing; verdict and
rule ids are those of the whole set.

Format: proto/README.md, "Policy".

Runs in: gatekeeper, aggregator, audit_log.
Trusts: rules that the operators' threshold signed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

from cedarpy import Entities, PolicySet, is_authorized

from sfrl_secure.governance.cedar_rules import parse_rules_text, rules_schema
from sfrl_secure.governance.rules import RulesDocument
from sfrl_secure.limits import DETERMINING_MAX

DENIED = "policy_denied"
ERROR = "policy_error"

SLICES_MAX = 4_096
"""Policy sets that are kept parsed, of one rules document: one for each action, participant and segment that rules
name."""

ENTITIES_MAX = 16_384
"""Participants, each in a segment, whose entities are kept parsed."""

NOBODY = ""
"""Stands for whomever no rule names; no participant or segment has this name."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who asks: a participant as its record in force describes it."""

    name: str
    clearance: int
    groups: frozenset[str]


@dataclass(frozen=True, slots=True)
class HeaderFacts:
    """What an update's signed header says; density is floor(nonzeros * 10**6 / coordinates), noise in grid units."""

    round: int
    weight: int
    nonzeros: int
    payload_bytes: int
    density_ppm: int
    value_type: str
    support_mode: str
    suite: str
    noise_std: int


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
    """One rules document, parsed once. Shared by threads: what changes in it is a cache."""

    def __init__(self, rules: RulesDocument) -> None:
        """Parse and check the rules.

        Raises:
            MalformedError: the rules do not hold; `authority` lets none of those have effect.
        """
        self._rules = parse_rules_text(rules.cedar)
        # Whoever no rule names shares a slice with all others whom no rule names.
        self._participants = {rule.scope.participant for rule in self._rules}
        self._segments = {rule.scope.segment for rule in self._rules}
        self._slice_of = lru_cache(maxsize=SLICES_MAX)(self._build_slice)

    def decide_submit(self, subject: Subject, segment: tuple[str, int], facts: HeaderFacts) -> PolicyDecision:
        """Decide step 9: may this update be sent?

        Args:
            segment: its name and sensitivity.
        """
        return self._decide("submit", subject, segment, _members(facts))

    def decide_admit(
        self, subject: Subject, segment: tuple[str, int], facts: HeaderFacts, measured: MeasuredPolicyFacts
    ) -> PolicyDecision:
        """Decide step 14: may this update be counted?

        Args:
            segment: its name and sensitivity.
        """
        return self._decide("admit", subject, segment, _members(facts) | _members(measured))

    def _decide(
        self, action: str, subject: Subject, segment: tuple[str, int], context: dict[str, object]
    ) -> PolicyDecision:
        request = {
            "principal": {"type": "Participant", "id": subject.name},
            "action": {"type": "Action", "id": action},
            "resource": {"type": "Segment", "id": segment[0]},
            "context": context,
        }
        policies, ids = self._slice_of(
            action,
            subject.name if subject.name in self._participants else NOBODY,
            segment[0] if segment[0] in self._segments else NOBODY,
        )
        try:
            answer = is_authorized(request, policies, _entities_of(subject, segment), rules_schema())
        except ValueError:
            return PolicyDecision(False, ERROR, ())
        # A request that does not fit the schema comes back as errors and no decision.
        if answer.diagnostics.errors:
            return PolicyDecision(False, ERROR, ())
        reasons = set(answer.diagnostics.reasons)
        if not reasons <= ids.keys() or len(reasons) > DETERMINING_MAX:
            return PolicyDecision(False, ERROR, ())
        rule_ids = tuple(sorted(ids[position] for position in reasons))
        return PolicyDecision(answer.allowed, "" if answer.allowed else DENIED, rule_ids)

    def _build_slice(self, action: str, participant: str, segment: str) -> tuple[PolicySet, Mapping[str, str]]:
        """The rules whose scope can match, as a policy set, and the id of each by its position there."""
        rules = [rule for rule in self._rules if rule.scope.may_match(action, participant, segment)]
        ids = {f"policy{position}": rule.rule_id for position, rule in enumerate(rules)}
        return PolicySet.from_str("".join(rule.text for rule in rules)), ids


def _members(facts: HeaderFacts | MeasuredPolicyFacts) -> dict[str, object]:
    # `asdict` copies what nothing here changes, and costs a fifth of a decision.
    return {name: getattr(facts, name) for name in facts.__slots__}


def check_rules(cedar: str) -> tuple[str, ...]:
    """Check that `cedar` are rules of ours, and give their ids in order of position.

    Raises:
        MalformedError: they are not: see `parse_rules_text`.
    """
    return tuple(rule.rule_id for rule in parse_rules_text(cedar))


@lru_cache(maxsize=ENTITIES_MAX)
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
    return Entities.from_json_str(json.dumps(entities), rules_schema())


def default_rules() -> str:
    """Cedar text to begin a federation with."""
    return files("sfrl_secure.governance").joinpath("default_rules.cedar").read_text(encoding="ascii")
