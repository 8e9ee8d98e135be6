from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as OracleEnvelope
from securesystemslib.signer import CryptoSigner, SSlibKey

from sfrl_secure.crypto.envelope import (
    JSON_BYTES_MAX,
    Envelope,
    Signature,
    envelope_to_json,
    parse_envelope_json,
    sign_envelope,
    verify_single,
)
from sfrl_secure.crypto.keys import ED25519, HYBRID, SigningKey
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest

TYPE = "application/vnd.sfrl.rules.v1+json"
# Its base64 has '+' and '/' in the standard alphabet, '-' and '_' in the other.
BODY = b'{"a":1}' + bytes(range(256))


@pytest.fixture(scope="module")
def document(ed25519_key: SigningKey, hybrid_key: SigningKey) -> dict[str, Any]:
    parsed = json.loads(envelope_to_json(sign_envelope(TYPE, BODY, [ed25519_key, hybrid_key])))
    assert isinstance(parsed, dict)
    return parsed


def oracle_key(key: SigningKey) -> SSlibKey:
    public = Ed25519PublicKey.from_public_bytes(key.public_key.parts[0])
    return SSlibKey.from_crypto(public, keyid=key.public_key.key_id.hex())


def test_an_envelope_survives_its_json_form(ed25519_key: SigningKey, hybrid_key: SigningKey) -> None:
    envelope = sign_envelope(TYPE, BODY, [ed25519_key, hybrid_key])
    assert parse_envelope_json(envelope_to_json(envelope)) == envelope


def test_securesystemslib_parses_and_verifies_our_envelope(ed25519_key: SigningKey) -> None:
    raw = envelope_to_json(sign_envelope(TYPE, BODY, [ed25519_key]))
    theirs = OracleEnvelope.from_dict(json.loads(raw))
    assert theirs.payload == BODY
    assert list(theirs.verify([oracle_key(ed25519_key)], 1)) == [ed25519_key.public_key.key_id.hex()]


def test_we_parse_and_verify_an_envelope_of_securesystemslib(ed25519_key: SigningKey) -> None:
    private = load_pem_private_key(ed25519_key.to_pem().expose(), None)
    theirs = OracleEnvelope(BODY, TYPE, {})
    theirs.sign(CryptoSigner(private, oracle_key(ed25519_key)))
    fields = theirs.to_dict()
    fields["signatures"][0]["suite"] = ED25519
    ours = parse_envelope_json(json.dumps(fields).encode())
    verify_single(ours, ed25519_key.public_key)
    assert ours == sign_envelope(TYPE, BODY, [ed25519_key])


def test_the_vector_of_the_specification_is_read_by_the_same_base64(load_vector: Callable[[str], Any]) -> None:
    vector = load_vector("dsse/protocol-vector.json")
    signature = {"keyid": "00" * 32, "suite": ED25519, "sig": vector["envelope"]["signatures"][0]["sig"]}
    fields = {"payloadType": TYPE, "payload": vector["envelope"]["payload"], "signatures": [signature]}
    parsed = parse_envelope_json(json.dumps(fields).encode())
    assert parsed.statement == vector["payload_utf8"].encode()
    assert base64.b64encode(parsed.signatures[0].value).decode() == signature["sig"]


def test_both_base64_alphabets_are_taken(document: dict[str, Any]) -> None:
    standard = json.dumps(document).encode()
    web_safe = json.loads(standard)
    for holder, key in ((web_safe, "payload"), *((signature, "sig") for signature in web_safe["signatures"])):
        holder[key] = holder[key].replace("+", "-").replace("/", "_")
    assert web_safe["payload"] != document["payload"]
    assert parse_envelope_json(json.dumps(web_safe).encode()) == parse_envelope_json(standard)


def test_signatures_are_sorted_whatever_their_order_in_the_file(document: dict[str, Any]) -> None:
    turned = {**document, "signatures": document["signatures"][::-1]}
    assert parse_envelope_json(json.dumps(turned).encode()) == parse_envelope_json(json.dumps(document).encode())


def test_a_key_that_stands_twice_is_refused(document: dict[str, Any]) -> None:
    twice = {**document, "signatures": document["signatures"] + document["signatures"][:1]}
    with pytest.raises(MalformedError):
        parse_envelope_json(json.dumps(twice).encode())


@pytest.mark.parametrize("field", ["payload", "payloadType", "signatures"])
@pytest.mark.parametrize("value", [None, 1, True, [], {}, "", "*", "AA=A", "A", [None], [[]], ["x"] * 17])
def test_a_field_of_another_form_is_refused(document: dict[str, Any], field: str, value: object) -> None:
    if (field, value) == ("payload", ""):
        assert parse_envelope_json(json.dumps({**document, field: value}).encode()).statement == b""
        return
    with pytest.raises(MalformedError):
        parse_envelope_json(json.dumps({**document, field: value}).encode())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("keyid", None),
        ("keyid", 7),
        ("keyid", "00"),
        ("keyid", "AB" * 32),
        ("suite", 7),
        ("suite", []),
        ("suite", "rsa"),
        ("suite", HYBRID),
        ("sig", None),
        ("sig", ""),
        ("sig", "AAAA"),
        ("sig", "\u00e9"),
        ("sig", "AAA\n" * 22),
    ],
)
def test_a_signature_of_another_form_is_refused(ed25519_key: SigningKey, field: str, value: object) -> None:
    fields = json.loads(envelope_to_json(sign_envelope(TYPE, BODY, [ed25519_key])))
    fields["signatures"][0][field] = value
    with pytest.raises(MalformedError):
        parse_envelope_json(json.dumps(fields).encode())


def test_fields_are_exactly_the_formats(document: dict[str, Any]) -> None:
    for name in document:
        with pytest.raises(MalformedError):
            parse_envelope_json(json.dumps({k: v for k, v in document.items() if k != name}).encode())
    for name in document["signatures"][0]:
        short = {k: v for k, v in document["signatures"][0].items() if k != name}
        with pytest.raises(MalformedError):
            parse_envelope_json(json.dumps({**document, "signatures": [short]}).encode())
    longer = {**document["signatures"][0], "cert": ""}
    for wrong in ({**document, "extra": 1}, {**document, "signatures": [longer]}):
        with pytest.raises(MalformedError):
            parse_envelope_json(json.dumps(wrong).encode())


def test_a_field_that_stands_twice_is_refused(ed25519_key: SigningKey) -> None:
    raw = envelope_to_json(sign_envelope(TYPE, BODY, [ed25519_key]))
    twice = raw.replace(b"{", b'{"payload": "",', 1)
    assert json.loads(twice) == json.loads(raw)
    with pytest.raises(MalformedError):
        parse_envelope_json(twice)


def test_neither_side_goes_beyond_the_size_limit(ed25519_key: SigningKey) -> None:
    raw = envelope_to_json(sign_envelope(TYPE, BODY, [ed25519_key]))
    padded = raw + b" " * (JSON_BYTES_MAX - len(raw))
    assert parse_envelope_json(padded) == parse_envelope_json(raw)
    with pytest.raises(MalformedError):
        parse_envelope_json(padded + b" ")
    with pytest.raises(MalformedError):
        envelope_to_json(sign_envelope(TYPE, bytes(100_000), [ed25519_key]))


@settings(deadline=None, max_examples=60)
@given(
    st.binary(max_size=300),
    st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=16, unique=True),
    st.sampled_from([ED25519, HYBRID]),
)
def test_every_envelope_survives_its_json_form(statement: bytes, key_ids: list[bytes], suite: str) -> None:
    length = 64 if suite == ED25519 else 2484
    value = bytes(i % 256 for i in range(length))
    signatures = tuple(Signature(Digest(key_id), suite, value) for key_id in sorted(key_ids))
    envelope = Envelope(TYPE, statement, signatures)
    assert parse_envelope_json(envelope_to_json(envelope)) == envelope


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_damaged_json_is_an_envelope_or_malformed_and_nothing_else(data: st.DataObject) -> None:
    envelope = Envelope(TYPE, b"{}", (Signature(Digest(bytes(32)), ED25519, bytes(64)),))
    raw = bytearray(envelope_to_json(envelope))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        parsed = parse_envelope_json(bytes(raw))
    except MalformedError:
        return
    assert parse_envelope_json(envelope_to_json(parsed)) == parsed
