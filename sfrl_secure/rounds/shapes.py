"""Shapes: how the values of a state are written as JSON, read back, and copied, by nothing but their type hints.

A dataclass is the list of its fields, in their order; bytes are hexadecimal; a dict is its keys and its values. An
object that stands at several places is written once and then named by its number, and reading gives one object again.
A governance document is the bytes that were signed, and is parsed anew. A type that is not foreseen here is a bug of
ours, and is met when the shape is made, before any value is.

Runs in: gatekeeper, aggregator, audit_log.
Trusts: nothing; whoever reads has checked where the JSON comes from.
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.documents import parse_document
from sfrl_secure.governance.header import DocumentHeader
from sfrl_secure.ids import Digest, SpiffeId, parse_digest, parse_spiffe_id

Numbers = dict[int, int]
"""The number of each object that was written, by its `id`; all of them are alive."""

Seen = list[Any]
"""The objects that were read so far, by number."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How the values of one type are handled.

    Attributes:
        write: gives JSON.
        read: gives the value; raises MalformedError for any other form.
        copy: gives a value that does not change with the first; None where values never change, and are shared.
    """

    write: Callable[[Any, Numbers], Any]
    read: Callable[[Any, Seen], Any]
    copy: Callable[[Any], Any] | None = None


@cache
def shape_of(hint: Any) -> Shape:
    """Make the shape of a type hint.

    Raises:
        TypeError: the type is not foreseen.
    """
    if hint is Digest:
        return _hexadecimal(parse_digest)
    if hint is SpiffeId:
        return _text(parse_spiffe_id)
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](arguments)
    if isinstance(hint, type) and issubclass(hint, IntEnum):
        return _enumeration(hint)
    if isinstance(hint, type) and issubclass(hint, DocumentHeader):
        return _document((hint,))
    if isinstance(hint, type) and is_dataclass(hint):
        return shape_of_dataclass(hint)
    raise TypeError(f"a state holds no {hint}")


@cache
def shape_of_dataclass(kind: type, left_out: frozenset[str] = frozenset()) -> Shape:
    """Make the shape of a dataclass. Fields that are left out are not written, and are read and copied as defaults."""
    hints = get_type_hints(kind)
    assert is_dataclass(kind)
    inner = [(each.name, shape_of(hints[each.name])) for each in fields(kind) if each.name not in left_out]
    changes = not kind.__dataclass_params__.frozen  # type: ignore[attr-defined]  # not in typeshed

    def write(value: Any, numbers: Numbers) -> Any:
        known = numbers.get(id(value))
        if known is not None:
            return known
        made = [shape.write(getattr(value, name), numbers) for name, shape in inner]
        numbers[id(value)] = len(numbers)
        return made

    def read(raw: Any, seen: Seen) -> Any:
        if type(raw) is int:
            return _seen(raw, seen, (kind,))
        if type(raw) is not list or len(raw) != len(inner):
            raise MalformedError("a value is the list of its fields")
        made = kind(**{name: shape.read(each, seen) for (name, shape), each in zip(inner, raw, strict=True)})
        seen.append(made)
        return made

    def copy(value: Any) -> Any:
        return kind(**{name: _copy_of(shape, getattr(value, name)) for name, shape in inner})

    return Shape(write, read, copy if changes else None)


def _copy_of(shape: Shape, value: Any) -> Any:
    return value if shape.copy is None else shape.copy(value)


def _seen(number: int, seen: Seen, kinds: tuple[type, ...]) -> Any:
    if not 0 <= number < len(seen) or not isinstance(seen[number], kinds):
        raise MalformedError("a number names an earlier value of its own type")
    return seen[number]


def _exactly(kind: type) -> Shape:
    def read(raw: Any, _seen: Seen) -> Any:
        # Not isinstance: a truth is no number.
        if type(raw) is not kind:
            raise MalformedError(f"not of type {kind.__name__}")
        return raw

    return Shape(lambda value, _numbers: value, read)


def _text(parse: Callable[[str], str]) -> Shape:
    def read(raw: Any, _seen: Seen) -> Any:
        if type(raw) is not str:
            raise MalformedError("a name is text")
        return parse(raw)

    return Shape(lambda value, _numbers: str(value), read)


def _hexadecimal(parse: Callable[[bytes], bytes]) -> Shape:
    def read(raw: Any, _seen: Seen) -> Any:
        try:
            return parse(bytes.fromhex(raw))
        except (TypeError, ValueError):
            raise MalformedError("bytes are hexadecimal text") from None

    return Shape(lambda value, _numbers: value.hex(), read)


def _enumeration(kind: type[IntEnum]) -> Shape:
    numbers = frozenset(int(each) for each in kind)

    def read(raw: Any, _seen: Seen) -> Any:
        if type(raw) is not int or raw not in numbers:
            raise MalformedError(f"not a number of {kind.__name__}")
        return kind(raw)

    return Shape(lambda value, _numbers: int(value), read)


def _union(arguments: tuple[Any, ...]) -> Shape:
    """A union of documents, or of one type with None."""
    kinds = tuple(each for each in arguments if each is not types.NoneType)
    if all(isinstance(each, type) and issubclass(each, DocumentHeader) for each in kinds):
        inner = _document(kinds)
    elif len(kinds) == 1:
        inner = shape_of(kinds[0])
    else:
        raise TypeError("a state holds no unions but of documents")
    if len(kinds) == len(arguments):
        return inner
    copy = inner.copy
    return Shape(
        lambda value, numbers: None if value is None else inner.write(value, numbers),
        lambda raw, seen: None if raw is None else inner.read(raw, seen),
        None if copy is None else lambda value: None if value is None else copy(value),
    )


def _document(kinds: tuple[type, ...]) -> Shape:
    def write(value: DocumentHeader, numbers: Numbers) -> Any:
        known = numbers.get(id(value))
        if known is not None:
            return known
        numbers[id(value)] = len(numbers)
        # Documents are UTF-8, or they would not have been parsed.
        return [value.payload_type, value.raw.decode("utf-8")]

    def read(raw: Any, seen: Seen) -> Any:
        if type(raw) is int:
            return _seen(raw, seen, kinds)
        if type(raw) is not list or [type(each) for each in raw] != [str, str]:
            raise MalformedError("a document is its payload type and its text")
        document = parse_document(raw[0], raw[1].encode("utf-8", "surrogatepass"))
        if not isinstance(document, kinds):
            raise MalformedError("a document of another type stands here")
        seen.append(document)
        return document

    return Shape(write, read)


def _tuple(arguments: tuple[Any, ...]) -> Shape:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        each = shape_of(arguments[0])
        _check_frozen(each)
        return Shape(
            lambda value, numbers: [each.write(item, numbers) for item in value],
            lambda raw, seen: tuple([each.read(item, seen) for item in _items(raw)]),
        )
    shapes = [shape_of(argument) for argument in arguments]
    _check_frozen(*shapes)

    def read(raw: Any, seen: Seen) -> Any:
        items = _items(raw)
        if len(items) != len(shapes):
            raise MalformedError("a tuple has its length")
        return tuple([shape.read(item, seen) for shape, item in zip(shapes, items, strict=True)])

    return Shape(
        lambda value, numbers: [shape.write(item, numbers) for shape, item in zip(shapes, value, strict=True)], read
    )


def _set_of(made: type) -> Callable[[tuple[Any, ...]], Shape]:
    def shape(arguments: tuple[Any, ...]) -> Shape:
        inner = shape_of(arguments[0])
        _check_frozen(inner)

        def read(raw: Any, seen: Seen) -> Any:
            items = _items(raw)
            found = made([inner.read(item, seen) for item in items])
            if len(found) != len(items):
                raise MalformedError("a set holds nothing twice")
            return found

        return Shape(
            lambda value, numbers: [inner.write(item, numbers) for item in sorted(value)],
            read,
            made if made is set else None,
        )

    return shape


def _list(arguments: tuple[Any, ...]) -> Shape:
    each = shape_of(arguments[0])
    _check_frozen(each)
    return Shape(
        lambda value, numbers: [each.write(item, numbers) for item in value],
        lambda raw, seen: [each.read(item, seen) for item in _items(raw)],
        list,
    )


def _dict_of(made: Callable[[dict[Any, Any]], Any]) -> Callable[[tuple[Any, ...]], Shape]:
    def shape(arguments: tuple[Any, ...]) -> Shape:
        keys, values = shape_of(arguments[0]), shape_of(arguments[1] if len(arguments) > 1 else int)
        _check_frozen(keys)

        def write(value: Any, numbers: Numbers) -> Any:
            return [
                [keys.write(key, numbers) for key in value],
                [values.write(each, numbers) for each in value.values()],
            ]

        def read(raw: Any, seen: Seen) -> Any:
            halves = _items(raw)
            if len(halves) != 2 or len(_items(halves[0])) != len(_items(halves[1])):
                raise MalformedError("a mapping is as many keys as values")
            found = dict(
                zip(
                    [keys.read(key, seen) for key in halves[0]],
                    [values.read(each, seen) for each in halves[1]],
                    strict=True,
                )
            )
            if len(found) != len(halves[0]):
                raise MalformedError("a mapping has no key twice")
            return made(found)

        def copy(value: Any) -> Any:
            inner = values.copy
            return value.copy() if inner is None else made({key: inner(each) for key, each in value.items()})

        return Shape(write, read, copy)

    return shape


def _items(raw: Any) -> list[Any]:
    if type(raw) is not list:
        raise MalformedError("a collection is a list")
    return raw


def _check_frozen(*shapes: Shape) -> None:
    """Only a dict's values may change: nothing else would be copied."""
    if any(shape.copy is not None for shape in shapes):
        raise TypeError("a state holds what changes in its own fields and in mappings only")


_SCALARS: dict[Any, Shape] = {
    int: _exactly(int),
    bool: _exactly(bool),
    str: _exactly(str),
    bytes: _hexadecimal(bytes),
}

_CONTAINERS: dict[Any, Callable[[tuple[Any, ...]], Shape]] = {
    tuple: _tuple,
    set: _set_of(set),
    frozenset: _set_of(frozenset),
    list: _list,
    dict: _dict_of(dict),
    Counter: _dict_of(Counter),
}


def written(value: Any, shape: Shape) -> Any:
    """Write a value as JSON."""
    return shape.write(value, {})


def read_back(raw: Any, shape: Shape) -> Any:
    """Read a value.

    Raises:
        MalformedError: `raw` is not of the shape.
    """
    return shape.read(raw, [])
