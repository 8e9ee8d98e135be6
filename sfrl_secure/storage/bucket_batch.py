"""A batch of the journal as one object of a bucket.

Object: `SFRLBAT1`, the run of the process that wrote it (16 random bytes), index of the first record u64, records u32,
a byte that is 1 for a fence, SHA-256 of all before it and of the records behind it, the records. Integers are little
endian. The SHA-256 finds damage; it is no signature: who may write to the bucket may write a journal.

Runs in: audit_log.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from sfrl_secure.errors import MalformedError
from sfrl_secure.storage.batch import LENGTH_BYTES, encode_records, parse_lengths, positions_of

RUN_BYTES = 16

BATCH_OBJECT_BYTES_MAX = 64 * 1024 * 1024
"""One object. Only the first one of a log holds more than one batch."""

_MAGIC = b"SFRLBAT1"
_HEAD = struct.Struct("<8s16sQIB")
_HASH_BYTES = 32
_BODY_AT = _HEAD.size + _HASH_BYTES


@dataclass(frozen=True, slots=True)
class BatchObject:
    """What an object says.

    Attributes:
        first_index: index of its first record.
        is_fence: the first that its writer wrote since it opened the log: its name stays taken for good.
        records: one or more.
    """

    first_index: int
    is_fence: bool
    records: tuple[bytes, ...]


def encode_batch_object(
    run: bytes, first_index: int, batches: Sequence[Sequence[bytes]], *, is_fence: bool
) -> bytes:
    """Put batches into one object.

    Raises:
        MalformedError: none, one that no journal can hold, or more than `BATCH_OBJECT_BYTES_MAX`.
    """
    if not batches:
        raise MalformedError("a log begins with one entry or more")
    body = b"".join(encode_records(records) for records in batches)
    head = _HEAD.pack(_MAGIC, run, first_index, sum(map(len, batches)), is_fence)
    if _BODY_AT + len(body) > BATCH_OBJECT_BYTES_MAX:
        raise MalformedError(f"an object of the journal is at most {BATCH_OBJECT_BYTES_MAX} bytes")
    return head + _hash(head, body) + body


def parse_batch_object(raw: bytes) -> BatchObject:
    """Read an object.

    Raises:
        MalformedError: not one, or damaged.
    """
    if len(raw) < _BODY_AT or not raw.startswith(_MAGIC):
        raise MalformedError("not a batch of a journal")
    head, body = raw[:_HEAD.size], memoryview(raw)[_BODY_AT:]
    _, _, first_index, count, fence = _HEAD.unpack(head)
    if raw[_HEAD.size:_BODY_AT] != _hash(head, body):
        raise MalformedError("a batch of the journal is damaged")
    if fence > 1 or count > len(body) // LENGTH_BYTES:
        raise MalformedError("a batch's records and their count do not agree")
    lengths = parse_lengths(body, count)
    places = zip(positions_of(lengths, 0), lengths, strict=True)
    return BatchObject(first_index, fence == 1, tuple(bytes(body[at:at + length]) for at, length in places))


def _hash(head: bytes, body: bytes | memoryview) -> bytes:
    hashed = hashlib.sha256(head)
    hashed.update(body)
    return hashed.digest()
