"""Canonical protobuf: one message, one string of bytes.

Protobuf's own parsers take many encodings of one message and keep what they do not know. Whatever is signed, logged
or hashed is taken in one form only: it is parsed, what is unknown is thrown away, the rest is written again, and
anything but the same bytes is refused. Numbers of enums survive all that, so they are compared with the schema.

Lengths, ranges and required fields are the subject of each message's own parser, with the `take_*` functions below.

Format: proto/README.md, "Canonical form".

Runs in: everything that talks or reads the log, except replay.
Trusts: nothing.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from operator import attrgetter
from typing import Any, TypeVar

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError, Message

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest

M = TypeVar("M", bound=Message)

_RULE_ID = re.compile(r"[a-z0-9-]{1,64}")
_REASON = re.compile(r"[a-z]+(_[a-z]+)*")
RULE_IDS_MAX = 64
REASON_CHARACTERS_MAX = 64


def parse_message(message_class: type[M], raw: bytes, bytes_max: int) -> M:
    """Parse a message of at most `bytes_max` bytes that may have unknown fields, as an answer may; they are dropped.

    Raises:
        MalformedError: too long, or not that message.
    """
    if len(raw) > bytes_max:
        raise MalformedError(f"a message is at most {bytes_max} bytes")
    message = message_class()
    try:
        message.ParseFromString(raw)
    except DecodeError:
        raise MalformedError("the bytes are not the message that they should be") from None
    # ParseFromString keeps unknown fields; nothing further up may see or pass them on.
    message.DiscardUnknownFields()  # type: ignore[no-untyped-call, unused-ignore]
    return message


def parse_canonical(message_class: type[M], raw: bytes, bytes_max: int) -> M:
    """Parse a message of at most `bytes_max` bytes in the one form that it has.

    Raises:
        MalformedError: too long, not that message, not canonical, or an enum number that the schema does not have.
    """
    message = parse_message(message_class, raw, bytes_max)
    if encode_canonical(message) != raw:
        raise MalformedError("the message is not in canonical form")
    _check_enum_numbers(message, _enum_fields(message.DESCRIPTOR))
    return message


def encode_canonical(message: Message) -> bytes:
    """Write `message` in canonical form: fields ascending, minimal varints, defaults absent."""
    try:
        return message.SerializeToString(deterministic=True)
    except EncodeError:
        raise MalformedError("the message does not fit its format") from None


def build_message(make: Callable[[], M]) -> M:
    """Return `make()`, where a value of ours that its field cannot hold is a MalformedError.

    Raises:
        MalformedError: a number out of its field's range, or text that is not UTF-8.
    """
    try:
        return make()
    except (ValueError, TypeError):  # what protobuf raises when a field is set; UnicodeError is a ValueError
        raise MalformedError("a value does not fit its field") from None


_EnumFields = tuple[tuple[str, bool, "frozenset[int] | None", "_EnumFields"], ...]
"""Per field that is or holds an enum: name, whether repeated, the schema's numbers or None, what a message holds."""


@cache
def _enum_fields(descriptor: Descriptor) -> _EnumFields:
    # The schema has no recursive message, so this depth is the schema's.
    found: list[tuple[str, bool, frozenset[int] | None, _EnumFields]] = []
    for field in descriptor.fields:
        if field.type == FieldDescriptor.TYPE_ENUM:
            assert field.enum_type is not None
            found.append((field.name, field.is_repeated, frozenset(field.enum_type.values_by_number), ()))
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            assert field.message_type is not None
            inside = _enum_fields(field.message_type)
            if inside:
                found.append((field.name, field.is_repeated, None, inside))
    return tuple(found)


def _check_enum_numbers(message: Message, fields: _EnumFields) -> None:
    for name, is_repeated, numbers, inside in fields:
        value = getattr(message, name)
        if numbers is not None:
            if not numbers.issuperset(value if is_repeated else (value,)):
                raise MalformedError("an enum has a number that its schema does not have")
        elif is_repeated:
            _check_all(value, inside)
        elif message.HasField(name):
            _check_enum_numbers(value, inside)


def _check_all(messages: Sequence[Message], fields: _EnumFields) -> None:
    # Field by field, for there may be hundreds of messages with one enum each.
    for name, is_repeated, numbers, inside in fields:
        if numbers is None or is_repeated:
            for each in messages:
                _check_enum_numbers(each, ((name, is_repeated, numbers, inside),))
        elif not numbers.issuperset(map(attrgetter(name), messages)):
            raise MalformedError("an enum has a number that its schema does not have")


def take_number(value: int, what: str) -> int:
    """Take a required number: not 0, which stands for absent.

    Raises:
        MalformedError: it is 0.
    """
    if value == 0:
        raise MalformedError(f"{what} is required")
    return value


def take_bytes(value: bytes, what: str, bytes_max: int) -> bytes:
    """Take required bytes of at most `bytes_max`.

    Raises:
        MalformedError: empty or longer.
    """
    if not 0 < len(value) <= bytes_max:
        raise MalformedError(f"{what} is 1 to {bytes_max} bytes")
    return value


def take_text(value: str, what: str, characters_max: int) -> str:
    """Take required text of printable ASCII, at most `characters_max` long.

    Raises:
        MalformedError: empty, longer, or with another character.
    """
    if not 0 < len(value) <= characters_max or not (value.isascii() and value.isprintable()):
        raise MalformedError(f"{what} is 1 to {characters_max} characters of printable ASCII")
    return value


def take_digest(value: bytes, what: str) -> Digest:
    """Take exactly 32 bytes.

    Raises:
        MalformedError: any other length.
    """
    if len(value) != 32:
        raise MalformedError(f"{what} is a digest of 32 bytes")
    return Digest(value)


def take_digests(values: Sequence[bytes], what: str, count_max: int) -> tuple[Digest, ...]:
    """Take at most `count_max` digests.

    Raises:
        MalformedError: more, or one of another length.
    """
    if len(values) > count_max:
        raise MalformedError(f"{what} has at most {count_max} hashes")
    return tuple(take_digest(value, what) for value in values)


@lru_cache(maxsize=1024)  # the codes are few, and come again and again; an error is not kept
def take_reason(value: str) -> str:
    """Take a reason code: lower-case words joined by underscores, at most 64 characters.

    Raises:
        MalformedError: any other form.
    """
    if len(value) > REASON_CHARACTERS_MAX or not _REASON.fullmatch(value):
        raise MalformedError("a reason is lower-case words joined by underscores, at most 64 characters")
    return value


def take_rule_ids(values: Sequence[str], decisions: int) -> tuple[str, ...]:
    """Take at most 64 rule ids, which are those of `decisions` decisions one after the other, each ascending.

    Raises:
        MalformedError: too many, not an id, or out of order.
    """
    if len(values) > RULE_IDS_MAX:
        raise MalformedError(f"a decision names at most {RULE_IDS_MAX} rules")
    if not all(_RULE_ID.fullmatch(value) for value in values):
        raise MalformedError("a rule id is 1 to 64 of a-z, 0-9 and '-'")
    runs = 1 + sum(later <= earlier for earlier, later in pairwise(values))
    if runs > decisions:
        raise MalformedError("rule ids are not in ascending order")
    return tuple(values)


def check_ascending(keys: Sequence[Any], what: str) -> None:
    """Refuse keys that are not strictly ascending, in the order of their bytes where they are text.

    Raises:
        MalformedError: out of order, or one twice.
    """
    if not all(map(operator.lt, keys, keys[1:])):
        raise MalformedError(f"{what} are not sorted, or one stands twice")
