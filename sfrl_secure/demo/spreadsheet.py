"""The first sheet of an xlsx workbook, row by row, with nothing but the standard library.

Sizes are bounds, not promises: a member whose directory entry declares more than its bound is refused before it is
read. A document type declaration is refused where it begins, so no entity is ever defined, let alone expanded. The
sheet is parsed in chunks, and only the rows at hand are in memory.

Format: ECMA-376, part 1, 18.3 (worksheets) and 18.4 (shared strings), as far as the demo's workbook uses them.

Runs in: participant, in the demo alone.
Trusts: nothing in the workbook. The caller has checked its digest; this reader does not lean on that.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO
from xml.parsers import expat

from sfrl_secure.errors import MalformedError

SHEET_BYTES_MAX = 64 * 1024 * 1024
"""The sheet's XML, unpacked."""

STRINGS_BYTES_MAX = 4 * 1024 * 1024
"""The shared strings' XML, unpacked."""

ROWS_MAX = 100_000
COLUMNS_MAX = 64
STRINGS_MAX = 100_000
CELL_CHARACTERS_MAX = 32_767

_CHUNK_BYTES = 1 << 20
_A = ord("A")
_COLUMN_INDEX = {
    (chr(_A + i // 26 - 1) if i >= 26 else "") + chr(_A + i % 26): i for i in range(COLUMNS_MAX)
}


def open_archive(raw: bytes) -> zipfile.ZipFile:
    """Read the directory of a zip archive held in memory.

    Raises:
        MalformedError: not a zip archive.
    """
    try:
        return zipfile.ZipFile(io.BytesIO(raw))
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise MalformedError("not a zip archive") from error


def read_member(archive: zipfile.ZipFile, name: str, bytes_max: int) -> bytes:
    """Unpack one member whole.

    Raises:
        MalformedError: no such member, larger than `bytes_max`, damaged, or packed in a way that is not read here.
    """
    return b"".join(_iter_chunks(archive, name, bytes_max))


def iter_rows(workbook: bytes) -> Iterator[list[str | None]]:
    """Yield the rows of the first sheet: the text of each cell, None where a cell is empty or holds an error.

    A row is as long as its last filled cell asks, at most COLUMNS_MAX.

    Raises:
        MalformedError: not such a workbook, or beyond one of the bounds of this module.
    """
    archive = open_archive(workbook)
    strings = _StringsReader()
    for _ in _feed(_iter_chunks(archive, "xl/sharedStrings.xml", STRINGS_BYTES_MAX), strings):
        pass
    sheet = _SheetReader(strings.finished)
    count = 0
    for _ in _feed(_iter_chunks(archive, "xl/worksheets/sheet1.xml", SHEET_BYTES_MAX), sheet):
        count += len(sheet.finished)
        if count > ROWS_MAX:
            raise MalformedError(f"a sheet has at most {ROWS_MAX} rows")
        yield from sheet.finished
        sheet.finished.clear()


def _iter_chunks(archive: zipfile.ZipFile, name: str, bytes_max: int) -> Iterator[bytes]:
    try:
        info = archive.getinfo(name)
    except KeyError as error:
        raise MalformedError("the archive lacks a member that is needed") from error
    if info.file_size > bytes_max:
        raise MalformedError(f"a member may unpack to {bytes_max} bytes at most")
    try:
        # zipfile hands out no more than the declared size, so the check above bounds the loop below.
        with archive.open(info) as member:
            yield from _chunks_of(member)
    # RuntimeError: the member is encrypted. NotImplementedError: a packing that zipfile does not know.
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise MalformedError("a member of the archive cannot be unpacked") from error


def _chunks_of(member: IO[bytes]) -> Iterator[bytes]:
    while chunk := member.read(_CHUNK_BYTES):
        yield chunk


class _TextReader:
    """Gathers character data between two tags, with a bound."""

    def __init__(self) -> None:
        self.listening = False
        self.text = ""

    def on_text(self, text: str) -> None:
        if self.listening:
            self.text += text
            if len(self.text) > CELL_CHARACTERS_MAX:
                raise MalformedError(f"a cell has at most {CELL_CHARACTERS_MAX} characters")


class _StringsReader(_TextReader):
    """`<si><t>one string</t></si>`; a string in several runs is joined."""

    def __init__(self) -> None:
        super().__init__()
        self.finished: list[str] = []

    def on_start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "si":
            self.text = ""
        elif tag == "t":
            self.listening = True

    def on_end(self, tag: str) -> None:
        if tag == "t":
            self.listening = False
        elif tag == "si":
            if len(self.finished) == STRINGS_MAX:
                raise MalformedError(f"a workbook has at most {STRINGS_MAX} shared strings")
            self.finished.append(self.text)


class _SheetReader(_TextReader):
    """`<row><c r="B2" t="s"><v>5</v></c></row>`: cell B2 is shared string 5."""

    def __init__(self, strings: list[str]) -> None:
        super().__init__()
        self.finished: list[list[str | None]] = []
        self._strings = strings
        self._row: list[str | None] = []
        self._column = 0
        self._kind = ""

    def on_start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "c":
            column = _COLUMN_INDEX.get(attributes.get("r", "").rstrip("0123456789"))
            if column is None:
                raise MalformedError(f"a cell stands in one of the first {COLUMNS_MAX} columns")
            self._column = column
            self._kind = attributes.get("t", "n")
        elif tag == "v":
            self.text = ""
            self.listening = True
        elif tag == "row":
            self._row = []

    def on_end(self, tag: str) -> None:
        if tag == "v":
            self.listening = False
            self._put(self._value())
        elif tag == "row":
            self.finished.append(self._row)

    def _put(self, value: str | None) -> None:
        row, column = self._row, self._column
        if column < len(row):
            raise MalformedError("the cells of a row stand in order, each once")
        row.extend([None] * (column - len(row)))
        row.append(value)

    def _value(self) -> str | None:
        if self._kind == "n":
            return self.text
        if self._kind == "e":
            return None
        if self._kind != "s":
            raise MalformedError("a cell holds a number, a shared string or an error")
        # isdecimal alone admits other scripts' digits, and a minus would count from the end.
        if not (self.text.isascii() and self.text.isdecimal() and len(self.text) < 10):
            raise MalformedError("a shared string is named by its index")
        index = int(self.text)
        if index >= len(self._strings):
            raise MalformedError("a cell names a shared string that does not exist")
        return self._strings[index]


def _feed(chunks: Iterator[bytes], reader: _StringsReader | _SheetReader) -> Iterator[None]:
    """Parse `chunks` into `reader.finished`, yielding after each, so that the caller can take what is finished."""
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = reader.on_start
    parser.EndElementHandler = reader.on_end
    parser.CharacterDataHandler = reader.on_text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    try:
        for chunk in chunks:
            parser.Parse(chunk, False)
            yield
        parser.Parse(b"", True)
    # ValueError, LookupError: an encoding named in the XML declaration that Python lacks or cannot give to expat.
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise MalformedError("a member of the workbook is not well-formed XML") from error


def _refuse_doctype(name: str, system_id: str | None, public_id: str | None, has_subset: bool) -> None:
    raise MalformedError("a workbook has no document type declaration")
