from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.exceptions import BadSignatureError

from sfrl_secure.crypto import ed25519
from sfrl_secure.crypto.ed25519 import check_ed25519_public_key, verify_ed25519_strict
from sfrl_secure.errors import MalformedError, SignatureError

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P

# The y of the eight points of small order, as everyone prints them: order 1, 2, 4, and the two of order 8.
SMALL_ORDER_Y = [
    1,
    P - 1,
    0,
    int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
    int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
]
NON_CANONICAL_Y = [P + i for i in range(19)]

# Besides these two, every flag of the vectors names an edge that the strict rule refuses. A point may have a component
# of small order: the key's owner chose it, and only one equation, the one without cofactor, is ever asked.
ALLOWED_FLAGS = {"low_order_component_A", "low_order_component_R"}


@pytest.fixture(scope="module")
def signed() -> tuple[bytes, bytes, bytes]:
    key = Ed25519PrivateKey.generate()
    return key.public_key().public_bytes_raw(), b"message", key.sign(b"message")


def encodings(y: int) -> list[bytes]:
    return [(y + sign * 2**255).to_bytes(32, "little") for sign in (0, 1)]


def is_accepted(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        verify_ed25519_strict(key, message, signature)
    except SignatureError:
        return False
    return True


def test_exactly_the_strict_cases_of_cctv_are_accepted(load_vector: Callable[[str], Any]) -> None:
    cases = load_vector("cctv/ed25519vectors.json")
    accepted = 0
    for case in cases:
        key, signature = bytes.fromhex(case["key"]), bytes.fromhex(case["sig"])
        is_strict = set(case["flags"] or ()) <= ALLOWED_FLAGS
        assert is_accepted(key, case["msg"].encode(), signature) == is_strict, case["number"]
        accepted += is_strict
    assert (accepted, len(cases)) == (43, 914)


def openssl_accepts(key: bytes, message: bytes, signature: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_openssl_behind_our_rules_gives_the_same_verdicts(
    load_vector: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [
        (bytes.fromhex(case["key"]), case["msg"].encode(), bytes.fromhex(case["sig"]))
        for case in load_vector("cctv/ed25519vectors.json")
    ]
    private = Ed25519PrivateKey.generate()
    key, good = private.public_key().public_bytes_raw(), private.sign(b"message")
    cases += [(key, b"message", good[:at] + bytes([good[at] ^ 1 << bit]) + good[at + 1 :])
              for at in range(64) for bit in range(8)]
    verdicts = [is_accepted(*case) for case in cases]

    def openssl(signed: bytes, key: bytes) -> bytes:
        if not openssl_accepts(key, signed[64:], signed[:64]):
            raise BadSignatureError
        return signed[64:]

    monkeypatch.setattr(ed25519, "crypto_sign_open", openssl)
    assert [is_accepted(*case) for case in cases] == verdicts


def test_our_rules_refuse_every_low_order_or_non_canonical_case_before_the_library_is_asked(
    load_vector: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A library that takes every signature: what is still refused is refused by our own rules.
    monkeypatch.setattr(ed25519, "crypto_sign_open", lambda _signed, _key: b"")
    refused = {"low_order_A", "low_order_R", "non_canonical_A", "non_canonical_R"}
    for case in load_vector("cctv/ed25519vectors.json"):
        accepted = is_accepted(bytes.fromhex(case["key"]), case["msg"].encode(), bytes.fromhex(case["sig"]))
        assert accepted == refused.isdisjoint(case["flags"] or ()), case["number"]


def test_a_signature_holds_for_its_key_and_message_only(signed: tuple[bytes, bytes, bytes]) -> None:
    key, message, signature = signed
    verify_ed25519_strict(key, message, signature)
    other = Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    for bad in ((other, message, signature), (key, message + b".", signature), (key, b"", signature)):
        with pytest.raises(SignatureError):
            verify_ed25519_strict(*bad)


def test_every_flipped_bit_of_a_signature_is_refused(signed: tuple[bytes, bytes, bytes]) -> None:
    key, message, signature = signed
    for bit in range(512):
        flipped = bytearray(signature)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not is_accepted(key, message, bytes(flipped))


@pytest.mark.parametrize("y", SMALL_ORDER_Y + NON_CANONICAL_Y)
def test_a_small_order_or_non_canonical_point_is_no_key_and_no_commitment(
    y: int, signed: tuple[bytes, bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, message, signature = signed
    # A library that takes every signature: what is still refused is refused by our own rules.
    monkeypatch.setattr(ed25519, "crypto_sign_open", lambda _signed, _key: b"")
    for encoded in encodings(y):
        assert not is_accepted(encoded, message, signature)
        assert not is_accepted(key, message, encoded + signature[32:])
        with pytest.raises(MalformedError):
            check_ed25519_public_key(encoded)


@pytest.mark.parametrize("times", [1, 2, 15])
def test_a_scalar_is_below_the_group_order(
    times: int, signed: tuple[bytes, bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, message, signature = signed
    scalar = int.from_bytes(signature[32:], "little")
    malleated = signature[:32] + (scalar + times * L).to_bytes(32, "little")
    assert not is_accepted(key, message, malleated)
    # A library that takes every signature: what is still refused is refused by our own rules.
    monkeypatch.setattr(ed25519, "crypto_sign_open", lambda _signed, _key: b"")
    assert not is_accepted(key, message, malleated)
    assert not is_accepted(key, message, signature[:32] + L.to_bytes(32, "little"))
    assert is_accepted(key, message, signature[:32] + (L - 1).to_bytes(32, "little"))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_key_or_signature_of_another_length_is_refused(
    length: int, signed: tuple[bytes, bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, message, signature = signed
    # A library that takes every signature: what is still refused is refused by our own rules.
    monkeypatch.setattr(ed25519, "crypto_sign_open", lambda _signed, _key: b"")
    assert not is_accepted((key * 2)[:length], message, signature)
    with pytest.raises(MalformedError):
        check_ed25519_public_key((key * 2)[:length])
    for wrong in (signature[:63], signature + b"\0", b""):
        assert not is_accepted(key, message, wrong)


def test_a_recorded_key_is_a_point_on_the_curve() -> None:
    for y in range(2, 200):
        # Euler's criterion for the curve equation, beside the square root that the code takes.
        square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
        is_on_curve = pow(square, (P - 1) // 2, P) == 1
        for encoded in encodings(y):
            if is_on_curve:
                check_ed25519_public_key(encoded)
            else:
                with pytest.raises(MalformedError):
                    check_ed25519_public_key(encoded)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=40), st.binary(max_size=70))
def test_random_bytes_are_refused_with_a_typed_error(key: bytes, signature: bytes) -> None:
    assert not is_accepted(key, b"message", signature)
    assert not is_accepted(key[:32].ljust(32, b"\1"), b"message", signature[:64].ljust(64, b"\1"))


@settings(deadline=None, max_examples=25)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_what_the_library_signs_is_accepted(seed: bytes, message: bytes) -> None:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    check_ed25519_public_key(key.public_key().public_bytes_raw())
    verify_ed25519_strict(key.public_key().public_bytes_raw(), message, key.sign(message))
