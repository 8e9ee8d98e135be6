"""Objects in passing: written or read through once, and by nobody soon again.

Linux keeps what went through a file in memory until something else wants the room, and what is written next goes into
pages that it has to find first: of a virtual machine, pages that the host has to find, at ten times the cost of the
copy. Payloads and models pass through the aggregator at 45 MB each, so what has passed makes room for what comes.

It changes no byte and no promise: what is not on the disk yet stays in memory, and what is asked for again is read.

Source: posix_fadvise(2), POSIX_FADV_DONTNEED.

Runs in: aggregator.
Trusts: nothing.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.ids import Digest
from sfrl_secure.storage.object_reader import ObjectReader
from sfrl_secure.storage.objects import Objects


class PassingObjects:
    """Objects of another store, none of which the system need keep in memory."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    def put(self, data: bytes | memoryview) -> Digest:
        """Keep `data`; it is durable when this returns: see `Objects.put`."""
        digest = self._objects.put(data)
        self.open(digest, len(data)).close()
        return digest

    def get(self, digest: Digest, bytes_max: int) -> bytes:
        """Give the object's bytes: see `Objects.get`."""
        data = self._objects.get(digest, bytes_max)
        self.open(digest, bytes_max).close()
        return data

    def open(self, digest: Digest, bytes_max: int) -> ObjectReader:
        """Open the object; when it is closed, it has passed: see `Objects.open`."""
        reader = self._objects.open(digest, bytes_max)
        reader.let_pass()
        return reader

    def adopt(self, file: Path, digest: Digest) -> None:
        """Make a file the object: see `Objects.adopt`."""
        self._objects.adopt(file, digest)

    def is_stored(self, digest: Digest) -> bool:
        """Whether something of that name is here: see `Objects.is_stored`."""
        return self._objects.is_stored(digest)
