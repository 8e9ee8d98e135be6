"""Proof that whoever enrols a key holds it.

Without it, a participant could be recorded with another's public key, and be blamed or credited for what that one
signs.

Format: proto/README.md, "Documents", participant.

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

from sfrl_secure.crypto import tags
from sfrl_secure.crypto.keys import PublicKey, SigningKey, verify_signature
from sfrl_secure.ids import ZERO_DIGEST, Digest, parse_digest, parse_name


def prove_possession(key: SigningKey, federation_id: Digest, name: str, tls_spki: Digest = ZERO_DIGEST) -> bytes:
    """Sign that this key is `name`'s in this federation.

    Args:
        tls_spki: SHA-256 of the TLS public key that asks, where there is one.

    Raises:
        MalformedError: the name or a digest is not of its form.
    """
    return key.sign(_message(key.public_key, federation_id, name, tls_spki))


def verify_possession(
    key: PublicKey, signature: bytes, federation_id: Digest, name: str, tls_spki: Digest = ZERO_DIGEST
) -> None:
    """Verify a proof of possession.

    Raises:
        SignatureError: it does not hold for this key, federation, name and TLS key.
        MalformedError: the name or a digest is not of its form.
    """
    verify_signature(key, _message(key, federation_id, name, tls_spki), signature)


def _message(key: PublicKey, federation_id: Digest, name: str, tls_spki: Digest) -> bytes:
    encoded = parse_name(name).encode("ascii")
    return (
        tags.POSSESSION
        + parse_digest(federation_id)
        + bytes([len(encoded)])
        + encoded
        + key.key_id
        + parse_digest(tls_spki)
    )
