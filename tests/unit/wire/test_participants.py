from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.crypto.pae import statement_digest
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.statements import (
    Attribution,
    Cluster,
    DecisionStatement,
    IdentityRequest,
    ObjectRequest,
    PayloadFormat,
    WithdrawalStatement,
)
from sfrl_secure.ids import Digest, parse_spiffe_id
from sfrl_secure.wire import participants
from sfrl_secure.wire.statements import encode_statement, encode_update, parse_statement, parse_update

FOLDER = Path(__file__).resolve().parents[2] / "vectors" / "signed"
VECTORS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
PARTS = {
    "withdrawal": (participants.parse_withdrawal, participants.encode_withdrawal),
    "decision": (participants.parse_decision, participants.encode_decision),
    "identity-request": (participants.parse_identity_request, participants.encode_identity_request),
    "object-request": (participants.parse_object_request, participants.encode_object_request),
}
OPENERS = {
    "withdrawal": participants.parse_withdrawal_envelope,
    "decision": participants.parse_decision_envelope,
    "identity-request": participants.parse_identity_request_envelope,
    "object-request": participants.parse_object_request_envelope,
}
BY_TYPE: dict[str, tuple[Callable[[bytes], Any], Callable[[Any], bytes]]] = {
    f"application/vnd.sfrl.{name}.v1": pair
    for name, pair in {
        **PARTS,
        "update": (parse_update, encode_update),
        "statement": (parse_statement, encode_statement),
    }.items()
}
# Numbers that may be zero; the rest is required.
MAY_BE_ABSENT = {
    ("WithdrawalStatement", 8),
    *(("DecisionStatement", number) for number in (8, 9, 10, 11, 12)),
    *(("Attribution", number) for number in (1, 2)),
    ("IdentityRequest", 5),
    ("ObjectRequest", 5),
}


# The vectors, which a plain encoder wrote that shares nothing with the package


def test_the_vectors_are_what_their_script_writes(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("make_signed_vectors", FOLDER / "make_vectors.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert json.loads(json.dumps(dict(module.vectors()))) == VECTORS


@pytest.mark.parametrize("name", [name for name in VECTORS if not name.startswith("bad_")])
def test_a_good_vector_is_read_says_what_it_says_and_is_written_again(name: str) -> None:
    vector = VECTORS[name]
    raw = bytes.fromhex(vector["bytes"])
    parse, encode = BY_TYPE[vector["payload_type"]]
    value = parse(raw)
    assert encode(value) == raw
    assert statement_digest(vector["payload_type"], raw).hex() == vector["statement_digest"]
    told = getattr(value, "body", value)
    for field, said in vector["says"].items():
        assert _plain(getattr(told, field)) == said


def _plain(value: object) -> object:
    if isinstance(value, Attribution):
        return [value.feature, value.share_ppm]
    if isinstance(value, PayloadFormat):
        return [value.codec, value.support, value.values]
    if isinstance(value, Cluster):
        return [list(value.members), value.model.hex()]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, int) and value >= 2**64 else value


@pytest.mark.parametrize("name", [name for name in VECTORS if name.startswith("bad_")])
def test_a_bad_vector_is_malformed(name: str) -> None:
    vector = VECTORS[name]
    with pytest.raises(MalformedError):
        BY_TYPE[vector["payload_type"]][0](bytes.fromhex(vector["bytes"]))


# Damage, field by field


@pytest.mark.parametrize("name", PARTS)
def test_every_damaged_field_is_refused(name: str, by_hand: SimpleNamespace) -> None:
    parse, encode = PARTS[name]
    whole = by_hand.SIGNED[name]()
    assert encode(parse(whole.encode())) == whole.encode()  # type: ignore[operator]
    for kind, where, damaged in by_hand.damages(whole):
        is_allowed = (kind == "dropped" and where in MAY_BE_ABSENT) or (
            # An attribution that is there and empty is input 0 with a share of 0.
            kind == "empty" and where == ("DecisionStatement", 11)
        )
        if is_allowed:
            parse(damaged.encode())
        else:
            with pytest.raises(MalformedError):
                parse(damaged.encode())


@pytest.mark.parametrize("name", PARTS)
def test_an_envelope_opens_to_its_statement_and_to_no_other(name: str, by_hand: SimpleNamespace) -> None:
    raw = by_hand.quoted(name).encode()
    envelope, statement = OPENERS[name](raw)
    assert envelope.payload_type == f"application/vnd.sfrl.{name}.v1"
    assert statement == PARTS[name][0](envelope.statement)
    for other, opener in OPENERS.items():
        if other != name:
            with pytest.raises(MalformedError):
                opener(raw)
    signatures = [by_hand.signature(at) for at in range(1, 17)]
    statement = by_hand.SIGNED[name]()
    most = by_hand.envelope(envelope.payload_type, statement, *signatures)
    OPENERS[name](most.encode())
    for bad in (
        most.encode() + b"\x00",
        by_hand.envelope(envelope.payload_type, statement, *signatures[::-1]).encode(),
        by_hand.envelope(envelope.payload_type, statement.encode() + bytes(16_384)).encode(),
        by_hand.quoted(name).without(3).encode(),
        by_hand.quoted(name).without(2).encode(),
    ):
        with pytest.raises(MalformedError):
            OPENERS[name](bad)


# Values: whatever is in range survives, whatever is not is never written

DIGESTS = st.binary(min_size=32, max_size=32).map(Digest)
SEGMENTS = st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True)
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
SPIFFE_IDS = NAMES.map(lambda name: parse_spiffe_id(f"spiffe://farm.example/operator/{name}"))
U64 = st.integers(0, 2**64 - 1)
POSITIONS = st.integers(0, 2**31 - 1)
WITHDRAWALS = st.builds(
    WithdrawalStatement, DIGESTS, SEGMENTS, NAMES, DIGESTS, st.integers(1, 2**64 - 1), DIGESTS, DIGESTS, U64
)
DECISIONS = st.builds(
    DecisionStatement,
    DIGESTS,
    SEGMENTS,
    NAMES,
    DIGESTS,
    st.integers(1, 2**63 - 1),
    DIGESTS,
    DIGESTS,
    POSITIONS,
    st.integers(0, 10**6),
    st.lists(POSITIONS, max_size=256, unique=True).map(lambda latents: tuple(sorted(latents))),
    st.dictionaries(POSITIONS, st.integers(-(10**9), 10**9), max_size=64).map(
        lambda shares: tuple(Attribution(feature, shares[feature]) for feature in sorted(shares))
    ),
    U64,
)
IDENTITY_REQUESTS = st.builds(IdentityRequest, DIGESTS, SPIFFE_IDS, DIGESTS, DIGESTS, U64)
OBJECT_REQUESTS = st.builds(ObjectRequest, DIGESTS, SPIFFE_IDS, DIGESTS, DIGESTS, U64)


@settings(deadline=None, max_examples=150)
@given(withdrawal=WITHDRAWALS, decision=DECISIONS, identity=IDENTITY_REQUESTS, wanted=OBJECT_REQUESTS)
def test_everything_in_range_survives(
    withdrawal: WithdrawalStatement, decision: DecisionStatement, identity: IdentityRequest, wanted: ObjectRequest
) -> None:
    assert participants.parse_withdrawal(participants.encode_withdrawal(withdrawal)) == withdrawal
    assert participants.parse_decision(participants.encode_decision(decision)) == decision
    assert participants.parse_identity_request(participants.encode_identity_request(identity)) == identity
    assert participants.parse_object_request(participants.encode_object_request(wanted)) == wanted


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("withdrawal", {"round": 0}),
        ("withdrawal", {"round": -1}),
        ("withdrawal", {"update": b"short"}),
        ("withdrawal", {"created_us": 2**64}),
        ("withdrawal", {"participant": "Rover"}),
        ("decision", {"record_seq": 0}),
        ("decision", {"record_seq": 2**63}),
        ("decision", {"predicted_class": 2**31}),
        ("decision", {"confidence_ppm": 1_000_001}),
        ("decision", {"confidence_ppm": -1}),
        ("decision", {"active_latents": (3, 2)}),
        ("decision", {"active_latents": (2**31,)}),
        ("decision", {"active_latents": tuple(range(257))}),
        ("decision", {"attributions": (Attribution(1, 10**9 + 1),)}),
        ("decision", {"attributions": (Attribution(1, 2**63),)}),
        ("decision", {"attributions": (Attribution(2, 1), Attribution(1, 1))}),
        ("decision", {"attributions": tuple(Attribution(feature, 1) for feature in range(65))}),
        ("identity-request", {"spiffe_id": "rover-7"}),
        ("identity-request", {"spki_sha256": b""}),
        ("object-request", {"reader": "spiffe://farm.example/rover-7"}),
        ("object-request", {"digest": bytes(33)}),
    ],
    ids=str,
)
def test_what_its_parser_would_refuse_is_never_written(
    name: str, changes: dict[str, Any], by_hand: SimpleNamespace
) -> None:
    parse, encode = PARTS[name]
    good = parse(by_hand.SIGNED[name]().encode())
    encode(good)  # type: ignore[operator]
    with pytest.raises(MalformedError):
        encode(replace(good, **changes))  # type: ignore[operator, type-var]


def test_a_header_is_bounded_before_it_is_parsed(by_hand: SimpleNamespace) -> None:
    for parse, _ in PARTS.values():
        with pytest.raises(MalformedError, match=str(16 * 1024)):
            parse(bytes(16 * 1024 + 1))


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=400))
def test_noise_is_refused_with_our_error(raw: bytes) -> None:
    for parse in (*(pair[0] for pair in PARTS.values()), *OPENERS.values()):
        with pytest.raises(MalformedError):
            parse(raw)
