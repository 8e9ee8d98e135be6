"""Every length, range and order of the schema, broken once: malformed here, and in the services' own reading too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from sfrl_secure.errors import MalformedError
from sfrl_secure.replay.reader import parse_entry, parse_statement
from sfrl_secure.replay.words import UPDATE_TYPE
from sfrl_secure.replay.words_reader import parse_update_envelope
from sfrl_secure.wire import entries as wire_entries
from sfrl_secure.wire import statements as wire_statements

from .builder import NEVER, STREAM, ZEROS, Present, Writer, pb, sha

WRITER = Writer()
GATEKEEPER, AGGREGATOR = WRITER.gatekeeper, WRITER.aggregator
ENVELOPE = WRITER.sign_update(WRITER.update_fields("r1", b"p", {1: 5}, 10), [WRITER.participants["r1"]])[0]
FACTS = WRITER.facts({1: 5})
PEER = "spiffe://rover.example/participant/r1"
KEYS = [WRITER.participants["r1"]]
REQUEST = WRITER.identity_request(PEER, ZEROS)
WITHDRAWAL = {1: ZEROS, 2: "rocks", 3: "r1", 4: ZEROS, 5: 1, 6: ZEROS, 7: ZEROS, 8: 1}
DECISION: dict[int, Any] = {
    1: ZEROS, 2: "rocks", 3: "r1", 4: ZEROS, 5: 1, 6: ZEROS, 7: ZEROS, 8: 1, 9: 1, 10: [0, 1],
    11: [pb((2, 1)), pb((1, 1), (2, 2))], 12: 1,
}  # fmt: skip


def enveloped(kind: str, fields: dict[int, Any]) -> bytes:
    return WRITER.enveloped(kind, pb(*fields.items()), KEYS)[0]


HEADER = {
    1: ZEROS, 2: "log", 3: 8, 4: GATEKEEPER, 5: ZEROS, 6: ZEROS, 7: ZEROS, 8: NEVER, 9: bytes(16),
}  # fmt: skip
BODIES: dict[int, tuple[int, str, dict[int, Any]]] = {
    4: (16, "identity", {1: PEER, 2: ZEROS, 3: b"\x01", 4: 1, 5: REQUEST, 6: ZEROS}),
    5: (17, STREAM, {1: 1, 2: ZEROS, 3: ZEROS, 4: ZEROS, 5: ZEROS}),
    6: (18, STREAM, {1: ENVELOPE, 2: Present(FACTS), 3: ["a", "a"], 4: 1}),
    7: (19, STREAM, {1: PEER, 2: ENVELOPE, 3: ZEROS, 4: "duplicate", 5: Present(FACTS), 6: ["a", "b"], 7: 1}),
    8: (20, "log", {1: 1, 2: 1, 3: [pb((1, "role"), (2, 1), (3, 1))], 4: ZEROS}),
    9: (25, STREAM, {1: enveloped("withdrawal", WITHDRAWAL)}),
    10: (26, STREAM, {1: ENVELOPE}),
    16: (27, STREAM, {1: enveloped("decision", DECISION)}),
    11: (21, STREAM, {1: 1, 2: 1, 3: 1, 4: 0, 5: ZEROS, 6: [pb((1, "r1"), (2, ZEROS), (3, "defective"))]}),
    12: (22, STREAM, {
        1: 1, 2: ZEROS, 3: ZEROS, 4: ZEROS, 5: ZEROS, 6: "weighted_mean/v1", 7: 1, 8: ZEROS, 9: ZEROS, 10: ZEROS,
        11: [pb((1, [0, 499]), (2, ZEROS)), pb((1, [1]), (2, ZEROS))],
    }),
    15: (23, STREAM, {1: 1, 2: 1, 3: [pb((1, "r1"), (2, ZEROS))]}),
}


def statement(kind: int, header: dict[int, Any] | None = None, body: dict[int, Any] | None = None) -> bytes:
    field, stream, fields = BODIES[kind]
    inner = pb(*(fields | (body or {})).items())
    return pb(*(HEADER | {2: stream, 3: kind} | (header or {})).items(), (field, Present(inner)))


def facts(**other: Any) -> Present:
    return Present(WRITER.facts({1: 5}, **other))


def count(reason: str = "role", peer_class: int = 1, number: int = 1) -> bytes:
    return pb((1, reason), (2, peer_class), (3, number))


def dropped(name: str, reason: str = "defective", digest: bytes = ZEROS) -> bytes:
    return pb((1, name), (2, digest), (3, reason))


def cluster(*members: int, model: bytes = ZEROS) -> bytes:
    return pb((1, list(members)), (2, model))


def refuses(ours: Callable[[bytes], Any], theirs: Callable[[bytes], Any], raw: bytes) -> None:
    for parse in (ours, theirs):
        with pytest.raises(MalformedError):
            parse(raw)


@pytest.mark.parametrize("kind", BODIES)
def test_the_statements_that_are_broken_below_are_whole(kind: int) -> None:
    assert parse_statement(statement(kind)).kind == kind
    wire_statements.parse_statement(statement(kind))


@pytest.mark.parametrize("kind", BODIES)
def test_every_field_that_is_required_is_required(kind: int) -> None:
    for number in HEADER:
        refuses(parse_statement, wire_statements.parse_statement, statement(kind, header={number: None}))
    # Evidence may be quoted or not, rule ids and lists may be empty, a count may be zero.
    optional = {4: {6}, 6: {3}, 7: {2, 5, 6}, 8: {3}, 11: {4, 6}, 5: {4, 5}, 12: {8, 9, 10, 11}}.get(kind, set())
    for number in BODIES[kind][2]:
        raw = statement(kind, body={number: None})
        if number in optional:
            parse_statement(raw)
        else:
            refuses(parse_statement, wire_statements.parse_statement, raw)


BAD_HEADERS: list[dict[int, Any]] = [
    {1: bytes(31)}, {1: bytes(33)}, {5: bytes(31)}, {6: bytes(31)}, {7: bytes(31)}, {9: bytes(15)}, {9: bytes(17)},
    {2: "governance"}, {2: "segment/"}, {2: "segment/A"}, {2: "rocks"}, {2: "segment/" + "a" * 65},
    {3: 9}, {3: 18}, {3: 4}, {4: "gatekeeper"}, {4: "spiffe://rover.example/service/cook/x"}, {4: PEER + "/x"},
]  # fmt: skip


@pytest.mark.parametrize("header", BAD_HEADERS, ids=str)
def test_a_header_out_of_form_is_malformed(header: dict[int, Any]) -> None:
    refuses(parse_statement, wire_statements.parse_statement, statement(8, header=header))


BAD_BODIES: list[tuple[int, dict[int, Any]]] = [
    (4, {5: REQUEST[:-1]}), (4, {5: ENVELOPE}), (4, {6: bytes(31)}), (12, {8: bytes(31)}),
    (9, {1: ENVELOPE}), (10, {1: REQUEST}), (16, {1: ENVELOPE}),
    (4, {1: "r1"}), (4, {2: bytes(31)}), (4, {3: b"\0\1"}), (4, {3: bytes([1]) * 21}),
    (5, {2: bytes(31)}), (5, {3: bytes(33)}), (5, {4: bytes(31)}), (5, {5: bytes(33)}),
    (6, {1: ENVELOPE[:-1]}), (6, {1: pb((1, UPDATE_TYPE), (2, b"x"))}), (6, {2: facts(tensors=[2, 1])}),
    (6, {2: facts(tensors=[1, 1])}), (6, {2: facts(tensors=[4096])}), (6, {3: ["b", "a", "b", "a"]}), (6, {3: ["A"]}),
    (6, {3: [""]}), (6, {3: ["a" * 65]}), (6, {3: [f"a{i:02}" for i in range(65)]}),
    (7, {1: "r1"}), (7, {2: ENVELOPE[:-1]}), (7, {3: bytes(31)}), (7, {4: "Duplicate"}), (7, {4: "a__b"}),
    (7, {4: "a" * 65}), (7, {5: facts(tensors=[2, 1])}), (7, {6: ["b", "a"]}), (7, {6: ["a", "a"]}), (7, {7: 4}),
    (8, {3: [count(number=0)]}), (8, {3: [count(peer_class=6)]}), (8, {3: [count(peer_class=0)]}),
    (8, {3: [count("Role")]}), (8, {3: [count(), count()]}), (8, {3: [count(peer_class=2), count()]}),
    (8, {3: [count("b"), count("a")]}), (8, {3: [count("a" * (i // 5 + 1), i % 5 + 1) for i in range(257)]}),
    (8, {1: 2, 2: 1}), (8, {4: bytes(31)}),
    (11, {2: 4}), (11, {3: 3}), (11, {5: bytes(31)}), (11, {6: [dropped("r1", "late")]}), (11, {6: [dropped("R1")]}),
    (11, {6: [dropped("r1", digest=bytes(31))]}), (11, {6: [dropped("r2"), dropped("r1")]}),
    (11, {6: [dropped("r1"), dropped("r1")]}), (11, {6: [dropped(f"r{i:03}") for i in range(501)]}),
    (12, {2: bytes(31)}), (12, {3: bytes(31)}), (12, {4: bytes(31)}), (12, {5: bytes(31)}), (12, {6: "a" * 65}),
    (12, {6: "a\n"}), (12, {6: "é"}), (12, {7: 2**32}), (12, {9: bytes(31)}), (12, {10: bytes(33)}),
    (12, {11: [cluster(0), cluster(0, 1)]}), (12, {11: [cluster(1, 0)]}), (12, {11: [cluster(1, 1)]}),
    (12, {11: [cluster(500)]}), (12, {11: [cluster()]}), (12, {11: [cluster(0, model=b"")]}), (12, {11: [b""]}),
    (12, {11: [cluster(0, model=bytes(31))]}), (12, {11: [cluster(number) for number in range(9)]}),
    (12, {11: [pb((1, 3)) + pb((2, ZEROS))]}), (12, {11: [cluster(0) + b"\x18\x01"]}),
    (15, {1: 2, 2: 1}), (15, {3: [pb((1, "r1"), (2, bytes(31)))]}), (15, {3: [pb((1, "-"), (2, ZEROS))]}),
    (15, {3: [pb((1, "r1"), (2, ZEROS))] * 2}), (15, {3: [pb((1, "r2"), (2, ZEROS)), pb((1, "r1"), (2, ZEROS))]}),
    (15, {3: [pb((1, f"r{i:03}"), (2, ZEROS)) for i in range(257)]}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "body"), BAD_BODIES)
def test_a_body_out_of_form_is_malformed(kind: int, body: dict[int, Any]) -> None:
    refuses(parse_statement, wire_statements.parse_statement, statement(kind, body=body))


def test_two_bodies_or_none_are_malformed() -> None:
    raw = statement(15)
    refuses(parse_statement, wire_statements.parse_statement, pb(*(HEADER | {3: 15, 2: STREAM}).items()))
    second = pb((22, Present(pb(*BODIES[12][2].items()))))
    split = raw.index(pb((23, Present(pb(*BODIES[15][2].items())))))
    refuses(parse_statement, wire_statements.parse_statement, raw[:split] + second + raw[split:])


UPDATES: list[dict[str, Any]] = [
    {"federation_id": bytes(31)}, {"segment": "Rocks"}, {"segment": ""}, {"participant": "R1"}, {"participant": ""},
    {"key_id": bytes(31)}, {"round": 0}, {"round_opened": bytes(31)}, {"base_model": bytes(33)},
    {"payload_sha256": bytes(31)}, {"codec": 0}, {"support": 0}, {"support": 4}, {"values": 0}, {"values": 7},
    {"payload_root": bytes(31)}, {"payload_root": b""},
    {"codec": 2**32}, {"weight": 2**64}, {"noise_std": 2**40 + 1},
]  # fmt: skip


def signed(changes: dict[str, Any]) -> bytes:
    fields = WRITER.update_fields("r1", b"p", {1: 5}, 10) | changes
    return WRITER.sign_update(fields, [WRITER.participants["r1"]])[0]


@pytest.mark.parametrize("changes", UPDATES, ids=str)
def test_an_update_out_of_form_is_malformed(changes: dict[str, Any]) -> None:
    refuses(parse_update_envelope, wire_statements.parse_update_envelope, signed(changes))


@pytest.mark.parametrize("name", ["payload_bytes", "nonzeros", "weight", "created_us", "noise_std"])
def test_numbers_that_may_be_zero_may_be_zero(name: str) -> None:
    parse_update_envelope(signed({name: 0}))
    wire_statements.parse_update_envelope(signed({name: 0}))


BAD_WORDS: list[tuple[int, dict[int, Any]]] = [
    *((9, {number: None}) for number in range(1, 8)), (9, {5: 2**64}), (9, {2: "Rocks"}), (9, {3: "R1"}),
    (9, {7: bytes(31)}),
    *((16, {number: None}) for number in range(1, 8)), (16, {5: 2**63}), (16, {8: 2**31}), (16, {9: 1_000_001}),
    (16, {10: [1, 1]}), (16, {10: [2, 1]}), (16, {10: [2**31]}), (16, {10: list(range(257))}),
    (16, {11: [pb((1, 1)), pb((1, 1))]}), (16, {11: [pb((1, 2)), pb((1, 1))]}), (16, {11: [pb((1, 2**31))]}),
    (16, {11: [pb((2, 2 * 10**9 + 2))]}), (16, {11: [pb((2, 2 * 10**9 + 1))]}),
    (16, {11: [pb((1, n)) for n in range(65)]}),
    (4, {1: bytes(31)}), (4, {2: "r1"}), (4, {3: bytes(31)}), (4, {4: bytes(31)}),
]  # fmt: skip
QUOTED = {9: ("withdrawal", WITHDRAWAL, 1), 16: ("decision", DECISION, 1),
          4: ("identity-request", {1: ZEROS, 2: PEER, 3: ZEROS, 4: ZEROS, 5: 1}, 5)}  # fmt: skip


@pytest.mark.parametrize(("kind", "changes"), BAD_WORDS)
def test_what_participants_sign_out_of_form_is_malformed(kind: int, changes: dict[int, Any]) -> None:
    name, fields, number = QUOTED[kind]
    raw = statement(kind, body={number: enveloped(name, fields | changes)})
    refuses(parse_statement, wire_statements.parse_statement, raw)


@pytest.mark.parametrize("changes", [
    {8: 0}, {9: 0}, {9: 1_000_000}, {10: []}, {10: list(range(256))}, {10: [2**31 - 1]}, {11: []}, {11: [b""]},
    {11: [pb((2, 2 * 10**9))]}, {11: [pb((2, 2 * 10**9 - 1))]}, {11: [pb((1, 2**31 - 1))]}, {12: 0}, {5: 2**63 - 1},
    {11: [pb((1, n)) for n in range(64)]},
], ids=str)  # fmt: skip
def test_a_decision_may_reach_every_bound(changes: dict[int, Any]) -> None:
    raw = statement(16, body={1: enveloped("decision", DECISION | changes)})
    parse_statement(raw)
    wire_statements.parse_statement(raw)


def test_an_update_beyond_16_kib_is_malformed() -> None:
    envelope = pb((1, UPDATE_TYPE), (2, bytes(17_000)), (3, [pb((1, ZEROS), (2, "ed25519"), (3, bytes(64)))]))
    refuses(parse_update_envelope, wire_statements.parse_update_envelope, envelope)


def test_the_envelope_of_an_update_has_its_type() -> None:
    other = ENVELOPE.replace(b"sfrl.update.v1", b"sfrl.update.v2")
    refuses(parse_update_envelope, wire_statements.parse_update_envelope, other)


def signature(number: int, suite: str = "ed25519", length: int = 64) -> bytes:
    return pb((1, bytes([number]) * 32), (2, suite), (3, bytes(length)))


ENTRY: dict[int, Any] = {1: ZEROS, 2: 1, 3: 0, 4: ZEROS, 5: UPDATE_TYPE, 6: b"x", 7: [signature(1)]}
BAD_ENTRIES: list[dict[int, Any]] = [
    {1: bytes(31)}, {2: 0}, {2: 2**63}, {3: 2**63}, {4: bytes(31)}, {5: ""}, {5: "text/plain"},
    {5: "application/vnd.sfrl." + "a" * 128}, {6: b""}, {7: None}, {7: [signature(2), signature(1)]},
    {7: [signature(1), signature(1)]}, {7: [signature(i) for i in range(1, 18)]}, {7: [signature(1, "rsa")]},
    {7: [signature(1, length=63)]}, {7: [signature(1, "ed25519+ml-dsa-44")]}, {6: bytes(65_535)},
]  # fmt: skip


def test_the_entry_that_is_broken_below_is_whole() -> None:
    assert parse_entry(pb(*ENTRY.items())).envelope.statement == b"x"
    assert sha(pb(*ENTRY.items()))


@pytest.mark.parametrize("changes", BAD_ENTRIES, ids=lambda changes: str(changes)[:60])
def test_an_entry_out_of_form_is_malformed(changes: dict[int, Any]) -> None:
    refuses(parse_entry, wire_entries.parse_entry, pb(*(ENTRY | changes).items()))
