"""Signing requests and detached signatures: a document on its way to the operators' keys, and what comes back.

A request is the document's exact bytes with their payload type. Its summary, threshold and signers are for whoever
reads the file with an editor; nothing here believes them: what is shown to whoever signs is read from the document.
Only governance documents are signed so. A request cannot carry a service's statement or an update.

Format: JSON, `sfrl-signing-request/v1` and `sfrl-signature/v1`; signatures are over the DSSE PAE
(proto/README.md, "Signatures").

Runs in: operators' machines, cli.
Trusts: nothing. Whether a signature holds is verified by `operating.publishing`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Signature, sign_envelope
from sfrl_secure.crypto.keys import ED25519, HYBRID, SigningKey, signing_key_from_pem
from sfrl_secure.crypto.pae import statement_digest
from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.strict_json import parse_strict_json
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.documents import Document, GenesisDocument, RootDocument, parse_document
from sfrl_secure.ids import Digest, parse_hex_digest

REQUEST_TYPE = "sfrl-signing-request/v1"
SIGNATURE_TYPE = "sfrl-signature/v1"

REQUEST_BYTES_MAX = 256 * 1024
SIGNATURE_BYTES_MAX = 8 * 1024

_SUMMARY_MAX = 64 * 1024
_BEGIN = b"-----BEGIN PRIVATE KEY-----"


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A document that waits for signatures.

    Attributes:
        payload_type: of a governance document.
        payload: the exact bytes to sign.
        document: what the payload says, parsed from it.
        digest: the statement digest, which the detached signatures name.
    """

    payload_type: str
    payload: bytes
    document: Document
    digest: Digest


@dataclass(frozen=True, slots=True)
class DetachedSignature:
    """One operator's signature over a request's payload, not verified.

    Attributes:
        digest: statement digest of what was signed.
    """

    payload_type: str
    digest: Digest
    signature: Signature


def open_request(payload_type: str, payload: bytes) -> SigningRequest:
    """Take a document that is to be signed.

    Raises:
        MalformedError: not the exact bytes of a governance document, or one of those that only a founding signs.
    """
    document = parse_document(payload_type, payload)
    if isinstance(document, GenesisDocument) or (isinstance(document, RootDocument) and document.version == 1):
        raise MalformedError("genesis and the first root are signed when a federation is founded, by `sfrl init`")
    return SigningRequest(payload_type, payload, document, statement_digest(payload_type, payload))


def format_request(
    request: SigningRequest, *, summary: tuple[str, ...], threshold: int, signers: tuple[str, ...]
) -> bytes:
    """Write a request's file.

    Args:
        summary: the document in words, for whoever opens the file.
        threshold: how many of `signers` must sign.

    Raises:
        MalformedError: the words are longer than a file may have.
    """
    raw = _to_json({
        "type": REQUEST_TYPE,
        "payloadType": request.payload_type,
        "payload": base64.b64encode(request.payload).decode("ascii"),
        "summary": "\n".join(summary)[:_SUMMARY_MAX],
        "threshold": threshold,
        "signers": list(signers),
    })  # fmt: skip
    if len(raw) > REQUEST_BYTES_MAX:
        raise MalformedError(f"a signing request is at most {REQUEST_BYTES_MAX} bytes")
    return raw


def parse_request(raw: bytes) -> SigningRequest:
    """Parse a request's file, and the document in it.

    Raises:
        MalformedError: any other form, or a payload that is no governance document.
    """
    keys = {"payloadType", "payload", "summary", "threshold", "signers"}
    fields = _fields(raw, REQUEST_BYTES_MAX, REQUEST_TYPE, keys)
    return open_request(_text(fields, "payloadType"), _binary(fields, "payload"))


def is_request(raw: bytes) -> bool:
    """Whether a file says that it is a signing request."""
    return _type_of(raw, REQUEST_BYTES_MAX) == REQUEST_TYPE


def sign_request(request: SigningRequest, key: SigningKey) -> DetachedSignature:
    """Sign a request's payload. The caller has shown the document to whom the key is."""
    (signature,) = sign_envelope(request.payload_type, request.payload, [key]).signatures
    return DetachedSignature(request.payload_type, request.digest, signature)


def format_signature(signed: DetachedSignature) -> bytes:
    """Write a signature's file."""
    return _to_json({
        "type": SIGNATURE_TYPE,
        "payloadType": signed.payload_type,
        "digest": signed.digest.hex(),
        "keyid": signed.signature.key_id.hex(),
        "suite": signed.signature.suite,
        "sig": base64.b64encode(signed.signature.value).decode("ascii"),
    })  # fmt: skip


def parse_signature(raw: bytes) -> DetachedSignature:
    """Parse a signature's file.

    Raises:
        MalformedError: any other form.
    """
    fields = _fields(raw, SIGNATURE_BYTES_MAX, SIGNATURE_TYPE, {"payloadType", "digest", "keyid", "suite", "sig"})
    signature = Signature(parse_hex_digest(_text(fields, "keyid")), _text(fields, "suite"), _binary(fields, "sig"))
    return DetachedSignature(_text(fields, "payloadType"), parse_hex_digest(_text(fields, "digest")), signature)


def operator_key_from_pem(pem: SecretBytes) -> SigningKey:
    """Read an operator's key, of whichever suite has as many parts as the file.

    Raises:
        MalformedError: not exactly the keys of a suite.
    """
    suite = HYBRID if pem.expose().count(_BEGIN) > 1 else ED25519
    return signing_key_from_pem(suite, pem)


def _type_of(raw: bytes, bytes_max: int) -> object:
    try:
        return parse_strict_json(raw, bytes_max=bytes_max).get("type")
    except MalformedError:
        return None


def _fields(raw: bytes, bytes_max: int, kind: str, keys: set[str]) -> Mapping[str, object]:
    fields = parse_strict_json(raw, bytes_max=bytes_max)
    if fields.get("type") != kind or fields.keys() != keys | {"type"}:
        raise MalformedError(f"the file is not of the type {kind}, with exactly the keys {', '.join(sorted(keys))}")
    return fields


def _text(fields: Mapping[str, object], key: str) -> str:
    value = fields[key]
    if not isinstance(value, str):
        raise MalformedError(f"{key} is text")
    return value


def _binary(fields: Mapping[str, object], key: str) -> bytes:
    try:
        return base64.b64decode(_text(fields, key).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise MalformedError(f"{key} is standard base64") from None


def _to_json(members: Mapping[str, object]) -> bytes:
    return json.dumps(members, indent=1).encode("ascii") + b"\n"
