from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire import audit_service, downloads, error_detail, gatekeeper_service, identity_service, uploads
from sfrl_secure.wire.audit_service import AppendedEntry, FollowBatch
from sfrl_secure.wire.entries import encode_envelope, parse_envelope
from sfrl_secure.wire.error_detail import ErrorDetail
from sfrl_secure.wire.gatekeeper_service import ReceiptRequest, RoundAnswer, RoundRequest
from sfrl_secure.wire.identity_service import EnrolResponse, RenewResponse
from sfrl_secure.wire.receipts import ReceiptKind, parse_receipt

DIGEST = Digest(bytes(range(32)))
LOGGED = LoggedEntry(3, b"entry", (DIGEST,))
UNKNOWN_FIELD = b"\x98\x06\x01"


def test_the_paths_are_those_of_the_services() -> None:
    assert audit_service.APPEND_ENTRY == "/sfrl.audit.v1.AuditLogService/AppendEntry"
    assert audit_service.FOLLOW_LOG == "/sfrl.audit.v1.AuditLogService/FollowLog"
    from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2
    from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2
    from sfrl_secure.wire.gen.sfrl.identity.v1 import identity_service_pb2

    served = {
        f"/{service.full_name}/{method.name}"
        for file in (audit_service_pb2, gatekeeper_service_pb2, identity_service_pb2)
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
        downloads.FETCH_MODEL,
        uploads.SUBMIT_UPDATE,
        gatekeeper_service.GET_RECEIPT,
        gatekeeper_service.WITHDRAW_UPDATE,
        gatekeeper_service.RECORD_DECISION,
        gatekeeper_service.FETCH_OBJECT,
        identity_service.ENROL,
        identity_service.RENEW_IDENTITY,
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
    receipt_request = ReceiptRequest("north", DIGEST, ReceiptKind.COUNTED)
    receipt = gatekeeper_service.encode_receipt_request(receipt_request)
    assert gatekeeper_service.parse_receipt_request(receipt) == receipt_request
    withdraw, withdrawal = _request(by_hand, "withdrawal", gatekeeper_service.encode_withdraw_request)
    withdrawn = gatekeeper_service.parse_withdraw_request(withdraw)
    assert (withdrawn.envelope, withdrawn.envelope_raw) == (withdrawal, encode_envelope(withdrawal))
    assert withdrawn.withdrawal.update == by_hand.digest(40)
    record, decision = _request(by_hand, "decision", gatekeeper_service.encode_record_request)
    recorded = gatekeeper_service.parse_record_request(record)
    assert (recorded.envelope, recorded.envelope_raw) == (decision, encode_envelope(decision))
    assert recorded.decision.record_seq == 9
    wanted = Digest(by_hand.digest(42))
    ask, asking = _request(by_hand, "object-request", partial(gatekeeper_service.encode_object_request, wanted))
    read = gatekeeper_service.parse_object_request(ask)
    assert (read.digest, read.envelope, read.request.reader) == (wanted, asking, by_hand.AUDITOR)
    enrol, identity = _request(by_hand, "identity-request", partial(_enrol_request, by_hand))
    newcomer = identity_service.parse_enrol_request(enrol)
    assert (newcomer.record.payload_type, newcomer.csr) == (RECORD_TYPE, b"csr")
    assert (newcomer.request, newcomer.request_raw) == (identity, encode_envelope(identity))
    renew = identity_service.encode_renew_request(identity, b"new csr")
    renewal = identity_service.parse_renew_request(renew)
    assert (renewal.request, renewal.request_raw) == (identity, encode_envelope(identity))
    assert (renewal.csr, renewal.identity) == (b"new csr", newcomer.identity)
    assert renewal.identity.spiffe_id == by_hand.PARTICIPANT
    for parse, raw in (
        (audit_service.parse_append_request, append),
        (audit_service.parse_follow_request, follow),
        (gatekeeper_service.parse_round_request, asked),
        (gatekeeper_service.parse_receipt_request, receipt),
        (gatekeeper_service.parse_withdraw_request, withdraw),
        (gatekeeper_service.parse_record_request, record),
        (gatekeeper_service.parse_object_request, ask),
        (identity_service.parse_enrol_request, enrol),
        (identity_service.parse_renew_request, renew),
    ):
        for damaged in (raw + UNKNOWN_FIELD, raw + raw, raw[:-1]):
            with pytest.raises(MalformedError):
                parse(damaged)


RECORD_TYPE = "application/vnd.sfrl.participant.v1+json"


def _request(by_hand: SimpleNamespace, name: str, encode: Callable[[Envelope], bytes]) -> tuple[bytes, Envelope]:
    envelope = parse_envelope(by_hand.quoted(name).encode(), 16_384)
    return encode(envelope), envelope


def _enrol_request(by_hand: SimpleNamespace, request: Envelope) -> bytes:
    record = parse_envelope(by_hand.envelope(RECORD_TYPE, b"{}").encode(), 16_384)
    return identity_service.encode_enrol_request(record, request, b"csr")


@pytest.mark.parametrize(
    ("parse", "name"),
    [
        (gatekeeper_service.parse_withdraw_request, "withdrawal"),
        (gatekeeper_service.parse_record_request, "decision"),
    ],
)
def test_a_request_holds_its_own_envelope_of_at_most_16_kib(
    parse: Callable[[bytes], object], name: str, by_hand: SimpleNamespace
) -> None:
    payload_type = f"application/vnd.sfrl.{name}.v1"
    for bad in (
        *(by_hand.quoted(other) for other in by_hand.SIGNED if other != name),
        by_hand.update_envelope(),
        by_hand.envelope(payload_type, bytes(16_384)),
        by_hand.envelope(payload_type, by_hand.SIGNED[name]()).without(3),
    ):
        with pytest.raises(MalformedError):
            parse(by_hand.Msg("Request", ((1, bad),)).encode())
    with pytest.raises(MalformedError):
        parse(b"")


def test_an_object_is_asked_for_by_the_digest_that_was_signed(by_hand: SimpleNamespace) -> None:
    signed = by_hand.quoted("object-request")
    for fields in (
        ((1, by_hand.digest(41)), (2, signed)),
        ((2, signed),),
        ((1, by_hand.digest(42)),),
        ((1, by_hand.digest(42)), (2, by_hand.quoted("withdrawal"))),
    ):
        with pytest.raises(MalformedError):
            gatekeeper_service.parse_object_request(by_hand.Msg("Request", fields).encode())


def test_a_newcomer_shows_a_record_and_everything_within_its_bounds(by_hand: SimpleNamespace) -> None:
    request = by_hand.quoted("identity-request")

    def enrol(record: object, request: object = request, csr: bytes = b"csr") -> None:
        fields = ((1, record), (2, request), (3, csr))
        identity_service.parse_enrol_request(by_hand.Msg("EnrolRequest", fields).encode())

    def record(size: int, payload_type: str = RECORD_TYPE) -> object:
        return by_hand.envelope(payload_type, bytes(size))

    enrol(record(60_000), csr=bytes(4_096))
    with pytest.raises(MalformedError):
        # A record that is there and empty is not one that is absent.
        identity_service.parse_enrol_request(b"\n\0" + _named_request(by_hand))
    for bad in (
        {"record": record(60_001)},
        {"record": record(10, "application/vnd.sfrl.join.v1+json")},
        {"record": record(10).without(3)},  # type: ignore[attr-defined]
        {"record": record(10), "csr": bytes(4_097)},
        {"record": record(10), "csr": b""},
        {"record": record(10), "request": by_hand.quoted("decision")},
        {"record": record(10), "request": by_hand.envelope("application/vnd.sfrl.identity-request.v1", bytes(16_384))},
    ):
        with pytest.raises(MalformedError):
            enrol(**bad)
    for fields in (((1, request),), ((2, b"csr"),), ((1, request), (2, bytes(4_097)))):
        with pytest.raises(MalformedError):
            identity_service.parse_renew_request(by_hand.Msg("RenewIdentityRequest", fields).encode())


def test_whom_governance_names_asks_without_a_record_and_is_answered_without_one(by_hand: SimpleNamespace) -> None:
    raw = _named_request(by_hand)
    asked = identity_service.parse_enrol_request(raw)
    assert (asked.record, asked.csr) == (None, b"csr")
    assert identity_service.encode_enrol_request(None, asked.request, b"csr") == raw
    answer = EnrolResponse(None, LOGGED, b"note", b"PEM")
    assert identity_service.parse_enrol_response(identity_service.encode_enrol_response(answer)) == answer
    with pytest.raises(MalformedError):
        identity_service.parse_enrol_response(b"\n\0" + identity_service.encode_enrol_response(answer))


def _named_request(by_hand: SimpleNamespace) -> bytes:
    raw: bytes = by_hand.Msg("EnrolRequest", ((2, by_hand.quoted("identity-request")), (3, b"csr"))).encode()
    return raw


def test_a_request_that_would_be_refused_is_not_written(by_hand: SimpleNamespace) -> None:
    identity = parse_envelope(by_hand.quoted("identity-request").encode(), 16_384)
    record = parse_envelope(by_hand.envelope(RECORD_TYPE, b"{}").encode(), 16_384)
    for csr in (b"", bytes(4_097)):
        with pytest.raises(MalformedError):
            identity_service.encode_renew_request(identity, csr)
        with pytest.raises(MalformedError):
            identity_service.encode_enrol_request(record, identity, csr)
    with pytest.raises(MalformedError):
        identity_service.encode_enrol_request(identity, identity, b"csr")
    ask = parse_envelope(by_hand.quoted("object-request").encode(), 16_384)
    for digest in (bytes(31), by_hand.digest(41)):
        with pytest.raises(MalformedError):
            gatekeeper_service.encode_object_request(Digest(digest), ask)


def test_a_certificate_is_1_byte_to_16_kib(by_hand: SimpleNamespace) -> None:
    logged = by_hand.logged(1)
    for certificate in (b"", bytes(16 * 1024 + 1)):
        with pytest.raises(MalformedError):
            identity_service.encode_enrol_response(EnrolResponse(LOGGED, LOGGED, b"note", certificate))
        with pytest.raises(MalformedError):
            identity_service.encode_renew_response(RenewResponse(LOGGED, b"note", certificate))
        enrolled = by_hand.Msg("Enrolled", ((1, logged), (2, logged), (3, b"note"), (4, certificate)))
        with pytest.raises(MalformedError):
            identity_service.parse_enrol_response(enrolled.encode())
        renewed = by_hand.Msg("Renewed", ((1, logged), (2, b"note"), (3, certificate)))
        with pytest.raises(MalformedError):
            identity_service.parse_renew_response(renewed.encode())


def test_answers_survive_and_may_say_more_than_we_know(by_hand: SimpleNamespace) -> None:
    appended = AppendedEntry(LOGGED, b"note")
    batch = FollowBatch(5, (b"one", b"two"), b"note")
    receipt = parse_receipt(by_hand.receipt(3).encode())
    answer = RoundAnswer(b"note", LoggedEntry(0, b"genesis", ()), (LOGGED,), LOGGED, LOGGED, LOGGED, finished=False)
    first = replace(answer, base_model=None)
    rooted = replace(answer, roots=(LOGGED, LoggedEntry(9, b"another root", ())))
    enrolled, renewed = EnrolResponse(LOGGED, LOGGED, b"note", b"PEM"), RenewResponse(LOGGED, b"note", b"PEM")
    over = replace(answer, round_opened=None, base_model=None, finished=True)
    for encode, parse, value in (
        (audit_service.encode_append_response, audit_service.parse_append_response, appended),
        (audit_service.encode_follow_response, audit_service.parse_follow_response, batch),
        (gatekeeper_service.encode_receipt_response, gatekeeper_service.parse_receipt_response, receipt),
        (gatekeeper_service.encode_round_response, gatekeeper_service.parse_round_response, answer),
        (gatekeeper_service.encode_round_response, gatekeeper_service.parse_round_response, first),
        (gatekeeper_service.encode_round_response, gatekeeper_service.parse_round_response, over),
        (gatekeeper_service.encode_round_response, gatekeeper_service.parse_round_response, rooted),
        (gatekeeper_service.encode_withdraw_response, gatekeeper_service.parse_withdraw_response, appended),
        (gatekeeper_service.encode_record_response, gatekeeper_service.parse_record_response, appended),
        (identity_service.encode_enrol_response, identity_service.parse_enrol_response, enrolled),
        (identity_service.encode_renew_response, identity_service.parse_renew_response, renewed),
    ):
        raw = encode(value)  # type: ignore[operator]
        assert parse(raw) == value  # type: ignore[operator]
        assert parse(raw + UNKNOWN_FIELD) == value  # type: ignore[operator]
        with pytest.raises(MalformedError):
            parse(raw[:-1])  # type: ignore[operator]


def test_requests_out_of_range_are_refused(by_hand: SimpleNamespace) -> None:
    for parse, fields in (
        (gatekeeper_service.parse_round_request, ((1, "north"), (3, 30_001))),
        (gatekeeper_service.parse_round_request, ((1, "North"),)),
        (gatekeeper_service.parse_round_request, ((2, 1),)),
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
    for roots in ((logged, logged), (by_hand.logged(0),), tuple(map(by_hand.logged, range(1, 66)))):
        raw = by_hand.Msg("Round", (*whole, *((8, each) for each in roots))).encode()
        with pytest.raises(MalformedError, match="root documents"):
            gatekeeper_service.parse_round_response(raw)
    for part, parse in ((1, gatekeeper_service.parse_withdraw_response), (2, gatekeeper_service.parse_record_response)):
        with pytest.raises(MalformedError):
            parse(by_hand.Msg("Appended", ((1, logged), (2, b"note"))).without(part).encode())
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


def test_an_empty_answer_of_the_log_is_a_heartbeat() -> None:
    raw = audit_service.encode_follow_response(audit_service.HEARTBEAT)
    assert raw == b""
    assert audit_service.parse_follow_response(raw).is_heartbeat
    for batch in (FollowBatch(5, (b"one",), b""), FollowBatch(0, (), b"note")):
        assert not audit_service.parse_follow_response(audit_service.encode_follow_response(batch)).is_heartbeat
