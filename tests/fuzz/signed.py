"""What participants and readers sign, and the requests and answers around it: checks and seeds.

Two properties: what is taken is written back as the same bytes, and a signature of the rover holds for nothing but
what it has signed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from sfrl_secure.crypto.envelope import Envelope, sign_envelope, verify_single
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import sha256
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire import downloads, identity_service, participants, uploads
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.gatekeeper_service import RoundAnswer
from sfrl_secure.wire.gen.sfrl.gatekeeper.v1 import gatekeeper_service_pb2 as messages
from sfrl_secure.wire.statements import encode_update, parse_update, parse_update_envelope

from .quotes import OBJECT
from .world import ed25519_key, the_world

_WORLD = the_world()
_RECORD_TYPE = "application/vnd.sfrl.participant.v1+json"
_RECORD = sign_envelope(_RECORD_TYPE, b'{"type":"participant"}', [SigningKey(ed25519_key("join key"), None)])
_CSR = b"0\x82\x01" + bytes(range(256))
_CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
_CHUNKS = (uploads.Chunk(0, b"payload"), uploads.Chunk(300, b"x" * 200), uploads.Chunk(2**63 - 1, b"\0"))

Check = Callable[[bytes], None]


def signed_targets() -> dict[str, tuple[Check, Iterable[bytes]]]:
    """Name of each target: its check and its seeds."""
    return {
        "update": (check_update, _statements("update")),
        "withdrawal": (check_withdrawal, _statements("withdrawal")),
        "decision": (check_decision, _statements("decision")),
        "identity_request": (check_identity_request, _statements("identity-request")),
        "object_request": (check_object_request, _statements("object-request")),
        "quoted_envelope": (check_quoted_envelope, map(encode_envelope, _WORLD.quotes.values())),
        "submit_request": (check_submit_request, _submit_requests()),
        "submit_chunk": (check_submit_chunk, map(uploads.encode_chunk, _CHUNKS)),
        "submit_answer": (check_submit_answer, _submit_answers()),
        "model_request": (check_model_request, map(downloads.encode_model_request, _model_requests())),
        "model_answer": (check_model_answer, _model_answers()),
        "withdraw_request": (check_withdraw_request, (wire.encode_withdraw_request(_quote("withdrawal")),)),
        "record_request": (check_record_request, (wire.encode_record_request(_quote("decision")),)),
        "object_ask": (check_object_ask, (wire.encode_object_request(OBJECT, _quote("object-request")),)),
        "enrol_request": (
            check_enrol_request, (_enrol_request(_CSR), _enrol_request(b"0"), _enrol_request(_CSR, None)),
        ),
        "renew_request": (check_renew_request, (_renew_request(_CSR), _renew_request(b"0"))),
        "round_answer": (check_round_answer, _round_answers()),
        "withdraw_answer": (check_withdraw_answer, map(wire.encode_withdraw_response, _appended())),
        "record_answer": (check_record_answer, map(wire.encode_record_response, _appended())),
        "enrol_answer": (check_enrol_answer, (_enrol_answer(),)),
        "renew_answer": (check_renew_answer, (_renew_answer(),)),
    }


# Statements


def check_update(raw: bytes) -> None:
    """Take an update statement."""
    _same(encode_update(parse_update(raw)), raw)


def check_withdrawal(raw: bytes) -> None:
    """Take a withdrawal."""
    _same(participants.encode_withdrawal(participants.parse_withdrawal(raw)), raw)


def check_decision(raw: bytes) -> None:
    """Take a decision."""
    _same(participants.encode_decision(participants.parse_decision(raw)), raw)


def check_identity_request(raw: bytes) -> None:
    """Take a request for an identity."""
    _same(participants.encode_identity_request(participants.parse_identity_request(raw)), raw)


def check_object_request(raw: bytes) -> None:
    """Take a request for an object."""
    _same(participants.encode_object_request(participants.parse_object_request(raw)), raw)


def check_quoted_envelope(raw: bytes) -> None:
    """Take an envelope as what its payload type says."""
    for opener in (
        parse_update_envelope,
        participants.parse_withdrawal_envelope,
        participants.parse_decision_envelope,
        participants.parse_identity_request_envelope,
    ):
        try:
            envelope, _ = opener(raw)
        except MalformedError:
            continue
        break
    else:
        envelope, _ = participants.parse_object_request_envelope(raw)
    _same(encode_envelope(envelope), raw)
    _check_signed(envelope)


# Requests: canonical as a whole


def check_submit_request(raw: bytes) -> None:
    """Take the first request of a submit."""
    asked = uploads.parse_upload_start(raw)
    _same(uploads.encode_upload_start(asked.envelope, asked.chunk), raw)
    _same(encode_envelope(asked.envelope), asked.envelope_raw)
    _check_signed(asked.envelope)


def check_submit_chunk(raw: bytes) -> None:
    """Take a later request of a submit."""
    chunk = uploads.parse_chunk(raw)
    message = messages.SubmitUpdateRequest(offset=chunk.offset, chunk=bytes(chunk.data))
    _same(message.SerializeToString(deterministic=True), raw)
    assert 1 <= len(chunk.data) <= 2**20


def check_model_request(raw: bytes) -> None:
    """Take a request for a model."""
    _same(downloads.encode_model_request(downloads.parse_model_request(raw)), raw)


def check_withdraw_request(raw: bytes) -> None:
    """Take a request to withdraw."""
    asked = wire.parse_withdraw_request(raw)
    _same(wire.encode_withdraw_request(asked.envelope), raw)
    _same(encode_envelope(asked.envelope), asked.envelope_raw)
    _check_signed(asked.envelope)


def check_record_request(raw: bytes) -> None:
    """Take a request to record a decision."""
    asked = wire.parse_record_request(raw)
    _same(wire.encode_record_request(asked.envelope), raw)
    _same(encode_envelope(asked.envelope), asked.envelope_raw)
    _check_signed(asked.envelope)


def check_object_ask(raw: bytes) -> None:
    """Take a request for an object: what is asked for is what was signed for."""
    asked = wire.parse_object_request(raw)
    _same(wire.encode_object_request(asked.digest, asked.envelope), raw)
    assert asked.request.digest == asked.digest
    _check_signed(asked.envelope)


def check_enrol_request(raw: bytes) -> None:
    """Take a newcomer's request."""
    asked = identity_service.parse_enrol_request(raw)
    _same(identity_service.encode_enrol_request(asked.record, asked.request, asked.csr), raw)
    _same(encode_envelope(asked.request), asked.request_raw)
    _check_signed(asked.request)


def check_renew_request(raw: bytes) -> None:
    """Take a request for the next certificate."""
    asked = identity_service.parse_renew_request(raw)
    _same(identity_service.encode_renew_request(asked.request, asked.csr), raw)
    _same(encode_envelope(asked.request), asked.request_raw)
    _check_signed(asked.request)


# Answers: fields that are not known are dropped, so what is written is compared as a value


def check_round_answer(raw: bytes) -> None:
    """Take a round: roots rise, and genesis is none of them."""
    answer = wire.parse_round_response(raw)
    assert wire.parse_round_response(wire.encode_round_response(answer)) == answer
    indices = [0, *(each.index for each in answer.roots)]
    assert indices == sorted(set(indices))
    assert len(answer.roots) <= 64


def check_submit_answer(raw: bytes) -> None:
    """Take an answer to a submit: receipt A, or how many bytes are durable."""
    answer = uploads.parse_upload_answer(raw)
    encode = uploads.encode_durable if isinstance(answer, int) else uploads.encode_admitted
    assert uploads.parse_upload_answer(encode(answer)) == answer  # type: ignore[operator]


def check_model_answer(raw: bytes) -> None:
    """Take what is said of a model that will be sent, or a chunk of it."""
    try:
        source = downloads.parse_model_source(raw)
    except MalformedError:
        chunk = downloads.parse_model_chunk(raw)
        assert downloads.parse_model_chunk(downloads.encode_model_chunk(chunk)) == chunk
        assert 1 <= len(chunk) <= 2**20
        return
    assert downloads.parse_model_source(downloads.encode_model_source(source)) == source
    assert len(source.object_bytes) == 1 or source.base is not None


def check_withdraw_answer(raw: bytes) -> None:
    """Take the answer to a withdrawal."""
    answer = wire.parse_withdraw_response(raw)
    assert wire.parse_withdraw_response(wire.encode_withdraw_response(answer)) == answer


def check_record_answer(raw: bytes) -> None:
    """Take the answer to a decision."""
    answer = wire.parse_record_response(raw)
    assert wire.parse_record_response(wire.encode_record_response(answer)) == answer


def check_enrol_answer(raw: bytes) -> None:
    """Take a newcomer's identity."""
    answer = identity_service.parse_enrol_response(raw)
    assert identity_service.parse_enrol_response(identity_service.encode_enrol_response(answer)) == answer


def check_renew_answer(raw: bytes) -> None:
    """Take the next identity."""
    answer = identity_service.parse_renew_response(raw)
    assert identity_service.parse_renew_response(identity_service.encode_renew_response(answer)) == answer


def _same(written: bytes, raw: bytes) -> None:
    assert written == raw, "what was taken is written in another way"


def _check_signed(envelope: Envelope) -> None:
    if any(each.key_id == _WORLD.rover.key_id for each in envelope.signatures):
        verify_single(envelope, _WORLD.rover)
        assert envelope in _WORLD.quotes.values(), "a signature holds for what was never signed"


# Seeds


def _quote(name: str) -> Envelope:
    return _WORLD.quotes[name]


def _statements(name: str) -> Iterator[bytes]:
    yield _quote(name).statement


def _submit_requests() -> Iterator[bytes]:
    yield uploads.encode_upload_start(_quote("update"))
    for chunk in _CHUNKS:
        yield uploads.encode_upload_start(_quote("update"), chunk)


def _submit_answers() -> Iterator[bytes]:
    yield from map(uploads.encode_durable, (0, 1, 2**40))
    yield from map(uploads.encode_admitted, _appended())


def _model_requests() -> Iterator[downloads.ModelRequest]:
    has = tuple(sha256(bytes([number])) for number in range(8))
    yield downloads.ModelRequest("rocks", OBJECT)
    yield downloads.ModelRequest("rocks", OBJECT, has, 300, 2**63)
    yield downloads.ModelRequest("r", OBJECT, has[:1], 2**64 - 1)


def _model_answers() -> Iterator[bytes]:
    yield downloads.encode_model_source(downloads.ModelSource(None, (1_000,)))
    yield downloads.encode_model_source(downloads.ModelSource(OBJECT, (300, 1, 2**31)))
    yield downloads.encode_model_chunk(b"chunk" * 9)


def _enrol_request(csr: bytes, record: Envelope | None = _RECORD) -> bytes:
    return identity_service.encode_enrol_request(record, _quote("identity-request"), csr)


def _renew_request(csr: bytes) -> bytes:
    return identity_service.encode_renew_request(_quote("identity-request"), csr)


def _appended() -> Iterator[AppendedEntry]:
    for index in (2, 255):
        yield AppendedEntry(_WORLD.logged(index), _WORLD.notes["signed"])


def _round_answers() -> Iterator[bytes]:
    genesis, *others = (_WORLD.logged(index) for index in (0, 1, 2, 3, 4, 5, 6))
    services, terms, opened, model = others[:4]
    roots: tuple[LoggedEntry, ...] = tuple(others[4:])
    note = _WORLD.notes["newest"]
    for answer in (
        RoundAnswer(note, genesis, (services,), terms, opened, model, finished=False, roots=roots),
        RoundAnswer(note, genesis, (services,), terms, None, None, finished=True),
    ):
        yield wire.encode_round_response(answer)


def _enrol_answer() -> bytes:
    return identity_service.encode_enrol_response(
        identity_service.EnrolResponse(_WORLD.logged(3), _WORLD.logged(4), _WORLD.notes["signed"], _CERTIFICATE)
    )


def _renew_answer() -> bytes:
    return identity_service.encode_renew_response(
        identity_service.RenewResponse(_WORLD.logged(4), _WORLD.notes["signed"], _CERTIFICATE)
    )
