"""Reading an object a piece at a time: what is long is never in memory as a whole.

Opening one hashes nothing. Who gives its bytes to somebody who will not hash them himself calls `check_digest` first.

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing that a file or an object of a bucket holds.
"""

from __future__ import annotations

import hashlib
import os
import stat
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import TYPE_CHECKING, Self

from sfrl_secure.errors import DigestError, MalformedError, MissingEvidenceError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import CHUNK_BYTES_MAX
from sfrl_secure.storage.files import open_to_read

if TYPE_CHECKING:
    from sfrl_secure.storage.bucket import Bucket


class HashedObjects:
    """Which objects were hashed and had their digest, as they are: the newest of them, in memory. Any thread."""

    def __init__(self, objects_max: int = 4_096) -> None:
        self._max = objects_max
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._lock = Lock()

    def holds(self, version: Hashable) -> bool:
        """Whether this very version of an object was hashed."""
        with self._lock:
            return version in self._seen

    def add(self, version: Hashable) -> None:
        """Remember a version that was hashed."""
        with self._lock:
            self._seen[version] = None
            if len(self._seen) > self._max:
                self._seen.popitem(last=False)


class ObjectReader(ABC):
    """An object that is open. For one thread; a context manager.

    Attributes:
        size: its length in bytes, as it was opened.
    """

    size: int

    def __init__(self, digest: Digest, size: int, hashed: HashedObjects) -> None:
        self.size = size
        self._digest = digest
        self._hashed = hashed

    def read(self, offset: int, length: int) -> bytes:
        """Read `length` bytes from `offset` on, and no more.

        Raises:
            MalformedError: the object does not have them.
            MissingEvidenceError: they cannot be read.
        """
        if offset < 0 or length < 0 or offset + length > self.size:
            raise MalformedError("the object is shorter")
        return self._read(offset, length) if length else b""

    def chunks(
        self, offset: int = 0, length: int | None = None, chunk_bytes: int = CHUNK_BYTES_MAX
    ) -> Iterator[bytes]:
        """Read from `offset` on, `chunk_bytes` at a time: `length` bytes, or to the end.

        Raises:
            MalformedError, MissingEvidenceError: as `read`, when it comes to that chunk.
        """
        end = self.size if length is None else offset + length
        for start in range(offset, end, chunk_bytes):
            yield self.read(start, min(chunk_bytes, end - start))

    def check_digest(self) -> None:
        """Check that the object is what its name says. It is read through once, and remembered as it is.

        Raises:
            DigestError: its bytes have another digest.
            MissingEvidenceError: it cannot be read, or was changed meanwhile.
        """
        version = self._version()
        if version is not None and self._hashed.holds((self._digest, version)):
            return
        found = hashlib.sha256()
        for chunk in self.chunks():
            found.update(chunk)
        if found.digest() != self._digest:
            raise DigestError("an object's bytes are not what its name says")
        if self._version() != version:
            raise MissingEvidenceError("an object was changed while it was read")
        if version is not None:
            self._hashed.add((self._digest, version))

    @abstractmethod
    def let_pass(self) -> None:
        """Say that nobody reads it soon again: when it is closed, the system need not keep it in memory."""

    @abstractmethod
    def close(self) -> None:
        """Read no more."""

    @abstractmethod
    def _read(self, offset: int, length: int) -> bytes:
        """Read at least one byte that the object had when it was opened."""

    @abstractmethod
    def _version(self) -> Hashable | None:
        """What changes with the bytes; None where nothing tells."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class FileReader(ObjectReader):
    """An object that is a file."""

    def __init__(self, path: Path, digest: Digest, bytes_max: int, hashed: HashedObjects) -> None:
        """Open it.

        Raises:
            NotFoundError, MalformedError, MissingEvidenceError: as `read_bounded`.
        """
        self._passes = False
        self._descriptor = open_to_read(path)
        status = os.fstat(self._descriptor)
        super().__init__(digest, status.st_size, hashed)
        if not stat.S_ISREG(status.st_mode) or self.size > bytes_max:
            self.close()
            raise MalformedError(f"not a regular file of at most {bytes_max} bytes")

    def let_pass(self) -> None:
        """Have the file's pages given back when it is closed; those that are not on the disk yet stay."""
        self._passes = True

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            if self._passes and hasattr(os, "posix_fadvise"):
                # Advice, and no more: where it is not taken, nothing is lost.
                with suppress(OSError):
                    os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self, offset: int, length: int) -> bytes:
        parts: list[bytes] = []
        try:
            while length and (part := os.pread(self._descriptor, length, offset)):
                parts.append(part)
                offset += len(part)
                length -= len(part)
        except OSError as error:
            raise MissingEvidenceError("a file cannot be read") from error
        if length:
            raise MissingEvidenceError("a file was cut while it was read")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _version(self) -> Hashable:
        status = os.fstat(self._descriptor)
        # The time of the last change cannot be put back, as that of the last write can.
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class BucketReader(ObjectReader):
    """An object of a bucket. Each piece is asked of the version that was opened."""

    def __init__(self, bucket: Bucket, name: str, digest: Digest, bytes_max: int, hashed: HashedObjects) -> None:
        """Ask for its length.

        Raises:
            NotFoundError, MalformedError, MissingEvidenceError: as `Bucket.read`.
        """
        size, self._tag = bucket.size_and_tag(name, bytes_max)
        super().__init__(digest, size, hashed)
        self._bucket = bucket
        self._name = name

    def let_pass(self) -> None:
        """Nothing of it is kept here."""

    def close(self) -> None:
        """Nothing is open."""

    def _read(self, offset: int, length: int) -> bytes:
        return self._bucket.read_range(self._name, offset, length, self._tag)

    def _version(self) -> Hashable | None:
        return self._tag or None
