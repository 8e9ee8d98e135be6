from __future__ import annotations

import pytest

from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import SigningKey, verify_signature
from sfrl_secure.crypto.possession import prove_possession, verify_possession
from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.ids import ZERO_DIGEST, Digest, sha256

FEDERATION = sha256(b"root")
TLS_KEY = sha256(b"spki")


def test_a_proof_holds_for_its_key_federation_name_and_tls_key(any_key: SigningKey) -> None:
    proof = prove_possession(any_key, FEDERATION, "rover-1", TLS_KEY)
    verify_possession(any_key.public_key, proof, FEDERATION, "rover-1", TLS_KEY)
    stranger = SigningKey.generate(any_key.public_key.suite).public_key
    for key, federation, name, tls_key in (
        (stranger, FEDERATION, "rover-1", TLS_KEY),
        (any_key.public_key, sha256(b"other"), "rover-1", TLS_KEY),
        (any_key.public_key, FEDERATION, "rover-2", TLS_KEY),
        (any_key.public_key, FEDERATION, "rover-1", ZERO_DIGEST),
    ):
        with pytest.raises(SignatureError):
            verify_possession(key, proof, federation, name, tls_key)


def test_a_proof_signs_exactly_the_bytes_of_the_specification(ed25519_key: SigningKey) -> None:
    key = ed25519_key.public_key
    message = b"sfrl-secure/v1/possession\n" + FEDERATION + b"\x07rover-1" + key.key_id + bytes(32)
    verify_signature(key, message, prove_possession(ed25519_key, FEDERATION, "rover-1"))


def test_a_proof_is_of_the_whole_key_and_not_of_its_first_part(hybrid_key: SigningKey) -> None:
    proof = prove_possession(hybrid_key, FEDERATION, "rover-1")
    with pytest.raises(SignatureError):
        verify_possession(hybrid_key.public_key, proof[:64], FEDERATION, "rover-1")


def test_a_signed_statement_is_no_proof_of_possession(ed25519_key: SigningKey) -> None:
    key = ed25519_key.public_key
    body = b"sfrl-secure/v1/possession\n" + FEDERATION + b"\x07rover-1" + key.key_id + bytes(32)
    envelope = sign_envelope("application/vnd.sfrl.statement.v1", body, [ed25519_key])
    with pytest.raises(SignatureError):
        verify_possession(key, envelope.signatures[0].value, FEDERATION, "rover-1")


@pytest.mark.parametrize("name", ["", "Rover", "rover\u00e9", "a" * 65, "a" * 300, "-rover", "a b"])
def test_a_name_that_is_none_is_malformed(name: str, ed25519_key: SigningKey) -> None:
    with pytest.raises(MalformedError):
        prove_possession(ed25519_key, FEDERATION, name)
    with pytest.raises(MalformedError):
        verify_possession(ed25519_key.public_key, bytes(64), FEDERATION, name)


def test_digests_are_whole(ed25519_key: SigningKey) -> None:
    with pytest.raises(MalformedError):
        prove_possession(ed25519_key, Digest(FEDERATION[:31]), "rover-1")
    with pytest.raises(MalformedError):
        prove_possession(ed25519_key, FEDERATION, "rover-1", Digest(TLS_KEY + b"\0"))
