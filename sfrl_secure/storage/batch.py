"""Batches of records: what is appended to a journal at once.

As bytes, each record stands behind its u32 length (little endian). The count is kept beside them, in the journal's
own head, as is what says that the bytes are whole.

Runs in: audit_log.
Trusts: nothing.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator, Sequence

from sfrl_secure.errors import MalformedError
from sfrl_secure.limits import ENTRY_BYTES_MAX

BATCH_RECORDS_MAX = 256
"""Records of one batch."""

LENGTH_BYTES = 4
"""Before each record."""

BATCH_BYTES_MAX = BATCH_RECORDS_MAX * (LENGTH_BYTES + ENTRY_BYTES_MAX)
"""The records of one batch, each behind its length."""

_LENGTH = struct.Struct("<I")


def encode_records(records: Sequence[bytes]) -> bytes:
    """Put the records of one batch behind one another, each behind its length.

    Raises:
        MalformedError: none, more than `BATCH_RECORDS_MAX`, or one longer than `ENTRY_BYTES_MAX`.
    """
    if not 1 <= len(records) <= BATCH_RECORDS_MAX:
        raise MalformedError(f"a batch has 1 to {BATCH_RECORDS_MAX} records")
    parts: list[bytes] = []
    for record in records:
        if len(record) > ENTRY_BYTES_MAX:
            raise MalformedError(f"a record is at most {ENTRY_BYTES_MAX} bytes")
        parts += (_LENGTH.pack(len(record)), record)
    return b"".join(parts)


def parse_lengths(data: bytes | memoryview, count: int) -> array[int]:
    """Give the lengths of `count` records, of one batch or of several behind one another.

    Raises:
        MalformedError: `data` is not exactly so many records, each behind its length; or there is none.
    """
    lengths = array("I")
    at, end = 0, len(data)
    while at < end and len(lengths) < count:
        if at + LENGTH_BYTES > end:
            break
        (length,) = _LENGTH.unpack_from(data, at)
        lengths.append(length)
        at += LENGTH_BYTES + length
    if at != end or len(lengths) != count or not count:
        raise MalformedError("a batch's records and their count do not agree")
    return lengths


def positions_of(lengths: Iterable[int], start: int) -> Iterator[int]:
    """Give where each record begins, in a batch whose bytes begin at `start`."""
    at = start
    for length in lengths:
        yield at + LENGTH_BYTES
        at += LENGTH_BYTES + length
