"""The rules of a rules document: each a Cedar policy with an id, a scope, and a condition that fits the schema.

A scope says whom, what and where a rule is about; where it does not match, Cedar does not look at the condition, so
the rule neither decides nor errs. That lets a decision leave out the rules that cannot concern it.

Format: proto/README.md, "Documents", rules, and "Policy".

Runs in: gatekeeper, aggregator, audit_log, cli.
Trusts: cedarpy's parser and validator.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from cedarpy import PolicySet, Schema, policies_to_json_str, validate_policies

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.cedar_text import PolicyText, split_policies

_RULE_ID = re.compile(r"[a-z0-9-]{1,64}")


@dataclass(frozen=True, slots=True)
class RuleScope:
    """What the head of a rule asks; None where it asks nothing that is decided here.

    Attributes:
        actions: the actions that it names.
        participant: the one principal that it names, by `==`.
        segment: the one resource that it names, by `==`.
    """

    actions: frozenset[str] | None
    participant: str | None
    segment: str | None

    def may_match(self, action: str, participant: str, segment: str) -> bool:
        """Whether the rule can have a say; where it is false, Cedar would find that the scope does not match."""
        return (
            (self.actions is None or action in self.actions)
            and self.participant in (None, participant)
            and self.segment in (None, segment)
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        line: where it begins, counted from 1.
        text: Cedar, up to and with the `;`.
        conditions: bodies of its `when` and `unless`, in Cedar's JSON.
        heads: what its scope asks of principal, action and resource, in Cedar's JSON.
        is_permit: it permits; otherwise it forbids.
    """

    rule_id: str
    line: int
    text: str
    scope: RuleScope
    conditions: tuple[Any, ...] = field(repr=False, compare=False)
    heads: tuple[Any, ...] = field(repr=False, compare=False)
    is_permit: bool


def parse_rules_text(cedar: str) -> tuple[Rule, ...]:
    """Parse `cedar` as rules of ours, in order.

    Raises:
        MalformedError: the text is out of bounds (`cedar_text`), is not Cedar, is a template, has a policy without an
            `@id` of `[a-z0-9-]{1,64}` or an id twice, or does not fit the schema. Names the line, and says why in
            Cedar's words, which may quote the text: for its author, not for a peer.
    """
    rules: list[Rule] = []
    for policy in split_policies(cedar):
        rule = _parse_rule(policy)
        if any(rule.rule_id == other.rule_id for other in rules):
            raise MalformedError(f"line {rule.line}: two policies have one @id")
        rules.append(rule)
    # Each text was one policy by itself, so positions in the whole set are positions in `rules`.
    lines = {f"policy{position}": rule.line for position, rule in enumerate(rules)}
    answer = validate_policies(cedar, rules_schema())
    if not answer.validation_passed:
        reasons = (f"line {lines.get(error.policy_id, 1)}: {error.error}" for error in answer.errors)
        raise MalformedError(next(reasons, "the rules do not fit the schema"))
    return tuple(rules)


@lru_cache(maxsize=1)
def rules_schema() -> Schema:
    """What rules can see."""
    text = files("sfrl_secure.governance").joinpath("sfrl.cedarschema").read_text(encoding="ascii")
    return Schema.from_str(text)


def _parse_rule(policy: PolicyText) -> Rule:
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
    scope = RuleScope(
        actions=_actions_of(static["action"]),
        participant=_named_by(static["principal"], "Participant"),
        segment=_named_by(static["resource"], "Segment"),
    )
    return Rule(
        rule_id,
        policy.line,
        policy.text,
        scope,
        conditions=tuple(each["body"] for each in static["conditions"]),
        heads=tuple(static[asked] for asked in ("principal", "action", "resource")),
        is_permit=static["effect"] == "permit",
    )


def _actions_of(constraint: Mapping[str, Any]) -> frozenset[str] | None:
    # No action is in another one under our schema, so `in` means one of those that stand there.
    match constraint:
        case {"op": "==" | "in", "entity": {"type": "Action", "id": str(action)}}:
            return frozenset({action})
        case {"op": "in", "entities": [*entities]} if all(entity["type"] == "Action" for entity in entities):
            return frozenset(entity["id"] for entity in entities)
    return None


def _named_by(constraint: Mapping[str, Any], entity_type: str) -> str | None:
    match constraint:
        case {"op": "==", "entity": {"type": str(named), "id": str(name)}} if named == entity_type:
            return name
    return None
