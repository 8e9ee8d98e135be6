"""Signing requests and detached signatures: exact bytes there and back, and nothing else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulator import Simulator

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.orders import Order
from sfrl_secure.governance.statements import STATEMENT_TYPE, UPDATE_TYPE
from sfrl_secure.operating.signing import (
    format_request,
    format_signature,
    is_request,
    open_request,
    operator_key_from_pem,
    parse_request,
    parse_signature,
    sign_request,
)


@pytest.fixture
def request_raw(sim: Simulator) -> bytes:
    request = open_request(Order.payload_type, sim.order_raw("halt", reason="smoke"))
    return format_request(request, summary=("says nothing that counts",), threshold=1, signers=("ann", "bob"))


def test_a_request_carries_the_exact_bytes(sim: Simulator, request_raw: bytes) -> None:
    raw = sim.order_raw("halt", reason="smoke")
    found = parse_request(request_raw)
    assert (found.payload_type, found.payload, found.document.raw) == (Order.payload_type, raw, raw)
    assert is_request(request_raw)
    assert not is_request(raw)


@pytest.mark.parametrize("suite", ["ed25519", "ed25519+ml-dsa-44"])
def test_a_signature_comes_back_and_holds_over_the_document(request_raw: bytes, suite: str) -> None:
    key, request = SigningKey.generate(suite), parse_request(request_raw)
    signed = parse_signature(format_signature(sign_request(request, key)))
    verify_single(Envelope(request.payload_type, request.payload, (signed.signature,)), key.public_key)
    assert signed.digest == request.digest


@pytest.mark.parametrize("key", ["type", "payloadType", "payload", "summary", "threshold", "signers"])
def test_a_request_has_each_key_and_no_other(request_raw: bytes, key: str) -> None:
    fields = json.loads(request_raw)
    for changed in ({name: value for name, value in fields.items() if name != key}, {**fields, f"{key}2": 1}):
        with pytest.raises(MalformedError):
            parse_request(json.dumps(changed).encode())


@pytest.mark.parametrize(
    "change",
    [
        {"type": "sfrl-signature/v1"},
        {"payload": "AAAA*"},
        {"payload": 7},
        {"payload": base64.b64encode(b"{}").decode()},
        {"payloadType": STATEMENT_TYPE},
        {"payloadType": UPDATE_TYPE},
        {"payloadType": "application/vnd.sfrl.rules.v1+json"},
    ],
)
def test_what_is_no_governance_document_is_never_opened_for_signing(request_raw: bytes, change: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        parse_request(json.dumps({**json.loads(request_raw), **change}).encode())


def test_founding_documents_are_not_signed_by_request(sim: Simulator) -> None:
    for series in (("genesis", ""), ("root", "")):
        document = sim.state.placed[series].document
        with pytest.raises(MalformedError, match="sfrl init"):
            open_request(document.payload_type, document.raw)


@pytest.mark.parametrize("key", ["type", "payloadType", "digest", "keyid", "suite", "sig"])
def test_a_signature_file_has_each_key_in_its_form(request_raw: bytes, key: str) -> None:
    fields = json.loads(format_signature(sign_request(parse_request(request_raw), SigningKey.generate("ed25519"))))
    for value in ("", 7, "ed25519+ml-dsa-44", None):
        changed = {**fields, key: value} if value is not None else {n: v for n, v in fields.items() if n != key}
        if key == "payloadType" and isinstance(value, str):
            continue  # It is compared with the request's.
        with pytest.raises(MalformedError):
            parse_signature(json.dumps(changed).encode())


@given(st.binary(max_size=200), st.dictionaries(st.sampled_from(
    ["type", "payloadType", "payload", "digest", "keyid", "suite", "sig", "summary", "threshold", "signers"]
), st.one_of(st.none(), st.integers(-5, 5), st.text(max_size=70), st.lists(st.integers(), max_size=2))))  # fmt: skip
def test_no_bytes_at_all_raise_anything_but_a_typed_error(raw: bytes, fields: dict[str, object]) -> None:
    for kind, parse in (("sfrl-signing-request/v1", parse_request), ("sfrl-signature/v1", parse_signature)):
        for data in (raw, json.dumps({**fields, "type": kind}).encode("utf-8", "surrogatepass")):
            with pytest.raises(MalformedError):
                parse(data)


def test_files_beyond_their_bounds_are_refused(request_raw: bytes) -> None:
    padded = json.loads(request_raw) | {"summary": "x" * 300_000}
    with pytest.raises(MalformedError, match="at most"):
        parse_request(json.dumps(padded).encode())
    with pytest.raises(MalformedError, match="at most"):
        parse_signature(b" " * 10_000)


@pytest.mark.parametrize("suite", ["ed25519", "ed25519+ml-dsa-44"])
def test_an_operators_key_is_read_in_its_own_suite(suite: str) -> None:
    key = SigningKey.generate(suite)
    assert operator_key_from_pem(key.to_pem()).public_key == key.public_key


def test_a_file_with_more_than_a_key_is_refused() -> None:
    pem = SigningKey.generate("ed25519").to_pem().expose()
    for raw in (b"", pem + b"x", pem + pem, pem + pem + pem):
        with pytest.raises(MalformedError):
            operator_key_from_pem(SecretBytes(raw))


