"""The restricted canonical form: one encoding or none."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.replay.protobuf import Field, Kind, Table, parse_message
from sfrl_secure.replay.schema import FACTS, LOG_ENTRY, ROUND_CLOSED, STATEMENT, UPDATE_STATEMENT
from sfrl_secure.wire.gen.sfrl.audit.v1 import entry_pb2
from sfrl_secure.wire.gen.sfrl.update.v1 import update_pb2

TABLE: Table = {
    1: Field("number", Kind.UINT32),
    2: Field("text", Kind.TEXT),
    3: Field("many", Kind.BYTES, repeated=True),
    4: Field("choice", Kind.ENUM, known=frozenset({1, 2})),
    5: Field("packed", Kind.PACKED),
    6: Field("inner", Kind.MESSAGE, table={1: Field("wide", Kind.UINT64)}),
}


def test_a_message_gives_its_fields_and_defaults() -> None:
    assert parse_message(b"", TABLE) == {
        "number": 0, "text": "", "many": [], "choice": 0, "packed": (), "inner": None
    }  # fmt: skip
    raw = b"\x08\x96\x01\x12\x02\xc3\xa9\x1a\x00\x1a\x01x\x20\x02\x2a\x03\x00\x80\x01\x32\x02\x08\x01"
    assert parse_message(raw, TABLE) == {
        "number": 150, "text": "é", "many": [b"", b"x"], "choice": 2, "packed": (0, 128), "inner": {"wide": 1}
    }  # fmt: skip


BAD = {
    "a default value": b"\x08\x00",
    "an empty text": b"\x12\x00",
    "no packed number": b"\x2a\x00",
    "an unknown field": b"\x38\x01",
    "field number 0": b"\x00\x01",
    "fields out of order": b"\x12\x01x\x08\x01",
    "a field twice": b"\x08\x01\x08\x01",
    "a message twice": b"\x32\x00\x32\x00",
    "a varint of two bytes for one": b"\x08\x81\x00",
    "a tag of two bytes for one": b"\x88\x00\x01",
    "a length of two bytes for one": b"\x12\x81\x00x",
    "a packed number of two bytes for one": b"\x2a\x02\x81\x00",
    "a number beyond its field": b"\x08\x80\x80\x80\x80\x10",
    "a packed number beyond its field": b"\x2a\x05\x80\x80\x80\x80\x10",
    "a varint of eleven bytes": b"\x08" + b"\x80" * 10 + b"\x01",
    "a varint beyond 64 bits": b"\x08" + b"\xff" * 9 + b"\x02",
    "an unknown enum number": b"\x20\x03",
    "a number as bytes": b"\x0a\x01\x01",
    "bytes as a number": b"\x10\x01",
    "text with a fixed width": b"\x11\x01x",
    "a wide number beyond 64 bits": b"\x32\x0b\x08" + b"\xff" * 9 + b"\x02",
    "packed numbers one by one": b"\x28\x01",
    "a length beyond the end": b"\x12\x02x",
    "a tag without a value": b"\x08",
    "a varint that does not end": b"\x08\x80",
    "text that is not UTF-8": b"\x12\x01\xff",
    "a group": b"\x0b\x0c",
    "a default inside a message": b"\x32\x02\x08\x00",
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD)
def test_what_is_not_canonical_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError):
        parse_message(raw, TABLE)


@settings(deadline=None, max_examples=500)
@given(raw=st.binary(max_size=80))
def test_any_bytes_are_a_message_or_malformed(raw: bytes) -> None:
    try:
        parse_message(raw, STATEMENT)
    except MalformedError:
        return


@pytest.mark.parametrize(("table", "message"), [
    (STATEMENT, entry_pb2.Statement), (LOG_ENTRY, entry_pb2.LogEntry), (FACTS, entry_pb2.MeasuredFacts),
    (ROUND_CLOSED, entry_pb2.RoundClosed), (UPDATE_STATEMENT, update_pb2.UpdateStatement),
])  # fmt: skip
def test_the_tables_are_those_of_the_schema(table: Table, message: type) -> None:
    compare_tables(table, message.DESCRIPTOR)


def compare_tables(table: Table, descriptor: object) -> None:
    fields = {field.number: field for field in descriptor.fields}  # type: ignore[attr-defined]
    assert {number: field.name for number, field in table.items()} == {n: f.name for n, f in fields.items()}
    kinds = {4: Kind.UINT64, 13: Kind.UINT32, 9: Kind.TEXT, 12: Kind.BYTES, 14: Kind.ENUM, 11: Kind.MESSAGE}
    for number, field in table.items():
        theirs = fields[number]
        if field.kind is Kind.PACKED:
            assert (theirs.type, theirs.is_repeated) == (13, True)
            continue
        assert (kinds[theirs.type], theirs.is_repeated) == (field.kind, field.repeated)
        if field.kind is Kind.ENUM:
            assert field.known == frozenset(theirs.enum_type.values_by_number) - {0}
        if field.kind is Kind.MESSAGE:
            compare_tables(field.table, theirs.message_type)
