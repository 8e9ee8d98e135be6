"""The workbook reader: what it reads, and each thing it refuses."""

from __future__ import annotations

import io
import zipfile

import pytest

from sfrl_secure.demo import spreadsheet
from sfrl_secure.demo.spreadsheet import iter_rows, open_archive, read_member
from sfrl_secure.errors import MalformedError

STRINGS = "<sst><si><t>NAME</t></si><si><r><t>a </t></r><r><t>rock</t></r></si></sst>"


def sheet(*rows: str) -> str:
    return f"<worksheet><sheetData>{''.join(f'<row>{row}</row>' for row in rows)}</sheetData></worksheet>"


def workbook(sheet_xml: str | bytes, strings_xml: str = STRINGS) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings.xml", strings_xml)
        archive.writestr("xl/worksheets/sheet1.xml", sheet_xml)
    return packed.getvalue()


def read(sheet_xml: str | bytes, strings_xml: str = STRINGS) -> list[list[str | None]]:
    return list(iter_rows(workbook(sheet_xml, strings_xml)))


def test_cells_are_numbers_shared_strings_gaps_and_errors() -> None:
    rows = read(
        sheet(
            '<c r="A1" t="s"><v>0</v></c><c r="C1"><v>1.5</v></c>',
            '<c r="A2" t="s"><v>1</v></c><c r="B2" t="e"><v>#REF!</v></c><c r="C2"/><c r="AA2" t="n"><v>7</v></c>',
            "",
        )
    )
    assert rows == [["NAME", None, "1.5"], ["a rock", None, *[None] * 24, "7"], []]


def test_text_that_expat_gives_in_pieces_is_one_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet, "_CHUNK_BYTES", 3)
    assert read(sheet('<c r="A1"><v>123456789.25</v></c>')) == [["123456789.25"]]


@pytest.mark.parametrize(
    ("sheet_xml", "limit"),
    [
        (sheet('<c r="BM1"><v>1</v></c>'), "first 64 columns"),
        (sheet("<c><v>1</v></c>"), "first 64 columns"),
        (sheet('<c r="B1"><v>1</v></c><c r="A1"><v>1</v></c>'), "in order"),
        (sheet('<c r="A1"><v>1</v></c><c r="A1"><v>2</v></c>'), "in order"),
        (sheet('<c r="A1" t="s"><v>2</v></c>'), "does not exist"),
        (sheet('<c r="A1" t="s"><v>-1</v></c>'), "named by its index"),
        (sheet('<c r="A1" t="s"><v>٣</v></c>'), "named by its index"),
        (sheet('<c r="A1" t="s"><v></v></c>'), "named by its index"),
        (sheet('<c r="A1" t="str"><v>text</v></c>'), "number, a shared string or an error"),
        (sheet(f'<c r="A1"><v>{"1" * 40_000}</v></c>'), "32767 characters"),
        ("<worksheet><row>", "well-formed"),
        ("", "well-formed"),
        ('<?xml version="1.0" encoding="no-such-code"?><worksheet/>', "well-formed"),
    ],
)
def test_what_is_not_a_sheet_of_ours_is_refused(sheet_xml: str, limit: str) -> None:
    with pytest.raises(MalformedError, match=limit):
        read(sheet_xml)


def test_an_entity_is_refused_before_it_is_defined() -> None:
    laughs = '<!DOCTYPE w [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
    with pytest.raises(MalformedError, match="document type"):
        read(laughs + sheet('<c r="A1"><v>&b;</v></c>'))
    with pytest.raises(MalformedError, match="document type"):
        read((laughs + sheet("")).encode("utf-16"))
    with pytest.raises(MalformedError, match="document type"):
        read(sheet(""), laughs + STRINGS)


def test_more_rows_or_strings_than_the_bound_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spreadsheet, "ROWS_MAX", 2)
    assert len(read(sheet("", ""))) == 2
    with pytest.raises(MalformedError, match="at most 2 rows"):
        read(sheet("", "", ""))
    monkeypatch.setattr(spreadsheet, "STRINGS_MAX", 1)
    with pytest.raises(MalformedError, match="at most 1 shared strings"):
        read(sheet(""))


def test_a_member_that_declares_more_than_its_bound_is_refused_unread() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1_000_001))
    assert len(packed.getvalue()) < 2_000
    archive = open_archive(packed.getvalue())
    assert len(read_member(archive, "bomb", 1_000_001)) == 1_000_001
    with pytest.raises(MalformedError, match="1000000 bytes at most"):
        read_member(archive, "bomb", 1_000_000)


def test_a_member_that_lies_about_its_size_gives_no_more_than_it_declared() -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(1_000_000))
    raw = packed.getvalue()
    lying = raw.replace((1_000_000).to_bytes(4, "little"), (1_000).to_bytes(4, "little"))
    assert lying != raw
    with pytest.raises(MalformedError, match="cannot be unpacked"):
        read_member(open_archive(lying), "bomb", 1_000)


def test_a_damaged_archive_is_refused() -> None:
    raw = workbook(sheet('<c r="A1"><v>1</v></c>' * 1))
    with pytest.raises(MalformedError, match="not a zip"):
        open_archive(raw[: len(raw) // 2])
    with pytest.raises(MalformedError, match="lacks a member"):
        read_member(open_archive(raw), "xl/other.xml", 1_000)
    at = raw.index(b"xl/worksheets/sheet1.xml") + len(b"xl/worksheets/sheet1.xml") + 5
    damaged = raw[:at] + bytes([raw[at] ^ 0xFF]) + raw[at + 1 :]
    with pytest.raises(MalformedError, match="cannot be unpacked"):
        list(iter_rows(damaged))


@pytest.mark.parametrize("bit", [0x01, 0x40])
def test_an_encrypted_member_is_refused(bit: int) -> None:
    raw = bytearray(workbook(sheet("")))
    for signature, flags_at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        raw[raw.index(signature) + flags_at] |= bit
    with pytest.raises(MalformedError, match="cannot be unpacked"):
        list(iter_rows(bytes(raw)))
