"""Signed notes: a text and the lines of those who signed it.

A `Note` was parsed and nothing in it believed. Its text is signed exactly as it stands, so nothing here normalises.
Stricter than the specification in one bound: at most 64 signature lines and 128 KiB.

Format: c2sp.org/signed-note v1.0.0.

Runs in: everything.
Trusts: nothing; `verify_note_signature` trusts the key that the caller passes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sfrl_secure.crypto.ed25519 import check_ed25519_public_key, verify_ed25519_strict
from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX
from sfrl_secure.translog.canonical_text import check_encodable, format_base64, parse_base64, parse_utf8

ED25519 = 0x01
"""Ed25519 over the note's text."""
ED25519_COSIGNATURE = 0x04
"""Timestamped Ed25519 cosignature of a checkpoint."""
ML_DSA_44_COSIGNATURE = 0x06
"""Timestamped ML-DSA-44 cosignature of a checkpoint."""

PUBLIC_KEY_BYTES = {ED25519: 32, ED25519_COSIGNATURE: 32, ML_DSA_44_COSIGNATURE: 1312}
"""Length of the public key of each type that can verify here."""

_LINE_START = "— "
_CONTROL = re.compile("[\x00-\x1f]")


@dataclass(frozen=True, slots=True)
class NoteSignature:
    """One signature line.

    Attributes:
        name: the key's name; says nothing until the key verifies.
        key_id: 4 bytes.
        value: what follows the key id, 1 byte or more; its form is the key type's.
    """

    name: str
    key_id: bytes
    value: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.key_id) != 4 or not self.value:
            raise MalformedError("a signature line holds a key id of 4 bytes and a signature")

    @property
    def line(self) -> str:
        """The line, with its newline."""
        return f"{_LINE_START}{self.name} {format_base64(self.key_id + self.value)}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and its signature lines, unverified.

    Attributes:
        text: UTF-8, no ASCII control character but newline, ends with a newline.
        signatures: 1 to 64, as they stand.
    """

    text: str
    signatures: tuple[NoteSignature, ...]

    def __post_init__(self) -> None:
        check_encodable(self.text)
        if not self.text.endswith("\n") or has_control_characters(self.text.replace("\n", "")):
            raise MalformedError("a note's text ends with a newline and has no other control character")
        if not 1 <= len(self.signatures) <= NOTE_SIGNATURES_MAX:
            raise MalformedError(f"a note has 1 to {NOTE_SIGNATURES_MAX} signature lines")


def has_control_characters(text: str) -> bool:
    """Whether an ASCII control character below U+0020 is in `text`."""
    return _CONTROL.search(text) is not None


def check_key_name(name: str) -> None:
    """Hold a key name to the note format.

    Raises:
        MalformedError: empty, or with a Unicode space, a '+' or a control character.
    """
    check_encodable(name)
    if not name or "+" in name or has_control_characters(name) or any(c.isspace() for c in name):
        raise MalformedError("a key name is not empty and has no space, no '+' and no control character")


def parse_note(raw: bytes) -> Note:
    """Parse a signed note. The text ends at the last empty line.

    Raises:
        MalformedError: not a note within our bounds.
    """
    whole = parse_utf8(raw, bytes_max=NOTE_BYTES_MAX)
    text, separator, lines = whole.rpartition("\n\n")
    if not separator:
        raise MalformedError("a note has an empty line between its text and its signatures")
    return Note(text + "\n", parse_signature_lines(lines))


def parse_signature_lines(lines: str) -> tuple[NoteSignature, ...]:
    """Parse signature lines, 1 to 64, each with its newline.

    Raises:
        MalformedError: one is not of the form, none is there, or too many.
    """
    if lines.count("\n") > NOTE_SIGNATURES_MAX:
        raise MalformedError(f"at most {NOTE_SIGNATURES_MAX} signature lines")
    if not lines.endswith("\n"):
        raise MalformedError("signature lines end with a newline, and there is one at least")
    # Not splitlines(): that would also cut at U+2028 and its like.
    return tuple(_parse_signature_line(line) for line in lines[:-1].split("\n"))


def _parse_signature_line(line: str) -> NoteSignature:
    name, _, encoded = line.removeprefix(_LINE_START).partition(" ")
    if not line.startswith(_LINE_START):
        raise MalformedError("a signature line is an em dash, a key name and base64, with one space between")
    signature = parse_base64(encoded, bytes_max=NOTE_BYTES_MAX)
    return NoteSignature(name, signature[:4], signature[4:])


def format_note(note: Note) -> bytes:
    """Write a note.

    Raises:
        MalformedError: it would be larger than any reader of ours takes.
    """
    raw = f"{note.text}\n{''.join(signature.line for signature in note.signatures)}".encode()
    if len(raw) > NOTE_BYTES_MAX:
        raise MalformedError(f"a note is at most {NOTE_BYTES_MAX} bytes")
    return raw


def add_signatures(note: Note, signatures: Iterable[NoteSignature]) -> Note:
    """Append signature lines; one that is there already is not written twice.

    Raises:
        MalformedError: more than 64 lines.
    """
    return Note(note.text, tuple(dict.fromkeys((*note.signatures, *signatures))))


@dataclass(frozen=True, slots=True)
class VerifierKey:
    """A public key with the name and the type under which it signs lines.

    Attributes:
        name: key name; of a log its origin.
        key_id: 4 bytes; derived from the rest where the type is one of ours.
        key_type: signature type byte. Types beyond 0x01, 0x04 and 0x06 can be named and never verify.
        public_key: 32 bytes for Ed25519, canonical and not of small order; 1,312 for ML-DSA-44.
    """

    name: str
    key_id: bytes
    key_type: int
    public_key: bytes

    def __post_init__(self) -> None:
        check_key_name(self.name)
        if len(self.key_id) != 4 or not 0 <= self.key_type <= 0xFF or not self.public_key:
            raise MalformedError("a verifier key has a key id of 4 bytes, a type byte and a public key")
        length = PUBLIC_KEY_BYTES.get(self.key_type)
        if length is None:
            return
        if len(self.public_key) != length:
            raise MalformedError(f"a public key of this type is exactly {length} bytes")
        if self.key_type != ML_DSA_44_COSIGNATURE:
            check_ed25519_public_key(self.public_key)
        if self.key_id != key_id_of(self.name, self.key_type, self.public_key):
            raise MalformedError("the key id is not that of name, type and public key")
        if self.key_type == ML_DSA_44_COSIGNATURE and len(self.name.encode()) > 255:
            raise MalformedError("the name of an ML-DSA-44 cosigner is at most 255 bytes")

    @property
    def vkey(self) -> str:
        """The text form: name, key id and key joined by '+'."""
        return f"{self.name}+{self.key_id.hex()}+{format_base64(bytes([self.key_type]) + self.public_key)}"


def key_id_of(name: str, key_type: int, public_key: bytes) -> bytes:
    """Derive the 4-byte key id: the start of SHA-256(name || newline || type || public key)."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([key_type]) + public_key).digest()[:4]


def verifier_key(name: str, key_type: int, public_key: bytes) -> VerifierKey:
    """Name a public key, and derive its key id.

    Raises:
        MalformedError: the name, the type or the length is not allowed.
    """
    check_key_name(name)
    if key_type not in PUBLIC_KEY_BYTES:
        raise MalformedError("a key id is derived for the types 0x01, 0x04 and 0x06 only")
    return VerifierKey(name, key_id_of(name, key_type, public_key), key_type, public_key)


def parse_vkey(text: str) -> VerifierKey:
    """Parse the text form of a verifier key.

    Raises:
        MalformedError: not of the form, or the key id is another key's.
    """
    # base64 may hold '+', so only the first two of them separate.
    parts = text.split("+", 2)
    if len(parts) != 3 or len(parts[1]) != 8 or not set(parts[1]) <= set("0123456789abcdef"):
        raise MalformedError("a vkey is a name, 8 lower-case hexadecimal digits and base64, joined by '+'")
    key = parse_base64(parts[2], bytes_max=8192)
    if not key:
        raise MalformedError("a vkey has a type byte and a public key")
    return VerifierKey(parts[0], bytes.fromhex(parts[1]), key[0], key[1:])


def verify_note_signature(text: str, signature: NoteSignature, key: VerifierKey) -> None:
    """Verify a line of type 0x01 over a note's text.

    Raises:
        SignatureError: the key is of another type, the line is another key's, or the signature does not hold.
    """
    if key.key_type != ED25519 or (signature.name, signature.key_id) != (key.name, key.key_id):
        raise SignatureError("the line is not one of this Ed25519 key")
    verify_ed25519_strict(key.public_key, text.encode(), signature.value)


class NoteSigner:
    """Signs notes with an Ed25519 key (type 0x01). The private key stays with whoever made `sign`."""

    def __init__(self, key: VerifierKey, sign: Callable[[bytes], bytes]) -> None:
        if key.key_type != ED25519:
            raise MalformedError("a note signer has a key of type 0x01")
        self.key = key
        self._sign = sign

    def sign(self, text: str) -> NoteSignature:
        """Sign a note's text, which ends with its newline."""
        return NoteSignature(self.key.name, self.key.key_id, self._sign(text.encode()))
