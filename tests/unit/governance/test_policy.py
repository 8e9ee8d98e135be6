from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.build import DEFAULT_RULES, build_rules
from sfrl_secure.governance.policy import (
    AdmissionPolicy,
    HeaderFacts,
    MeasuredPolicyFacts,
    PolicyDecision,
    Subject,
    check_rules,
)
from sfrl_secure.governance.rules import parse_rules
from sfrl_secure.ids import sha256

ROVER = Subject("rover-1", 5, frozenset({"rovers", "north"}))
ROCKS = ("rocks", 3)
FACTS = HeaderFacts(7, 2, 10, 900, 250_000, "int8", "free", "ed25519", 3)
MEASURED = MeasuredPolicyFacts(1_000, 600, ("a.weight", "b.weight"))
PERMIT = '@id("all") permit (principal, action, resource);\n'


def policy_of(cedar: str) -> AdmissionPolicy:
    # Unreviewed: what a review would refuse has to deny where it is in force all the same.
    raw = build_rules(federation_id=sha256(b"f"), expires_us=1, cedar=cedar, review=False)
    return AdmissionPolicy(parse_rules(raw))


def submit(cedar: str, subject: Subject = ROVER, facts: HeaderFacts = FACTS) -> PolicyDecision:
    return policy_of(cedar).decide_submit(subject, ROCKS, facts)


def admit(cedar: str, facts: HeaderFacts = FACTS, measured: MeasuredPolicyFacts = MEASURED) -> PolicyDecision:
    return policy_of(cedar).decide_admit(ROVER, ROCKS, facts, measured)


def forbid(condition: str, action: str = "submit") -> str:
    return PERMIT + f'@id("no") forbid (principal, action == Action::"{action}", resource) when {{ {condition} }};'


def test_what_no_rule_permits_is_denied() -> None:
    assert submit("") == PolicyDecision(False, "policy_denied", ())
    only_admit = '@id("a") permit (principal, action == Action::"admit", resource);'
    assert submit(only_admit) == PolicyDecision(False, "policy_denied", ())
    assert admit(only_admit) == PolicyDecision(True, "", ("a",))


def test_a_permit_allows_and_is_named() -> None:
    assert submit(PERMIT) == PolicyDecision(True, "", ("all",))


def test_a_forbid_beats_every_permit_and_is_named() -> None:
    assert submit(forbid("context.weight > 1")) == PolicyDecision(False, "policy_denied", ("no",))
    assert submit(forbid("context.weight > 2")).allowed


@pytest.mark.parametrize(
    "condition", ["context.weight * 9223372036854775807 > 0", "-9223372036854775807 - context.weight < 0"]
)
def test_a_forbid_whose_condition_errors_denies(condition: str) -> None:
    # Cedar itself would allow: it leaves out a policy that errors, and the permit stands.
    assert submit(forbid(condition)) == PolicyDecision(False, "policy_error", ())


def test_a_permit_that_errors_denies_beside_one_that_does_not() -> None:
    errs = '@id("x") permit (principal, action, resource) when { context.round * 9223372036854775807 > 0 };'
    assert submit(PERMIT + errs) == PolicyDecision(False, "policy_error", ())


def test_the_largest_facts_overflow_nothing_by_themselves() -> None:
    most = MeasuredPolicyFacts(2**62, 2**40, ("a",))
    assert admit(forbid("context.norm > 4611686018427387904", "admit"), measured=most).allowed
    assert not admit(forbid("context.norm > 4611686018427387903", "admit"), measured=most).allowed


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, "1", None, 1.5, True])
def test_a_fact_that_does_not_fit_the_schema_denies(value: Any) -> None:
    assert submit(PERMIT, facts=replace(FACTS, weight=value)) == PolicyDecision(False, "policy_error", ())


@pytest.mark.parametrize("clearance", [2**63, "high", None])
def test_a_subject_that_does_not_fit_the_schema_denies(clearance: Any) -> None:
    subject = Subject("rover-1", clearance, frozenset())
    assert submit(PERMIT, subject) == PolicyDecision(False, "policy_error", ())


def test_ids_follow_the_annotation_beyond_ten_policies() -> None:
    cedar = "".join(
        f'@id("r{i}") permit (principal, action, resource) when {{ context.round == {i} }};\n' for i in range(12)
    )
    for i in range(12):
        assert submit(cedar, facts=replace(FACTS, round=i)).rule_ids == (f"r{i}",)


def test_determining_rules_are_sorted_by_id_and_not_by_position() -> None:
    cedar = "".join(f'@id("{name}") permit (principal, action, resource);' for name in ("m", "z", "a"))
    assert submit(cedar).rule_ids == ("a", "m", "z")


def test_every_fact_of_submit_reaches_the_rules() -> None:
    for name, value in asdict(FACTS).items():
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        assert not submit(forbid(f"context.{name} == {shown}")).allowed, name
        assert submit(forbid(f"context.{name} != {shown}")).allowed, name


def test_every_fact_of_admit_reaches_the_rules() -> None:
    for name, value in (asdict(FACTS) | asdict(MEASURED)).items():
        if name == "tensors":
            continue
        shown = f'"{value}"' if isinstance(value, str) else str(value)
        assert not admit(forbid(f"context.{name} == {shown}", "admit")).allowed, name
    assert not admit(forbid('context.tensors.contains("b.weight")', "admit")).allowed
    assert admit(forbid('context.tensors.contains("b.bias")', "admit")).allowed


def test_principal_and_resource_reach_the_rules() -> None:
    for condition in (
        "principal.clearance == 5",
        'principal.groups.contains("north")',
        'principal == Participant::"rover-1"',
        "resource.sensitivity == 3",
        'resource == Segment::"rocks"',
    ):
        assert not submit(forbid(condition)).allowed, condition
        assert submit(forbid(f"!({condition})")).allowed, condition


def test_two_participants_do_not_see_each_other() -> None:
    policy = policy_of(forbid('principal.groups.contains("banned")'))
    assert not policy.decide_submit(Subject("a", 1, frozenset({"banned"})), ROCKS, FACTS).allowed
    assert policy.decide_submit(Subject("a", 1, frozenset()), ROCKS, FACTS).allowed
    assert policy.decide_submit(Subject("b", 1, frozenset()), ROCKS, FACTS).allowed


def test_threads_share_a_policy() -> None:
    policy = policy_of(forbid("context.round > 50"))
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda i: policy.decide_submit(ROVER, ROCKS, replace(FACTS, round=i)), range(100)))
    assert [answer.allowed for answer in answers] == [i <= 50 for i in range(100)]


@pytest.mark.parametrize(
    ("cedar", "why"),
    [
        ("permit (principal, action, resource);", "line 1: every policy has an @id"),
        (PERMIT + "\n\nforbid (principal, action, resource);", "line 4: every policy has an @id"),
        ("@id permit (principal, action, resource);", "every policy has an @id"),
        ('@id("") permit (principal, action, resource);', "every policy has an @id"),
        ('@id("A") permit (principal, action, resource);', "every policy has an @id"),
        (f'@id("{"a" * 65}") permit (principal, action, resource);', "every policy has an @id"),
        ('@name("a") permit (principal, action, resource);', "every policy has an @id"),
        (PERMIT + PERMIT, "line 2: two policies have one @id"),
        ('@id("a") permit (principal == ?principal, action, resource);', "line 1: a rule is one policy without slots"),
        ('\n\n@id("a") permit (principal, action, resource) when { % };', "line 3: "),
        ('@id("a") permit (principal, action, resource', "line 1: a policy ends with ';'"),
        ("say what;", "line 1: "),
        (";", "line 1: "),
        (PERMIT + ";", "line 2: "),
    ],
)
def test_rules_that_are_not_ours_are_refused_with_their_line(cedar: str, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        check_rules(cedar)


@pytest.mark.parametrize(
    "condition",
    [
        "context.nope > 1",
        "principal.nope > 1",
        "context.weight == 1 && context.norm > 1",
        'context.weight > "1"',
        "resource.clearance > 1",
        'principal in Team::"x"',
        "context.weight",
        "ip(context.suite).isIpv4()",
        "context.weight > 99999999999999999999",
    ],
)
def test_what_the_schema_does_not_have_is_an_error_when_rules_are_built(condition: str) -> None:
    cedar = PERMIT + f'\n@id("x") permit (principal, action == Action::"submit", resource) when {{ {condition} }};'
    with pytest.raises(MalformedError, match="line 3: "):
        check_rules(cedar)
    with pytest.raises(MalformedError, match="line 3: "):
        build_rules(federation_id=sha256(b"f"), expires_us=1, cedar=cedar)


def test_an_unknown_action_is_an_error_when_rules_are_built() -> None:
    with pytest.raises(MalformedError):
        check_rules('@id("a") permit (principal, action == Action::"delete", resource);')


def test_annotations_may_stand_in_any_order() -> None:
    assert check_rules('@why("x") @id("a-1") permit (principal, action, resource);') == ("a-1",)


def test_default_rules_bind_clearance_density_and_empty_updates() -> None:
    assert submit(DEFAULT_RULES) == PolicyDecision(True, "", ("cleared-submit",))
    assert admit(DEFAULT_RULES) == PolicyDecision(True, "", ("cleared-admit",))
    assert submit(DEFAULT_RULES, replace(ROVER, clearance=3)).allowed
    assert submit(DEFAULT_RULES, replace(ROVER, clearance=2)) == PolicyDecision(False, "policy_denied", ())
    assert submit(DEFAULT_RULES, facts=replace(FACTS, density_ppm=500_000)).allowed
    dense = replace(FACTS, density_ppm=500_001)
    assert submit(DEFAULT_RULES, facts=dense) == PolicyDecision(False, "policy_denied", ("not-sparse",))
    assert admit(DEFAULT_RULES, facts=dense).rule_ids == ("not-sparse",)
    assert admit(DEFAULT_RULES, measured=replace(MEASURED, norm=0)).rule_ids == ("empty-update",)


@pytest.mark.parametrize("mode", ["agreed", "dense"])
def test_default_rules_leave_other_supports_to_the_terms(mode: str) -> None:
    whole = replace(FACTS, support_mode=mode, density_ppm=10**6)
    assert submit(DEFAULT_RULES, facts=whole).allowed
    assert admit(DEFAULT_RULES, facts=whole).allowed


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet=st.characters(codec="ascii"), max_size=60), st.integers(0, 3))
def test_any_text_is_rules_or_malformed_and_nothing_else(text: str, cut: int) -> None:
    damaged = [text, PERMIT + text, PERMIT[: -2 - cut] + text + ";", text + ";"]
    for cedar in damaged:
        try:
            ids = check_rules(cedar)
        except MalformedError:
            continue
        assert len(set(ids)) == len(ids)
