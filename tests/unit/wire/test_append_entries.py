from __future__ import annotations

from types import SimpleNamespace

import pytest

from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import APPEND_BYTES_MAX, MESSAGE_BYTES_MAX, NOTE_BYTES_MAX
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.append_entries import (
    RESULTS_BYTES_MAX,
    EntriesAnswer,
    Refusal,
    encode_entries_request,
    encode_entries_response,
    join_envelopes,
    parse_entries_request,
    parse_entries_response,
    result_bytes,
    split_envelopes,
)
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.error_detail import ErrorDetail
from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2

DIGEST = Digest(bytes(range(32)))
LOGGED = LoggedEntry(3, b"entry", (DIGEST,))
REFUSAL = Refusal(7, ErrorDetail("threshold", "two operators sign", None, 0))


def envelope(statement: bytes) -> Envelope:
    return Envelope("application/vnd.sfrl.statement.v1", statement, (Signature(DIGEST, "ed25519", bytes(64)),))


@pytest.mark.parametrize("length", [1, 100, 127, 128, 129, 300, 16_383, 16_384, 60_000])
def test_a_request_is_the_protobuf_message_that_the_schema_says(length: int) -> None:
    envelopes = [envelope(bytes(length)), envelope(b"two")]
    raw = encode_entries_request(envelopes)
    assert parse_entries_request(raw) == tuple(envelopes)
    for kind in (audit_service_pb2.AppendEntriesRequest, audit_service_pb2.StreamEntriesRequest):
        message = kind.FromString(raw)
        assert [each.statement for each in message.envelopes] == [bytes(length), b"two"]
        assert message.SerializeToString(deterministic=True) == raw


def test_a_malformed_envelope_is_refused_alone() -> None:
    good = encode_envelope(envelope(b"good"))
    pieces = [good, b"", b"\xff" * 20, good + b"\x98\x06\x01", good[:-1], good]
    first, *bad, last = parse_entries_request(join_envelopes(pieces))
    assert first == last == envelope(b"good")
    assert len(bad) == 4
    for error in bad:
        assert isinstance(error, MalformedError)
        assert error.__traceback__ is None


def test_an_envelope_that_no_entry_could_hold_is_refused_alone() -> None:
    long = join_envelopes([bytes(65_536), encode_envelope(envelope(b"good"))])
    error, good = parse_entries_request(long)
    assert isinstance(error, MalformedError)
    assert "65535" in str(error)
    assert good == envelope(b"good")


def test_a_request_that_is_not_its_one_form_is_refused_as_a_whole(by_hand: SimpleNamespace) -> None:
    good = join_envelopes([encode_envelope(envelope(b"good"))])
    for damaged in (
        b"",
        good[:-1],
        good + b"\x98\x06\x01",  # a field that is not there
        b"\x12" + good[1:],  # another field
        b"\x08\x01",  # a number
        b"\x0a",
        b"\x0a\x81",
        b"\x0a\x81\x00x",  # a length in more bytes than it needs
        b"\x0a\x80\x80\x00",
        b"\x0a\xff\xff\xff\x7f" + bytes(10),
        b"\x8a\x00\x00",  # the tag in more bytes than it needs
    ):
        with pytest.raises(MalformedError):
            split_envelopes(damaged)


def test_a_request_has_1_to_256_envelopes_of_1_mebibyte_together() -> None:
    small = encode_envelope(envelope(b"good"))
    assert len(split_envelopes(join_envelopes([small] * 256))) == 256
    for wrong in ([], [small] * 257, [bytes(60_000)] * 18):
        with pytest.raises(MalformedError):
            join_envelopes(wrong)
    with pytest.raises(MalformedError, match="256"):
        split_envelopes(join_envelopes([small]) * 257)
    sixteenth = APPEND_BYTES_MAX // 16
    full = join_envelopes([bytes(sixteenth)] * 16)
    assert sum(map(len, split_envelopes(full))) == APPEND_BYTES_MAX
    with pytest.raises(MalformedError, match=str(APPEND_BYTES_MAX)):
        split_envelopes(full + b"\x0a\x01x")
    with pytest.raises(MalformedError, match=str(APPEND_BYTES_MAX)):
        split_envelopes(bytes(APPEND_BYTES_MAX + 2_000))


def test_answers_survive_and_may_say_more_than_we_know() -> None:
    answer = EntriesAnswer((LOGGED, REFUSAL, LOGGED), b"note")
    raw = encode_entries_response(answer)
    assert parse_entries_response(raw) == parse_entries_response(raw + b"\x98\x06\x01") == answer
    assert audit_service_pb2.StreamEntriesResponse.FromString(raw).SerializeToString() == raw
    refused = EntriesAnswer((Refusal(10, ErrorDetail("stale", "read on", None, 77)),), b"")
    assert parse_entries_response(encode_entries_response(refused)) == refused
    told = EntriesAnswer((Refusal(9, ErrorDetail("expired", "", 5, 0)),), b"")
    assert parse_entries_response(encode_entries_response(told)) == told


def test_a_refusals_sentence_travels_printable_and_cut() -> None:
    answer = EntriesAnswer((Refusal(3, ErrorDetail("", "é\n" + "a" * 600)),), b"")
    (refusal,) = parse_entries_response(encode_entries_response(answer)).results
    assert isinstance(refusal, Refusal)
    assert refusal.detail.message == "??" + "a" * 498


def test_answers_out_of_range_are_refused(by_hand: SimpleNamespace) -> None:
    msg = by_hand.Msg
    logged = msg("Result", ((1, by_hand.logged(3)),))
    parse_entries_response(msg("Answer", ((1, logged), (2, b"note"))).encode())
    for fields in (
        (),
        ((2, b"note"),),
        ((1, logged),),  # what is logged has a checkpoint
        ((1, msg("Result", ())), (2, b"note")),  # neither of the two
        ((1, msg("Result", ((2, msg("Refusal", ())),))),),  # status 0 is no refusal
        ((1, msg("Result", ((2, msg("Refusal", ((1, 17),))),))),),
        ((1, msg("Result", ((2, msg("Refusal", ((1, 7), (2, b"Norm Limit")))),))),),
        ((1, msg("Result", ((2, msg("Refusal", ((1, 7), (3, b"two\nlines")))),))),),
        ((1, msg("Result", ((1, msg("Logged", ())),))), (2, b"note")),
        (*[(1, logged)] * 257, (2, b"note")),
        ((1, logged), (2, bytes(NOTE_BYTES_MAX + 1))),
    ):
        with pytest.raises(MalformedError):
            parse_entries_response(msg("Answer", fields).encode())
    for answer in (EntriesAnswer((), b""), EntriesAnswer((LOGGED,), b""), EntriesAnswer((LOGGED,) * 257, b"n")):
        with pytest.raises(MalformedError):
            encode_entries_response(answer)


def test_the_fullest_answer_is_within_a_message() -> None:
    path = (DIGEST,) * 63
    largest = LoggedEntry(2**63 - 1, bytes(65_535), path)
    count = RESULTS_BYTES_MAX // result_bytes(largest)
    refusal = Refusal(14, ErrorDetail("a" * 64, "a" * 500, 2**62, 2**62))
    answer = EntriesAnswer((largest,) * count + (refusal,) * (256 - count), bytes(NOTE_BYTES_MAX))
    assert len(encode_entries_response(answer)) < MESSAGE_BYTES_MAX
    # What a request can bring fits in any case: an entry has at most 300 bytes more than its envelope.
    ordinary = LoggedEntry(2**63 - 1, bytes(APPEND_BYTES_MAX // 256 + 300), path)
    assert 256 * result_bytes(ordinary) < RESULTS_BYTES_MAX
