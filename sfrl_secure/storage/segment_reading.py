"""Segments of a journal, read and never changed: for whoever looks at a log that another process may own.

A second reading of the format that `segment` describes and writes; it shares no code with it. One batch is in memory at
a time. What the newest segment has behind its last whole batch is counted and left: it may be an append in progress.

Runs in: the log's own machine, in `sfrl audit fsck`.
Trusts: nothing; the tags in a segment tell damage, and not who wrote it.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError
from sfrl_secure.storage.batch import BATCH_BYTES_MAX, parse_lengths, positions_of

_NAME = re.compile(r"[0-9]{20}")
_MAGIC = b"SFRLJNL2"
_MARKER = b"SFBT"
_HEADER = struct.Struct("<8s16sQ16s")
_HEAD = struct.Struct("<4sIIQ16s16s")
_TAG_BYTES = 16


class JournalReading:
    """Reads the records of a journal in order.

    Attributes:
        first_index: index of its first record.
        end_index: index behind the last record that was read so far.
        torn_bytes: behind the last whole batch; known when all was read.
    """

    def __init__(self, folder: Path) -> None:
        """Look at the names of the segments.

        Raises:
            NotFoundError: the folder holds no segment.
        """
        try:
            names = sorted(name for name in os.listdir(folder) if _NAME.fullmatch(name))
        except OSError:
            names = []
        if not names:
            raise NotFoundError("the folder holds no segment of a journal")
        self._paths = [folder / name for name in names]
        self.first_index = self.end_index = int(names[0])
        self.torn_bytes = 0

    def records(self) -> Iterator[bytes]:
        """Read all records, from `first_index` on.

        Raises:
            MalformedError: a segment is damaged, or one is missing before the newest; names it.
            MissingEvidenceError: one cannot be read.
        """
        for path in self._paths:
            try:
                if int(path.name) != self.end_index:
                    raise MalformedError(f"entries from {self.end_index} on are in no segment before it")
                with path.open("rb") as file:
                    yield from self._read(file.fileno(), is_newest=path == self._paths[-1])
            except OSError as error:
                raise MissingEvidenceError(f"segment {path.name} cannot be read") from error
            except MalformedError as error:
                raise MalformedError(f"segment {path.name}: {error}") from None

    def _read(self, descriptor: int, *, is_newest: bool) -> Iterator[bytes]:
        header = os.pread(descriptor, _HEADER.size, 0)
        if len(header) != _HEADER.size:
            raise MalformedError("the header is cut off")
        magic, key, first_index, tag = _HEADER.unpack(header)
        if magic != _MAGIC or tag != _tag(key, header[:-_TAG_BYTES]) or first_index != self.end_index:
            raise MalformedError("the header is damaged, or another segment's")
        at = _HEADER.size
        while True:
            body = self._read_batch(descriptor, key, at)
            if body is None:
                break
            count, raw = body
            lengths = parse_lengths(raw, count)
            for begin, length in zip(positions_of(lengths, 0), lengths, strict=True):
                self.end_index += 1
                yield raw[begin : begin + length]
            at += _HEAD.size + len(raw)
        left = os.fstat(descriptor).st_size - at
        if left > 0 and not is_newest:
            raise MalformedError("a batch is damaged")
        if left > _HEAD.size + BATCH_BYTES_MAX or self._has_batch_behind(descriptor, key, at):
            raise MalformedError("a batch is damaged, and others follow it")
        self.torn_bytes = max(left, 0)

    def _read_batch(self, descriptor: int, key: bytes, at: int) -> tuple[int, bytes] | None:
        """The batch at a position; None where none is whole there."""
        head = os.pread(descriptor, _HEAD.size, at)
        if not _is_authentic(key, head):
            return None
        _, count, body_bytes, first_index, body_tag, _ = _HEAD.unpack(head)
        if first_index != self.end_index or body_bytes > BATCH_BYTES_MAX:
            raise MalformedError("a batch is missing")
        body = os.pread(descriptor, body_bytes, at + _HEAD.size)
        return (count, body) if len(body) == body_bytes and _tag(key, body) == body_tag else None

    def _has_batch_behind(self, descriptor: int, key: bytes, at: int) -> bool:
        rest = os.pread(descriptor, _HEAD.size + BATCH_BYTES_MAX, at)
        found = rest.find(_MARKER, 1)
        while found >= 0:
            if _is_authentic(key, rest[found : found + _HEAD.size]):
                return True
            found = rest.find(_MARKER, found + 1)
        return False


def _is_authentic(key: bytes, head: bytes) -> bool:
    return len(head) == _HEAD.size and head.startswith(_MARKER) and _tag(key, head[:-_TAG_BYTES]) == head[-_TAG_BYTES:]


def _tag(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(data, key=key, digest_size=_TAG_BYTES).digest()
