"""Bundles: a signed update as a file, for links that come and go.

Anybody can carry one, and read it; nobody can change it: the signed statement inside binds each byte of the payload. A
relay submits it as it is (`relaying`). Whoever has one and nothing else can tell what is in it and whether it is whole;
whose key signed it, the participant's record in the log says. Who knows that key verifies the signature first: of an
altered statement nothing else that is found means anything.

The header is read and bounded before the payload is looked at, and a leaf of the payload is in memory at a time.

Format: proto/README.md, "Bundles" and "Codec".

Runs in: participant, cli.
Trusts: nothing that such a file holds.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from sfrl_secure.crypto.envelope import Envelope, verify_single
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import DigestError, MalformedError, MissingEvidenceError, PayloadError, SignatureError
from sfrl_secure.governance.statements import UpdateStatement
from sfrl_secure.ids import parse_digest
from sfrl_secure.limits import CHUNK_BYTES_MAX, PAYLOAD_BYTES_MAX, UPDATE_HEADER_BYTES_MAX
from sfrl_secure.participant.sending import SignedUpdate
from sfrl_secure.rpc.sources import BytesSource, FileSource, PayloadSource
from sfrl_secure.sparse.header import PREAMBLE_BYTES, Header, Preamble, parse_leaf_table, parse_preamble
from sfrl_secure.sparse.leaf import check_leaf, decode_leaf
from sfrl_secure.storage.files import SECRET_MODE, open_to_read, write_new
from sfrl_secure.wire.entries import encode_envelope
from sfrl_secure.wire.statements import parse_update_envelope

MAGIC = b"SFRLBND1"
_LENGTH = struct.Struct("<I")
_HEAD_BYTES = len(MAGIC) + _LENGTH.size
_ASK_AGAIN = "it was cut or altered on its way, ask for it again"

Reading = Callable[[int, int], None]
"""Takes the bytes that were read of a payload, and how many it has."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose header was read; neither signature nor payload was looked at. Close it, or use it in a `with`.

    Attributes:
        envelope: the signed statement, as it goes out.
        update: what it says.
        payload: the bytes that it names, as many as it says; they are in the file.
    """

    envelope: Envelope
    update: UpdateStatement
    payload: FileSource = field(repr=False)

    @property
    def signed(self) -> SignedUpdate:
        """The update, to be sent."""
        return SignedUpdate(self.update, self.envelope, self.payload)

    def verify_signature(self, key: PublicKey) -> None:
        """Verify that the statement is signed by its participant's key. What it says means nothing before.

        Raises:
            SignatureError: it was altered on its way, or another key signed it.
        """
        try:
            verify_single(self.envelope, key)
        except SignatureError:
            raise SignatureError(
                "the signature does not hold: the bundle was altered on its way (ask for it again), or signed with "
                "another key than this participant's"
            ) from None

    def check_payload(self, on_progress: Reading | None = None) -> Preamble:
        """Check that the payload is the one that was signed, and that it has the form which the statement says.

        That is every rule of the codec but for those that compare it with a segment's terms and mask.

        Returns: what the payload's preamble says.

        Raises:
            DigestError: it is another payload, or was damaged on its way.
            PayloadError: it is the signed one, and no gatekeeper takes it: the reason of the first broken rule.
        """
        _check_digest(self.payload, self.update, on_progress)
        return _check_form(self.payload, self.update)

    def close(self) -> None:
        """Close the file."""
        self.payload.close()

    def __enter__(self) -> Bundle:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def write_bundle(path: Path, signed: SignedUpdate) -> None:
    """Write a signed update as a new file, durably; only its owner can read it, for it holds the update's values.

    Raises:
        ExhaustedError: the disk is full.
        UncertainStateError: there is a file of this name, or it could not be made durable.
        MalformedError: the payload has another length than was signed.
    """
    payload = BytesSource(signed.payload) if isinstance(signed.payload, bytes | memoryview) else signed.payload
    _check_length(payload.size, signed.update)
    envelope = encode_envelope(signed.envelope)
    head = MAGIC + _LENGTH.pack(len(envelope)) + envelope
    write_new(path, b"".join((head, payload.read(0, payload.size))), mode=SECRET_MODE)


def is_bundle(path: Path) -> bool:
    """Whether a file begins as a bundle does.

    Raises:
        NotFoundError, MissingEvidenceError, MalformedError: not there, not readable, not a regular file.
    """
    return _read_beginning(path, len(MAGIC)) == MAGIC


def open_bundle(path: Path) -> Bundle:
    """Read a bundle's header; its payload stays in the file.

    Raises:
        NotFoundError, MissingEvidenceError: the file is not there, or cannot be read.
        MalformedError: it is no bundle, or its payload has another length than was signed.
    """
    head = _read_beginning(path, _HEAD_BYTES + UPDATE_HEADER_BYTES_MAX)
    if head[: len(MAGIC)] != MAGIC or len(head) < _HEAD_BYTES:
        raise MalformedError("the file is no bundle")
    (length,) = _LENGTH.unpack_from(head, len(MAGIC))
    if length > UPDATE_HEADER_BYTES_MAX:
        raise MalformedError(f"the envelope in a bundle has at most {UPDATE_HEADER_BYTES_MAX} bytes")
    start = _HEAD_BYTES + length
    if len(head) < start:
        raise MalformedError(f"the bundle ends inside its envelope: {_ASK_AGAIN}")
    try:
        envelope, update = parse_update_envelope(head[_HEAD_BYTES:start])
    except MalformedError as error:
        raise MalformedError(f"the bundle's envelope is none: {_ASK_AGAIN} ({error})") from None
    payload = FileSource(path, start=start)
    try:
        _check_length(payload.size, update)
    except MalformedError:
        payload.close()
        raise
    return Bundle(envelope, update, payload)


def _read_beginning(path: Path, bytes_max: int) -> bytes:
    descriptor = open_to_read(path)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise MalformedError("not a regular file")
        return os.pread(descriptor, bytes_max, 0)
    except OSError:
        raise MissingEvidenceError("the file cannot be read") from None
    finally:
        os.close(descriptor)


def _check_length(size: int, update: UpdateStatement) -> None:
    if update.payload_bytes > PAYLOAD_BYTES_MAX:
        raise MalformedError(f"a payload has at most {PAYLOAD_BYTES_MAX} bytes")
    if size != update.payload_bytes:
        what = "ends before its payload does" if size < update.payload_bytes else "has more than its payload"
        raise MalformedError(f"the bundle {what}: {_ASK_AGAIN}")


def _check_digest(payload: PayloadSource, update: UpdateStatement, on_progress: Reading | None) -> None:
    hasher = hashlib.sha256()
    for start in range(0, payload.size, CHUNK_BYTES_MAX):
        hasher.update(payload.read(start, min(CHUNK_BYTES_MAX, payload.size - start)))
        if on_progress is not None:
            on_progress(min(start + CHUNK_BYTES_MAX, payload.size), payload.size)
    if hasher.digest() != update.payload_sha256:
        raise DigestError(f"the bundle's payload is not the one that was signed: {_ASK_AGAIN}")


def _check_form(payload: PayloadSource, update: UpdateStatement) -> Preamble:
    """Decode every leaf and keep none. All rules but E1 for the grid, E2, E5 and E6, which need the terms."""
    header = _open_header(payload, update)
    if header.root != update.payload_root:
        raise PayloadError("digest", "the payload's header does not lead to the root that was signed")
    preamble, base = header.preamble, 0
    starts = header.leaf_starts
    for leaf_index, record in enumerate(header.leaves):
        raw = payload.read(starts[leaf_index], record.byte_length)
        check_leaf(header, leaf_index, raw)
        part = decode_leaf(preamble, leaf_index, raw, base=base)
        if not isinstance(part.at, slice):
            base = int(part.at[-1]) + 1
    return preamble


def _open_header(payload: PayloadSource, update: UpdateStatement) -> Header:
    preamble = parse_preamble(payload.read(0, min(PREAMBLE_BYTES, payload.size)))
    if (preamble.support, preamble.value_type) != (update.format.support, update.format.values):
        raise PayloadError("format", "the payload has another format than the one that was declared")
    if preamble.nonzeros != update.nonzeros:
        raise PayloadError("declared", "the payload has another number of values than was declared")
    raw = payload.read(0, min(preamble.header_bytes, payload.size))
    if preamble.support == "agreed":
        if len(raw) < preamble.preamble_bytes:
            raise PayloadError("length", "the payload ends inside its preamble")
        preamble = replace(preamble, mask_digest=parse_digest(bytes(raw[PREAMBLE_BYTES : preamble.preamble_bytes])))
    return parse_leaf_table(raw, preamble, payload.size)
