from __future__ import annotations

from types import SimpleNamespace

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.wire.canonical import build_message, encode_canonical, parse_canonical, parse_message
from sfrl_secure.wire.gen.sfrl.audit.v1 import entry_pb2
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2


def test_a_plain_message_may_have_unknown_fields_and_loses_them() -> None:
    known = gatekeeper_service_pb2.FetchModelResponse(chunk=b"abc")
    raw = known.SerializeToString() + b"\x98\x06\x01"
    message = parse_message(gatekeeper_service_pb2.FetchModelResponse, raw, 100)
    assert message.SerializeToString() == known.SerializeToString()
    with pytest.raises(MalformedError):
        parse_canonical(gatekeeper_service_pb2.FetchModelResponse, raw, 100)


@pytest.mark.parametrize("parse", [parse_message, parse_canonical])
def test_a_message_over_its_bound_is_refused_before_it_is_parsed(parse) -> None:  # type: ignore[no-untyped-def]
    raw = entry_pb2.Envelope(statement=bytes(100)).SerializeToString()
    parse(entry_pb2.Envelope, raw, len(raw))
    with pytest.raises(MalformedError):
        parse(entry_pb2.Envelope, raw, len(raw) - 1)


def test_an_unknown_number_of_an_enum_is_refused_at_any_depth(by_hand: SimpleNamespace) -> None:
    good = by_hand.statement("refusals_counted")
    kind, body = good.fields[-1]
    counts = [each for number, each in body.fields if number == 3]
    damaged = good.replaced(len(good.fields) - 1, (kind, body.replaced(2, (3, counts[0].with_field(2, 77)))))
    parse_canonical(entry_pb2.Statement, good.encode(), 10_000)
    with pytest.raises(MalformedError):
        parse_canonical(entry_pb2.Statement, damaged.encode(), 10_000)


@pytest.mark.parametrize(
    "fields",
    [{"wait_ms": 2**32}, {"wait_ms": -1}, {"segment": "\ud800"}, {"segment": 5}, {"after_round": 2**64}],
)
def test_a_value_of_ours_that_its_field_cannot_hold_is_malformed(fields: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        encode_canonical(build_message(lambda: gatekeeper_service_pb2.GetRoundRequest(**fields)))  # type: ignore[arg-type]


def test_deep_groups_are_refused_with_our_error() -> None:
    with pytest.raises(MalformedError):
        parse_message(entry_pb2.Envelope, b"\x0b" * 10_000, 20_000)
