from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.wire.entries import encode_entry, encode_envelope, parse_entry, parse_envelope


def test_an_entry_written_by_hand_is_read_and_written_again(by_hand: SimpleNamespace) -> None:
    raw = by_hand.entry().encode()
    entry = parse_entry(raw)
    assert (entry.log_time_us, entry.stream_seq, len(entry.envelope.signatures)) == (1_700_000_000_000_000, 4, 2)
    assert entry.envelope.statement == by_hand.statement("round_opened").encode()
    assert encode_entry(entry) == raw


def test_every_damaged_field_of_an_entry_is_refused(by_hand: SimpleNamespace) -> None:
    entry = by_hand.entry()
    # What stands inside the signed statement is not an entry's business.
    opaque = entry.replaced(entry.at(6), (6, b"signed bytes"))
    for kind, where, damaged in by_hand.damages(opaque):
        if (kind, where) in {("dropped", ("LogEntry", 3)), ("dropped", ("LogEntry", 7))}:
            parse_entry(damaged.encode())  # the first of a stream has position 0; one signature of two is enough
        else:
            with pytest.raises(MalformedError):
                parse_entry(damaged.encode())


@pytest.mark.parametrize(
    ("number", "value"),
    [
        (1, bytes(31)),
        (2, 2**63),
        (3, 2**63),
        (4, bytes(33)),
        (5, "application/vnd.sfrl." + "x" * 120),
        (5, "text/plain"),
        (6, bytes(65_536)),
    ],
)
def test_an_entry_field_out_of_its_range_is_refused(number: int, value: object, by_hand: SimpleNamespace) -> None:
    entry = by_hand.entry()
    with pytest.raises(MalformedError):
        parse_entry(entry.with_field(number, value).encode())


def test_an_envelope_has_one_to_sixteen_signatures(by_hand: SimpleNamespace) -> None:
    kind = "application/vnd.sfrl.update.v1"
    for count, is_taken in ((0, False), (1, True), (16, True), (17, False)):
        fields = tuple((3, by_hand.signature(byte)) for byte in range(count))
        raw = by_hand.Msg("Envelope", ((1, kind), (2, b"body"), *fields)).encode()
        if is_taken:
            assert len(parse_envelope(raw, 16_384).signatures) == count
        else:
            with pytest.raises(MalformedError):
                parse_envelope(raw, 16_384)


def test_signatures_are_sorted(by_hand: SimpleNamespace) -> None:
    kind = "application/vnd.sfrl.update.v1"
    good = by_hand.envelope(kind, b"body", by_hand.signature(1), by_hand.signature(2))
    envelope = parse_envelope(good.encode(), 16_384)
    assert encode_envelope(envelope) == good.encode()
    with pytest.raises(MalformedError):
        parse_envelope(by_hand.envelope(kind, b"body", by_hand.signature(2), by_hand.signature(1)).encode(), 16_384)


def test_an_envelope_over_the_callers_bound_is_refused(by_hand: SimpleNamespace) -> None:
    raw = by_hand.update_envelope().encode()
    parse_envelope(raw, len(raw))
    with pytest.raises(MalformedError):
        parse_envelope(raw, len(raw) - 1)


def test_an_entry_over_the_limit_is_not_written(by_hand: SimpleNamespace) -> None:
    entry = parse_entry(by_hand.entry().encode())

    def with_statement(size: int) -> LogEntry:
        return replace(entry, envelope=replace(entry.envelope, statement=bytes(size)))

    room = 65_535 - len(encode_entry(with_statement(60_000))) + 60_000
    encode_entry(with_statement(room))
    with pytest.raises(MalformedError):
        encode_entry(with_statement(room + 1))


def test_an_entry_or_envelope_without_a_statement_is_not_written(by_hand: SimpleNamespace) -> None:
    entry = parse_entry(by_hand.entry().encode())
    empty = replace(entry.envelope, statement=b"")
    with pytest.raises(MalformedError):
        encode_entry(replace(entry, envelope=empty))
    with pytest.raises(MalformedError):
        encode_envelope(empty)


@pytest.mark.parametrize("place", ["prev", "stream_prev"])
def test_an_entry_with_a_short_digest_is_not_written(place: str, by_hand: SimpleNamespace) -> None:
    entry = parse_entry(by_hand.entry().encode())
    with pytest.raises(MalformedError):
        encode_entry(replace(entry, **{place: bytes(31)}))
