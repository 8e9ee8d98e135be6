"""Cosignatures: timestamped signatures of a checkpoint, by witnesses and, in ML-DSA-44, by the log itself.

A cosigner says: at this second, the largest consistent tree of that log that I have seen has this size and root. Time 0
makes no such claim and is never counted as a witness's. The Ed25519 form does not sign the cosigner's name, so no such
key is used under two names; the ML-DSA-44 form signs it. A log's own ML-DSA-44 line has the log's name as cosigner.

Format: c2sp.org/tlog-cosignature v1.1; ML-DSA: FIPS 204, empty context.

Runs in: everything.
Trusts: the key that the caller passes.
"""

from __future__ import annotations

from collections.abc import Callable

from sfrl_secure.crypto.ed25519 import verify_ed25519_strict
from sfrl_secure.crypto.keys import verify_ml_dsa_44
from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.translog.canonical_text import COUNT_END
from sfrl_secure.translog.checkpoint import Checkpoint, format_checkpoint, parse_checkpoint
from sfrl_secure.translog.note import (
    ED25519,
    ED25519_COSIGNATURE,
    ML_DSA_44_COSIGNATURE,
    Note,
    NoteSignature,
    NoteSigner,
    VerifierKey,
    format_note,
    verify_note_signature,
)

COSIGNATURE_BYTES = {ED25519_COSIGNATURE: 64, ML_DSA_44_COSIGNATURE: 2420}
"""Length of the signature after its time, by type."""


def ed25519_cosignature_message(text: str, time_seconds: int) -> bytes:
    """The bytes that a cosignature of type 0x04 signs: two header lines and the whole note text."""
    return b"cosignature/v1\ntime %d\n" % time_seconds + text.encode()


def ml_dsa_44_cosignature_message(checkpoint: Checkpoint, cosigner_name: str, time_seconds: int) -> bytes:
    """The bytes that a cosignature of type 0x06 signs: the subtree [0, size) of the log under the cosigner's name."""
    name, origin = cosigner_name.encode(), checkpoint.origin.encode()
    # Both are at most 255 bytes: VerifierKey and Checkpoint have checked it.
    return b"".join((
        b"subtree/v1\n\x00",
        bytes([len(name)]), name,
        time_seconds.to_bytes(8, "big"),
        bytes([len(origin)]), origin,
        bytes(8),
        checkpoint.size.to_bytes(8, "big"),
        checkpoint.root,
    ))


def cosignature_message(text: str, key: VerifierKey, time_seconds: int) -> bytes:
    """The bytes that `key` signs for a checkpoint's note text at a time.

    Raises:
        MalformedError: the text is no checkpoint, the key is not a cosigner's, or the time is outside 0 to 2**63 - 1.
    """
    checkpoint = parse_checkpoint(text)
    if not 0 <= time_seconds < COUNT_END:
        raise MalformedError("a cosignature's time is below 2**63 seconds")
    if key.key_type == ED25519_COSIGNATURE:
        return ed25519_cosignature_message(text, time_seconds)
    if key.key_type == ML_DSA_44_COSIGNATURE:
        return ml_dsa_44_cosignature_message(checkpoint, key.name, time_seconds)
    raise MalformedError("a cosigner has a key of type 0x04 or 0x06")


def verify_cosignature(text: str, signature: NoteSignature, key: VerifierKey) -> int:
    """Verify a line of type 0x04 or 0x06 over a checkpoint's note text, and give its time in seconds since 1970.

    The time is the cosigner's word; whether it is old, or in the future, is for the caller to judge.

    Raises:
        SignatureError: the line is another key's, has another length, a time of 2**63 or more, or does not hold.
        MalformedError: the text is no checkpoint.
    """
    length = COSIGNATURE_BYTES.get(key.key_type)
    if length is None or (signature.name, signature.key_id) != (key.name, key.key_id):
        raise SignatureError("the line is not one of this cosigner")
    if len(signature.value) != 8 + length:
        raise SignatureError(f"a cosignature of this type is 8 and {length} bytes")
    time_seconds = int.from_bytes(signature.value[:8], "big")
    if time_seconds >= COUNT_END:
        raise SignatureError("a cosignature's time is below 2**63 seconds")
    message = cosignature_message(text, key, time_seconds)
    if key.key_type == ED25519_COSIGNATURE:
        verify_ed25519_strict(key.public_key, message, signature.value[8:])
    else:
        verify_ml_dsa_44(key.public_key, message, signature.value[8:])
    return time_seconds


def verify_line(text: str, signature: NoteSignature, key: VerifierKey) -> int:
    """Verify a line of any type that we know, and give its time; 0 for type 0x01, which has none.

    Raises:
        SignatureError: the line is another key's, the type is unknown, or the signature does not hold.
        MalformedError: a cosignature on a text that is no checkpoint.
    """
    if key.key_type == ED25519:
        verify_note_signature(text, signature, key)
        return 0
    return verify_cosignature(text, signature, key)


class Cosigner:
    """Cosigns checkpoints with a key of type 0x04 or 0x06. The private key stays with whoever made `sign`."""

    def __init__(self, key: VerifierKey, sign: Callable[[bytes], bytes]) -> None:
        if key.key_type not in COSIGNATURE_BYTES:
            raise MalformedError("a cosigner has a key of type 0x04 or 0x06")
        self.key = key
        self._sign = sign

    def cosign(self, text: str, time_seconds: int) -> NoteSignature:
        """Cosign a checkpoint's note text. The caller has checked, and recorded, that it is consistent.

        Raises:
            MalformedError: the text is no checkpoint, or the time is out of range.
        """
        signature = self._sign(cosignature_message(text, self.key, time_seconds))
        return NoteSignature(self.key.name, self.key.key_id, time_seconds.to_bytes(8, "big") + signature)


def log_lines(
    checkpoint: Checkpoint, signer: NoteSigner, cosigner: Cosigner, time_seconds: int
) -> tuple[NoteSignature, NoteSignature]:
    """Sign a checkpoint with one generation of its log's keys: the Ed25519 line and the ML-DSA-44 line.

    The caller has recorded the checkpoint durably: two of one size with different roots are never signed.

    Raises:
        MalformedError: a key has another name than the origin, or the second is not an ML-DSA-44 key.
    """
    names = {signer.key.name, cosigner.key.name}
    if names != {checkpoint.origin} or cosigner.key.key_type != ML_DSA_44_COSIGNATURE:
        raise MalformedError("a log signs under its origin, with Ed25519 (0x01) and ML-DSA-44 (0x06)")
    text = format_checkpoint(checkpoint)
    return signer.sign(text), cosigner.cosign(text, time_seconds)


def sign_checkpoint(checkpoint: Checkpoint, signer: NoteSigner, cosigner: Cosigner, time_seconds: int) -> bytes:
    """Sign a checkpoint as its log, as `log_lines` does; give the note."""
    lines = log_lines(checkpoint, signer, cosigner, time_seconds)
    return format_note(Note(format_checkpoint(checkpoint), lines))
