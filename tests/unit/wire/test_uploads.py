"""The messages of an upload: the first request alone has the envelope, later ones a chunk each, and answers say how it
stands."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.canonical import parse_canonical
from sfrl_secure.wire.entries import encode_envelope, parse_envelope
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2
from sfrl_secure.wire.uploads import (
    FIRST_REQUEST_BYTES_MAX,
    NEXT_REQUEST_BYTES_MAX,
    Chunk,
    encode_admitted,
    encode_chunk,
    encode_durable,
    encode_upload_start,
    parse_chunk,
    parse_upload_answer,
    parse_upload_start,
)

MIB = 2**20
UNKNOWN_FIELD = b"\x98\x06\x01"
LAST = Chunk(2**63 - 1, bytes([7]) * MIB)
"""The longest request that we write."""


@pytest.fixture
def envelope(by_hand: SimpleNamespace) -> Envelope:
    return parse_envelope(by_hand.update_envelope().encode(), 16_384)


@pytest.mark.parametrize("chunk", [None, Chunk(0, b"x"), Chunk(0, bytes(MIB)), Chunk(5, b"x"), LAST])
def test_a_first_request_survives_with_and_without_a_chunk(
    envelope: Envelope, chunk: Chunk | None, by_hand: SimpleNamespace
) -> None:
    raw = encode_upload_start(envelope, chunk)
    started = parse_upload_start(raw)
    assert (started.envelope, started.chunk) == (envelope, chunk)
    assert started.envelope_raw == encode_envelope(envelope)
    assert started.update.payload_root == by_hand.digest(47)


@pytest.mark.parametrize("chunk", [Chunk(0, b"x"), Chunk(0, bytes(MIB)), Chunk(2**40, b"x"), LAST])
def test_a_later_request_survives(chunk: Chunk) -> None:
    assert parse_chunk(encode_chunk(chunk)) == chunk


def test_requests_are_written_by_hand_as_by_us(envelope: Envelope, by_hand: SimpleNamespace) -> None:
    whole = by_hand.Msg("Submit", ((1, by_hand.update_envelope()), (2, 9), (3, b"x")))
    assert encode_upload_start(envelope, Chunk(9, b"x")) == whole.encode()
    assert encode_chunk(Chunk(9, b"x")) == whole.without(1).encode()


def test_requests_are_taken_in_one_form_only(envelope: Envelope, by_hand: SimpleNamespace) -> None:
    whole = by_hand.Msg("Submit", ((1, by_hand.update_envelope()), (2, 9), (3, b"x")))
    for kind, where, damaged in by_hand.damages(whole):
        if kind == "dropped" and where in {("Submit", 2), ("UpdateStatement", 9), ("UpdateStatement", 10)}:
            continue  # zero, and absent
        if kind == "dropped" and where[0] == "UpdateStatement" and where[1] in (12, 13, 14):
            continue
        with pytest.raises(MalformedError):
            parse_upload_start(damaged.encode())
    for parse, raw in (
        (parse_upload_start, encode_upload_start(envelope)),
        (parse_chunk, encode_chunk(Chunk(9, b"x"))),
    ):
        for damaged in (raw + UNKNOWN_FIELD, raw + raw, raw[:-1], b""):
            with pytest.raises(MalformedError):
                parse(damaged)


def test_every_damaged_field_of_a_later_request_is_refused(by_hand: SimpleNamespace) -> None:
    whole = by_hand.Msg("Submit", ((2, 2**63 - 1), (3, b"xyz")))
    for kind, where, damaged in by_hand.damages(whole):
        if (kind, where) != ("dropped", ("Submit", 2)):
            with pytest.raises(MalformedError):
                parse_chunk(damaged.encode())


def _as_protobuf_reads(raw: bytes) -> tuple[int, bytes] | None:
    try:
        message = parse_canonical(gatekeeper_service_pb2.SubmitUpdateRequest, raw, NEXT_REQUEST_BYTES_MAX)
    except MalformedError:
        return None
    is_chunk = not message.HasField("envelope") and len(message.chunk) in range(1, MIB + 1)
    return (message.offset, message.chunk) if is_chunk else None


@settings(deadline=None, max_examples=1_000)
@given(
    # Tags of the fields, the bytes around which varints turn, and lengths that fit.
    st.lists(st.sampled_from([0x0A, 0x10, 0x1A, 0x22, 0, 1, 2, 3, 5, 0x7F, 0x80, 0x81, 0xFF]), max_size=16).map(bytes)
    | st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 3), st.binary(max_size=4)).map(
        lambda parts: b"\x10" + _padded(parts[0], parts[1]) + b"\x1a" + bytes([len(parts[2])]) + parts[2]
    )
)
def test_a_later_request_means_what_protobuf_reads_in_it(raw: bytes) -> None:
    expected = _as_protobuf_reads(raw)
    if expected is None:
        with pytest.raises(MalformedError):
            parse_chunk(raw)
    else:
        chunk = parse_chunk(raw)
        assert (chunk.offset, bytes(chunk.data)) == expected


def _padded(number: int, padding: int) -> bytes:
    """A varint, perhaps longer than it need be."""
    groups = [number >> shift & 0x7F for shift in range(0, max(1, number.bit_length()), 7)] + [0] * padding
    return bytes([*(group | 0x80 for group in groups[:-1]), groups[-1]])


def test_a_chunk_is_1_byte_to_1_mib(by_hand: SimpleNamespace) -> None:
    for data in (b"", bytes(MIB + 1)):
        with pytest.raises(MalformedError):
            encode_chunk(Chunk(0, data))
        with pytest.raises(MalformedError):
            parse_chunk(by_hand.Msg("Submit", ((3, data),)).encode())
    first = by_hand.Msg("Submit", ((1, by_hand.update_envelope()), (3, bytes(MIB + 1))))
    with pytest.raises(MalformedError):
        parse_upload_start(first.encode())


def test_a_request_is_bounded_before_it_is_parsed(by_hand: SimpleNamespace) -> None:
    for parse, bytes_max in ((parse_upload_start, FIRST_REQUEST_BYTES_MAX), (parse_chunk, NEXT_REQUEST_BYTES_MAX)):
        with pytest.raises(MalformedError, match=f"at most {bytes_max} bytes"):
            parse(bytes(bytes_max + 1))
    assert NEXT_REQUEST_BYTES_MAX - len(encode_chunk(LAST)) < 64


def test_an_envelope_stands_in_the_first_request_and_in_no_other(envelope: Envelope, by_hand: SimpleNamespace) -> None:
    with pytest.raises(MalformedError, match="one envelope"):
        parse_chunk(encode_upload_start(envelope, Chunk(0, b"x")))
    # One that is there and empty is not absent.
    with pytest.raises(MalformedError, match="one envelope"):
        parse_chunk(by_hand.Msg("Submit", ((1, b""), (2, 1), (3, b"x"))).encode())
    with pytest.raises(MalformedError):
        parse_upload_start(encode_chunk(Chunk(0, b"x")))


def test_an_offset_is_a_chunks(by_hand: SimpleNamespace) -> None:
    with pytest.raises(MalformedError, match="offset"):
        parse_upload_start(by_hand.Msg("Submit", ((1, by_hand.update_envelope()), (2, 1))).encode())
    with pytest.raises(MalformedError):
        parse_chunk(by_hand.Msg("Submit", ((2, 1),)).encode())


def test_what_the_parser_would_refuse_is_not_written(envelope: Envelope) -> None:
    for bad in (Chunk(-1, b"x"), Chunk(2**64, b"x"), Chunk(1, b""), Chunk(0, bytes(MIB + 1))):
        with pytest.raises(MalformedError):
            encode_upload_start(envelope, bad)
        with pytest.raises(MalformedError):
            encode_chunk(bad)


def test_the_header_is_at_most_16_kib_and_an_update(by_hand: SimpleNamespace) -> None:
    long = by_hand.envelope("application/vnd.sfrl.update.v1", bytes(16_384))
    with pytest.raises(MalformedError, match="header"):
        parse_upload_start(by_hand.Msg("Submit", ((1, long), (3, b"p"))).encode())
    for other in (
        by_hand.envelope("application/vnd.sfrl.statement.v1", by_hand.update()),
        by_hand.quoted("withdrawal"),
        by_hand.update_envelope().without(3),
    ):
        with pytest.raises(MalformedError):
            parse_upload_start(by_hand.Msg("Submit", ((1, other), (3, b"p"))).encode())


LOGGED = LoggedEntry(3, b"entry", (Digest(bytes(range(32))),))


def test_answers_survive_and_may_say_more_than_we_know() -> None:
    appended = AppendedEntry(LOGGED, b"note")
    for answer, raw in (
        (0, encode_durable(0)),
        (4 * MIB, encode_durable(4 * MIB)),
        (2**64 - 1, encode_durable(2**64 - 1)),
        (appended, encode_admitted(appended)),
    ):
        assert parse_upload_answer(raw) == answer
        assert parse_upload_answer(raw + UNKNOWN_FIELD) == answer
    assert encode_durable(0) == b""


def test_answers_out_of_range_are_refused(by_hand: SimpleNamespace) -> None:
    logged = by_hand.logged(1)
    for fields in (
        ((2, logged),),
        ((2, logged), (3, bytes(128 * 1024 + 1))),
        ((2, b""), (3, b"note")),
    ):
        with pytest.raises(MalformedError):
            parse_upload_answer(by_hand.Msg("Answer", fields).encode())


@given(offset=st.integers(0, 2**63 - 1), data=st.binary(min_size=1, max_size=300))
def test_the_short_way_takes_every_chunk_that_we_write(offset: int, data: bytes) -> None:
    found = parse_chunk(encode_chunk(Chunk(offset, data)))
    assert isinstance(found.data, memoryview), "it is a view, not a copy"
    assert (found.offset, bytes(found.data)) == (offset, data)
