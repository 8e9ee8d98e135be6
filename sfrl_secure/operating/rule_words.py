"""Rules, for their author: where a fault stands, what was perhaps meant, and whether anybody is left who may send.

Cedar names a rule by its place in the text, and a fault without its place. Here a fault has the rule's own `@id`, the
line of the word that Cedar quotes where the rule has it on one line only, and the nearest name that there is.

Runs in: operators' machines, cli.
Trusts: governance.cedar_rules.
"""

from __future__ import annotations

import re
from dataclasses import fields
from difflib import get_close_matches

from sfrl_secure.governance.cedar_rules import Rule, parse_rules_text
from sfrl_secure.governance.policy import HeaderFacts, MeasuredPolicyFacts

ACTIONS = ("submit", "admit")

_HEADER = tuple(each.name for each in fields(HeaderFacts))
_MEASURED = tuple(each.name for each in fields(MeasuredPolicyFacts))
_ATTRIBUTES = {"Participant": ("clearance", "groups"), "Segment": ("sensitivity",)}

_PLACE = re.compile(r"^for policy `policy[0-9]+`, ")
_QUOTED = re.compile(r"`([^`]+)`")
_ATTRIBUTE = re.compile(r"attribute `(?P<name>\w+)` (?:in context for Action::\"(?P<action>\w+)\"|on entity type "
                        r"`(?P<entity>\w+)`) not found")
_ACTION = re.compile(r"unrecognized action `Action::\"(?P<name>\w+)\"`")
_ID = re.compile(r'^[^"/]*@id\("([a-z0-9-]{1,64})"\)', re.MULTILINE)


def place_fault(text: str, line: int, reason: str) -> tuple[int, str]:
    """Give a fault of one rule its line in the rule's text, and its reason in the author's words.

    Args:
        text: of the rule.
        line: on which the rule begins, counted from 1 in its text.
        reason: Cedar's, or that of a review.
    """
    said = _PLACE.sub("", reason)
    quoted = _QUOTED.search(said)
    name = _ID.search(text)
    where = _line_of(text, quoted[1]) if quoted else None
    whose = "" if name is None else f"rule {name[1]}: "
    return where or line, f"{whose}{said}{_hint(said)}"


def shut_out(cedar: str) -> str:
    """Say why these rules let nobody send anything; empty where they do not.

    An update is asked for twice, at `submit` and at `admit`, and needs both.

    Raises:
        MalformedError: they are no rules.
    """
    rules = parse_rules_text(cedar)
    for action in ACTIONS:
        asked = [rule for rule in rules if rule.scope.actions is None or action in rule.scope.actions]
        if not any(rule.is_permit for rule in asked):
            return f"no rule permits anybody to {action}, so every update is denied"
        for rule in asked:
            if not rule.is_permit and _is_for_all(rule):
                return f"rule {rule.rule_id} forbids everybody to {action}, always, so every update is denied"
    return ""


def _is_for_all(rule: Rule) -> bool:
    """Whether a rule asks nothing of whom and where, and has no condition."""
    principal, _, resource = rule.heads
    return principal["op"] == resource["op"] == "All" and not rule.conditions


def _line_of(text: str, word: str) -> int | None:
    """The one line on which a word stands outside comments; None where there is none, or more than one."""
    pattern = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
    found = [number for number, line in enumerate(text.split("\n"), 1) if pattern.search(line.partition("//")[0])]
    return found[0] if len(found) == 1 else None


def _hint(said: str) -> str:
    action = _ACTION.search(said)
    if action is not None:
        return _near(action["name"], ACTIONS)
    attribute = _ATTRIBUTE.search(said)
    if attribute is None:
        return ""
    name = attribute["name"]
    if attribute["action"] == "submit" and name in _MEASURED:
        return f': {name} is measured later, so the rule is for action == Action::"admit" alone'
    if attribute["entity"]:
        return _near(name, _ATTRIBUTES.get(attribute["entity"], ()))
    return _near(name, _HEADER + (_MEASURED if attribute["action"] == "admit" else ()))


def _near(name: str, known: tuple[str, ...]) -> str:
    near = get_close_matches(name, known, 1)
    return f": did you mean {near[0]}?" if near else f": there are {', '.join(known)}"
