"""Envelopes: bytes that two readers could read differently, and signatures that are not what they seem.

The attacker is a participant with a good certificate and its own key; or it has stolen the key of a service.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from simulator import SEGMENT, participant_id, service_id

from sfrl_secure.crypto.envelope import Envelope, Signature, add_signature, sign_envelope
from sfrl_secure.crypto.keys import ED25519, HYBRID, SigningKey
from sfrl_secure.governance.documents import RulesDocument
from sfrl_secure.governance.statements import (
    DECISION_TYPE,
    STATEMENT_TYPE,
    UPDATE_TYPE,
    WITHDRAWAL_TYPE,
    PeerClass,
    RefusalCount,
    RefusalsCounted,
    RoundOpened,
)
from sfrl_secure.ids import sha256
from sfrl_secure.wire import gatekeeper_service as wire
from sfrl_secure.wire import uploads
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.participants import encode_withdrawal
from sfrl_secure.wire.statements import encode_statement, encode_update

from ..unit.replay.builder import pb
from .arena import NONE, Arena, Signed

G1, A1 = service_id("gatekeeper", "g1"), service_id("aggregator", "a1")
ORDER_OF_ED25519 = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Arena]:
    with Arena(tmp_path) as made:
        made.sim.open_round()
        yield made


def submit_raw(arena: Arena, envelope: bytes, payload: bytes = b"payload") -> object:
    """Rover 1 submits a request that it wrote byte by byte."""
    return arena.call(uploads.SUBMIT_UPDATE, "rover-1", iter([pb((1, envelope), (3, payload))]))


def enveloped(payload_type: str, statement: bytes, signatures: list[bytes]) -> bytes:
    return pb((1, payload_type), (2, statement), (3, signatures))


def signature(key: SigningKey, payload_type: str, statement: bytes, **changes: bytes | str) -> bytes:
    made = {
        "key_id": key.public_key.key_id, "suite": key.public_key.suite,
        "value": sign_envelope(payload_type, statement, [key]).signatures[0].value,
    } | changes  # fmt: skip
    return pb(*enumerate(made.values(), 1))


BYTES: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("a field that there is not", lambda raw: raw + b"\xa0\x06\x01"),
    ("a default that is written down", lambda raw: raw + b"\x70\x00"),
    ("a number in more bytes than it needs", lambda raw: raw + b"\x70\x81\x00"),
    ("a field a second time, out of order", lambda raw: raw + b"\x60\x0a"),
    ("a number of 2**64", lambda raw: raw + b"\x70" + b"\xff" * 9 + b"\x02"),
    ("a number of 2**63", lambda raw: raw + b"\x70" + b"\x80" * 9 + b"\x01"),
    ("a group", lambda raw: raw + b"\x73\x74"),
    ("a byte too few", lambda raw: raw[:-1]),
    ("nothing", lambda _: b""),
    ("a name in capitals", lambda raw: raw.replace(b"rover-1", b"ROVER-1")),
    ("a name that is no text", lambda raw: raw.replace(b"rover-1", b"rover-\xff")),
    ("a segment that climbs", lambda raw: raw.replace(SEGMENT.encode(), b"../..")),
    ("a value type that there is not", lambda raw: raw.replace(b"\x5a\x06\x08\x02\x10\x01\x18\x01",
                                                               b"\x5a\x06\x08\x02\x10\x01\x18\x09")),
]  # fmt: skip


@pytest.mark.parametrize("change", [pytest.param(change, id=name) for name, change in BYTES])
def test_a_statement_in_other_bytes_is_malformed_although_its_signature_holds(
    arena: Arena, change: Callable[[bytes], bytes]
) -> None:
    raw = encode_update(arena.sim.update("rover-1")[1])
    changed = change(raw)
    assert changed != raw
    key = arena.sim.rovers["rover-1"]
    signed = enveloped(UPDATE_TYPE, changed, [signature(key, UPDATE_TYPE, changed)])
    assert arena.refused("malformed", lambda: submit_raw(arena, signed), NONE).envelope is None


def sixteen(key: SigningKey, raw: bytes) -> list[bytes]:
    """As many hybrid signatures as an envelope may hold: 40 KiB."""
    made = signature(SigningKey.generate(HYBRID), UPDATE_TYPE, raw)
    return sorted(made.replace(made[2:34], sha256(b"%d" % number)) for number in range(16))


SIGNATURES: list[tuple[str, str, Callable[[SigningKey, bytes], list[bytes]]]] = [
    ("no signature", UPDATE_TYPE, lambda key, raw: []),
    ("one signature twice", UPDATE_TYPE, lambda key, raw: [signature(key, UPDATE_TYPE, raw)] * 2),
    ("seventeen signatures", UPDATE_TYPE, lambda key, raw: sorted(
        signature(SigningKey.generate(ED25519), UPDATE_TYPE, raw) for _ in range(17))),
    ("signatures out of order", UPDATE_TYPE, lambda key, raw: sorted(
        [signature(key, UPDATE_TYPE, raw), signature(SigningKey.generate(ED25519), UPDATE_TYPE, raw)], reverse=True)),
    ("a header of 40 KiB", UPDATE_TYPE, sixteen),
    ("a signature cut short", UPDATE_TYPE, lambda key, raw: [signature(key, UPDATE_TYPE, raw, value=b"\x01" * 63)]),
    ("a suite that there is not", UPDATE_TYPE, lambda key, raw: [signature(key, UPDATE_TYPE, raw, suite="none")]),
    ("an Ed25519 signature that is called hybrid", UPDATE_TYPE,
     lambda key, raw: [signature(key, UPDATE_TYPE, raw, suite=HYBRID)]),
    ("a key id of 31 bytes", UPDATE_TYPE, lambda key, raw: [signature(key, UPDATE_TYPE, raw, key_id=b"\x01" * 31)]),
    ("the type of a withdrawal", WITHDRAWAL_TYPE, lambda key, raw: [signature(key, WITHDRAWAL_TYPE, raw)]),
    ("the type of a service's statement", STATEMENT_TYPE, lambda key, raw: [signature(key, STATEMENT_TYPE, raw)]),
    ("the type of a document", RulesDocument.payload_type,
     lambda key, raw: [signature(key, RulesDocument.payload_type, raw)]),
    ("another project's type", "application/vnd.in-toto+json",
     lambda key, raw: [signature(key, UPDATE_TYPE, raw)]),
]  # fmt: skip


@pytest.mark.parametrize(("payload_type", "sign"), [pytest.param(*row[1:], id=row[0]) for row in SIGNATURES])
def test_an_envelope_that_is_none_is_malformed(
    arena: Arena, payload_type: str, sign: Callable[[SigningKey, bytes], list[bytes]]
) -> None:
    raw = encode_update(arena.sim.update("rover-1")[1])
    envelope = enveloped(payload_type, raw, sign(arena.sim.rovers["rover-1"], raw))
    arena.refused("malformed", lambda: submit_raw(arena, envelope), NONE)


def test_the_same_bytes_without_damage_are_admitted(arena: Arena) -> None:
    """Else every attack above would be refused for how it is sent."""
    _, update, payload = arena.sim.update("rover-1")
    raw = encode_update(update)
    signed = enveloped(UPDATE_TYPE, raw, [signature(arena.sim.rovers["rover-1"], UPDATE_TYPE, raw)])
    submit_raw(arena, signed, payload)
    assert set(arena.sim.segment.rounds[1].admissions) == {"rover-1"}


def test_a_request_with_a_byte_too_many_is_malformed(arena: Arena) -> None:
    envelope, _, payload = arena.sim.update("rover-1")
    raw = uploads.encode_upload_start(envelope, uploads.Chunk(0, payload))
    damages = (raw + b"\0", raw[1:], raw + raw, b"\xff" * 40)
    for peer, damaged in zip(arena.sim.rovers, damages, strict=True):
        arena.refused("malformed", partial(arena.call, uploads.SUBMIT_UPDATE, peer, iter([damaged])), NONE)


def signed_by(arena: Arena, sign: Callable[[Envelope], Envelope]) -> Signed:
    """Rover 1's update with other signatures."""
    envelope, update, payload = arena.sim.update("rover-1")
    return sign(envelope), update, payload


def with_value(envelope: Envelope, value: bytes) -> Envelope:
    return replace(envelope, signatures=(replace(envelope.signatures[0], value=value),))


def malleable(envelope: Envelope) -> Envelope:
    """S + L for S: holds wherever S is not compared with the order of the group."""
    value = envelope.signatures[0].value
    s = int.from_bytes(value[32:], "little") + ORDER_OF_ED25519
    return with_value(envelope, value[:32] + s.to_bytes(32, "little"))


FORGED: list[tuple[str, Callable[[Arena], Signed]]] = [
    ("a stranger's key", lambda a: a.sim.update("rover-1", key=SigningKey.generate(ED25519))),
    ("another participant's key", lambda a: a.sim.update("rover-1", key=a.sim.rovers["rover-2"])),
    ("a stranger's signature under the participant's key id", lambda a: signed_by(a, lambda e: with_value(
        e, sign_envelope(e.payload_type, e.statement, [SigningKey.generate(ED25519)]).signatures[0].value))),
    ("a second signature beside a good one",
     lambda a: signed_by(a, lambda e: add_signature(e, SigningKey.generate(ED25519)))),
    ("the signature of another update",
     lambda a: signed_by(a, lambda e: with_value(e, a.sim.update("rover-1", weight=1)[0].signatures[0].value))),
    ("the signature of the same bytes for another purpose", lambda a: signed_by(a, lambda e: with_value(
        e, sign_envelope(DECISION_TYPE, e.statement, [a.sim.rovers["rover-1"]]).signatures[0].value))),
    ("a signature with S + L for S", lambda a: signed_by(a, malleable)),
    ("a signature of zeros", lambda a: signed_by(a, lambda e: with_value(e, bytes(64)))),
    ("the identity for R, zero for S", lambda a: signed_by(a, lambda e: with_value(e, b"\x01" + bytes(63)))),
    ("a good signature by a key that the statement does not name",
     lambda a: a.sim.update("rover-1", key_id=a.sim.rovers["rover-2"].public_key.key_id)),
    ("the name of somebody whom nobody recorded", lambda a: a.sim.update("rover-1", participant="rover-9")),
    ("another's name over one's own key", lambda a: a.sim.update("rover-1", participant="rover-2")),
]  # fmt: skip


@pytest.mark.parametrize("forge", [pytest.param(forge, id=name) for name, forge in FORGED])
def test_a_forged_signature_is_refused_and_never_quoted(arena: Arena, forge: Callable[[Arena], Signed]) -> None:
    forged = forge(arena)
    refused = arena.refused("bad_signature", lambda: arena.send("rover-1", forged), NONE)
    # The log holds no words that their speaker did not sign.
    assert (refused.envelope, refused.update) == (None, None)


def test_a_key_that_was_replaced_signs_nothing_any_more(arena: Arena) -> None:
    old, new = arena.sim.rovers["rover-1"], SigningKey.generate(ED25519)
    signed = arena.sim.update("rover-1")
    arena.sim.record("rover-1", signing_key=new)
    arena.refused("bad_signature", lambda: arena.send("rover-1", signed), NONE)
    arena.sim.rovers["rover-1"] = new
    arena.refused("bad_signature", lambda: arena.send("rover-1", arena.sim.update("rover-1", key=old)), NONE)
    arena.send("rover-1", arena.sim.update("rover-1"))


def test_half_of_a_hybrid_signature_is_none(tmp_path: Path) -> None:
    """With Ed25519 broken, and with ML-DSA broken."""
    with Arena(tmp_path, suites={"rover-1": HYBRID}, terms={"suites": [ED25519, HYBRID]}) as arena:
        arena.sim.open_round()
        envelope, update, payload = arena.sim.update("rover-1")
        (good,) = envelope.signatures
        for value in (good.value[:64] + bytes(2_420), bytes(64) + good.value[64:]):
            half = with_value(envelope, value)
            arena.refused("bad_signature", partial(arena.send, "rover-1", (half, update, payload)), NONE)
        cut = replace(envelope, signatures=(Signature(good.key_id, ED25519, good.value[:64]),))
        arena.refused("bad_signature", lambda: arena.send("rover-1", (cut, update, payload)), NONE)
        arena.send("rover-1", (envelope, update, payload))


def test_what_participants_sign_beside_updates_is_as_hard_to_forge(arena: Arena) -> None:
    arena.sim.admit("rover-1")
    thief = SigningKey.generate(ED25519)
    withdrawal, decision = arena.sim.withdrawal("rover-1", key=thief), arena.sim.decision("rover-1", key=thief)
    arena.counted("bad_signature", lambda: arena.withdraw("rover-1", withdrawal.envelope))
    arena.counted("bad_signature", lambda: arena.record("rover-1", decision.envelope))
    # One purpose's envelope at another's door.
    update = encode_envelope(arena.sim.update("rover-1")[0])
    arena.counted("malformed", lambda: arena.call(wire.WITHDRAW_UPDATE, "rover-1", pb((1, update))))
    arena.counted("malformed", lambda: arena.call(wire.RECORD_DECISION, "rover-1", pb((1, update))))
    said = arena.sim.withdrawal("rover-1")
    moved = sign_envelope(DECISION_TYPE, encode_withdrawal(said.withdrawal), [arena.sim.rovers["rover-1"]])
    arena.counted("malformed", lambda: arena.record("rover-1", moved))
    arena.withdraw("rover-1", said.envelope)


def test_a_statement_has_exactly_its_writers_signature(arena: Arena) -> None:
    sim = arena.sim
    counts = RefusalsCounted(1, 2, (RefusalCount("role", PeerClass.UNKNOWN, 1),), sha256(b"requests"))
    good = sim.sign(sim.statement(G1, "log", counts))
    arena.denied("bad_signature", "writer_signature", add_signature(good, sim.keys[A1]))
    arena.denied("bad_signature", "writer_signature", sim.sign(sim.statement(G1, "log", counts), sim.keys[A1]))
    arena.denied("bad_signature", "writer_signature", malleable(sim.sign(sim.statement(G1, "log", counts))))
    stranger = SigningKey.generate(ED25519)
    own = sim.statement(G1, "log", counts, key_id=stranger.public_key.key_id)
    arena.denied("writer", "writer", sim.sign(own, stranger))
    others = sim.statement(G1, "log", counts, key_id=sim.keys[A1].public_key.key_id)
    arena.denied("writer", "writer", sim.sign(others, sim.keys[A1]))
    sim.log.order(good)
    arena.verify()


def test_what_is_no_entry_moves_no_stream_and_no_state(arena: Arena) -> None:
    sim = arena.sim
    streams = dict(sim.state.streams)
    body = RoundOpened(2, sim.segment.model, sim.segment.terms.digest)
    raw = encode_statement(sim.statement(A1, f"segment/{SEGMENT}", body))
    for signed in (
        sim.update("rover-1")[0],
        sim.identity_request(participant_id("rover-1"), sha256(b"tls"))[0],
        sign_envelope(STATEMENT_TYPE, raw + b"\0", [sim.keys[A1]]),
        sign_envelope(STATEMENT_TYPE, raw[:-1], [sim.keys[A1]]),
        sign_envelope("application/vnd.sfrl.verdict.v1", raw, [sim.keys[A1]]),
        sign_envelope(RulesDocument.payload_type, b'{"type":"rules","type":"rules"}', list(sim.operators.values())),
    ):
        arena.malformed(signed)
    assert sim.state.streams == streams


def test_only_services_and_auditors_bring_statements_and_the_log_counts_who_tried(arena: Arena) -> None:
    sim = arena.sim
    body = RefusalsCounted(1, 2, (RefusalCount("role", PeerClass.UNKNOWN, 1),), sha256(b"requests"))
    stolen = sim.sign(sim.statement(G1, "log", body))
    arena.counted_by_log("role", lambda: arena.bring(participant_id("rover-1"), stolen), PeerClass.PARTICIPANT)
    assert body not in arena.bodies(RefusalsCounted)
