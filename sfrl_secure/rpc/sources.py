"""Where a payload comes from: memory, or a file that is read as it is sent.

Runs in: participant, cli.
Trusts: its caller; a file that changes under it does not lead to the digests that were signed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from sfrl_secure.errors import MalformedError, NotFoundError


class PayloadSource(Protocol):
    """The bytes of a payload, from any place."""

    @property
    def size(self) -> int:
        """How many there are."""
        ...

    def read(self, offset: int, length: int) -> bytes | memoryview:
        """Give exactly `length` bytes from `offset` on, for as long as it takes to copy them."""
        ...


class BytesSource:
    """A payload in memory."""

    def __init__(self, payload: bytes | memoryview) -> None:
        self._payload = memoryview(payload)

    @property
    def size(self) -> int:
        """How many bytes there are."""
        return len(self._payload)

    def read(self, offset: int, length: int) -> memoryview:
        """Give `length` bytes from `offset` on, without a copy."""
        return self._payload[offset : offset + length]


class FileSource:
    """A payload in a file, from `start` on; a chunk of it is in memory at a time. Close it."""

    def __init__(self, path: Path, *, start: int = 0) -> None:
        """Open the file.

        Raises:
            NotFoundError: there is none.
            MalformedError: it ends before `start`.
        """
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            raise NotFoundError("there is no such file of a payload") from None
        self._start = start
        self._size = os.fstat(self._descriptor).st_size - start
        if self._size < 0:
            self.close()
            raise MalformedError("the file of a payload ends before the payload begins")

    @property
    def size(self) -> int:
        """How many bytes there were when it was opened."""
        return self._size

    def read(self, offset: int, length: int) -> bytes:
        """Give `length` bytes from `offset` on.

        Raises:
            MalformedError: the file has become shorter, or cannot be read.
        """
        try:
            taken = os.pread(self._descriptor, length, self._start + offset)
        except OSError:
            raise MalformedError("the file of a payload cannot be read") from None
        if len(taken) != length:
            raise MalformedError("the file of a payload has become shorter while it was sent")
        return taken

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

    def __enter__(self) -> FileSource:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
