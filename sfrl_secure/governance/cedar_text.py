"""The text of a rules document, cut into policies and bounded before a Cedar parser sees it.

Cedar's parser and evaluator recurse on the machine's stack: a thousand nested parentheses end the process, and a
chain of a thousand operators is judged by how much stack the thread happens to have, so that two services could read
one document in two ways. With these bounds the depth of every expression is small, and every reader agrees.

Format: proto/README.md, "Documents", rules.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import POLICIES_MAX, POLICY_NESTING_MAX, POLICY_STEPS_MAX

# A backslash takes the next character along, as in Cedar's own strings; a string ends on its line.
_WORD = re.compile(r'"(?:[^"\\\n]|\\[^\n])*"|//[^\n]*|[A-Za-z_][A-Za-z0-9_]*|\n|[ \t]+|.')
_PLAIN = re.compile(r"[\t\n -~]*")
_STEPS = frozenset("([{.+-*!&|") | {"if"}


@dataclass(frozen=True, slots=True)
class PolicyText:
    """One policy: its text up to and with the `;`, and the line on which it begins, counted from 1."""

    line: int
    text: str


class _Bounds:
    """Counts what can make an expression deep, in one policy."""

    def __init__(self) -> None:
        self._steps = self._depth = 0

    def take(self, word: str, line: int) -> None:
        if word in _STEPS:
            self._steps += 1
        if word in "([{":
            self._depth += 1
        elif word in ")]}":
            # Never below zero: closing what is not open must not make room for more.
            self._depth = max(0, self._depth - 1)
        if self._depth > POLICY_NESTING_MAX:
            raise MalformedError(f"line {line}: brackets nest at most {POLICY_NESTING_MAX} deep")
        if self._steps > POLICY_STEPS_MAX:
            raise MalformedError(
                f"line {line}: a policy has at most {POLICY_STEPS_MAX} of "
                "'(', '[', '{', '.', '+', '-', '*', '!', '&', '|' and 'if' together"
            )


def split_policies(cedar: str) -> tuple[PolicyText, ...]:
    """Cut `cedar` at the `;` outside strings and comments, and check the bounds of each policy.

    Raises:
        MalformedError: a character that is not printable ASCII, tab or line feed; a string that does not end on its
            line; text after the last `;`; too many policies, or one that could be deep.
    """
    if not _PLAIN.fullmatch(cedar):
        raise MalformedError("rules are printable ASCII, tabs and line feeds")
    found: list[PolicyText] = []
    line, begun, start, bounds = 1, 0, 0, _Bounds()
    for match in _WORD.finditer(cedar):
        word = match[0]
        if word == "\n":
            line += 1
            continue
        if word[0] in " \t" or word.startswith("//"):
            continue
        if word == '"':
            raise MalformedError(f"line {line}: a string ends on its line")
        begun = begun or line
        bounds.take(word, line)
        if word == ";":
            found.append(PolicyText(begun, cedar[start : match.end()]))
            if len(found) > POLICIES_MAX:
                raise MalformedError(f"rules have at most {POLICIES_MAX} policies")
            begun, start, bounds = 0, match.end(), _Bounds()
    if begun:
        raise MalformedError(f"line {begun}: a policy ends with ';'")
    return tuple(found)
