from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire import audit_service, error_detail, gatekeeper_service
from sfrl_secure.wire.audit_service import AppendedEntry, FollowBatch
from sfrl_secure.wire.entries import encode_envelope, parse_envelope
from sfrl_secure.wire.error_detail import ErrorDetail
from sfrl_secure.wire.gatekeeper_service import ModelRequest, ReceiptRequest, RoundAnswer, RoundRequest
from sfrl_secure.wire.receipts import ReceiptKind, parse_receipt

DIGEST = Digest(bytes(range(32)))
LOGGED = LoggedEntry(3, b"entry", (DIGEST,))
UNKNOWN_FIELD = b"\x98\x06\x01"


def test_the_paths_are_those_of_the_services() -> None:
    assert audit_service.APPEND_ENTRY == "/sfrl.audit.v1.AuditLogService/AppendEntry"
    assert audit_service.FOLLOW_LOG == "/sfrl.audit.v1.AuditLogService/FollowLog"
    from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2
    from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2

    served = {
        f"/{service.full_name}/{method.name}"
        for file in (audit_service_pb2, gatekeeper_service_pb2)
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    ours = {
        audit_service.APPEND_ENTRY,
        audit_service.APPEND_ENTRIES,
        audit_service.STREAM_ENTRIES,
        audit_service.FOLLOW_LOG,
        audit_service.PROVE_ENTRIES,
        audit_service.READ_ENTRY_BUNDLE,
    } | {
        gatekeeper_service.GET_ROUND,
        gatekeeper_service.FETCH_MODEL,
        gatekeeper_service.SUBMIT_UPDATE,
        gatekeeper_service.GET_RECEIPT,
        gatekeeper_service.FETCH_OBJECT,
    }
    assert ours == served


def test_requests_survive_and_are_taken_in_one_form_only(by_hand: SimpleNamespace) -> None:
    envelope = parse_envelope(by_hand.update_envelope().encode(), 16_384)
    append = audit_service.encode_append_request(envelope)
    assert audit_service.parse_append_request(append) == envelope
    follow = audit_service.encode_follow_request(7)
    assert audit_service.parse_follow_request(follow) == 7
    assert audit_service.parse_follow_request(b"") == 0
    round_request = RoundRequest("north", 4, 30_000)
    asked = gatekeeper_service.encode_round_request(round_request)
    assert gatekeeper_service.parse_round_request(asked) == round_request
    model_request = ModelRequest("north", DIGEST)
    model = gatekeeper_service.encode_model_request(model_request)
    assert gatekeeper_service.parse_model_request(model) == model_request
    receipt_request = ReceiptRequest("north", DIGEST, ReceiptKind.COUNTED)
    receipt = gatekeeper_service.encode_receipt_request(receipt_request)
    assert gatekeeper_service.parse_receipt_request(receipt) == receipt_request
    submit = gatekeeper_service.encode_submit_request(envelope, b"payload")
    submitted = gatekeeper_service.parse_submit_request(submit)
    assert (submitted.envelope, submitted.payload) == (envelope, b"payload")
    assert submitted.envelope_raw == encode_envelope(envelope)
    assert submitted.update.participant == "rover-7"
    for parse, raw in (
        (audit_service.parse_append_request, append),
        (audit_service.parse_follow_request, follow),
        (gatekeeper_service.parse_round_request, asked),
        (gatekeeper_service.parse_model_request, model),
        (gatekeeper_service.parse_receipt_request, receipt),
        (gatekeeper_service.parse_submit_request, submit),
    ):
        for damaged in (raw + UNKNOWN_FIELD, raw + raw, raw[:-1]):
            with pytest.raises(MalformedError):
                parse(damaged)


def test_answers_survive_and_may_say_more_than_we_know(by_hand: SimpleNamespace) -> None:
    appended = AppendedEntry(LOGGED, b"note")
    batch = FollowBatch(5, (b"one", b"two"), b"note")
    receipt = parse_receipt(by_hand.receipt(3).encode())
    answer = RoundAnswer(b"note", LoggedEntry(0, b"genesis", ()), (LOGGED,), LOGGED, LOGGED, LOGGED, finished=False)
    first = replace(answer, base_model=None)
    over = replace(answer, round_opened=None, base_model=None, finished=True)
    for encode, parse, value in (
        (audit_service.encode_append_response, audit_service.parse_append_response, appended),
        (audit_service.encode_follow_response, audit_service.parse_follow_response, batch),
        (gatekeeper_service.encode_submit_response, gatekeeper_service.parse_submit_response, appended),
        (gatekeeper_service.encode_receipt_response, gatekeeper_service.parse_receipt_response, receipt),
        (gatekeeper_service.encode_round_response, gatekeeper_service.parse_round_response, answer),
        (gatekeeper_service.encode_round_response, gatekeeper_service.parse_round_response, first),
        (gatekeeper_service.encode_round_response, gatekeeper_service.parse_round_response, over),
        (gatekeeper_service.encode_model_chunk, gatekeeper_service.parse_model_chunk, b"chunk"),
    ):
        raw = encode(value)  # type: ignore[operator]
        assert parse(raw) == value  # type: ignore[operator]
        assert parse(raw + UNKNOWN_FIELD) == value  # type: ignore[operator]
        with pytest.raises(MalformedError):
            parse(raw[:-1])  # type: ignore[operator]


def test_a_submit_is_bounded_as_a_whole_and_in_its_header(by_hand: SimpleNamespace) -> None:
    envelope = parse_envelope(by_hand.update_envelope().encode(), 16_384)
    room = 4 * 1024 * 1024 - len(gatekeeper_service.encode_submit_request(envelope, bytes(2**21))) + 2**21
    gatekeeper_service.parse_submit_request(gatekeeper_service.encode_submit_request(envelope, bytes(room)))
    with pytest.raises(MalformedError):
        gatekeeper_service.encode_submit_request(envelope, bytes(room + 1))
    long = by_hand.envelope("application/vnd.sfrl.update.v1", bytes(16_384)).encode()
    with pytest.raises(MalformedError, match="header"):
        gatekeeper_service.parse_submit_request(by_hand.Msg("Submit", ((1, long), (2, b"p"))).encode())
    with pytest.raises(MalformedError):
        gatekeeper_service.parse_submit_request(by_hand.Msg("Submit", ((2, b"p"),)).encode())
    too_long = by_hand.Msg("Submit", ((1, by_hand.update_envelope()), (2, bytes(2**22)))).encode()
    with pytest.raises(MalformedError, match=str(2**22)):
        gatekeeper_service.parse_submit_request(too_long)


def test_only_an_update_is_submitted(by_hand: SimpleNamespace) -> None:
    other = by_hand.envelope("application/vnd.sfrl.statement.v1", by_hand.update())
    with pytest.raises(MalformedError):
        gatekeeper_service.parse_submit_request(by_hand.Msg("Submit", ((1, other), (2, b"p"))).encode())


def test_requests_out_of_range_are_refused(by_hand: SimpleNamespace) -> None:
    for parse, fields in (
        (gatekeeper_service.parse_round_request, ((1, "north"), (3, 30_001))),
        (gatekeeper_service.parse_round_request, ((1, "North"),)),
        (gatekeeper_service.parse_round_request, ((2, 1),)),
        (gatekeeper_service.parse_model_request, ((1, "north"), (2, bytes(31)))),
        (gatekeeper_service.parse_model_request, ((2, bytes(32)),)),
        (gatekeeper_service.parse_receipt_request, ((1, "north"), (2, bytes(32)), (3, 1))),
        (gatekeeper_service.parse_receipt_request, ((1, "north"), (2, bytes(32)))),
        (gatekeeper_service.parse_receipt_request, ((1, "north"), (2, bytes(32)), (3, 4))),
        (gatekeeper_service.parse_receipt_request, ((1, "north"), (2, bytes(33)), (3, 2))),
        (audit_service.parse_follow_request, ((1, 2**63),)),
        (audit_service.parse_append_request, ()),
    ):
        with pytest.raises(MalformedError):
            parse(by_hand.Msg("Request", fields).encode())


def test_answers_out_of_range_are_refused(by_hand: SimpleNamespace) -> None:
    logged = by_hand.logged(1)
    whole = ((1, b"note"), (2, by_hand.logged(0)), (3, logged), (4, logged), (5, logged))
    gatekeeper_service.parse_round_response(by_hand.Msg("Round", whole).encode())
    for index in range(5):
        with pytest.raises(MalformedError):
            gatekeeper_service.parse_round_response(by_hand.Msg("Round", whole[:index] + whole[index + 1 :]).encode())
    twice = (*whole[:3], (3, logged), *whole[3:])
    with pytest.raises(MalformedError, match="services documents"):
        gatekeeper_service.parse_round_response(by_hand.Msg("Round", twice).encode())
    for entries, note in (
        ([bytes(65_536)], b""),
        ([b""], b""),
        ([bytes(60_000)] * 18, b""),
        ([], bytes(128 * 1024 + 1)),
    ):
        with pytest.raises(MalformedError):
            audit_service.encode_follow_response(FollowBatch(0, tuple(entries), note))
        fields = (*((2, entry) for entry in entries), (3, note))
        with pytest.raises(MalformedError):
            audit_service.parse_follow_response(by_hand.Msg("Follow", fields).encode())
    for chunk in (b"", bytes(2**20 + 1)):
        with pytest.raises(MalformedError):
            gatekeeper_service.encode_model_chunk(chunk)
        with pytest.raises(MalformedError):
            gatekeeper_service.parse_model_chunk(by_hand.Msg("Chunk", ((1, chunk),)).encode())
    with pytest.raises(MalformedError):
        audit_service.parse_append_response(by_hand.Msg("Appended", ((1, logged),)).encode())
    with pytest.raises(MalformedError):
        audit_service.parse_append_response(by_hand.Msg("Appended", ((2, b"note"),)).encode())


@settings(deadline=None, max_examples=50)
@given(
    reason=st.sampled_from(["", "norm_limit", "duplicate"]),
    message=st.text(max_size=700),
    index=st.none() | st.integers(0, 2**63),
    size=st.integers(0, 2**63),
)
def test_a_detail_survives_with_a_printable_sentence_of_bounded_length(
    reason: str, message: str, index: int | None, size: int
) -> None:
    raw = error_detail.encode_error_detail(ErrorDetail(reason, message, index, size))
    detail = error_detail.parse_error_detail(raw)
    assert (detail.reason, detail.entry_index, detail.log_size) == (reason, index, size)
    assert len(detail.message) == min(len(message), 500)
    assert detail.message.isascii()
    assert len(raw) <= error_detail.DETAIL_BYTES_MAX


def test_a_detail_that_is_not_one_is_refused(by_hand: SimpleNamespace) -> None:
    for number, value in ((1, "Norm Limit"), (1, "a" * 65), (2, "a" * 501), (2, "two\nlines"), (9, bytes(2_000))):
        with pytest.raises(MalformedError):
            error_detail.parse_error_detail(by_hand.Msg("ErrorDetail", ((number, value),)).encode())
