"""Envelopes: exact bytes, their type, and signatures over both.

Nothing is serialised again to be verified. A key id in a signature is a hint to find the key; a threshold counts
operators, one key each. One signature too many is refused like one too few.

Format: DSSE 1.0.2; proto/README.md, "Signatures".

Runs in: everything.
Trusts: the keys that the caller names. Nothing in the envelope.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from sfrl_secure.crypto.keys import SIGNATURE_BYTES, PublicKey, SigningKey, verify_signature
from sfrl_secure.crypto.pae import pae, statement_digest
from sfrl_secure.crypto.strict_json import parse_strict_json
from sfrl_secure.errors import MalformedError, SignatureError
from sfrl_secure.ids import Digest, parse_digest, parse_hex_digest

SIGNATURES_MAX = 16
JSON_BYTES_MAX = 128 * 1024

_PAYLOAD_TYPE = re.compile(r"application/vnd\.sfrl\.[a-z0-9.+-]+")
_PAYLOAD_TYPE_MAX = 128


@dataclass(frozen=True, slots=True)
class Signature:
    """One key's signature.

    Attributes:
        key_id: which key it claims to be of.
        suite: of that key.
        value: as long as the suite's signatures are.
    """

    key_id: Digest
    suite: str
    value: bytes

    def __post_init__(self) -> None:
        parse_digest(self.key_id)
        if self.suite not in SIGNATURE_BYTES or len(self.value) != sum(SIGNATURE_BYTES[self.suite]):
            raise MalformedError("a signature is of a known suite and has its length")


@dataclass(frozen=True, slots=True)
class Envelope:
    """A statement with its signatures, 1 to 16, sorted by key id, none twice. Nothing is verified yet.

    Attributes:
        digest: the statement digest: SHA-256 of the PAE. It does not depend on the signatures.
    """

    payload_type: str
    statement: bytes
    signatures: tuple[Signature, ...]
    digest: Digest = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.payload_type) > _PAYLOAD_TYPE_MAX or not _PAYLOAD_TYPE.fullmatch(self.payload_type):
            raise MalformedError(f"a payload type is one of ours, at most {_PAYLOAD_TYPE_MAX} characters")
        if not 1 <= len(self.signatures) <= SIGNATURES_MAX:
            raise MalformedError(f"an envelope has 1 to {SIGNATURES_MAX} signatures")
        ids = [signature.key_id for signature in self.signatures]
        if any(left >= right for left, right in pairwise(ids)):
            raise MalformedError("signatures are sorted by key id, and no key signs twice")
        # Once: the statement is known by it at every step of its way.
        object.__setattr__(self, "digest", statement_digest(self.payload_type, self.statement))


def sign_envelope(payload_type: str, statement: bytes, keys: Sequence[SigningKey]) -> Envelope:
    """Sign `statement` with each key."""
    message = pae(payload_type, statement)
    signatures = [Signature(k.public_key.key_id, k.public_key.suite, k.sign(message)) for k in keys]
    return Envelope(payload_type, statement, tuple(sorted(signatures, key=lambda s: s.key_id)))


def add_signature(envelope: Envelope, key: SigningKey) -> Envelope:
    """The envelope with one more signature."""
    mine = sign_envelope(envelope.payload_type, envelope.statement, [key]).signatures
    return Envelope(
        envelope.payload_type,
        envelope.statement,
        tuple(sorted(envelope.signatures + mine, key=lambda s: s.key_id)),
    )


@dataclass(frozen=True, slots=True)
class SignatureClaim:
    """A signature that is claimed to hold: `value` of `key` over the bytes `message`."""

    key: PublicKey
    message: bytes
    value: bytes


def single_claim(envelope: Envelope, key: PublicKey) -> SignatureClaim:
    """What is left to verify of an envelope that has exactly one signature, and that of `key` under its full suite.

    Raises:
        SignatureError: it has another, or not exactly one.
    """
    if len(envelope.signatures) != 1:
        raise SignatureError("the envelope has exactly one signature")
    return _claim(envelope, envelope.signatures[0], key)


def verify_single(envelope: Envelope, key: PublicKey) -> None:
    """Verify that the envelope has exactly one signature, and that it is of `key` under its full suite.

    Raises:
        SignatureError: it is not so.
    """
    claim = single_claim(envelope, key)
    verify_signature(claim.key, claim.message, claim.value)


def verify_threshold(envelope: Envelope, operators: Mapping[str, PublicKey], threshold: int) -> tuple[str, ...]:
    """Verify that at least `threshold` operators signed, and nobody else did.

    Args:
        operators: each operator's one key.
        threshold: at least 1.

    Returns: names of the operators that signed, sorted.

    Raises:
        SignatureError: too few, a stranger among them, or one signature that does not hold.
    """
    by_id = {key.key_id: name for name, key in operators.items()}
    if len(by_id) != len(operators):
        raise SignatureError("two operators cannot share a key")
    names = set()
    for signature in envelope.signatures:
        name = by_id.get(signature.key_id)
        if name is None:
            raise SignatureError("a signature is not of an operator")
        claim = _claim(envelope, signature, operators[name])
        verify_signature(claim.key, claim.message, claim.value)
        names.add(name)
    if threshold < 1 or len(names) < threshold:
        raise SignatureError(f"{threshold} operators must sign")
    return tuple(sorted(names))


def envelope_to_json(envelope: Envelope) -> bytes:
    """Write the DSSE JSON form, for documents that people carry.

    Raises:
        MalformedError: longer than what `parse_envelope_json` takes.
    """
    raw = (
        json.dumps(
            {
                "payloadType": envelope.payload_type,
                "payload": base64.b64encode(envelope.statement).decode("ascii"),
                "signatures": [
                    {"keyid": s.key_id.hex(), "suite": s.suite, "sig": base64.b64encode(s.value).decode("ascii")}
                    for s in envelope.signatures
                ],
            },
            indent=1,
        ).encode("ascii")
        + b"\n"
    )
    if len(raw) > JSON_BYTES_MAX:
        raise MalformedError(f"an envelope in JSON is at most {JSON_BYTES_MAX} bytes")
    return raw


def parse_envelope_json(raw: bytes) -> Envelope:
    """Parse the DSSE JSON form; both base64 alphabets are taken.

    Raises:
        MalformedError: anything else.
    """
    fields = parse_strict_json(raw, bytes_max=JSON_BYTES_MAX)
    if fields.keys() != {"payloadType", "payload", "signatures"}:
        raise MalformedError("an envelope has payloadType, payload and signatures")
    payload_type, listed = fields["payloadType"], fields["signatures"]
    if not isinstance(payload_type, str) or not isinstance(listed, list) or len(listed) > SIGNATURES_MAX:
        raise MalformedError(f"an envelope has a payload type and 1 to {SIGNATURES_MAX} signatures")
    signatures = [_signature_of(item) for item in listed]
    return Envelope(
        payload_type, _base64(fields["payload"]), tuple(sorted(signatures, key=lambda s: s.key_id))
    )


def _signature_of(item: object) -> Signature:
    if not isinstance(item, dict) or item.keys() != {"keyid", "suite", "sig"}:
        raise MalformedError("a signature has keyid, suite and sig")
    if not isinstance(item["keyid"], str) or not isinstance(item["suite"], str):
        raise MalformedError("a signature has keyid, suite and sig as text")
    return Signature(parse_hex_digest(item["keyid"]), item["suite"], _base64(item["sig"]))


def _base64(text: object) -> bytes:
    if not isinstance(text, str):
        raise MalformedError("binary fields are base64 text")
    try:
        return base64.b64decode(text.replace("-", "+").replace("_", "/").encode("ascii"), validate=True)
    except (binascii.Error, ValueError):
        raise MalformedError("binary fields are base64 text") from None


def _claim(envelope: Envelope, signature: Signature, key: PublicKey) -> SignatureClaim:
    if signature.key_id != key.key_id or signature.suite != key.suite:
        raise SignatureError("the signature is of another key")
    return SignatureClaim(key, pae(envelope.payload_type, envelope.statement), signature.value)
