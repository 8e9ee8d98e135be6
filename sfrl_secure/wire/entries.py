"""Log entries and envelopes as bytes.

The bytes of an entry are a leaf of the log, so they have one form. An envelope stands inside an entry, inside a
service's statement (the participant's, verbatim) and in requests; it has the same fields and the same rules
everywhere.

Format: proto/README.md, "Entry", "Signatures" and "Canonical form"; proto/sfrl/audit/v1/entry.proto.

Runs in: everything that talks or reads the log, except replay.
Trusts: nothing; no signature is looked at here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sfrl_secure.crypto.envelope import Envelope, Signature
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import ENTRY_BYTES_MAX
from sfrl_secure.translog.entries import LogEntry, LoggedEntry
from sfrl_secure.wire.canonical import (
    build_message,
    encode_canonical,
    parse_canonical,
    take_bytes,
    take_digest,
    take_digests,
    take_number,
)
from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2, entry_pb2

PATH_HASHES_MAX = 63


def encode_entry(entry: LogEntry) -> bytes:
    """Write an entry as the leaf bytes of the log.

    Raises:
        MalformedError: more than 65,535 bytes, no statement, or a value that its field cannot hold.
    """
    envelope = entry.envelope
    message = build_message(
        lambda: entry_pb2.LogEntry(
            prev=take_digest(entry.prev, "prev"),
            log_time_us=entry.log_time_us,
            stream_seq=entry.stream_seq,
            stream_prev=take_digest(entry.stream_prev, "stream_prev"),
            payload_type=envelope.payload_type,
            statement=take_bytes(envelope.statement, "statement", ENTRY_BYTES_MAX),
            signatures=_signature_messages(envelope.signatures),
        )
    )
    raw = encode_canonical(message)
    if len(raw) > ENTRY_BYTES_MAX:
        raise MalformedError(f"an entry is at most {ENTRY_BYTES_MAX} bytes")
    return raw


def parse_entry(raw: bytes) -> LogEntry:
    """Take the bytes of a leaf as an entry; its envelope's content and signatures are not believed.

    Raises:
        MalformedError: not an entry in canonical form.
    """
    message = parse_canonical(entry_pb2.LogEntry, raw, ENTRY_BYTES_MAX)
    return LogEntry(
        prev=take_digest(message.prev, "prev"),
        log_time_us=take_number(message.log_time_us, "log_time_us"),
        stream_seq=message.stream_seq,
        stream_prev=take_digest(message.stream_prev, "stream_prev"),
        envelope=envelope_of(message),
    )


def encode_envelope(envelope: Envelope) -> bytes:
    """Write an envelope in the binary form.

    Raises:
        MalformedError: no statement, or one that no entry could hold.
    """
    return encode_canonical(envelope_message(envelope))


def parse_envelope(raw: bytes, bytes_max: int) -> Envelope:
    """Take the binary form of an envelope; its signatures are not looked at.

    Raises:
        MalformedError: longer than `bytes_max`, or not an envelope in canonical form.
    """
    return envelope_of(parse_canonical(entry_pb2.Envelope, raw, bytes_max))


def envelope_message(envelope: Envelope) -> entry_pb2.Envelope:
    """Return the message of an envelope."""
    return build_message(
        lambda: entry_pb2.Envelope(
            payload_type=envelope.payload_type,
            statement=take_bytes(envelope.statement, "statement", ENTRY_BYTES_MAX),
            signatures=_signature_messages(envelope.signatures),
        )
    )


def envelope_of(message: entry_pb2.Envelope | entry_pb2.LogEntry) -> Envelope:
    """Return the envelope that stands in a message that was parsed canonically.

    Raises:
        MalformedError: a length is wrong, or the number or the order of the signatures.
    """
    return Envelope(
        payload_type=message.payload_type,
        statement=take_bytes(message.statement, "statement", ENTRY_BYTES_MAX),
        # Signature and Envelope know their lengths, the suites and the order.
        signatures=tuple(Signature(Digest(each.key_id), each.suite, each.value) for each in message.signatures),
    )


def logged_entry_message(logged: LoggedEntry) -> audit_service_pb2.LoggedEntry:
    """Return the message of an entry with its place and path."""
    return build_message(lambda: fill_logged_entry(audit_service_pb2.LoggedEntry(), logged))


def fill_logged_entry(
    message: audit_service_pb2.LoggedEntry, logged: LoggedEntry
) -> audit_service_pb2.LoggedEntry:
    """Fill a message within `build_message`: where it is part of another, it need not be made first and copied."""
    message.index = logged.index
    message.entry = logged.raw
    message.path.extend(logged.path)
    return message


def logged_entry_of(message: audit_service_pb2.LoggedEntry, what: str) -> LoggedEntry:
    """Return the entry that a message claims; its bytes are not parsed, its path is not verified.

    Raises:
        MalformedError: a length is wrong.
    """
    return LoggedEntry(
        index=take_index(message.index),
        raw=take_bytes(message.entry, what, ENTRY_BYTES_MAX),
        path=take_digests(message.path, f"the path of {what}", PATH_HASHES_MAX),
    )


def take_index(index: int) -> int:
    """Take a leaf index.

    Raises:
        MalformedError: 2**63 or more.
    """
    if index >= 2**63:  # a tree's size is below 2**63 (RFC 9162 proofs have at most 63 hashes)
        raise MalformedError("a leaf index is below 2**63")
    return index


def _signature_messages(signatures: Sequence[Signature]) -> Iterable[entry_pb2.Signature]:
    return [entry_pb2.Signature(key_id=each.key_id, suite=each.suite, value=each.value) for each in signatures]
