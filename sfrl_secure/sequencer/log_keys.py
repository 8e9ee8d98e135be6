"""One generation of the log's keys: Ed25519 (0x01) and ML-DSA-44 (0x06), both named after the origin.

They sign checkpoints and nothing else. A log that replaces its keys signs with the old generation and the new one. In
a file a generation is two PKCS #8 blocks in PEM, in this order. What was signed for cannot be unsigned, so the keys of
a log are never used by two processes: the folder's lock sees to that.

Format: proto/README.md, "Checkpoints, tiles, cosignatures"; c2sp.org/signed-note, tlog-cosignature.

Runs in: audit_log, cli.
Trusts: the file that it is given.
"""

from __future__ import annotations

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
from sfrl_secure.translog.cosignature import Cosigner
from sfrl_secure.translog.note import ED25519, ML_DSA_44_COSIGNATURE, NoteSigner, verifier_key

_PEM_END = b"-----END PRIVATE KEY-----\n"


class LogKeys:
    """Both private keys of a generation. Prints nothing of them."""

    __slots__ = ("_ed25519", "_ml_dsa")

    def __init__(self, ed25519: Ed25519PrivateKey, ml_dsa: MLDSA44PrivateKey) -> None:
        self._ed25519 = ed25519
        self._ml_dsa = ml_dsa

    def __repr__(self) -> str:
        return "LogKeys(...)"

    @classmethod
    def generate(cls) -> LogKeys:
        """Make new keys with the operating system's randomness."""
        return cls(Ed25519PrivateKey.generate(), MLDSA44PrivateKey.generate())

    def to_pem(self) -> SecretBytes:
        """Write both keys, not encrypted: for a file of mode 0600."""
        keys: tuple[Ed25519PrivateKey | MLDSA44PrivateKey, ...] = (self._ed25519, self._ml_dsa)
        return SecretBytes(
            b"".join(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in keys)
        )

    def note_signer(self, origin: str) -> NoteSigner:
        """The Ed25519 key under the origin's name."""
        return NoteSigner(
            verifier_key(origin, ED25519, self._ed25519.public_key().public_bytes_raw()), self._ed25519.sign
        )

    def cosigner(self, origin: str) -> Cosigner:
        """The ML-DSA-44 key under the origin's name."""
        return Cosigner(
            verifier_key(origin, ML_DSA_44_COSIGNATURE, self._ml_dsa.public_key().public_bytes_raw()),
            self._ml_dsa.sign,
        )

    def vkeys(self, origin: str) -> tuple[str, str]:
        """Both public keys as genesis and trust policies name them."""
        return self.note_signer(origin).key.vkey, self.cosigner(origin).key.vkey


def parse_log_keys(pem: SecretBytes) -> LogKeys:
    """Read what `to_pem` wrote.

    Raises:
        MalformedError: not exactly these two keys.
    """
    first, separator, second = pem.expose().partition(_PEM_END)
    try:
        ed25519 = load_pem_private_key(first + separator, None)
        ml_dsa = load_pem_private_key(second, None)
    except (ValueError, TypeError):
        raise MalformedError("a log's key file holds two private keys in PEM") from None
    if not isinstance(ed25519, Ed25519PrivateKey) or not isinstance(ml_dsa, MLDSA44PrivateKey):
        raise MalformedError("a log's keys are Ed25519 first and ML-DSA-44 second")
    keys = LogKeys(ed25519, ml_dsa)
    if not keys.to_pem().matches(pem):
        raise MalformedError("something beside the two keys is in the file")
    return keys
