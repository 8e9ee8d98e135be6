"""A segment: one file of the journal, its records in order from one index on.

File: a header of 48 bytes (`SFRLJNL2`, a random key of 16 bytes, index of the first record u64, the header's tag 16),
then batches. A batch is a head of 52 bytes and its body: marker `SFBT`, records u32, body bytes u32, index of the
first record u64, tag of the body 16, tag of the head before it 16. Integers are little endian. Tags are BLAKE2b-128
under the file's key: nobody can put bytes into a record that read as a batch.

A batch begins only after the one before it is on the disk. So what a crash can leave is one broken batch at the very
end of the newest segment, which nobody was told of: it is cut. Any other damage has an authentic head behind it, or
more bytes than a batch can have, or another segment after it: then the journal is refused as a whole, since something
that was acknowledged is lost. Damage to the last batch alone looks like a crash: who opens a journal compares its size
with what was signed and witnessed.

Runs in: audit_log.
Trusts: the disk, as far as it confirmed.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import struct
import weakref
from array import array
from collections.abc import Sequence
from pathlib import Path

from sfrl_secure.errors import MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.storage.batch import BATCH_BYTES_MAX, encode_records, parse_lengths, positions_of
from sfrl_secure.storage.files import SECRET_MODE, write_atomically
from sfrl_secure.storage.system import open_to_append, sync_data, truncate, write_all

SEGMENT_BYTES_MAX = 64 * 1024 * 1024
"""A segment that has reached this takes no further batch."""

_MAGIC = b"SFRLJNL2"
_MARKER = b"SFBT"
_KEY_BYTES = 16
_TAG_BYTES = 16
_HEADER = struct.Struct("<8s16sQ")
_HEADER_BYTES = _HEADER.size + _TAG_BYTES
_HEAD = struct.Struct("<4sIIQ16s")
_HEAD_BYTES = _HEAD.size + _TAG_BYTES
_FILE_BYTES_MAX = SEGMENT_BYTES_MAX + _HEAD_BYTES + BATCH_BYTES_MAX

BATCH_OVERHEAD_BYTES = _HEAD_BYTES
"""Of a batch in a segment, over its records and their lengths."""


class _BrokenBatchError(Exception):
    """The bytes here are no whole batch."""


class Segment:
    """The records of one file. One thread appends; any thread reads records that an append has returned for.

    The file is closed when the last reader has let the segment go, so a reader may hold one that was dropped.

    Attributes:
        path: the file.
        first_index: index of its first record.
        bytes_held: its length.
        cut_bytes: what the opening cut off.
    """

    def __init__(self, path: Path, first_index: int, *, is_newest: bool) -> None:
        """Open a segment and read it whole; of the newest, cut the traces of an interrupted append.

        Raises:
            UncertainStateError: it is damaged, is not the one that its name says, or the disk failed.
        """
        self.path = path
        self.first_index = first_index
        self.bytes_held = 0
        self.cut_bytes = 0
        self._positions = array("Q")
        self._lengths = array("I")
        self._descriptor = open_to_append(path)
        self._closing = weakref.finalize(self, os.close, self._descriptor)
        try:
            self._recover(_read_whole(self._descriptor), is_newest=is_newest)
        except OSError as error:
            self.close()
            raise UncertainStateError("the journal cannot be read") from error
        except BaseException:
            self.close()
            raise

    @staticmethod
    def create(path: Path, first_index: int, batches: Sequence[Sequence[bytes]] = ()) -> None:
        """Make a segment that holds `batches`: there whole and durable under its name, or not at all.

        Raises:
            MalformedError: a batch that no journal can hold.
            ExhaustedError: the disk is full.
            UncertainStateError: the disk failed.
        """
        key = secrets.token_bytes(_KEY_BYTES)
        header = _HEADER.pack(_MAGIC, key, first_index)
        parts = [header, _tag(key, header)]
        for records in batches:
            parts.append(_encode_batch(key, first_index, records))
            first_index += len(records)
        write_atomically(path, b"".join(parts), mode=SECRET_MODE)

    @property
    def end_index(self) -> int:
        """Index behind the last record."""
        return self.first_index + len(self._lengths)

    def append(self, records: Sequence[bytes]) -> None:
        """Append a batch: one write, one sync. After a failure nobody may append again.

        Raises:
            MalformedError: a batch that no journal can hold; nothing was written.
            ExhaustedError, UncertainStateError: part of the batch may be on the disk.
        """
        data = _encode_batch(self._key, self.end_index, records)
        write_all(self._descriptor, data)
        sync_data(self._descriptor)
        self._index(array("I", map(len, records)))
        self.bytes_held += len(data)

    def record(self, index: int) -> bytes:
        """Read one record.

        Raises:
            NotFoundError: there is none at `index`.
            UncertainStateError: the disk gave fewer bytes than it took.
        """
        at = index - self.first_index
        if not 0 <= at < len(self._lengths):
            raise NotFoundError("the journal has no such record")
        length = self._lengths[at]
        try:
            data = os.pread(self._descriptor, length, self._positions[at])
        except OSError as error:
            raise UncertainStateError("the journal cannot be read") from error
        if len(data) != length:
            raise UncertainStateError("the journal is shorter than it was")
        return data

    def close(self) -> None:
        """Close the file; nothing is pending."""
        self._descriptor = -1
        self._closing()

    def _index(self, lengths: array[int]) -> None:
        """Take in the records of a batch whose head begins at `bytes_held`."""
        self._positions.extend(positions_of(lengths, self.bytes_held + _HEAD_BYTES))
        # Last, since `end_index` is read from it by other threads.
        self._lengths.extend(lengths)

    def _recover(self, data: bytes, *, is_newest: bool) -> None:
        self._key = _open_header(data, self.first_index)
        view = memoryview(data)
        self.bytes_held = _HEADER_BYTES
        while self.bytes_held < len(data):
            try:
                lengths, next_position = self._read_batch(view)
            except _BrokenBatchError:
                if not is_newest:
                    raise UncertainStateError("a segment of the journal is damaged, and is not the newest") from None
                self._check_torn(data)
                self.cut_bytes = len(data) - self.bytes_held
                truncate(self._descriptor, self.bytes_held)
                sync_data(self._descriptor)
                break
            self._index(lengths)
            self.bytes_held = next_position

    def _read_batch(self, view: memoryview) -> tuple[array[int], int]:
        body_at = self.bytes_held + _HEAD_BYTES
        head = bytes(view[self.bytes_held:body_at])
        if not _is_authentic(self._key, head):
            raise _BrokenBatchError
        _, count, body_bytes, first, tag = _HEAD.unpack_from(head)
        if first != self.end_index or body_bytes > BATCH_BYTES_MAX:
            # Authentic, and yet not the batch that belongs here: a batch before it was taken out.
            raise UncertainStateError("a batch of the journal is missing")
        body = view[body_at:body_at + body_bytes]
        if len(body) != body_bytes or not hmac.compare_digest(_tag(self._key, body), tag):
            raise _BrokenBatchError
        try:
            return parse_lengths(body, count), body_at + body_bytes
        except MalformedError as error:
            raise UncertainStateError("a batch bears our tag and is none") from error

    def _check_torn(self, data: bytes) -> None:
        """Check that what stands from `bytes_held` on can be one interrupted append and nothing else."""
        if len(data) - self.bytes_held > _HEAD_BYTES + BATCH_BYTES_MAX:
            raise UncertainStateError("the journal is damaged")
        at = data.find(_MARKER, self.bytes_held + 1)
        while at >= 0:
            if _is_authentic(self._key, data[at:at + _HEAD_BYTES]):
                raise UncertainStateError("the journal is damaged before its last batch")
            at = data.find(_MARKER, at + 1)


def _read_whole(descriptor: int) -> bytes:
    length = os.fstat(descriptor).st_size
    if length > _FILE_BYTES_MAX:
        raise UncertainStateError(f"a segment of the journal is longer than {_FILE_BYTES_MAX} bytes")
    data = os.pread(descriptor, length, 0)
    if len(data) != length:
        raise UncertainStateError("a segment of the journal was not read whole")
    return data


def _open_header(data: bytes, first_index: int) -> bytes:
    """Give the key of a segment that begins at `first_index`."""
    if len(data) >= _HEADER_BYTES:
        magic, key, first = _HEADER.unpack_from(data)
        if (
            magic == _MAGIC
            and hmac.compare_digest(_tag(key, data[:_HEADER.size]), data[_HEADER.size:_HEADER_BYTES])
            and first == first_index
        ):
            assert isinstance(key, bytes)
            return key
    raise UncertainStateError("a file is not the segment of a journal that its name says, or its header is damaged")


def _tag(key: bytes, data: bytes | memoryview) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=_TAG_BYTES).digest()


def _is_authentic(key: bytes, head: bytes) -> bool:
    return (
        len(head) == _HEAD_BYTES
        and head.startswith(_MARKER)
        and hmac.compare_digest(_tag(key, head[:_HEAD.size]), head[_HEAD.size:])
    )


def _encode_batch(key: bytes, first_index: int, records: Sequence[bytes]) -> bytes:
    body = encode_records(records)
    head = _HEAD.pack(_MARKER, len(records), len(body), first_index, _tag(key, body))
    return b"".join((head, _tag(key, head), body))
