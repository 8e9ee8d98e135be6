"""What is wrong with rules that are valid: a review for their author, before anybody signs.

Cedar's validator refuses an attribute, action or type that the schema does not have. It lets through what never
holds, so that a forbid would bind nobody (`context has nrom`, `context.value_type like "flaot*"`), what always holds,
so that a permit would bind nobody either (`context.density_ppm <= 2000000`), and arithmetic that may overflow, so that
one rule would deny everybody. A review changes no verdict: rules in force that would not pass it are decided as they
stand, and what errs there denies.

It looks at one comparison at a time. Two that contradict each other are left to their author.

Format: Cedar's JSON policy format; proto/README.md, "Policy".

Runs in: the operators' command line.
Trusts: its caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.cedar_rules import Rule, parse_rules_text
from sfrl_secure.governance.fields import SUITES
from sfrl_secure.governance.policy import HeaderFacts, MeasuredPolicyFacts
from sfrl_secure.governance.rule_ranges import ARITHMETIC, outcome_of, range_of
from sfrl_secure.governance.terms import SUPPORT_MODES, VALUE_TYPES
from sfrl_secure.ids import parse_name, parse_segment

_HEADER = frozenset(each.name for each in fields(HeaderFacts))
_CONTEXT = {"submit": _HEADER, "admit": _HEADER | {each.name for each in fields(MeasuredPolicyFacts)}}
_ATTRIBUTES = {"principal": frozenset({"clearance", "groups"}), "resource": frozenset({"sensitivity"})}
_TYPE_OF = {"principal": "Participant", "action": "Action", "resource": "Segment"}
_WORDS = {"value_type": VALUE_TYPES, "support_mode": SUPPORT_MODES, "suite": SUITES}
_NAMES: dict[str, Callable[[str], str]] = {"Participant": parse_name, "Segment": parse_segment}

_COMPARISONS = frozenset({"==", "!=", "contains", "containsAny", "containsAll"})
_CHILDREN = ("left", "right", "arg", "if", "then", "else", "in")


def review_rules(cedar: str) -> tuple[str, ...]:
    """Check rules as `check_rules` does, and look for what their author cannot have meant.

    Returns: their ids, in order.

    Raises:
        MalformedError: the first thing that is wrong, with the line of its rule.
    """
    rules = parse_rules_text(cedar)
    for rule in rules:
        for problem in _problems_of(rule):
            raise MalformedError(f"line {rule.line}: {problem}")
    return tuple(rule.rule_id for rule in rules)


def _problems_of(rule: Rule) -> Iterator[str]:
    for head in rule.heads:
        for entity in _entities_of_head(head):
            if problem := _problem_of_name(entity):
                yield problem
    for body in rule.conditions:
        for node in _nodes(body):
            if problem := _problem_of(node, rule) or _problem_of_type(node):
                yield problem


def _problem_of(node: Mapping[str, Any], rule: Rule) -> str:
    ((operation, body),) = node.items()
    if operation in ARITHMETIC and range_of(node) is None:
        return "this arithmetic can overflow for facts that updates may have; a rule that overflows denies everybody"
    if (outcome := outcome_of(node)) is not None:
        return f"{operation} {'always' if outcome else 'never'} holds there, whatever the facts of an update are"
    if operation in _COMPARISONS:
        left, right = body["left"], body["right"]
        return _problem_of_words(left, right) or _problem_of_words(right, left)
    match node:
        case {"like": {"left": left, "pattern": [*pattern]}}:
            words, asked = _words_of(left)
            if asked and words is not None and not any(_is_like(word, pattern) for word in words):
                return _closed(asked, words)
        case {"has": {"left": {"Var": str(variable)}, "attr": str(name)}} if name in _known(variable, rule):
            return ""
        case {"has": {"attr": str(name)}}:
            return f"no request has the attribute {name} there, so what asks for it never holds"
        case {"hasTag": _} | {"getTag": _}:
            return "no participant and no segment has tags, so what asks for one never holds"
    return ""


def _known(variable: str, rule: Rule) -> frozenset[str]:
    if variable != "context":
        return _ATTRIBUTES.get(variable, frozenset())
    actions = _CONTEXT.keys() if rule.scope.actions is None else rule.scope.actions & _CONTEXT.keys()
    return frozenset().union(*(_CONTEXT[action] for action in actions))


# Words of which there are few


def _problem_of_words(asked: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    words, names = _words_of(asked)
    if names and words is not None and not set(_strings(given)) <= words:
        return _closed(names, words)
    return ""


def _closed(names: frozenset[str], words: frozenset[str]) -> str:
    return f"{' or '.join(sorted(names))} is one of {', '.join(sorted(words))}, and never anything else"


def _words_of(node: Mapping[str, Any]) -> tuple[frozenset[str] | None, frozenset[str]]:
    """Every word that a string, or a member of a set, can be, None where it can be any; and the facts it comes from."""
    match node:
        case {".": {"left": {"Var": "context"}, "attr": str(name)}} if name in _WORDS:
            return frozenset(_WORDS[name]), frozenset({name})
        case {"Value": str(word)}:
            return frozenset({word}), frozenset()
        case {"Set": [*parts]}:
            pass
        case {"if-then-else": {"then": then, "else": otherwise}}:
            parts = [then, otherwise]
        case _:
            return None, frozenset()
    found = [_words_of(part) for part in parts]
    words: frozenset[str] | None = frozenset()
    for each, _ in found:
        words = None if words is None or each is None else words | each
    return words, frozenset().union(*(names for _, names in found))


def _strings(node: Mapping[str, Any]) -> Iterator[str]:
    match node:
        case {"Value": str(word)}:
            yield word
        case {"Set": [*parts]}:
            for part in parts:
                yield from _strings(part)
        case {"if-then-else": {"then": then, "else": otherwise}}:
            yield from _strings(then)
            yield from _strings(otherwise)


def _is_like(word: str, pattern: list[Any]) -> bool:
    parts = (re.escape(part["Literal"]) if isinstance(part, dict) else ".*" for part in pattern)
    return re.fullmatch("".join(parts), word, re.DOTALL) is not None


# Participants, segments and actions


def _problem_of_type(node: Mapping[str, Any]) -> str:
    ((operation, body),) = node.items()
    match node:
        case {"Value": {"__entity": entity}}:
            return _problem_of_name(entity)
        case {"is": {"left": {"Var": str(variable)}, "entity_type": str(entity_type)}} if (
            entity_type != _TYPE_OF.get(variable)
        ):
            return f"{variable} is never a {entity_type}"
        case {"is": {"left": left, "in": right}} | {"in": {"left": left, "right": right}}:
            return _problem_of_kin(left, right)
    if operation in ("==", "!="):
        return _problem_of_kin(body["left"], body["right"])
    return ""


def _problem_of_kin(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """No entity of ours is in one of another type, nor is it one."""
    left, right = set(_entity_types(one)), set(_entity_types(other))
    if left and not right <= left:
        return f"what is compared there is never the same: {', '.join(sorted(left))} and {', '.join(sorted(right))}"
    return ""


def _problem_of_name(entity: Mapping[str, Any]) -> str:
    parse = _NAMES.get(entity["type"])
    try:
        if parse is not None:
            parse(entity["id"])
    except MalformedError as error:
        return f"no {entity['type']} has such a name: {error}"
    return ""


def _entities_of_head(head: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    for asked in (head, head.get("in", {})):
        if "entity" in asked:
            yield asked["entity"]


def _entity_types(node: Mapping[str, Any]) -> Iterator[str]:
    match node:
        case {"Value": {"__entity": {"type": str(entity_type)}}}:
            yield entity_type
        case {"Var": str(variable)} if variable in _TYPE_OF:
            yield _TYPE_OF[variable]
        case {"Set": [*members]}:
            for member in members:
                yield from _entity_types(member)


# Everything in a condition


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
