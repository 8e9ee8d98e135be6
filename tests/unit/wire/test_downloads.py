"""The messages of a download: what is asked for, what will be sent, and the chunks."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import OBJECT_BYTES_MAX
from sfrl_secure.wire.downloads import (
    ModelRequest,
    ModelSource,
    encode_model_chunk,
    encode_model_request,
    encode_model_source,
    parse_model_chunk,
    parse_model_request,
    parse_model_source,
)

MODEL, BASE = Digest(bytes([1]) * 32), Digest(bytes([2]) * 32)
HAD = tuple(Digest(bytes([number]) * 32) for number in range(10, 19))
LARGEST = ModelRequest("n" * 64, MODEL, HAD[:8], 2**64 - 1, 2**64 - 1)
UNKNOWN_FIELD = b"\x98\x06\x01"


@pytest.mark.parametrize(
    "request_",
    [
        ModelRequest("north", MODEL),
        ModelRequest("north", MODEL, HAD[:1], 7),
        ModelRequest("n", MODEL, length=1),
        LARGEST,
    ],
)
def test_a_request_survives(request_: ModelRequest) -> None:
    assert parse_model_request(encode_model_request(request_)) == request_


def test_a_request_is_taken_in_one_form_only(by_hand: SimpleNamespace) -> None:
    whole = by_hand.Msg("Fetch", ((1, "north"), (2, MODEL), (3, HAD[1]), (3, HAD[0]), (4, 5), (5, 6)))
    asked = ModelRequest("north", MODEL, (HAD[1], HAD[0]), 5, 6)
    assert encode_model_request(asked) == whole.encode()
    for kind, (_, number), damaged in by_hand.damages(whole):
        # The models may stand in any order and be fewer; the numbers may be zero.
        numbers = [each for each, _ in damaged.fields]
        if (kind == "dropped" and number in (3, 4, 5)) or (kind == "swapped" and numbers == sorted(numbers)):
            parse_model_request(damaged.encode())
            continue
        with pytest.raises(MalformedError):
            parse_model_request(damaged.encode())


def test_a_request_out_of_range_is_refused(by_hand: SimpleNamespace) -> None:
    for fields in (
        ((1, "north"), (2, bytes(31))),
        ((2, MODEL),),
        ((1, "North"), (2, MODEL)),
        ((1, "north"), (2, MODEL), (3, bytes(31))),
        ((1, "north"), (2, MODEL), (3, HAD[0]), (3, HAD[0])),
        ((1, "north"), (2, MODEL), *((3, each) for each in HAD)),
    ):
        with pytest.raises(MalformedError):
            parse_model_request(by_hand.Msg("Fetch", fields).encode())
    with pytest.raises(MalformedError, match="at most 1024 bytes"):
        parse_model_request(bytes(1_025))
    for bad in (ModelRequest("north", MODEL, offset=-1), ModelRequest("north", MODEL, length=2**64)):
        with pytest.raises(MalformedError):
            encode_model_request(bad)


@pytest.mark.parametrize(
    "source",
    [
        ModelSource(None, (1,)),
        ModelSource(None, (OBJECT_BYTES_MAX,)),
        ModelSource(BASE, (1,)),
        ModelSource(BASE, (9,) * 64),
    ],
)
def test_the_first_answer_survives_and_may_say_more_than_we_know(source: ModelSource) -> None:
    raw = encode_model_source(source)
    assert parse_model_source(raw) == source
    assert parse_model_source(raw + UNKNOWN_FIELD) == source


def test_a_first_answer_out_of_range_is_refused(by_hand: SimpleNamespace) -> None:
    def refused(*fields: tuple[int, object], chunk: bytes = b"") -> None:
        source = by_hand.Msg("Source", fields)
        with pytest.raises(MalformedError):
            parse_model_source(by_hand.Msg("Fetched", ((1, source), *(((2, chunk),) if chunk else ()))).encode())

    packed = by_hand.varint
    refused((1, BASE))
    refused((1, BASE), (2, packed(0)))
    refused((1, BASE), (2, packed(5) * 65))
    refused((1, BASE), (2, packed(OBJECT_BYTES_MAX + 1)))
    refused((1, bytes(31)), (2, packed(5)))
    refused((1, BASE), (2, packed(5)), chunk=b"x")
    refused((2, packed(5) * 2))
    for raw in (b"", encode_model_chunk(b"x")):
        with pytest.raises(MalformedError, match="first answer"):
            parse_model_source(raw)
    for bad in (ModelSource(BASE, (-1,)), ModelSource(BASE, (2**64,))):
        with pytest.raises(MalformedError):
            encode_model_source(bad)


def test_a_chunk_is_1_byte_to_1_mib_and_comes_alone(by_hand: SimpleNamespace) -> None:
    for chunk in (b"x", bytes(2**20)):
        assert parse_model_chunk(encode_model_chunk(chunk)) == chunk
        assert parse_model_chunk(encode_model_chunk(chunk) + UNKNOWN_FIELD) == chunk
    for chunk in (b"", bytes(2**20 + 1)):
        with pytest.raises(MalformedError):
            encode_model_chunk(chunk)
        with pytest.raises(MalformedError):
            parse_model_chunk(by_hand.Msg("Fetched", ((2, chunk),)).encode())
    with pytest.raises(MalformedError):
        parse_model_chunk(encode_model_source(ModelSource(None, (1,))))
    twice = encode_model_source(ModelSource(None, (1,))) + encode_model_chunk(b"x")
    with pytest.raises(MalformedError):
        parse_model_chunk(twice)
