"""The journal: an append-only file of records, one write and one sync a batch.

File: a header of 40 bytes (`SFRLJNL1`, a random key of 16 bytes, the header's tag), then batches. A batch is a head
of 52 bytes and its body: marker `SFBT`, records u32, body bytes u32, index of the first record u64, tag of the body
16, tag of the head before it 16; the body is each record behind its u32 length. Tags are BLAKE2b-128 under the file's
key: nobody can put bytes into a record that read as a batch.

A batch begins only after the one before it is on the disk. So what a crash can leave is one broken batch at the very
end, which nobody was told of: it is cut. Any other damage has an authentic head behind it, or more bytes than a batch
can have: then the journal is refused as a whole, since something that was acknowledged is lost. Damage to the last
batch alone looks like a crash: who opens a journal compares its size with what was signed and witnessed.

Runs in: audit_log.
Trusts: the disk, as far as it confirmed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import struct
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

from sfrl_secure.errors import ExhaustedError, MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.limits import ENTRY_BYTES_MAX
from sfrl_secure.storage.files import SECRET_MODE, write_new
from sfrl_secure.storage.system import sync_data, write_all

BATCH_RECORDS_MAX = 256
"""Records of one batch."""

_MAGIC = b"SFRLJNL1"
_MARKER = b"SFBT"
_KEY_BYTES = 16
_TAG_BYTES = 16
_HEADER_BYTES = len(_MAGIC) + _KEY_BYTES + _TAG_BYTES
_HEAD = struct.Struct("<4sIIQ16s")
_HEAD_BYTES = _HEAD.size + _TAG_BYTES
_LENGTH = struct.Struct("<I")
_BODY_BYTES_MAX = BATCH_RECORDS_MAX * (_LENGTH.size + ENTRY_BYTES_MAX)


class _BrokenBatchError(Exception):
    """The bytes here are no whole batch."""


class Journal:
    """Records in order, the first at index 0.

    One thread appends; any thread reads records that an append has returned for.

    Attributes:
        cut_bytes: what the opening cut off: the traces of an append that a crash interrupted.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal and read it whole; cut the traces of an interrupted append.

        Raises:
            NotFoundError: there is no journal.
            UncertainStateError: it is damaged, or the disk failed.
        """
        self._positions = array("Q")
        self._lengths = array("I")
        self._dead = False
        self.cut_bytes = 0
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFoundError("there is no journal") from None
        except OSError as error:
            raise UncertainStateError("the journal cannot be opened") from error
        try:
            self._key = self._read_header()
            self._end = self._recover()
        except OSError as error:
            self.close()
            raise UncertainStateError("the journal cannot be read") from error
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, path: Path, batches: Sequence[Sequence[bytes]] = ()) -> None:
        """Make a journal that holds `batches`; never replace one.

        It is there whole and durable, or not at all.

        Raises:
            UncertainStateError: there is a journal already, or the disk failed.
            ExhaustedError: the disk is full.
        """
        key = secrets.token_bytes(_KEY_BYTES)
        parts = [_MAGIC + key + _tag(key, _MAGIC)]
        count = 0
        for records in batches:
            parts.append(_encode_batch(key, count, records))
            count += len(records)
        write_new(path, b"".join(parts), mode=SECRET_MODE)

    @property
    def count(self) -> int:
        """Records in the journal, all durable."""
        return len(self._lengths)

    def append_batch(self, records: Sequence[bytes]) -> None:
        """Append records, 1 to `BATCH_RECORDS_MAX`: one write, one sync. They are durable when this returns.

        Raises:
            UncertainStateError: the disk did not confirm, now or earlier: the journal takes nothing more.
        """
        if self._dead:
            raise UncertainStateError("the journal has failed before")
        data = _encode_batch(self._key, self.count, records)
        try:
            write_all(self._descriptor, data)
            sync_data(self._descriptor)
        except (ExhaustedError, UncertainStateError) as error:
            # Part of the batch may be on the disk: only a new start can tell.
            self._dead = True
            raise UncertainStateError("a batch could not be made durable") from error
        self._index(self._end + _HEAD_BYTES, records)
        self._end += len(data)

    def record(self, index: int) -> bytes:
        """Read one record.

        Raises:
            NotFoundError: there is none at `index`.
            UncertainStateError: the disk gave other bytes than it took.
        """
        if not 0 <= index < self.count:
            raise NotFoundError("the journal has no such record")
        length = self._lengths[index]
        try:
            data = os.pread(self._descriptor, length, self._positions[index])
        except OSError as error:
            raise UncertainStateError("the journal cannot be read") from error
        if len(data) != length:
            raise UncertainStateError("the journal is shorter than it was")
        return data

    def records(self, first: int = 0) -> Iterator[bytes]:
        """Read the records from `first` to what is now the last."""
        for index in range(first, self.count):
            yield self.record(index)

    def close(self) -> None:
        """Close the file; nothing is pending."""
        self._dead = True
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _index(self, position: int, records: Sequence[bytes]) -> None:
        for record in records:
            self._positions.append(position + _LENGTH.size)
            # Last, since `count` is read from it by other threads.
            self._lengths.append(len(record))
            position += _LENGTH.size + len(record)

    def _read_header(self) -> bytes:
        header = os.pread(self._descriptor, _HEADER_BYTES, 0)
        key = header[len(_MAGIC):len(_MAGIC) + _KEY_BYTES]
        if header[:len(_MAGIC)] != _MAGIC or header[len(_MAGIC) + _KEY_BYTES:] != _tag(key, _MAGIC):
            raise UncertainStateError("the file is no journal, or its header is damaged")
        return key

    def _recover(self) -> int:
        length = os.fstat(self._descriptor).st_size
        position = _HEADER_BYTES
        while position < length:
            try:
                records, next_position = self._read_batch(position)
            except _BrokenBatchError:
                self._check_torn(position, length)
                self.cut_bytes = length - position
                os.ftruncate(self._descriptor, position)
                os.fsync(self._descriptor)
                break
            self._index(position + _HEAD_BYTES, records)
            position = next_position
        os.lseek(self._descriptor, position, os.SEEK_SET)
        return position

    def _read_batch(self, position: int) -> tuple[list[bytes], int]:
        head = os.pread(self._descriptor, _HEAD_BYTES, position)
        if not _is_authentic(self._key, head):
            raise _BrokenBatchError
        _, count, body_bytes, first, tag = _HEAD.unpack_from(head)
        if first != self.count or body_bytes > _BODY_BYTES_MAX:
            # Authentic, and yet not the batch that belongs here: a batch before it was taken out.
            raise UncertainStateError("a batch of the journal is missing")
        body = os.pread(self._descriptor, body_bytes, position + _HEAD_BYTES)
        if len(body) != body_bytes or not hmac.compare_digest(_tag(self._key, body), tag):
            raise _BrokenBatchError
        return _split(body, count), position + _HEAD_BYTES + body_bytes

    def _check_torn(self, position: int, length: int) -> None:
        """Check that what stands from `position` on can be one interrupted append and nothing else."""
        if length - position > _HEAD_BYTES + _BODY_BYTES_MAX:
            raise UncertainStateError("the journal is damaged")
        rest = os.pread(self._descriptor, length - position, position)
        at = rest.find(_MARKER, 1)
        while at >= 0:
            if _is_authentic(self._key, rest[at:at + _HEAD_BYTES]):
                raise UncertainStateError("the journal is damaged before its last batch")
            at = rest.find(_MARKER, at + 1)


def _tag(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=_TAG_BYTES).digest()


def _is_authentic(key: bytes, head: bytes) -> bool:
    return (
        len(head) == _HEAD_BYTES
        and head.startswith(_MARKER)
        and hmac.compare_digest(_tag(key, head[:_HEAD.size]), head[_HEAD.size:])
    )


def _encode_batch(key: bytes, first: int, records: Sequence[bytes]) -> bytes:
    if not 1 <= len(records) <= BATCH_RECORDS_MAX:
        raise MalformedError(f"a batch has 1 to {BATCH_RECORDS_MAX} records")
    if any(len(record) > ENTRY_BYTES_MAX for record in records):
        raise MalformedError(f"a record is at most {ENTRY_BYTES_MAX} bytes")
    body = b"".join(_LENGTH.pack(len(record)) + record for record in records)
    head = _HEAD.pack(_MARKER, len(records), len(body), first, _tag(key, body))
    return head + _tag(key, head) + body


def _split(body: bytes, count: int) -> list[bytes]:
    records: list[bytes] = []
    at = 0
    while at < len(body):
        (length,) = _LENGTH.unpack_from(body, at)
        records.append(body[at + _LENGTH.size:at + _LENGTH.size + length])
        at += _LENGTH.size + length
    assert (at, len(records)) == (len(body), count), "the body bears our tag: it is as it was written"
    return records
