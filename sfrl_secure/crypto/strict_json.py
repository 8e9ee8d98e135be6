"""Strict JSON: one reading or none.

UTF-8 without BOM, no key twice, integers only, bounded in size, depth and numbers. Documents are verified over their
exact bytes; this parser makes sure that those bytes say one thing.

Format: proto/README.md, "Canonical form".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from sfrl_secure.errors import MalformedError

DEPTH_MAX = 32
_NUMBER_CHARACTERS_MAX = 20
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A string, or what would be one if it ended. Nothing is tried again, so that no escape costs memory."""
_BRACKETS = re.compile(r"[\[\]{}]")


def parse_strict_json(raw: bytes, *, bytes_max: int) -> dict[str, Any]:
    """Parse one object.

    Raises:
        MalformedError: too long, too deep, a key twice, a number that is no integer below 2**63, or no JSON object.
    """
    if len(raw) > bytes_max:
        raise MalformedError(f"the document is at most {bytes_max} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedError("the document is not UTF-8") from None
    _check_depth(text)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_refuse, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        raise MalformedError("the document is not JSON") from None
    if not isinstance(value, dict):
        raise MalformedError("the document is one JSON object")
    # UTF-8 has no lone surrogates: only an escape can name one.
    if "\\u" in text:
        _check_text(value)
    return value


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in _BRACKETS.finditer(_STRING.sub("", text)):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > DEPTH_MAX:
            raise MalformedError(f"the document nests at most {DEPTH_MAX} levels")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("a key stands twice in an object")
    return found


def _integer(text: str) -> int:
    if len(text) > _NUMBER_CHARACTERS_MAX or abs(int(text)) >= 2**63 or text == "-0":
        raise MalformedError("a number is an integer below 2**63")
    return int(text)


def _refuse(_text: str) -> NoReturn:
    raise MalformedError("a number is an integer below 2**63")


def _check_text(value: Any) -> None:
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise MalformedError("text has no lone surrogates") from None
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check_text(inner)
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner)
