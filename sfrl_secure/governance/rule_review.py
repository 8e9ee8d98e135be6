"""What is wrong with rules that are valid: a review for their author, before anybody signs.

Cedar's validator refuses an attribute, action or type that the schema does not have. It lets through what never
holds, so that a forbid would bind nobody (`context has nrom`, `context.value_type == "fp23"`), and arithmetic that
may overflow, so that one rule would deny everybody. A review changes no verdict: rules in force that would not pass
it are decided as they stand, and what errs there denies.

Format: Cedar's JSON policy format; proto/README.md, "Policy".

Runs in: the operators' command line.
Trusts: its caller.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.cedar_rules import Rule, parse_rules_text
from sfrl_secure.governance.fields import SUITES
from sfrl_secure.governance.policy import HeaderFacts, MeasuredPolicyFacts
from sfrl_secure.governance.terms import NORM_MAX, SUPPORT_MODES, VALUE_TYPES
from sfrl_secure.limits import (
    CLEARANCE_MAX,
    COORDINATES_MAX,
    ROUNDS_MAX,
    SUBMIT_BYTES_MAX,
    VALUE_MAX,
    WEIGHT_SUM_MAX,
)

_HEADER = frozenset(each.name for each in fields(HeaderFacts))
_CONTEXT = {"submit": _HEADER, "admit": _HEADER | {each.name for each in fields(MeasuredPolicyFacts)}}
_ATTRIBUTES = {"principal": frozenset({"clearance", "groups"}), "resource": frozenset({"sensitivity"})}
_TYPE_OF = {"principal": "Participant", "action": "Action", "resource": "Segment"}
_WORDS = {"value_type": VALUE_TYPES, "support_mode": SUPPORT_MODES, "suite": SUITES}

_LONG = (-(2**63), 2**63 - 1)
_RANGES = {
    "clearance": (0, CLEARANCE_MAX),
    "sensitivity": (0, CLEARANCE_MAX),
    "round": (0, ROUNDS_MAX),
    "weight": (0, WEIGHT_SUM_MAX),
    "nonzeros": (0, COORDINATES_MAX),
    "payload_bytes": (0, SUBMIT_BYTES_MAX),
    "density_ppm": (0, 10**6),
    "noise_std": (0, VALUE_MAX),
    "norm": (0, NORM_MAX),
    "largest_magnitude": (0, VALUE_MAX),
}
"""What a fact can be when the rules are asked: the limits have been checked before."""

_ARITHMETIC = frozenset({"+", "-", "*", "neg"})
_CHILDREN = ("left", "right", "arg", "if", "then", "else", "in")

Range = tuple[int, int]


def review_rules(cedar: str) -> tuple[str, ...]:
    """Check rules as `check_rules` does, and look for what their author cannot have meant.

    Returns: their ids, in order.

    Raises:
        MalformedError: the first thing that is wrong, with the line of its rule.
    """
    rules = parse_rules_text(cedar)
    for rule in rules:
        for body in rule.conditions:
            for node in _nodes(body):
                problem = _problem_of(node, rule)
                if problem:
                    raise MalformedError(f"line {rule.line}: {problem}")
    return tuple(rule.rule_id for rule in rules)


def _problem_of(node: Mapping[str, Any], rule: Rule) -> str:
    ((operation, body),) = node.items()
    if operation in ("==", "!="):
        left, right = body["left"], body["right"]
        return _problem_of_comparison(left, right) or _problem_of_comparison(right, left)
    if operation in _ARITHMETIC and _range_of(node) is None:
        return "this arithmetic can overflow for facts that updates may have; a rule that overflows denies everybody"
    match node:
        case {"has": {"left": {"Var": str(variable)}, "attr": str(name)}} if name in _known(variable, rule):
            return ""
        case {"has": {"attr": str(name)}}:
            return f"no request has the attribute {name} there, so what asks for it never holds"
        case {"hasTag": _} | {"getTag": _}:
            return "no participant and no segment has tags, so what asks for one never holds"
        case {"in": {"left": {"Var": str(variable)}, "right": right}}:
            if any(entity_type != _TYPE_OF.get(variable) for entity_type in _entity_types(right)):
                return f"{variable} is never in an entity that is no {_TYPE_OF.get(variable)}"
    return ""


def _known(variable: str, rule: Rule) -> frozenset[str]:
    if variable != "context":
        return _ATTRIBUTES.get(variable, frozenset())
    actions = _CONTEXT.keys() if rule.scope.actions is None else rule.scope.actions & _CONTEXT.keys()
    return frozenset().union(*(_CONTEXT[action] for action in actions))


def _problem_of_comparison(asked: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    match asked, given:
        case {".": {"left": {"Var": "context"}, "attr": str(name)}}, {"Value": str(value)} if name in _WORDS:
            if value not in _WORDS[name]:
                return f"{name} is one of {', '.join(sorted(_WORDS[name]))}, and never anything else"
    return ""


def _entity_types(node: Mapping[str, Any]) -> Iterator[str]:
    match node:
        case {"Value": {"__entity": {"type": str(entity_type)}}}:
            yield entity_type
        case {"Set": [*members]}:
            for member in members:
                yield from _entity_types(member)


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in _children(node):
        yield from _nodes(child)


def _children(node: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    ((operation, body),) = node.items()
    if operation in ("Value", "Var"):
        return ()
    if operation == "Record":
        return tuple(body.values())
    if isinstance(body, list):  # a set, or the arguments of a function
        return body
    return [body[key] for key in _CHILDREN if key in body]


def _range_of(node: Mapping[str, Any]) -> Range | None:
    """Least and greatest value of an expression that is a Long; None where it can leave the range of a Long."""
    match node:
        case {"Value": int(value)}:
            return value, value
        case {".": {"left": {"Var": _}, "attr": str(name)}}:
            return _RANGES.get(name, _LONG)
        case {"neg": {"arg": arg}}:
            return _within([-bound for bound in _range_of(arg) or ()])
        case {"+": {"left": left, "right": right}}:
            return _combined(operator.add, _range_of(left), _range_of(right))
        case {"-": {"left": left, "right": right}}:
            return _combined(operator.sub, _range_of(left), _range_of(right))
        case {"*": {"left": left, "right": right}}:
            return _combined(operator.mul, _range_of(left), _range_of(right))
        case {"if-then-else": {"then": then, "else": otherwise}}:
            first, second = _range_of(then), _range_of(otherwise)
            return None if first is None or second is None else _within([*first, *second])
    return _LONG


def _combined(operation: Callable[[int, int], int], left: Range | None, right: Range | None) -> Range | None:
    # Each of the three is monotone in either argument, so the corners are the extremes.
    return None if left is None or right is None else _within([operation(a, b) for a in left for b in right])


def _within(bounds: list[int]) -> Range | None:
    if not bounds or min(bounds) < _LONG[0] or max(bounds) > _LONG[1]:
        return None
    return min(bounds), max(bounds)
