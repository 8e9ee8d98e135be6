"""Cedar is asked about a slice of the rules; verdict and rule ids are those of the whole set."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache

import pytest
from cedarpy import Entities, PolicySet, is_authorized
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.governance.build import build_rules
from sfrl_secure.governance.cedar_rules import parse_rules_text, rules_schema
from sfrl_secure.governance.policy import AdmissionPolicy, HeaderFacts, MeasuredPolicyFacts, PolicyDecision, Subject
from sfrl_secure.governance.rules import parse_rules
from sfrl_secure.ids import sha256
from sfrl_secure.limits import DETERMINING_MAX, POLICIES_MAX

FACTS = HeaderFacts(7, 2, 10, 900, 250_000, "int8", "free", "ed25519", 0)
MEASURED = MeasuredPolicyFacts(1_000, 600, ("a.weight", "b.weight"))
PARTICIPANTS = ("rover-1", "rover-2", "rover-3")
SEGMENTS = ("rocks", "sand", "ice")

PRINCIPALS = (
    "principal", 'principal == Participant::"rover-1"', 'principal == Participant::"rover-2"',
    'principal in Participant::"rover-1"', "principal is Participant", 'principal == Participant::"rover\\u{2d}1"',
)  # fmt: skip
ACTIONS = (
    "action", 'action == Action::"submit"', 'action == Action::"admit"', 'action in Action::"submit"',
    'action in [Action::"submit", Action::"admit"]', 'action in [Action::"admit"]',
)  # fmt: skip
RESOURCES = (
    "resource", 'resource == Segment::"rocks"', 'resource == Segment::"sand"', 'resource in Segment::"rocks"',
    'resource is Segment in Segment::"sand"',
)  # fmt: skip
CONDITIONS = (
    "", "when { context.weight > 1 }", "when { context.weight > 2 }", "unless { principal.clearance > 4 }",
    "when { context.weight * 9223372036854775807 > 0 }", 'when { resource == Segment::"ice" }',
    "when { context.weight > 1 } unless { context.round == 7 }",
)  # fmt: skip


@st.composite
def rule_sets(draw: st.DrawFn) -> str:
    """Up to 12 rules: scopes of every form, with conditions that hold, do not hold and err."""
    parts = [
        st.sampled_from(["permit", "permit", "forbid"]), st.sampled_from(PRINCIPALS), st.sampled_from(ACTIONS),
        st.sampled_from(RESOURCES), st.sampled_from(CONDITIONS),
    ]  # fmt: skip
    rules = draw(st.lists(st.tuples(*parts), max_size=12))
    return "\n".join(
        f'@id("r{position:02}") {effect} ({principal}, {action}, {resource}) {condition}; // {position};'
        for position, (effect, principal, action, resource, condition) in enumerate(rules)
    )


@lru_cache(maxsize=32)
def whole_set(cedar: str) -> tuple[PolicySet, dict[str, str]]:
    ids = [rule.rule_id for rule in parse_rules_text(cedar)]
    return PolicySet.from_str(cedar), {f"policy{position}": rule_id for position, rule_id in enumerate(ids)}


def decide_over_all(cedar: str, action: str, participant: str, segment: str) -> PolicyDecision:
    """Default deny, a forbid wins, an error denies: over every rule there is."""
    policies, ids = whole_set(cedar)
    entities = [
        {"uid": {"type": "Participant", "id": participant}, "attrs": {"clearance": 5, "groups": ["a"]}, "parents": []},
        {"uid": {"type": "Segment", "id": segment}, "attrs": {"sensitivity": 3}, "parents": []},
    ]
    request = {
        "principal": {"type": "Participant", "id": participant},
        "action": {"type": "Action", "id": action},
        "resource": {"type": "Segment", "id": segment},
        "context": asdict(FACTS) | (asdict(MEASURED) if action == "admit" else {}),
    }
    answer = is_authorized(request, policies, Entities.from_json_str(json.dumps(entities)), rules_schema())
    if answer.diagnostics.errors:
        return PolicyDecision(False, "policy_error", ())
    found = tuple(sorted(ids[position] for position in answer.diagnostics.reasons))
    return PolicyDecision(answer.allowed, "" if answer.allowed else "policy_denied", found)


def policy_of(cedar: str) -> AdmissionPolicy:
    raw = build_rules(federation_id=sha256(b"f"), expires_us=1, cedar=cedar, review=False)
    return AdmissionPolicy(parse_rules(raw))


def decide(policy: AdmissionPolicy, action: str, participant: str, segment: str) -> PolicyDecision:
    subject = Subject(participant, 5, frozenset({"a"}))
    if action == "submit":
        return policy.decide_submit(subject, (segment, 3), FACTS)
    return policy.decide_admit(subject, (segment, 3), FACTS, MEASURED)


@settings(max_examples=120, deadline=None)
@given(cedar=rule_sets())
def test_a_slice_decides_as_all_rules_do(cedar: str) -> None:
    policy = policy_of(cedar)
    for action in ("submit", "admit"):
        for participant in PARTICIPANTS:
            for segment in SEGMENTS:
                expected = decide_over_all(cedar, action, participant, segment)
                assert decide(policy, action, participant, segment) == expected, (action, participant, segment)


def test_a_rule_about_somebody_else_is_not_asked() -> None:
    """What it costs is the point of a slice: 250 rules of others are not in it."""
    cedar = '@id("all") permit (principal, action, resource);' + "".join(
        f'@id("s{i}") forbid (principal, action == Action::"admit", resource == Segment::"s{i}");'
        f'@id("p{i}") forbid (principal == Participant::"p{i}", action, resource);'
        for i in range(125)
    )
    policy = policy_of(cedar)
    for participant, segment, count in (("rover-1", "rocks", 1), ("p3", "rocks", 2), ("p3", "s3", 3), ("p", "s3", 2)):
        assert decide(policy, "admit", participant, segment) == decide_over_all(cedar, "admit", participant, segment)
        policies, ids = policy._slice_of(
            "admit", participant if participant == "p3" else "", segment if segment == "s3" else ""
        )
        assert len(policies) == len(ids) == count


@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_more_rules_than_an_entry_can_name_deny(effect: str) -> None:
    """An entry names 64 rules, those of both decisions. What cannot be written down is not allowed."""
    def cedar(count: int) -> str:
        return "".join(f'@id("r{i:03}") {effect} (principal, action, resource);' for i in range(count))

    named = tuple(f"r{i:03}" for i in range(DETERMINING_MAX))
    reason = "" if effect == "permit" else "policy_denied"
    expected = PolicyDecision(effect == "permit", reason, named)
    assert decide(policy_of(cedar(DETERMINING_MAX)), "submit", "rover-1", "rocks") == expected
    for count in (DETERMINING_MAX + 1, POLICIES_MAX):
        denied = PolicyDecision(False, "policy_error", ())
        assert decide(policy_of(cedar(count)), "submit", "rover-1", "rocks") == denied
