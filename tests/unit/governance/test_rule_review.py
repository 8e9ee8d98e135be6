"""What an author did not mean is an error when rules are built, with its line: nothing that fails open is signed."""

from __future__ import annotations

import operator

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
from sfrl_secure.governance.rule_review import review_rules
from sfrl_secure.governance.rules import parse_rules
from sfrl_secure.ids import sha256
from sfrl_secure.limits import COORDINATES_MAX, PAYLOAD_BYTES_MAX, ROUNDS_MAX, VALUE_MAX, WEIGHT_SUM_MAX

PERMIT = '@id("all") permit (principal, action, resource);\n\n'


def rule(condition: str, action: str = "submit", effect: str = "forbid") -> str:
    scope = f'(principal, action == Action::"{action}", resource)' if action else "(principal, action, resource)"
    return f'{PERMIT}@id("no") {effect} {scope} when {{ {condition} }};'


def refused(cedar: str) -> str:
    with pytest.raises(MalformedError) as error:
        review_rules(cedar)
    with pytest.raises(MalformedError):
        build_rules(federation_id=sha256(b"f"), expires_us=1, cedar=cedar)
    return str(error.value)


VALID_AND_NEVER_TRUE = [
    ("context has nrom && context.nrom > 5", "submit", "attribute nrom"),
    ("context has norm && context.norm > 5", "submit", "attribute norm"),
    ("principal has clearnce && principal.clearnce > 5", "submit", "attribute clearnce"),
    ("resource has clearance", "submit", "attribute clearance"),
    ("{a: 1} has b", "submit", "attribute b"),
    ("action has name", "submit", "attribute name"),
    ("context.weight > 1 || !(context has wieght)", "submit", "attribute wieght"),
    ("if context has foo then false else false", "submit", "attribute foo"),
    ("{x: [context has foo]}.x.contains(true)", "submit", "attribute foo"),
    ('principal.hasTag("banned")', "submit", "tags"),
    ('context.value_type == "fp23"', "submit", "fp32, int8"),
    ('"fp23" == context.value_type', "submit", "fp32, int8"),
    ('context.support_mode != "fre"', "submit", "support_mode is one of agreed, dense, free"),
    ('context.suite == "ed25519+mldsa"', "submit", "suite is one of"),
    ('["fp23", "bf61"].contains(context.value_type)', "submit", "fp32, int8"),
    ('[context.value_type].contains("fp23")', "submit", "fp32, int8"),
    ('["fp32", "fp23"].containsAny([context.value_type])', "submit", "fp32, int8"),
    ('[context.value_type].containsAll(["fp32", "fp23"])', "submit", "fp32, int8"),
    ('[context.value_type, context.support_mode].contains("fp23")', "submit", "fp32, free, int8"),
    ('(if context.round > 3 then "fp23" else "fp32") == context.value_type', "submit", "fp32, int8"),
    ('context.value_type like "fp2*"', "submit", "fp32, int8"),
    ('context.value_type like "*fp"', "submit", "fp32, int8"),
    ('context.value_type like "fp\\*"', "submit", "fp32, int8"),
    ('context.suite like "ed25519-*"', "submit", "suite is one of"),
    ('(if context.round > 3 then context.suite else context.value_type) like "q*"', "submit", "suite or value_type"),
    ("context.density_ppm > 2000000", "submit", "> never holds"),
    ("context.density_ppm >= 1000001", "submit", ">= never holds"),
    ("context.payload_bytes > 1073741824", "submit", "> never holds"),
    ("context.weight < 0", "submit", "< never holds"),
    ("context.norm <= -1", "admit", "<= never holds"),
    ("context.norm == -1", "admit", "== never holds"),
    ("9223372036854775807 < context.weight", "submit", "< never holds"),
    ("principal.clearance < resource.sensitivity - 9000000", "submit", "< never holds"),
    ("(if context.weight > 3 then 1 else 2) * 4 > 8", "submit", "> never holds"),
    ('principal in Segment::"rocks"', "submit", "Participant and Segment"),
    ('resource in [Participant::"rover-1"]', "submit", "Segment and Participant"),
    ('principal is Participant in Segment::"rocks"', "submit", "Participant and Segment"),
    ("principal is Segment", "submit", "principal is never a Segment"),
    ('Segment::"rocks" == principal', "submit", "Segment and Participant"),
    ("principal in resource", "submit", "Participant and Segment"),
    ('principal == Participant::"Rover 1!"', "submit", "no Participant has such a name"),
    ('principal in [Participant::"rover-1", Participant::"rover_2"]', "submit", "no Participant has such a name"),
    ('resource != Segment::"Rocks"', "submit", "no Segment has such a name"),
]

COMPARISONS = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq, "!=": operator.ne,
}  # fmt: skip

ALWAYS_TRUE = [
    "context.density_ppm <= 2000000", "context.density_ppm <= 1000000", "context.weight >= 0", "context.round > -1",
    "context.payload_bytes <= 1073741824",
    "-1 < context.round", "context.weight != -1", "1 == 1", "(if context.weight > 3 then 1 else 2) * 4 > 0",
]  # fmt: skip


@pytest.mark.parametrize(("condition", "action", "why"), VALID_AND_NEVER_TRUE)
def test_a_condition_that_never_holds_is_named_with_its_line(condition: str, action: str, why: str) -> None:
    cedar = rule(condition, action)
    # Cedar alone takes it, and the forbid would bind nobody.
    assert check_rules(cedar) == ("all", "no")
    message = refused(cedar)
    assert message.startswith("line 3: ")
    assert why in message


@pytest.mark.parametrize("condition", ALWAYS_TRUE)
@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_a_comparison_that_always_holds_is_named_with_its_line(condition: str, effect: str) -> None:
    cedar = rule(condition, effect=effect)
    assert check_rules(cedar) == ("all", "no")
    message = refused(cedar)
    assert message.startswith("line 3: ")
    assert "always holds" in message


@pytest.mark.parametrize(
    "condition",
    [
        "context.payload_bytes > 4194304",
        "context.payload_bytes > 1073741823",
        *(f'context.value_type == "{each}"' for each in ("bf16", "exact", "fp32", "int8", "packed", "sign")),
        *(f'context.support_mode == "{each}"' for each in ("agreed", "dense", "free")),
    ],
)
def test_what_an_update_can_be_may_be_asked_for(condition: str) -> None:
    assert review_rules(rule(condition)) == ("all", "no")


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("sign", COMPARISONS)
def test_a_comparison_builds_where_facts_decide_it_and_only_there(sign: str, swapped: bool) -> None:
    facts = (0, 1, 10**6 - 1, 10**6)
    for constant in (-1, *facts, 10**6 + 1):
        sides = [str(constant), "context.density_ppm"] if swapped else ["context.density_ppm", str(constant)]
        cedar = rule(f" {sign} ".join(sides))
        compare = COMPARISONS[sign]
        outcomes = {compare(constant, fact) if swapped else compare(fact, constant) for fact in facts}
        if len(outcomes) == 2:
            assert review_rules(cedar) == ("all", "no")
        else:
            assert f"{sign} {'always' if outcomes == {True} else 'never'} holds" in refused(cedar)


@pytest.mark.parametrize(
    "scope",
    [
        '(principal == Participant::"Rover 1!", action, resource)',
        '(principal in Participant::"Rover 1!", action, resource)',
        '(principal is Participant in Participant::"Rover 1!", action, resource)',
        '(principal, action, resource == Segment::"No such")',
        '(principal, action, resource is Segment in Segment::"No such")',
    ],
)
def test_a_scope_with_a_name_that_nobody_can_have_is_named_with_its_line(scope: str) -> None:
    cedar = f'{PERMIT}@id("no") forbid {scope};'
    assert check_rules(cedar) == ("all", "no")
    assert refused(cedar).startswith("line 3: no ")


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("context.nrom > 5", "attribute `nrom`"),
        ("context.norm > 5", "attribute `norm`"),
        ("principal.clearnce < 3", "attribute `clearnce`"),
        ('action == Action::"sumbit"', "unrecognized action"),
        ('principal == Particpant::"r"', "unrecognized entity type"),
        ('context.weight == "5"', "types Long and String"),
    ],
)
def test_what_the_schema_does_not_have_is_named_with_its_line(condition: str, why: str) -> None:
    message = refused(rule(condition))
    assert message.startswith("line 3: ")
    assert why in message


@pytest.mark.parametrize(
    "scope",
    [
        '(principal, action == Action::"sumbit", resource)',
        '(principal, action in [Action::"submit", Action::"amdit"], resource)',
        "(principal is Particpant, action, resource)",
        '(principal, action, resource == Participant::"rover-1")',
    ],
)
def test_a_misspelt_scope_is_named_with_its_line(scope: str) -> None:
    assert refused(f'{PERMIT}@id("no") forbid {scope};').startswith("line 3: ")


def test_a_forbid_over_an_attribute_that_one_action_lacks_does_not_build() -> None:
    assert "norm" in refused(rule("context.norm > 5", action=""))
    # Asked for first, it is meant for the action that has it.
    assert review_rules(rule("context has norm && context.norm > 5", action="")) == ("all", "no")


OVERFLOWS = [
    "context.weight * 9223372036854775807 > 0",
    "context.norm + context.norm > 5",
    "9223372036854775807 + context.weight > 0",
    "-9223372036854775807 - context.weight - 1 < 0",
    "context.round * context.round * context.round > 5",
    "-(-9223372036854775807 - context.weight) > 0",
    "(if context.weight > 3 then 9223372036854775807 else 1) + 1 > 0",
    'duration("1d").toDays() + context.weight > 0',
    "{a: 9}.a + 1 > 0",
    "context.weight > 1 && context.nonzeros * 4611686018427387904 > 3",
    "[context.weight * 9223372036854775807].contains(3)",
]


@pytest.mark.parametrize("condition", OVERFLOWS)
def test_arithmetic_that_can_overflow_does_not_build(condition: str) -> None:
    cedar = rule(condition, "admit")
    assert check_rules(cedar)
    message = refused(cedar)
    assert message.startswith("line 3: ")
    assert "overflow" in message


@pytest.mark.parametrize(
    ("condition", "action"),
    [
        ("context.weight * context.weight * 2 > context.nonzeros", "submit"),
        ("context.norm + context.largest_magnitude > 5", "admit"),
        ("context.norm - context.largest_magnitude * 1000 < 0", "admit"),
        ("-(context.round) + 1 < 0", "submit"),
        ("context.density_ppm < 1000000", "submit"),
        ("context.density_ppm >= 1000000", "submit"),
        ("context.norm == 0", "admit"),
        ("context.norm != 0", "admit"),
        ("context.weight == context.round", "submit"),
        ("principal.clearance < resource.sensitivity - 999999", "submit"),
        ("(if context.weight > 3 then 1 else 2) * 4 > 4", "submit"),
        ("{a: context.weight}.a >= 0", "submit"),
        ("true == (context.weight > 3)", "submit"),
        ('datetime("2026-01-01") < datetime("2027-01-01")', "submit"),
        ('[context.value_type, context.suite].contains("ed25519")', "submit"),
        ('[context.value_type, "any"].contains("any")', "submit"),
        ('context.tensors.contains("a.weight")', "admit"),
        ("context.value_type == context.suite", "submit"),
        ('principal is Participant in Participant::"a.b"', "submit"),
        ('principal == Participant::"rover-1" || resource != Segment::"rocks-2"', "submit"),
        ('action in [Action::"submit", Action::"admit"]', "submit"),
        ('["fp32", "int8"].contains(context.value_type)', "submit"),
        ('context.value_type == "fp32" && context.suite != "ed25519"', "submit"),
        ('principal in [Participant::"a", Participant::"b"]', "submit"),
        ('principal.groups.contains("north")', "submit"),
        ("principal has clearance && principal.clearance < resource.sensitivity + 1", "submit"),
        ('context.value_type like "fp*"', "submit"),
    ],
)
def test_what_can_be_meant_builds(condition: str, action: str) -> None:
    assert review_rules(rule(condition, action)) == ("all", "no")


def test_the_rules_to_begin_with_pass_their_review() -> None:
    assert review_rules(DEFAULT_RULES)


FACTS = (
    "context.weight", "context.round", "context.nonzeros", "context.payload_bytes", "context.noise_std",
    "context.density_ppm", "context.norm", "context.largest_magnitude", "principal.clearance", "resource.sensitivity",
)  # fmt: skip
LONGS = st.deferred(
    lambda: (
        st.sampled_from(FACTS)
        | st.integers(-(2**63) + 1, 2**63 - 1).map(str)
        | st.integers(-9, 9).map(str)
        | st.tuples(LONGS, st.sampled_from("+-*"), LONGS).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})")
        | LONGS.map(lambda inner: f"-({inner})")
        | st.tuples(LONGS, LONGS).map(lambda parts: f"(if context.weight > 7 then {parts[0]} else {parts[1]})")
    )
)


def extreme(most: int) -> st.SearchStrategy[int]:
    return st.sampled_from([0, most]) | st.integers(0, most)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), expression=LONGS)
def test_what_passes_its_review_never_overflows(data: st.DataObject, expression: str) -> None:
    """The other direction is left open: a review may refuse what would not overflow."""
    scope = '(principal, action == Action::"admit", resource)'
    cedar = f'@id("x") permit {scope} when {{ [{expression}].contains(3) || true }};'
    try:
        review_rules(cedar)
    except MalformedError:
        return
    raw = build_rules(federation_id=sha256(b"f"), expires_us=1, cedar=cedar)
    draw = data.draw
    header = HeaderFacts(
        round=draw(extreme(ROUNDS_MAX)),
        weight=draw(extreme(WEIGHT_SUM_MAX)),
        nonzeros=draw(extreme(COORDINATES_MAX)),
        payload_bytes=draw(extreme(PAYLOAD_BYTES_MAX)),
        density_ppm=draw(extreme(10**6)),
        value_type="fp32",
        support_mode="free",
        suite="ed25519",
        noise_std=draw(extreme(VALUE_MAX)),
    )
    measured = MeasuredPolicyFacts(draw(extreme(2**62)), draw(extreme(VALUE_MAX)), ("a",))
    subject = Subject("rover-1", draw(extreme(10**6)), frozenset())
    segment = ("rocks", draw(extreme(10**6)))
    decision = AdmissionPolicy(parse_rules(raw)).decide_admit(subject, segment, header, measured)
    assert decision == PolicyDecision(True, "", ("x",))
