"""The text of a rules document, cut into its policies and bounded before Cedar's parser meets it.

Cedar recurses on the machine's stack, so what can be deep is bounded: two readers must not differ by how much stack
they have.

Format: proto/README.md, "Documents", rules.

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import POLICIES_MAX, POLICY_NESTING_MAX, POLICY_STEPS_MAX

_STEPS = frozenset("([{.+-*!&|")
_WORD = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")


def cut_policies(cedar: str) -> tuple[str, ...]:
    """Cut the text behind each `;` that is in no string and no comment.

    Raises:
        MalformedError: a character other than printable ASCII, tab and line feed; a string that does not end on its
            line; text behind the last `;`; too many policies; a policy with too many steps or too deep brackets.
    """
    if any(not (" " <= character <= "~" or character in "\t\n") for character in cedar):
        raise MalformedError("rules are printable ASCII, tabs and line feeds")
    policies: list[str] = []
    start = steps = depth = 0
    is_begun = False
    for word, end in _tokens(cedar):
        is_begun = True
        steps += word in _STEPS or word == "if"
        if word in ("(", "[", "{"):
            depth += 1
        elif word in (")", "]", "}"):
            depth = max(0, depth - 1)
        if steps > POLICY_STEPS_MAX or depth > POLICY_NESTING_MAX:
            raise MalformedError(f"a policy has at most {POLICY_STEPS_MAX} steps, nested {POLICY_NESTING_MAX} deep")
        if word == ";":
            policies.append(cedar[start:end])
            start, steps, depth, is_begun = end, 0, 0, False
    if is_begun:
        raise MalformedError("a policy ends with ';'")
    if len(policies) > POLICIES_MAX:
        raise MalformedError(f"rules have at most {POLICIES_MAX} policies")
    return tuple(policies)


def _tokens(cedar: str) -> Iterator[tuple[str, int]]:
    """Words, single characters and `"` for a whole string, each with where it ends; no white space, no comments."""
    at = 0
    while at < len(cedar):
        character = cedar[at]
        if character in " \t\n":
            at += 1
        elif cedar.startswith("//", at):
            line_end = cedar.find("\n", at)
            at = len(cedar) if line_end < 0 else line_end
        elif character == '"':
            at = _string_end(cedar, at + 1)
            yield '"', at
        elif character in _WORD and not character.isdigit():
            end = at
            while end < len(cedar) and cedar[end] in _WORD:
                end += 1
            yield cedar[at:end], end
            at = end
        else:
            at += 1
            yield character, at


def _string_end(cedar: str, at: int) -> int:
    while at < len(cedar) and cedar[at] != "\n":
        if cedar[at] == '"':
            return at + 1
        # A backslash takes the next character along, but no line's end.
        at += 2 if cedar[at] == "\\" and cedar[at + 1 : at + 2] not in ("", "\n") else 1
    raise MalformedError("a string ends on its line")
