"""Fields of a JSON object, taken with their type and range or not at all.

An `ObjectFields` has exactly the keys that its format names. Whoever takes a field states its bounds, and the errors
quote those bounds, never the value.

Format: proto/README.md, "Documents".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from sfrl_secure.crypto.keys import PUBLIC_BYTES, PublicKey, parse_public_key
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest, parse_hex_digest

INTEGER_MAX = 2**63 - 1
SUITES = frozenset(PUBLIC_BYTES)

_HEX = re.compile(r"(?:[0-9a-f]{2})*")
_REASON = re.compile(r"[ -~]{0,200}")


class ObjectFields:
    """One JSON object of a document, with exactly the keys of its format."""

    def __init__(self, value: object, where: str, keys: Collection[str]) -> None:
        """Take `value` as an object with exactly `keys`.

        Args:
            where: name of the object in errors.

        Raises:
            MalformedError: no object, or a key is missing or unknown.
        """
        members = take_object(value, where)
        missing = sorted(set(keys) - members.keys())
        if missing:
            raise MalformedError(f"{where} lacks the key {missing[0]}")
        if len(members) != len(keys):
            raise MalformedError(f"{where} has a key beyond the {len(keys)} of its format")
        self._members = members
        self._where = where

    def __getitem__(self, key: str) -> object:
        return self._members[key]

    def name_of(self, key: str) -> str:
        """How errors name this field."""
        return f"{self._where}.{key}"

    def integer(self, key: str, low: int, high: int) -> int:
        """Take an integer from `low` to `high`."""
        return take_integer(self[key], self.name_of(key), low, high)

    def text(self, key: str, length_max: int) -> str:
        """Take a string of at most `length_max` characters."""
        return take_text(self[key], self.name_of(key), length_max)

    def choice(self, key: str, allowed: Collection[str]) -> str:
        """Take one of `allowed`."""
        value = self[key]
        if type(value) is not str or value not in allowed:
            raise MalformedError(f"{self.name_of(key)} is one of {', '.join(sorted(allowed))}")
        return value

    def digest(self, key: str) -> Digest:
        """Take a digest in hexadecimal."""
        return parse_hex_digest(self.text(key, 64))

    def hexadecimal(self, key: str, bytes_max: int) -> bytes:
        """Take bytes in lower-case hexadecimal."""
        value = self.text(key, 2 * bytes_max)
        if not _HEX.fullmatch(value):
            raise MalformedError(f"{self.name_of(key)} is bytes in lower-case hexadecimal")
        return bytes.fromhex(value)

    def reason(self, key: str) -> str:
        """Take what somebody says to people: 0 to 200 characters of printable ASCII."""
        value = self.text(key, 200)
        if not _REASON.fullmatch(value):
            raise MalformedError(f"{self.name_of(key)} is 0 to 200 characters of printable ASCII")
        return value

    def items(self, key: str, least: int, most: int) -> list[object]:
        """Take a list of `least` to `most` items."""
        return take_list(self[key], self.name_of(key), least, most)

    def texts(
        self, key: str, least: int, most: int, parse: Callable[[str], str], *, length_max: int = 255
    ) -> tuple[str, ...]:
        """Take a list of strings, none twice, each of at most `length_max` characters and through `parse`."""
        name = self.name_of(key)
        values = tuple(parse(take_text(item, name, length_max)) for item in self.items(key, least, most))
        if len(set(values)) != len(values):
            raise MalformedError(f"{name} names nothing twice")
        return values

    def sorted_texts(self, key: str, least: int, most: int, parse: Callable[[str], str]) -> frozenset[str]:
        """Take a set as a sorted list of strings, none twice, each through `parse`."""
        values = self.texts(key, least, most, parse)
        if list(values) != sorted(values):
            raise MalformedError(f"{self.name_of(key)} is sorted")
        return frozenset(values)

    def sorted_choices(self, key: str, least: int, allowed: Collection[str]) -> frozenset[str]:
        """Take a sorted subset of `allowed` with `least` members or more."""
        def parse(value: str) -> str:
            if value not in allowed:
                raise MalformedError(f"{self.name_of(key)} has only {', '.join(sorted(allowed))}")
            return value
        return self.sorted_texts(key, least, len(allowed), parse)

    def mapping(self, key: str, least: int, most: int) -> dict[str, object]:
        """Take an object of `least` to `most` members whose keys are data."""
        members = take_object(self[key], self.name_of(key))
        if not least <= len(members) <= most:
            raise MalformedError(f"{self.name_of(key)} has {least} to {most} members")
        return members

    def public_key(self) -> PublicKey:
        """Take a public key from the fields `suite` and `public_key`."""
        suite = self.choice("suite", SUITES)
        return parse_public_key(suite, self.hexadecimal("public_key", sum(PUBLIC_BYTES[suite])))


def take_object(value: object, where: str) -> dict[str, object]:
    """Take a JSON object.

    Raises:
        MalformedError: anything else.
    """
    if type(value) is not dict:
        raise MalformedError(f"{where} is an object")
    return value


def take_list(value: object, where: str, least: int, most: int) -> list[object]:
    """Take a JSON list of `least` to `most` items.

    Raises:
        MalformedError: anything else.
    """
    if type(value) is not list or not least <= len(value) <= most:
        raise MalformedError(f"{where} is a list of {least} to {most} items")
    return value


def take_integer(value: object, where: str, low: int, high: int) -> int:
    """Take a JSON integer from `low` to `high`.

    Raises:
        MalformedError: anything else.
    """
    # type, not isinstance: true is an int to isinstance.
    if type(value) is not int or not low <= value <= high:
        raise MalformedError(f"{where} is an integer from {low} to {high}")
    return value


def take_text(value: object, where: str, length_max: int) -> str:
    """Take a JSON string of at most `length_max` characters.

    Raises:
        MalformedError: anything else.
    """
    if type(value) is not str or len(value) > length_max:
        raise MalformedError(f"{where} is a string of at most {length_max} characters")
    return value
