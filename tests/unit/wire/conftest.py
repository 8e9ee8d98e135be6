"""Messages written by hand: a second, tiny protobuf encoder, so that the canonical form is not judged by itself."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest


def varint(number: int, *, padding: int = 0) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    for _ in range(padding):
        out[-1] |= 0x80
        out.append(0)
    return bytes(out)


@dataclass(frozen=True)
class Msg:
    """A message as its fields in order; a nested message, or bytes that hold one, is a Msg too."""

    name: str
    fields: tuple[tuple[int, object], ...]

    def encode(self) -> bytes:
        return b"".join(encode_field(number, value) for number, value in self.fields)

    def replaced(self, index: int, *pairs: tuple[int, object]) -> Msg:
        return Msg(self.name, self.fields[:index] + pairs + self.fields[index + 1 :])

    def at(self, number: int) -> int:
        return next(index for index, (each, _) in enumerate(self.fields) if each == number)

    def with_field(self, number: int, value: object) -> Msg:
        """Replace the field, or put it in its place."""
        kept = [pair for pair in self.fields if pair[0] != number]
        return Msg(self.name, tuple(sorted([*kept, (number, value)], key=lambda pair: pair[0])))

    def without(self, number: int) -> Msg:
        return Msg(self.name, tuple(pair for pair in self.fields if pair[0] != number))


@dataclass(frozen=True)
class Raw:
    """Bytes that stand in place of a field's whole encoding."""

    data: bytes


def encode_field(number: int, value: object) -> bytes:
    if isinstance(value, Raw):
        return value.data
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, (str, Msg)) else bytes(value)  # type: ignore[call-overload]
    return varint(number << 3 | 2) + varint(len(data)) + data


def damages(message: Msg) -> Iterator[tuple[str, tuple[str, int], Msg]]:
    """Every way in which one field, at any depth, breaks the canonical form: kind, (message, field), damaged."""
    for index, (number, value) in enumerate(message.fields):
        where = (message.name, number)
        whole = encode_field(number, value)
        yield "dropped", where, message.replaced(index)
        yield "doubled", where, message.replaced(index, (number, value), (number, value))
        key = number << 3 | (0 if isinstance(value, int) else 2)
        tag = varint(key)
        padded = Raw(varint(key, padding=1) + whole[len(tag) :])
        yield "tag not minimal", where, message.replaced(index, (number, padded))
        if isinstance(value, int):
            yield "number not minimal", where, message.replaced(index, (number, Raw(tag + varint(value, padding=1))))
            yield "explicit default", where, message.replaced(index, (number, Raw(tag + varint(0))))
        else:
            size = len(whole) - len(tag)
            longer = Raw(tag + varint(size + 10_000) + whole[len(tag) :])
            yield "length too long", where, message.replaced(index, (number, longer))
            yield "empty", where, message.replaced(index, (number, b""))
        if index + 1 < len(message.fields):
            following = message.fields[index + 1]
            if following != (number, value):
                yield "swapped", where, message.replaced(index + 1).replaced(index, following, (number, value))
        if isinstance(value, Msg):
            for kind, inner, damaged in damages(value):
                yield kind, inner, message.replaced(index, (number, damaged))
    yield "unknown field", (message.name, 0), Msg(message.name, (*message.fields, (99, 1)))
    yield "bytes left over", (message.name, 0), Msg(message.name, (*message.fields, (0, Raw(b"\x00"))))


def digest(byte: int) -> bytes:
    return bytes([byte]) * 32


PARTICIPANT = "spiffe://farm.example/participant/rover-7"
AUDITOR = "spiffe://farm.example/auditor/lea"
SERVICE = "spiffe://farm.example/service/gatekeeper/g1"


def update() -> Msg:
    return Msg(
        "UpdateStatement",
        (
            (1, digest(1)),
            (2, "north-field"),
            (3, "rover-7"),
            (4, digest(2)),
            (5, 3),
            (6, digest(3)),
            (7, digest(4)),
            (8, digest(5)),
            (9, 1_000),
            (10, 50),
            (11, Msg("PayloadFormat", ((1, 2), (2, 1), (3, 2)))),
            (12, 400),
            (13, 1_700_000_000_000_000),
            (14, 2_048),
            (15, digest(47)),
        ),
    )


def withdrawal() -> Msg:
    return Msg(
        "WithdrawalStatement",
        (
            (1, digest(1)),
            (2, "north-field"),
            (3, "rover-7"),
            (4, digest(2)),
            (5, 3),
            (6, digest(3)),
            (7, digest(40)),
            (8, 1_700_000_000_000_000),
        ),
    )


def decision() -> Msg:
    """Its share is a zigzag number: 3 stands for -2."""
    return Msg(
        "DecisionStatement",
        (
            (1, digest(1)),
            (2, "north-field"),
            (3, "rover-7"),
            (4, digest(2)),
            (5, 9),
            (6, digest(41)),
            (7, digest(15)),
            (8, 3),
            (9, 930_000),
            (10, b"\x00\x02\x80\x01"),
            (11, Msg("Attribution", ((1, 4), (2, 3)))),
            (12, 1_700_000_000_000_000),
        ),
    )


def identity_request() -> Msg:
    return Msg(
        "IdentityRequest",
        ((1, digest(1)), (2, PARTICIPANT), (3, digest(2)), (4, digest(6)), (5, 1_700_000_000_000_000)),
    )


def object_request() -> Msg:
    return Msg(
        "ObjectRequest",
        ((1, digest(1)), (2, AUDITOR), (3, digest(2)), (4, digest(42)), (5, 1_700_000_000_000_000)),
    )


SIGNED = {
    "withdrawal": withdrawal,
    "decision": decision,
    "identity-request": identity_request,
    "object-request": object_request,
}
"""What is signed beside updates and services' statements, by the name in its payload type."""


def quoted(name: str) -> Msg:
    """One of them in its envelope."""
    return envelope(f"application/vnd.sfrl.{name}.v1", SIGNED[name]())


def signature(byte: int) -> Msg:
    return Msg("Signature", ((1, digest(byte)), (2, "ed25519"), (3, bytes([byte]) * 64)))


def envelope(payload_type: str, statement: object, *signatures: Msg) -> Msg:
    return Msg("Envelope", ((1, payload_type), (2, statement), *((3, each) for each in signatures or (signature(2),))))


def update_envelope() -> Msg:
    return envelope("application/vnd.sfrl.update.v1", update())


def facts() -> Msg:
    return Msg("MeasuredFacts", ((1, 50), (2, 10_000), (3, 7_000), (4, 900), (5, b"\x00\x02\x80\x01")))


def bodies() -> dict[str, tuple[int, int, Msg]]:
    """Name of each body: its kind, its field in Statement, an example with every field set."""
    return {
        "identity_issued": (
            4,
            16,
            Msg(
                "IdentityIssued",
                (
                    (1, PARTICIPANT),
                    (2, digest(6)),
                    (3, b"\x7f\x01"),
                    (4, 9),
                    (5, quoted("identity-request")),
                    (6, digest(43)),
                ),
            ),
        ),
        "round_opened": (5, 17, Msg("RoundOpened", ((1, 3), (2, digest(4)), (3, digest(7))))),
        "update_admitted": (
            6,
            18,
            Msg("UpdateAdmitted", ((1, update_envelope()), (2, facts()), (3, "a-rule"), (3, "b-rule"), (4, 2_000))),
        ),
        "update_refused": (
            7,
            19,
            Msg(
                "UpdateRefused",
                (
                    (1, PARTICIPANT),
                    (2, update_envelope()),
                    (3, digest(8)),
                    (4, "norm_limit"),
                    (5, facts()),
                    (6, "a-rule"),
                    (6, "b-rule"),
                    (7, 2),
                ),
            ),
        ),
        "refusals_counted": (
            8,
            20,
            Msg(
                "RefusalsCounted",
                (
                    (1, 5),
                    (2, 6),
                    (3, Msg("RefusalCount", ((1, "malformed"), (2, 2), (3, 4)))),
                    (3, Msg("RefusalCount", ((1, "role"), (2, 1), (3, 5)))),
                    (4, digest(9)),
                ),
            ),
        ),
        "round_closed": (
            11,
            21,
            Msg(
                "RoundClosed",
                (
                    (1, 3),
                    (2, 2),
                    (3, 1),
                    (4, 12),
                    (5, digest(10)),
                    (6, Msg("DroppedUpdate", ((1, "rover-1"), (2, digest(11)), (3, "defective")))),
                    (6, Msg("DroppedUpdate", ((1, "rover-2"), (2, digest(12)), (3, "participant_inactive")))),
                    (6, Msg("DroppedUpdate", ((1, "rover-3"), (2, digest(45)), (3, "withdrawn")))),
                    (6, Msg("DroppedUpdate", ((1, "rover-4"), (2, digest(46)), (3, "excluded")))),
                ),
            ),
        ),
        "model_published": (
            12,
            22,
            Msg(
                "ModelPublished",
                (
                    (1, 3),
                    (2, digest(13)),
                    (3, digest(4)),
                    (4, digest(14)),
                    (5, digest(15)),
                    (6, "weighted_mean/v1"),
                    (7, 1),
                    (8, digest(44)),
                ),
            ),
        ),
        "models_fetched": (
            15,
            23,
            Msg(
                "ModelsFetched",
                (
                    (1, 5),
                    (2, 6),
                    (3, Msg("ModelFetch", ((1, "rover-1"), (2, digest(15))))),
                    (3, Msg("ModelFetch", ((1, "rover-1"), (2, digest(16))))),
                ),
            ),
        ),
        "time_anchored": (14, 24, Msg("TimeAnchored", ((1, checkpoint_note()),))),
        "update_withdrawn": (9, 25, Msg("UpdateWithdrawn", ((1, quoted("withdrawal")),))),
        "complaint_recorded": (10, 26, Msg("ComplaintRecorded", ((1, update_envelope()),))),
        "decision_recorded": (16, 27, Msg("DecisionRecorded", ((1, quoted("decision")),))),
    }


def checkpoint_note() -> bytes:
    root, line = b64encode(digest(17)), b64encode(b"1234" + bytes(64))
    return b"log.example/a\n7\n" + root + "\n\n\u2014 log.example/a ".encode() + line + b"\n"


def statement(name: str) -> Msg:
    kind, number, body = bodies()[name]
    return Msg(
        "Statement",
        (
            (1, digest(1)),
            (2, "segment/north-field"),
            (3, kind),
            (4, SERVICE),
            (5, digest(20)),
            (6, digest(21)),
            (7, digest(22)),
            (8, 1_700_000_000_000_000),
            (9, bytes(range(16))),
            (number, body),
        ),
    )


def entry() -> Msg:
    return Msg(
        "LogEntry",
        (
            (1, digest(1)),
            (2, 1_700_000_000_000_000),
            (3, 4),
            (4, digest(2)),
            (5, "application/vnd.sfrl.statement.v1"),
            (6, statement("round_opened")),
            (7, signature(20)),
            (7, signature(21)),
        ),
    )


def logged(index: int) -> Msg:
    fields = ((1, index),) if index else ()
    return Msg("LoggedEntry", (*fields, (2, b"entry %d" % index), (3, digest(30)), (3, digest(31))))


def receipt(kind: int) -> Msg:
    counted = (6, logged(9)), (7, 2), (8, digest(32)), (8, digest(33)), (9, logged(10))
    return Msg(
        "Receipt",
        (
            (1, kind),
            (2, b"a note"),
            (3, logged(0)),
            (4, logged(1)),
            (4, logged(4)),
            (5, logged(6)),
            *(counted if kind == 3 else ()),
            (10, logged(5)),
            (11, logged(2)),
            (11, logged(7)),
        ),
    )


@pytest.fixture(scope="session")
def by_hand() -> SimpleNamespace:
    """The functions of this file."""
    return SimpleNamespace(**{name: value for name, value in globals().items() if not name.startswith("_")})
