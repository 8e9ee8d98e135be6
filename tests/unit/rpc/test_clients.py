from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sfrl_secure.clock import FixedClock
from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError, UnavailableError
from sfrl_secure.governance.participants import ParticipantRecord
from sfrl_secure.governance.statements import (
    DECISION_TYPE,
    IDENTITY_REQUEST_TYPE,
    UPDATE_TYPE,
    WITHDRAWAL_TYPE,
    DecisionStatement,
    IdentityRequest,
    PayloadFormat,
    UpdateStatement,
    WithdrawalStatement,
)
from sfrl_secure.ids import Digest, parse_spiffe_id
from sfrl_secure.rpc.channel import AnonymousTls
from sfrl_secure.rpc.clients import AuditLogClient, GatekeeperClient, IdentityClient
from sfrl_secure.rpc.downloads import Fetched
from sfrl_secure.rpc.identity import ROLES as ALL_ROLES
from sfrl_secure.rpc.identity_requests import IdentityAsker
from sfrl_secure.rpc.server import ANYBODY, Method
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire import audit_service, gatekeeper_service, identity_service
from sfrl_secure.wire.audit_service import HEARTBEAT, AppendedEntry, FollowBatch
from sfrl_secure.wire.downloads import (
    FETCH_MODEL,
    ModelRequest,
    ModelSource,
    encode_model_chunk,
    encode_model_source,
    parse_model_request,
)
from sfrl_secure.wire.gatekeeper_service import ReceiptRequest, RoundAnswer, RoundRequest
from sfrl_secure.wire.identity_service import EnrolResponse, RenewResponse
from sfrl_secure.wire.participants import (
    encode_decision,
    encode_identity_request,
    encode_withdrawal,
    parse_identity_request,
)
from sfrl_secure.wire.receipts import Receipt, ReceiptKind
from sfrl_secure.wire.statements import encode_update
from sfrl_secure.wire.uploads import SUBMIT_UPDATE, encode_admitted, parse_upload_start

ROLES = frozenset({"participant"})
DIGEST = Digest(bytes(range(32)))
LOGGED = LoggedEntry(3, b"entry", (DIGEST,))
GENESIS = LoggedEntry(0, b"genesis", ())
APPENDED = AppendedEntry(LOGGED, b"note")


def update_envelope() -> Envelope:
    update = UpdateStatement(
        federation_id=DIGEST,
        segment="north",
        participant="rover-7",
        key_id=DIGEST,
        round=1,
        round_opened=DIGEST,
        base_model=DIGEST,
        payload_sha256=DIGEST,
        payload_root=DIGEST,
        payload_bytes=7,
        nonzeros=1,
        format=PayloadFormat(2, "free", "int8"),
        weight=1,
        created_us=0,
    )
    return Envelope(UPDATE_TYPE, encode_update(update), (Signature(DIGEST, "ed25519", bytes(64)),))


def test_the_audit_logs_methods_go_there_and_back(site: Any) -> None:
    seen: list[object] = []

    def append(request: bytes, context: object) -> bytes:
        seen.append(audit_service.parse_append_request(request))
        if len(seen) < 3:
            raise UnavailableError("starting")
        return audit_service.encode_append_response(APPENDED)

    def follow(request: bytes, context: object) -> Iterator[bytes]:
        first = audit_service.parse_follow_request(request)
        yield audit_service.encode_follow_response(FollowBatch(first, (b"one",), b"note"))
        yield audit_service.encode_follow_response(HEARTBEAT)
        yield audit_service.encode_follow_response(FollowBatch(0, (), b"witnessed"))

    site.tls = site.server_tls("service/audit_log/l1")
    server = site.serve(
        Method(audit_service.APPEND_ENTRY, append, ROLES), Method(audit_service.FOLLOW_LOG, follow, ROLES, True)
    )
    client = AuditLogClient(site.channel(server, site.known("participant/rover-7"), role="audit_log"))
    assert client.append(update_envelope()) == APPENDED
    assert seen == [update_envelope()] * 3
    assert list(client.follow(9)) == [
        FollowBatch(9, (b"one",), b"note"), HEARTBEAT, FollowBatch(0, (), b"witnessed")
    ]  # fmt: skip


def test_the_gatekeepers_methods_go_there_and_back(site: Any) -> None:
    answer = RoundAnswer(b"note", GENESIS, (LOGGED,), LOGGED, LOGGED, None, finished=False)
    receipt = Receipt(ReceiptKind.WITNESSED, b"note", GENESIS, (LOGGED,), LOGGED, LOGGED)
    asked: list[object] = []

    def get_round(request: bytes, context: object) -> bytes:
        asked.append(gatekeeper_service.parse_round_request(request))
        return gatekeeper_service.encode_round_response(answer)

    def fetch(request: bytes, context: object) -> Iterator[bytes]:
        asked.append(parse_model_request(request))
        yield encode_model_source(ModelSource(DIGEST, (2, 4)))
        yield encode_model_chunk(b"one")
        yield encode_model_chunk(b"two")

    def submit(requests: Iterator[bytes], context: object) -> Iterator[bytes]:
        start = parse_upload_start(next(requests))
        assert start.chunk is not None
        asked.append((start.envelope, start.chunk.data))
        if start.chunk.data == b"refused":
            raise DeniedError("norm_limit", "at most 7", entry_index=4)
        yield encode_admitted(APPENDED)

    def get_receipt(request: bytes, context: object) -> bytes:
        wanted = gatekeeper_service.parse_receipt_request(request)
        asked.append(wanted)
        if wanted.kind is ReceiptKind.COUNTED:
            raise NotFoundError("not counted yet")
        return gatekeeper_service.encode_receipt_response(receipt)

    server = site.serve(
        Method(gatekeeper_service.GET_ROUND, get_round, ROLES),
        Method(FETCH_MODEL, fetch, ROLES, True),
        Method(SUBMIT_UPDATE, submit, ROLES, True, True),
        Method(gatekeeper_service.GET_RECEIPT, get_receipt, ROLES),
    )
    client = GatekeeperClient(site.channel(server, site.known("participant/rover-7")))
    assert client.get_round(RoundRequest("north", 4, 100)) == answer
    wanted = ModelRequest("north", DIGEST, (DIGEST,))
    assert client.fetch_model(wanted, 6) == Fetched(DIGEST, (b"on", b"etwo"))
    with pytest.raises(MalformedError, match="at most 5"):
        client.fetch_model(wanted, 5)
    assert client.submit(update_envelope(), b"payload").admitted == APPENDED
    with pytest.raises(DeniedError) as caught:
        client.submit(update_envelope(), b"refused")
    assert (caught.value.reason, caught.value.entry_index) == ("norm_limit", 4)
    assert client.get_receipt(ReceiptRequest("north", DIGEST, ReceiptKind.WITNESSED)) == receipt
    with pytest.raises(NotFoundError):
        client.get_receipt(ReceiptRequest("north", DIGEST, ReceiptKind.COUNTED))
    assert asked == [
        RoundRequest("north", 4, 100),
        wanted,
        wanted,
        (update_envelope(), b"payload"),
        (update_envelope(), b"refused"),
        ReceiptRequest("north", DIGEST, ReceiptKind.WITNESSED),
        ReceiptRequest("north", DIGEST, ReceiptKind.COUNTED),
    ]


def test_an_answer_that_is_not_one_is_an_error_of_ours(site: Any) -> None:
    server = site.serve(Method(gatekeeper_service.GET_ROUND, lambda request, context: b"\xff", ROLES))
    client = GatekeeperClient(site.channel(server, site.known("participant/rover-7")))
    with pytest.raises(MalformedError):
        client.get_round(RoundRequest("north", 4, 100))


def signed(payload_type: str, raw: bytes) -> Envelope:
    return Envelope(payload_type, raw, (Signature(DIGEST, "ed25519", bytes(64)),))


def withdrawal_envelope() -> Envelope:
    withdrawal = WithdrawalStatement(DIGEST, "north", "rover-7", DIGEST, 1, DIGEST, DIGEST, 9)
    return signed(WITHDRAWAL_TYPE, encode_withdrawal(withdrawal))


def decision_envelope() -> Envelope:
    decision = DecisionStatement(DIGEST, "north", "rover-7", DIGEST, 3, DIGEST, DIGEST, 5, 900_000, (1, 4), (), 9)
    return signed(DECISION_TYPE, encode_decision(decision))


def test_withdrawals_and_decisions_go_there_and_their_entries_come_back(site: Any) -> None:
    asked: list[object] = []

    def withdraw(request: bytes, context: object) -> bytes:
        asked.append(gatekeeper_service.parse_withdraw_request(request).envelope)
        return gatekeeper_service.encode_withdraw_response(APPENDED)

    def record(request: bytes, context: object) -> bytes:
        asked.append(gatekeeper_service.parse_record_request(request).envelope)
        if len(asked) > 2:
            raise DeniedError("not_granted", "the segment takes no decisions")
        return gatekeeper_service.encode_record_response(APPENDED)

    server = site.serve(
        Method(gatekeeper_service.WITHDRAW_UPDATE, withdraw, ROLES),
        Method(gatekeeper_service.RECORD_DECISION, record, ROLES),
    )
    client = GatekeeperClient(site.channel(server, site.known("participant/rover-7")))
    assert client.withdraw_update(withdrawal_envelope()) == APPENDED
    assert client.record_decision(decision_envelope()) == APPENDED
    with pytest.raises(DeniedError) as caught:
        client.record_decision(decision_envelope())
    assert caught.value.reason == "not_granted"
    assert asked == [withdrawal_envelope(), decision_envelope(), decision_envelope()]
    # What is no withdrawal is not sent as one.
    with pytest.raises(MalformedError):
        client.withdraw_update(decision_envelope())


MEMBER = parse_spiffe_id("spiffe://farm_1.example/participant/rover-7")


def identity_envelope() -> Envelope:
    return signed(IDENTITY_REQUEST_TYPE, encode_identity_request(IdentityRequest(DIGEST, MEMBER, DIGEST, DIGEST, 9)))


def test_a_newcomer_enrols_without_a_certificate_and_renews_with_one(site: Any) -> None:
    record = signed(ParticipantRecord.payload_type, b"{}")
    enrolled = EnrolResponse(LOGGED, GENESIS, b"note", b"certificate")
    renewed = RenewResponse(LOGGED, b"note", b"certificate")
    asked: list[object] = []

    def enrol(request: bytes, context: object) -> bytes:
        taken = identity_service.parse_enrol_request(request)
        asked.append((taken.record, taken.request, taken.csr))
        if len(asked) in {1, 3}:
            raise UnavailableError("starting")
        return identity_service.encode_enrol_response(enrolled)

    def renew(request: bytes, context: object) -> bytes:
        taken = identity_service.parse_renew_request(request)
        asked.append((taken.request, taken.csr))
        return identity_service.encode_renew_response(renewed)

    door = site.serve(Method(identity_service.ENROL, enrol, ANYBODY), client_auth=False, threads=16)
    usual = site.serve(Method(identity_service.RENEW_IDENTITY, renew, ALL_ROLES))
    newcomer = IdentityClient(site.channel(door, AnonymousTls(site.pki.services.certificate_pem)))
    # What has effect once is sent once.
    with pytest.raises(UnavailableError):
        newcomer.enrol(record, identity_envelope(), b"csr")
    assert newcomer.enrol(record, identity_envelope(), b"csr") == enrolled
    assert asked == [(record, identity_envelope(), b"csr")] * 2
    # What is tried again is signed again, and is newer though the clock stands still.
    asker = IdentityAsker(MEMBER, DIGEST, SigningKey.generate("ed25519"), FixedClock(9))
    answered, answer = newcomer.enrol_with(asker, record)
    assert answer == enrolled
    sent: list[Any] = asked[2:]
    assert [parse_identity_request(request.statement).created_us for _, request, _ in sent] == [9, 10]
    assert (answered.request, answered.identity.created_us) == (sent[1][1], 10)
    assert parse_identity_request(sent[0][1].statement).spki_sha256 == answered.identity.spki_sha256
    asked.clear()
    member = IdentityClient(site.channel(usual, site.known("participant/rover-7")))
    assert member.renew(identity_envelope(), b"csr") == renewed
    assert asked == [(identity_envelope(), b"csr")]
