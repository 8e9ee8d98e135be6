"""Keys and suites: what signs, and what a signature is checked with.

A hybrid key is one key: both parts sign, both must verify, and its key id covers both. Nothing here tries another
suite.

Format: proto/README.md, "Names".

Runs in: everything.
Trusts: nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey, MLDSA44PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from sfrl_secure.crypto import tags
from sfrl_secure.crypto.ed25519 import check_ed25519_public_key, verify_ed25519_strict
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.ids import Digest, sha256

ED25519: Final = "ed25519"
HYBRID: Final = "ed25519+ml-dsa-44"

PUBLIC_BYTES: Final = {ED25519: (32,), HYBRID: (32, 1312)}
SIGNATURE_BYTES: Final = {ED25519: (64,), HYBRID: (64, 2420)}

_PEM = re.compile(rb"-----BEGIN PRIVATE KEY-----\n[A-Za-z0-9+/=\n]+-----END PRIVATE KEY-----\n")
_PEM_BYTES_MAX = 16 * 1024


@dataclass(frozen=True)
class PublicKey:
    """A public key of a suite.

    Attributes:
        suite: `ed25519` or `ed25519+ml-dsa-44`.
        parts: raw public keys in suite order.
    """

    suite: str
    parts: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if self.suite not in PUBLIC_BYTES:
            raise MalformedError("the suite is not one of ours")
        if tuple(len(part) for part in self.parts) != PUBLIC_BYTES[self.suite]:
            raise MalformedError("a public key has the length of its suite")
        check_ed25519_public_key(self.parts[0])

    @property
    def raw(self) -> bytes:
        """The parts in suite order, joined."""
        return b"".join(self.parts)

    @cached_property
    def key_id(self) -> Digest:
        """SHA-256 over tag, suite and parts."""
        return sha256(tags.KEY_ID + self.suite.encode("ascii") + b"\n" + self.raw)


def parse_public_key(suite: str, raw: bytes) -> PublicKey:
    """Take the joined raw public keys of a suite.

    Raises:
        MalformedError: unknown suite, wrong length, or a key that the strict rule refuses.
    """
    if suite not in PUBLIC_BYTES or len(raw) != sum(PUBLIC_BYTES[suite]):
        raise MalformedError("a public key has the length of its suite")
    return PublicKey(suite, _split(raw, PUBLIC_BYTES[suite]))


class SigningKey:
    """A private key of a suite. Prints nothing but its suite and key id."""

    __slots__ = ("_ed25519", "_ml_dsa", "public_key")

    def __init__(self, ed25519: Ed25519PrivateKey, ml_dsa: MLDSA44PrivateKey | None) -> None:
        self._ed25519 = ed25519
        self._ml_dsa = ml_dsa
        parts = [ed25519.public_key().public_bytes_raw()]
        if ml_dsa is not None:
            parts.append(ml_dsa.public_key().public_bytes_raw())
        self.public_key = PublicKey(ED25519 if ml_dsa is None else HYBRID, tuple(parts))

    def __repr__(self) -> str:
        return f"SigningKey({self.public_key.suite}, {self.public_key.key_id.hex()})"

    @classmethod
    def generate(cls, suite: str) -> SigningKey:
        """Make a new key with the operating system's randomness."""
        if suite not in PUBLIC_BYTES:
            raise MalformedError("the suite is not one of ours")
        return cls(Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate() if suite == HYBRID else None)

    def sign(self, message: bytes) -> bytes:
        """Sign; both parts of a hybrid, joined in suite order."""
        signature = self._ed25519.sign(message)
        return signature if self._ml_dsa is None else signature + self._ml_dsa.sign(message)

    def to_pem(self) -> SecretBytes:
        """PKCS #8 in PEM, one block a part, not encrypted: for a file of mode 0600."""
        keys: list[Ed25519PrivateKey | MLDSA44PrivateKey] = [self._ed25519]
        if self._ml_dsa is not None:
            keys.append(self._ml_dsa)
        return SecretBytes(
            b"".join(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in keys)
        )


def signing_key_from_pem(suite: str, pem: SecretBytes) -> SigningKey:
    """Read what `to_pem` wrote.

    Raises:
        MalformedError: not exactly the keys of the suite.
    """
    raw = pem.expose()
    blocks = _PEM.findall(raw) if len(raw) <= _PEM_BYTES_MAX else []
    if suite not in PUBLIC_BYTES or b"".join(blocks) != raw or len(blocks) != len(PUBLIC_BYTES[suite]):
        raise MalformedError("the key file does not hold exactly the keys of its suite")
    try:
        keys = [load_pem_private_key(block, None) for block in blocks]
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise MalformedError("the key file does not hold exactly the keys of its suite") from None
    first, second = keys[0], keys[1] if len(keys) > 1 else None
    if not isinstance(first, Ed25519PrivateKey) or not (second is None or isinstance(second, MLDSA44PrivateKey)):
        raise MalformedError("the key file does not hold exactly the keys of its suite")
    return SigningKey(first, second)


def verify_signature(key: PublicKey, message: bytes, signature: bytes) -> None:
    """Verify every part of the key's suite over `message`.

    Raises:
        SignatureError: a part does not hold, or the length is not the suite's.
    """
    lengths = SIGNATURE_BYTES[key.suite]
    if len(signature) != sum(lengths):
        raise SignatureError("a signature has the length of its suite")
    values = _split(signature, lengths)
    verify_ed25519_strict(key.parts[0], message, values[0])
    if key.suite == HYBRID:
        verify_ml_dsa_44(key.parts[1], message, values[1])


def verify_ml_dsa_44(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Verify an ML-DSA-44 signature with an empty context (FIPS 204).

    Raises:
        SignatureError: it does not hold.
    """
    try:
        MLDSA44PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (InvalidSignature, ValueError):
        raise SignatureError("the ML-DSA-44 signature does not hold") from None


def _split(raw: bytes, lengths: tuple[int, ...]) -> tuple[bytes, ...]:
    parts, at = [], 0
    for length in lengths:
        parts.append(raw[at : at + length])
        at += length
    return tuple(parts)
