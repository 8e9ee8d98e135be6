"""A witness's private keys: Ed25519 (0x04) and ML-DSA-44 (0x06), each in a file of its own.

A witness signs with both, so that a cosignature holds as long as one of the two does. In a file a key is one PKCS #8
block in PEM.

Format: c2sp.org/tlog-cosignature; proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: verifier, cli.
Trusts: the file that it is given.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA44PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import MalformedError
from sfrl_secure.translog.cosignature import COSIGNATURE_BYTES, Cosigner
from sfrl_secure.translog.note import ED25519_COSIGNATURE, ML_DSA_44_COSIGNATURE, VerifierKey, verifier_key
from sfrl_secure.translog.policy import TrustPolicy


class WitnessKey:
    """One private key of a witness. Prints nothing of it."""

    __slots__ = ("_private", "key_type", "public_key")

    def __init__(self, private: Ed25519PrivateKey | MLDSA44PrivateKey) -> None:
        self._private = private
        self.key_type = ED25519_COSIGNATURE if isinstance(private, Ed25519PrivateKey) else ML_DSA_44_COSIGNATURE
        self.public_key = private.public_key().public_bytes_raw()

    def __repr__(self) -> str:
        return "WitnessKey(...)"

    @classmethod
    def generate(cls, key_type: int) -> WitnessKey:
        """Make a new key of type 0x04 or 0x06 with the operating system's randomness."""
        if key_type not in COSIGNATURE_BYTES:
            raise MalformedError("a witness's key is of type 0x04 or 0x06")
        is_ed25519 = key_type == ED25519_COSIGNATURE
        return cls(Ed25519PrivateKey.generate() if is_ed25519 else MLDSA44PrivateKey.generate())

    def to_pem(self) -> SecretBytes:
        """Write the key, not encrypted: for a file of mode 0600."""
        return SecretBytes(self._private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def verifier_key(self, name: str) -> VerifierKey:
        """The public key under a witness's key name."""
        return verifier_key(name, self.key_type, self.public_key)

    def cosigner(self, policy: TrustPolicy) -> Cosigner:
        """The cosigner of the trust policy's witness that has this key.

        Raises:
            MalformedError: the trust policy names no such witness.
        """
        for witness in policy.witnesses:
            if (witness.key.key_type, witness.key.public_key) == (self.key_type, self.public_key):
                return Cosigner(witness.key, self._private.sign)
        raise MalformedError("the trust policy names no witness with this key")


def parse_witness_key(pem: SecretBytes) -> WitnessKey:
    """Read what `to_pem` wrote.

    Raises:
        MalformedError: not exactly one such key.
    """
    try:
        private = load_pem_private_key(pem.expose(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise MalformedError("a witness's key file holds one private key in PEM") from None
    if not isinstance(private, (Ed25519PrivateKey, MLDSA44PrivateKey)):
        raise MalformedError("a witness's key is Ed25519 or ML-DSA-44")
    key = WitnessKey(private)
    if not key.to_pem().matches(pem):
        raise MalformedError("something beside the key is in the file")
    return key
