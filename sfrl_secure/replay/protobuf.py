"""The restricted canonical form of protobuf, read by hand.

A message is read from a table of its fields, which says everything that may stand in it: fields in ascending order,
each once unless it is repeated, minimal varints, no default value, no unknown field or enum number, no byte left over.
What is read here has one encoding, so nothing is encoded again to compare.

Format: proto/README.md, "Canonical form"; protobuf.dev, "Encoding".

Runs in: verifier.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from sfrl_secure.errors import MalformedError

_VARINT, _LENGTH = 0, 2
_VARINT_BYTES_MAX = 10


class Kind(Enum):
    """How a field's bytes are read."""

    UINT32 = "uint32"
    UINT64 = "uint64"
    SINT64 = "sint64"
    ENUM = "enum"
    TEXT = "text"
    BYTES = "bytes"
    MESSAGE = "message"
    PACKED = "packed uint32"


_NUMBER_END = {Kind.UINT32: 2**32, Kind.UINT64: 2**64, Kind.SINT64: 2**64}
_DEFAULTS: dict[Kind, Any] = {
    Kind.UINT32: 0, Kind.UINT64: 0, Kind.SINT64: 0, Kind.ENUM: 0,
    Kind.TEXT: "", Kind.BYTES: b"", Kind.MESSAGE: None, Kind.PACKED: (),
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Attributes:
        known: an enum's numbers.
        table: a message's fields.
    """

    name: str
    kind: Kind
    repeated: bool = False
    known: frozenset[int] = frozenset()
    table: Mapping[int, Field] = field(default_factory=dict)


Table = Mapping[int, Field]


def parse_message(raw: bytes, table: Table) -> dict[str, Any]:
    """Read a message: the value of each field of the table, and the field's default where it is absent.

    A default is 0, an empty text, empty bytes, an empty list for repeated fields, and None for a message.

    Raises:
        MalformedError: not in canonical form.
    """
    found: dict[str, Any] = {each.name: [] if each.repeated else _DEFAULTS[each.kind] for each in table.values()}
    at, last = 0, 0
    while at < len(raw):
        tag, at = _varint(raw, at)
        number, wire_type = tag >> 3, tag & 7
        this = table.get(number)
        if this is None:
            raise MalformedError("a message has no unknown field")
        if number < last or (number == last and not this.repeated):
            raise MalformedError("fields ascend, and only repeated ones stand more than once")
        last = number
        value, at = _value(raw, at, wire_type, this)
        if this.repeated:
            found[this.name].append(value)
        else:
            found[this.name] = value
    return found


def _value(raw: bytes, at: int, wire_type: int, this: Field) -> tuple[Any, int]:
    if this.kind in (Kind.UINT32, Kind.UINT64, Kind.SINT64, Kind.ENUM):
        if wire_type != _VARINT:
            raise MalformedError("a number is a varint")
        number, at = _varint(raw, at)
        if number == 0:
            raise MalformedError("a default value is absent")
        if this.kind is Kind.ENUM and number not in this.known:
            raise MalformedError("an enum has only the numbers of its schema")
        if this.kind is not Kind.ENUM and number >= _NUMBER_END[this.kind]:
            raise MalformedError("a number fits into its field")
        # Zigzag: 0, -1, 1, -2, 2 ... are 0, 1, 2, 3, 4 ...
        return (number >> 1) ^ -(number & 1) if this.kind is Kind.SINT64 else number, at
    if wire_type != _LENGTH:
        raise MalformedError("text, bytes, messages and packed numbers have a length")
    length, start = _varint(raw, at)
    end = start + length
    if end > len(raw):
        raise MalformedError("a field ends within its message")
    content = raw[start:end]
    if this.kind is Kind.MESSAGE:
        return parse_message(content, this.table), end
    # In a repeated field an empty element is written; elsewhere it is the default. Packed numbers are one or more.
    if not content and not this.repeated:
        raise MalformedError("a default value is absent")
    if this.kind is Kind.PACKED:
        return _packed(content), end
    if this.kind is Kind.TEXT:
        try:
            return content.decode("utf-8"), end
        except UnicodeDecodeError:
            raise MalformedError("text is UTF-8") from None
    return content, end


def _packed(content: bytes) -> tuple[int, ...]:
    numbers: list[int] = []
    at = 0
    while at < len(content):
        number, at = _varint(content, at)
        if number >= 2**32:
            raise MalformedError("a number fits into its field")
        numbers.append(number)
    return tuple(numbers)


def _varint(raw: bytes, at: int) -> tuple[int, int]:
    """Read a varint: seven bits a byte, the lowest first, the top bit says that more follows.

    Whoever reads bounds the number: each by its field, a length by the message, a tag by its table.
    """
    number = 0
    for position in range(_VARINT_BYTES_MAX):
        if at >= len(raw):
            raise MalformedError("a varint ends within its message")
        byte = raw[at]
        at += 1
        number |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            if byte == 0 and position:
                raise MalformedError("a varint is minimal")
            return number, at
    raise MalformedError("a varint has at most 10 bytes")
