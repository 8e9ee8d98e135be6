"""The audit log's service: its methods, and the messages of AppendEntry and FollowLog.

The other methods' messages: `append_entries`, `log_reads`.

What the log takes is canonical as a whole, so that what was hashed, counted and parsed are the same bytes. Answers
may carry fields that this version does not know; the bytes inside them (entries, notes) are checked by whoever reads
them.

Format: proto/sfrl/audit/v1/audit_service.proto.

Runs in: audit_log (one side), gatekeeper, aggregator, verifier, operators and auditors (the other).
Trusts: nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import ENTRY_BYTES_MAX, FOLLOW_BYTES_MAX, MESSAGE_BYTES_MAX, NOTE_BYTES_MAX
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.canonical import (
    build_message,
    encode_canonical,
    parse_canonical,
    parse_message,
    take_bytes,
)
from sfrl_secure.wire.entries import (
    envelope_message,
    envelope_of,
    logged_entry_message,
    logged_entry_of,
    take_index,
)
from sfrl_secure.wire.gen.sfrl.audit.v1 import audit_service_pb2

SERVICE = audit_service_pb2.DESCRIPTOR.services_by_name["AuditLogService"].full_name
APPEND_ENTRY = f"/{SERVICE}/AppendEntry"
APPEND_ENTRIES = f"/{SERVICE}/AppendEntries"
STREAM_ENTRIES = f"/{SERVICE}/StreamEntries"
FOLLOW_LOG = f"/{SERVICE}/FollowLog"
PROVE_ENTRIES = f"/{SERVICE}/ProveEntries"
READ_ENTRY_BUNDLE = f"/{SERVICE}/ReadEntryBundle"

_REQUEST_BYTES_MAX = ENTRY_BYTES_MAX + 1_024
_FOLLOW_REQUEST_BYTES_MAX = 64


@dataclass(frozen=True, slots=True)
class AppendedEntry:
    """Receipt A: an entry, its place, and a checkpoint under the log's keys that its path leads to. Not verified."""

    logged: LoggedEntry
    checkpoint: bytes


@dataclass(frozen=True, slots=True)
class FollowBatch:
    """Some entries in order, a signed note, or both; neither is a heartbeat.

    Attributes:
        first_index: leaf index of `entries[0]`; 0 where there are none.
        entries: at most 1 MiB together.
        checkpoint: under the log's keys where entries come with it, under the quorum where none do; may be empty.
    """

    first_index: int
    entries: tuple[bytes, ...]
    checkpoint: bytes

    @property
    def is_heartbeat(self) -> bool:
        """Whether it says only that there is nothing new."""
        return not self.entries and not self.checkpoint


HEARTBEAT = FollowBatch(0, (), b"")
"""All entries that the log had a moment ago were sent."""


def encode_append_request(envelope: Envelope) -> bytes:
    """Write the request that appends one envelope."""
    return encode_canonical(audit_service_pb2.AppendEntryRequest(envelope=envelope_message(envelope)))


def parse_append_request(raw: bytes) -> Envelope:
    """Take the envelope that shall be appended.

    Raises:
        MalformedError: not a request in canonical form.
    """
    message = parse_canonical(audit_service_pb2.AppendEntryRequest, raw, _REQUEST_BYTES_MAX)
    return envelope_of(message.envelope)


def encode_append_response(appended: AppendedEntry) -> bytes:
    """Write receipt A."""
    return encode_canonical(
        build_message(
            lambda: audit_service_pb2.AppendEntryResponse(
                logged=logged_entry_message(appended.logged), checkpoint=appended.checkpoint
            )
        )
    )


def parse_append_response(raw: bytes) -> AppendedEntry:
    """Take receipt A; the caller verifies it.

    Raises:
        MalformedError: not an answer of that form.
    """
    message = parse_message(audit_service_pb2.AppendEntryResponse, raw, MESSAGE_BYTES_MAX)
    return AppendedEntry(
        logged=logged_entry_of(message.logged, "the entry"),
        checkpoint=take_bytes(message.checkpoint, "a checkpoint", NOTE_BYTES_MAX),
    )


def encode_follow_request(first_index: int) -> bytes:
    """Write the request that follows the log from an index on."""
    return encode_canonical(build_message(lambda: audit_service_pb2.FollowLogRequest(first_index=first_index)))


def parse_follow_request(raw: bytes) -> int:
    """Take the index from which somebody wants to follow.

    Raises:
        MalformedError: not a request in canonical form.
    """
    message = parse_canonical(audit_service_pb2.FollowLogRequest, raw, _FOLLOW_REQUEST_BYTES_MAX)
    return take_index(message.first_index)


def encode_follow_response(batch: FollowBatch) -> bytes:
    """Write one message of FollowLog.

    Raises:
        MalformedError: more than `FOLLOW_BYTES_MAX` of entries, an empty one, or a note over its bound.
    """
    _check_batch(batch.entries, batch.checkpoint)
    return encode_canonical(
        build_message(
            lambda: audit_service_pb2.FollowLogResponse(
                first_index=batch.first_index, entries=batch.entries, checkpoint=batch.checkpoint
            )
        )
    )


def parse_follow_response(raw: bytes) -> FollowBatch:
    """Take one message of FollowLog; entries and note are not parsed.

    Raises:
        MalformedError: not an answer of that form.
    """
    message = parse_message(audit_service_pb2.FollowLogResponse, raw, MESSAGE_BYTES_MAX)
    entries = tuple(message.entries)
    _check_batch(entries, message.checkpoint)
    return FollowBatch(take_index(message.first_index), entries, message.checkpoint)


def _check_batch(entries: tuple[bytes, ...], checkpoint: bytes) -> None:
    if len(checkpoint) > NOTE_BYTES_MAX:
        raise MalformedError(f"a signed note is at most {NOTE_BYTES_MAX} bytes")
    if sum(map(len, entries)) > FOLLOW_BYTES_MAX:
        raise MalformedError(f"the entries of one message are at most {FOLLOW_BYTES_MAX} bytes together")
    if not all(0 < len(entry) <= ENTRY_BYTES_MAX for entry in entries):
        raise MalformedError(f"an entry is 1 to {ENTRY_BYTES_MAX} bytes")
