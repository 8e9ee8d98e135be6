from __future__ import annotations

import hashlib
import pickle

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dilithium_py.ml_dsa import ML_DSA_44

from sfrl_secure.crypto.keys import (
    ED25519,
    HYBRID,
    PUBLIC_BYTES,
    SIGNATURE_BYTES,
    PublicKey,
    SigningKey,
    parse_public_key,
    signing_key_from_pem,
    verify_ml_dsa_44,
    verify_signature,
)
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import MalformedError, SignatureError

MESSAGE = b"exact bytes"
IDENTITY_POINT = b"\1" + bytes(31)


def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def test_a_key_id_covers_tag_suite_and_every_part(any_key: SigningKey) -> None:
    key = any_key.public_key
    expected = hashlib.sha256(b"sfrl-key/v1\n" + key.suite.encode() + b"\n" + b"".join(key.parts)).digest()
    assert key.key_id == expected


def test_a_hybrid_key_and_its_ed25519_part_are_two_keys(hybrid_key: SigningKey) -> None:
    alone = PublicKey(ED25519, hybrid_key.public_key.parts[:1])
    assert alone.key_id != hybrid_key.public_key.key_id


def test_a_public_key_survives_its_raw_form(any_key: SigningKey) -> None:
    key = any_key.public_key
    assert len(key.raw) == sum(PUBLIC_BYTES[key.suite])
    assert parse_public_key(key.suite, key.raw) == key


@pytest.mark.parametrize("suite", [ED25519, HYBRID])
@pytest.mark.parametrize("change", [-32, -1, 1, 1312])
def test_a_public_key_of_another_length_is_refused(suite: str, change: int, hybrid_key: SigningKey) -> None:
    raw = (hybrid_key.public_key.raw * 3)[: max(0, sum(PUBLIC_BYTES[suite]) + change)]
    with pytest.raises(MalformedError):
        parse_public_key(suite, raw)
    with pytest.raises(MalformedError):
        PublicKey(suite, (raw[:32], raw[32:]))
    with pytest.raises(MalformedError):
        PublicKey(suite, (raw,))


@pytest.mark.parametrize("suite", ["", "ED25519", "ml-dsa-44", "ed25519+ml-dsa-65", "ed25519\n"])
def test_an_unknown_suite_is_refused(suite: str, ed25519_key: SigningKey) -> None:
    with pytest.raises(MalformedError):
        parse_public_key(suite, ed25519_key.public_key.raw)
    with pytest.raises(MalformedError):
        PublicKey(suite, ed25519_key.public_key.parts)
    with pytest.raises(MalformedError):
        SigningKey.generate(suite)
    with pytest.raises(MalformedError):
        signing_key_from_pem(suite, ed25519_key.to_pem())


def test_a_key_with_a_weak_ed25519_part_is_refused(hybrid_key: SigningKey) -> None:
    with pytest.raises(MalformedError):
        parse_public_key(ED25519, IDENTITY_POINT)
    with pytest.raises(MalformedError):
        PublicKey(HYBRID, (IDENTITY_POINT, hybrid_key.public_key.parts[1]))


def test_a_signature_holds_for_its_key_and_message_only(any_key: SigningKey) -> None:
    signature = any_key.sign(MESSAGE)
    assert len(signature) == sum(SIGNATURE_BYTES[any_key.public_key.suite])
    verify_signature(any_key.public_key, MESSAGE, signature)
    with pytest.raises(SignatureError):
        verify_signature(any_key.public_key, MESSAGE + b".", signature)
    with pytest.raises(SignatureError):
        verify_signature(SigningKey.generate(any_key.public_key.suite).public_key, MESSAGE, signature)


@pytest.mark.parametrize("at", [0, 40, 63, 64, 1000, 2483])
def test_both_parts_of_a_hybrid_signature_must_hold(at: int, hybrid_key: SigningKey) -> None:
    with pytest.raises(SignatureError):
        verify_signature(hybrid_key.public_key, MESSAGE, flipped(hybrid_key.sign(MESSAGE), at))


def test_both_parts_of_a_hybrid_signature_are_of_one_key(hybrid_key: SigningKey) -> None:
    other = SigningKey.generate(HYBRID)
    mine, theirs = hybrid_key.sign(MESSAGE), other.sign(MESSAGE)
    for mixed in (mine[:64] + theirs[64:], theirs[:64] + mine[64:]):
        with pytest.raises(SignatureError):
            verify_signature(hybrid_key.public_key, MESSAGE, mixed)


def test_a_hybrid_signature_stripped_to_one_part_is_refused(hybrid_key: SigningKey) -> None:
    signature = hybrid_key.sign(MESSAGE)
    for stripped in (signature[:64], signature[64:], signature + b"\0", signature[:-1], b""):
        with pytest.raises(SignatureError):
            verify_signature(hybrid_key.public_key, MESSAGE, stripped)


def test_an_ed25519_signature_with_bytes_after_it_is_refused(ed25519_key: SigningKey, hybrid_key: SigningKey) -> None:
    signature = ed25519_key.sign(MESSAGE)
    for longer in (signature + b"\0", signature + hybrid_key.sign(MESSAGE)[64:]):
        with pytest.raises(SignatureError):
            verify_signature(ed25519_key.public_key, MESSAGE, longer)


def test_an_ml_dsa_key_of_another_length_is_a_signature_error() -> None:
    with pytest.raises(SignatureError):
        verify_ml_dsa_44(bytes(31), MESSAGE, bytes(2420))


def test_another_implementation_verifies_our_ml_dsa_part(hybrid_key: SigningKey) -> None:
    public = hybrid_key.public_key.parts[1]
    signature = hybrid_key.sign(MESSAGE)[64:]
    assert ML_DSA_44.verify(public, MESSAGE, signature, ctx=b"")
    assert not ML_DSA_44.verify(public, MESSAGE + b".", signature, ctx=b"")
    assert not ML_DSA_44.verify(public, MESSAGE, signature, ctx=b"sfrl")


def test_we_verify_what_another_implementation_signs_with_an_empty_context_only() -> None:
    public, private = ML_DSA_44.keygen()
    verify_ml_dsa_44(public, MESSAGE, ML_DSA_44.sign(private, MESSAGE))
    with pytest.raises(SignatureError):
        verify_ml_dsa_44(public, MESSAGE, ML_DSA_44.sign(private, MESSAGE, ctx=b"sfrl"))


def test_a_signing_key_survives_its_file(any_key: SigningKey) -> None:
    again = signing_key_from_pem(any_key.public_key.suite, any_key.to_pem())
    assert again.public_key == any_key.public_key
    verify_signature(any_key.public_key, MESSAGE, again.sign(MESSAGE))


def test_a_signing_key_prints_suite_and_key_id_only(any_key: SigningKey) -> None:
    key = any_key.public_key
    assert repr(any_key) == str(any_key) == f"SigningKey({key.suite}, {key.key_id.hex()})"


def test_a_signing_key_is_not_serialised(any_key: SigningKey) -> None:
    with pytest.raises(TypeError):
        pickle.dumps(any_key)


def test_a_key_file_holds_exactly_the_keys_of_its_suite(ed25519_key: SigningKey, hybrid_key: SigningKey) -> None:
    one, both = ed25519_key.to_pem().expose(), hybrid_key.to_pem().expose()
    cut = both.index(b"-----BEGIN", 1)
    first, second = both[:cut], both[cut:]
    p256 = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    ml_dsa_65 = MLDSA65PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    broken = one.replace(b"\nM", b"\nN", 1)
    for suite, wrong in (
        (ED25519, both),
        (ED25519, second),
        (ED25519, p256),
        (ED25519, one + one),
        (ED25519, b"# comment\n" + one),
        (ED25519, one + b"\n"),
        (ED25519, broken),
        (ED25519, b""),
        (ED25519, one + bytes(64 * 1024)),
        (HYBRID, one),
        (HYBRID, second + first),
        (HYBRID, first + first),
        (HYBRID, first + p256),
        (HYBRID, first + ml_dsa_65),
        (HYBRID, both + first),
    ):
        with pytest.raises(MalformedError) as caught:
            signing_key_from_pem(suite, SecretBytes(wrong))
        # The library's own error may quote the file.
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__ or caught.value.__context__ is None
