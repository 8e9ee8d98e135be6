"""Uploads in a bucket: parts of a call's own, each an object that is made once and never changed.

Object: `<upload, 64 hex digits>/<16 random hex digits, the call's>/<offset, 16 hex digits>`. A part is put
when 1 MiB has come, or when the call is asked for what is durable. Nothing tells whether a call still lives, so that
another one may remove its parts when it commits or discards: then they are not found, and the call ends.

Runs in: gatekeeper.
Trusts: the store, as far as it confirmed; nothing that an object holds.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from threading import BoundedSemaphore

from sfrl_secure.errors import (
    DigestError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    UnavailableError,
)
from sfrl_secure.ids import Digest
from sfrl_secure.storage.bucket import Bucket
from sfrl_secure.storage.objects import BucketObjects, Objects
from sfrl_secure.storage.uploads import Upload

PART_BYTES = 1024 * 1024
"""A part has at least so many bytes where the sender is fast."""

_PART_BYTES_MAX = 2 * PART_BYTES
_COMMITS_AT_ONCE = 2
_REMOVED_AT_ONCE = 1_000
_NAME = re.compile(r"([0-9a-f]{64})/([0-9a-f]{16})/([0-9a-f]{16})")
_OF_UPLOAD = re.compile(r"([0-9a-f]{16})/([0-9a-f]{16})")

_Parts = list[tuple[str, int]]
"""Parts of one call in order: the name of each below the upload's, and its length."""


class BucketUploads:
    """The uploads below one prefix of a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        """Use `bucket`, a prefix of which nothing else is below."""
        self._bucket = bucket
        # A commit has some parts of 5 MiB in memory, whatever else is going on.
        self._commits = BoundedSemaphore(_COMMITS_AT_ONCE)

    def begin(self, name: Digest, payload_bytes: int) -> BucketUpload:
        """Begin, or go on with, an upload.

        Raises:
            MissingEvidenceError: the store does not list its parts.
        """
        return BucketUpload(self._bucket.folder(name.hex()), payload_bytes, self._commits)

    def sweep(self, older_than_us: int) -> int:
        """Remove the parts of each call whose newest part was put before this time; give how many calls that were.

        Raises:
            MissingEvidenceError: the store does not list them.
            UncertainStateError: the store did not confirm.
        """
        newest: dict[str, int] = {}
        names: dict[str, list[str]] = {}
        for name, made_us in self._bucket.ages(""):
            if _NAME.fullmatch(name) is None:
                continue
            call = name.rpartition("/")[0]
            newest[call] = max(newest.get(call, 0), made_us)
            names.setdefault(call, []).append(name)
        old = [call for call, made_us in newest.items() if made_us < older_than_us]
        for call in old:
            _remove(self._bucket, names[call])
        return len(old)


class BucketUpload(Upload):
    """One call's parts."""

    def __init__(self, bucket: Bucket, payload_bytes: int, commits: BoundedSemaphore) -> None:
        """Look for the longest remainder; put nothing yet."""
        super().__init__(payload_bytes)
        self._bucket = bucket
        self._commits = commits
        self._call = secrets.token_hex(8)
        self._parts: _Parts = []
        self._buffer = bytearray()
        self._durable = 0
        self._source = _longest(bucket, payload_bytes)
        self.held = sum(length for _, length in self._source)

    def take_over(self) -> Iterator[bytes]:
        """Copy the remainder's parts, and remove them once the copies are durable."""
        assert not self.received, "what was left comes first"
        for name, length in self._source:
            try:
                data = self._bucket.read(name, length)
            except (NotFoundError, MalformedError):
                data = b""
            if len(data) != length:
                raise MissingEvidenceError("what an earlier call left is not there any more")
            self._take(data)
            yield data
        self.sync()
        _remove(self._bucket, [name for name, _ in self._source])

    def sync(self) -> int:
        """Put what has come as a part."""
        if self._buffer:
            name = f"{self._call}/{self._durable:016x}"
            data = bytes(self._buffer)
            if not self._bucket.create(name, data):
                raise UnavailableError("a part of this name is there already: try again")
            self._parts.append((name, len(data)))
            self._durable += len(data)
            self._buffer.clear()
        return self._durable

    def _append(self, data: bytes | memoryview) -> None:
        for at in range(0, len(data), PART_BYTES):
            self._buffer += data[at : at + PART_BYTES]
            if len(self._buffer) >= PART_BYTES:
                self.sync()

    def _commit(self, objects: Objects, digest: Digest) -> None:
        self.sync()
        assert isinstance(objects, BucketObjects), "uploads of a bucket become objects of a bucket"
        with self._commits:
            try:
                objects.put_parts(self._read_parts(), digest)
            except NotFoundError:
                self._check_stored(objects, digest)
        _remove(self._bucket, [name for name, _ in self._bucket.sizes("") if _OF_UPLOAD.fullmatch(name)])

    def _read_parts(self) -> Iterator[bytes]:
        for name, length in self._parts:
            data = self._bucket.read(name, length)
            if len(data) != length:
                raise MissingEvidenceError("a part has another length than the one that was put")
            yield data

    def _check_stored(self, objects: Objects, digest: Digest) -> None:
        """Another call removed our parts: its commit put the object, or the upload was discarded."""
        try:
            with objects.open(digest, self._payload_bytes) as reader:
                reader.check_digest()
        except (NotFoundError, MalformedError, DigestError):
            raise UnavailableError("another call forgot what was ours: try again") from None

    def _discard(self) -> None:
        self._buffer.clear()
        _remove(self._bucket, [name for name, _ in self._bucket.sizes("") if _OF_UPLOAD.fullmatch(name)])

    def _leave(self) -> None:
        # A copy that was not finished is worth no more than what it was made from.
        if self._durable < self.held:
            _remove(self._bucket, [name for name, _ in self._parts])


def _longest(bucket: Bucket, payload_bytes: int) -> _Parts:
    """The parts of the call that put the most, from the beginning on and without a gap."""
    found: dict[str, dict[int, int]] = {}
    for name, length in bucket.sizes(""):
        matched = _OF_UPLOAD.fullmatch(name)
        if matched is not None and 0 < length <= _PART_BYTES_MAX:
            found.setdefault(matched[1], {})[int(matched[2], 16)] = length
    best: _Parts = []
    best_bytes = 0
    for call, lengths in found.items():
        parts: _Parts = []
        at = 0
        while at in lengths:
            parts.append((f"{call}/{at:016x}", lengths[at]))
            at += lengths[at]
        if best_bytes < at <= payload_bytes:
            best, best_bytes = parts, at
    return best


def _remove(bucket: Bucket, names: list[str]) -> None:
    for first in range(0, len(names), _REMOVED_AT_ONCE):
        bucket.remove(names[first : first + _REMOVED_AT_ONCE])
