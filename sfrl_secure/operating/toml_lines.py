"""On which line of a TOML file each key stands: the parser of the standard library does not say.

The text has been parsed before, so this looks for keys and judges nothing. A key inside an inline table or a list over
several lines is on the line where the value begins.

Format: toml.io, v1.0.0.

Runs in: operators' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

KeyPath = tuple[str | int, ...]
"""Keys from the top; a number is a place in a list of tables."""

_PIECE = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*|[\[\]{}=\n]|[^\S\n]+|[^\s\"'#\[\]{}=]+|.",
    re.DOTALL,
)
_PART = re.compile(r"\"((?:\\.|[^\"\\\n])*)\"|'([^'\n]*)'|([A-Za-z0-9_-]+)")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Give each key and table with its line, counted from 1."""
    lines: dict[KeyPath, int] = {}
    arrays: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for line, head, is_header in _statements(text):
        parts = tuple(quoted or single or bare for quoted, single, bare in _PART.findall(head))
        if not is_header:
            for length in range(1, len(parts) + 1):
                lines.setdefault(table + parts[:length], line)
        elif head.startswith("[["):
            parent = _in_arrays(parts[:-1], arrays) + parts[-1:]
            arrays[parent] = arrays.get(parent, -1) + 1
            table = (*parent, arrays[parent])
            lines.setdefault(parent, line)
            lines[table] = line
        else:
            table = _in_arrays(parts, arrays)
            for length in range(1, len(table) + 1):
                lines.setdefault(table[:length], line)
    return lines


def line_of(lines: Mapping[KeyPath, int], path: KeyPath) -> int:
    """The line of a key, or of the nearest thing around it that has one; 1 for what is not there at all."""
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 1)


def _in_arrays(parts: tuple[str, ...], arrays: Mapping[KeyPath, int]) -> KeyPath:
    """A table's path, with the place in each list of tables that it lies in: always the last one so far."""
    path: KeyPath = ()
    for part in parts:
        path = (*path, part)
        if path in arrays:
            path = (*path, arrays[path])
    return path


def _statements(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield the line, the head (up to the first `=`) and whether it is a table's header, of each statement."""
    line = begun = 1
    head, depth, in_value = "", 0, False
    for piece in _PIECE.findall(text + "\n"):
        if piece == "\n" and not depth:
            if head.strip():
                yield begun, head.strip(), not in_value
            head, in_value = "", False
        elif piece == "=" and not depth:
            in_value = True
        elif not piece.startswith("#"):
            if not in_value and piece != "\n":
                head += piece
            depth += piece in ("[", "{")
            depth -= piece in ("]", "}")
        line += piece.count("\n")
        if not head:
            begun = line
