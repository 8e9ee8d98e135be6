"""Values of a JSON document, taken with their type and range or not at all.

Format: proto/README.md, "Documents".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Set
from typing import Any

from sfrl_secure.crypto.keys import PUBLIC_BYTES, PublicKey, parse_public_key
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, parse_hex_digest, parse_name

INTEGER_MAX = 2**63 - 1

_HEX = re.compile(r"([0-9a-f]{2})*")
_PRINTABLE = re.compile(r"[ -~]*")


def take_object(value: Any, keys: Set[str]) -> dict[str, Any]:
    """Take an object with exactly these keys."""
    if type(value) is not dict or value.keys() != keys:
        raise MalformedError("an object has exactly the keys of its format")
    return value


def take_mapping(value: Any, least: int, most: int) -> dict[str, Any]:
    """Take an object whose keys are data."""
    if type(value) is not dict or not least <= len(value) <= most:
        raise MalformedError(f"an object of {least} to {most} members")
    return value


def take_list(value: Any, least: int, most: int) -> list[Any]:
    """Take a list of that many items."""
    if type(value) is not list or not least <= len(value) <= most:
        raise MalformedError(f"a list of {least} to {most} items")
    return value


def take_integer(value: Any, low: int, high: int) -> int:
    """Take an integer of that range. True is no integer."""
    if type(value) is not int or not low <= value <= high:
        raise MalformedError(f"an integer from {low} to {high}")
    return value


def take_text(value: Any, characters_max: int) -> str:
    """Take a string of at most that many characters."""
    if type(value) is not str or len(value) > characters_max:
        raise MalformedError(f"a string of at most {characters_max} characters")
    return value


def take_name(value: Any) -> str:
    """Take a name."""
    return parse_name(take_text(value, 64))


def take_reason(value: Any) -> str:
    """Take what people give as a reason."""
    text = take_text(value, 200)
    if not _PRINTABLE.fullmatch(text):
        raise MalformedError("a reason is printable ASCII")
    return text


def take_choice(value: Any, allowed: Set[str]) -> str:
    """Take one of these words."""
    if type(value) is not str or value not in allowed:
        raise MalformedError("one of the words of the format")
    return value


def take_digest(value: Any) -> Digest:
    """Take a digest in hexadecimal."""
    return parse_hex_digest(take_text(value, 64))


def take_hex(value: Any, bytes_max: int) -> bytes:
    """Take bytes in lower-case hexadecimal."""
    text = take_text(value, 2 * bytes_max)
    if not _HEX.fullmatch(text):
        raise MalformedError("bytes in lower-case hexadecimal")
    return bytes.fromhex(text)


def take_sorted(value: Any, least: int, most: int, parse: Callable[[Any], str]) -> tuple[str, ...]:
    """Take a sorted list of words, none twice."""
    words = tuple(parse(item) for item in take_list(value, least, most))
    if list(words) != sorted(set(words)):
        raise MalformedError("a list of words is sorted, and names nothing twice")
    return words


def take_subset(value: Any, least: int, allowed: Set[str]) -> frozenset[str]:
    """Take a sorted subset of these words."""
    return frozenset(take_sorted(value, least, len(allowed), lambda item: take_choice(item, allowed)))


def take_public_key(fields: dict[str, Any]) -> PublicKey:
    """Take the key that `suite` and `public_key` name."""
    suite = take_choice(fields["suite"], PUBLIC_BYTES.keys())
    return parse_public_key(suite, take_hex(fields["public_key"], sum(PUBLIC_BYTES[suite])))
