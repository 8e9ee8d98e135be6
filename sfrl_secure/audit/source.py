"""Where an audit reads: a log as static files, and objects under their digests.

Every read is bounded before it begins, and takes regular files only. What is read is believed by nobody until its hash
is compared.

Format: proto/README.md, "Checkpoints, tiles, cosignatures"; c2sp.org/tlog-tiles.

Runs in: verifier, auditors' machines.
Trusts: nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from sfrl_secure.errors import DigestError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import COORDINATES_MAX

_CHUNK_BYTES = 1024 * 1024
_OBJECT_BYTES_MAX = 8 * COORDINATES_MAX + 4096
"""No object is longer than the largest model: a file with holes in it costs nobody the time to hash it."""
_SHARD = re.compile(r"[0-9a-f]{2}")
_NAME = re.compile(r"[0-9a-f]{64}")


class LogSource(Protocol):
    """A log's files, wherever they lie."""

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Give a file's first `bytes_max` + 1 bytes, so that a longer one is seen; None where it is missing.

        Args:
            path: below the log's prefix, such as `checkpoint` or `tile/0/000`.
        """


class FolderLog:
    """A log in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, path: str, bytes_max: int) -> bytes | None:
        """Read a file of the log."""
        opened = _open(self._folder / path)
        if opened is None:
            return None
        with opened:
            return opened.read(bytes_max + 1)


class FolderObjects:
    """Objects in a folder: `<first two hex digits>/<all 64 hex digits>`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, digest: Digest, bytes_max: int) -> bytes | None:
        """Give an object's first `bytes_max` + 1 bytes after hashing all of it; None where it is missing.

        Raises:
            DigestError: it has another SHA-256 than its name.
        """
        opened = _open(self._path(digest))
        if opened is None:
            return None
        with opened:
            if os.fstat(opened.fileno()).st_size > _OBJECT_BYTES_MAX:
                return None
            kept = opened.read(bytes_max + 1)
            _check_digest(opened, kept, digest)
        return kept

    def read_at(self, digest: Digest, offset: int, length: int) -> bytes | None:
        """Give at most so many of an object's bytes, which nobody has hashed; None where it is missing."""
        opened = _open(self._path(digest))
        if opened is None:
            return None
        with opened:
            opened.seek(offset)
            return opened.read(length)

    def holds(self, digest: Digest) -> bool:
        """Say whether the object is there, after hashing all of it.

        Raises:
            DigestError: it has another SHA-256 than its name.
        """
        return self.read(digest, 0) is not None

    def names(self) -> Iterator[Digest]:
        """Digests of all objects, in no order. What bears no object's name is not listed."""
        for shard in _listed(self._folder, _SHARD):
            for name in _listed(self._folder / shard, _NAME):
                if name.startswith(shard):
                    yield Digest(bytes.fromhex(name))

    def _path(self, digest: Digest) -> Path:
        name = digest.hex()
        return self._folder / name[:2] / name


def _check_digest(opened: BinaryIO, begun: bytes, digest: Digest) -> None:
    hasher = hashlib.sha256(begun)
    while chunk := opened.read(_CHUNK_BYTES):
        hasher.update(chunk)
    if hasher.digest() != digest:
        raise DigestError("an object has the SHA-256 that names it")


def _listed(folder: Path, form: re.Pattern[str]) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if form.fullmatch(name)]
    except OSError:
        return []


def _open(path: Path) -> BinaryIO | None:
    """Open a regular file; None where there is none that we may read."""
    try:
        # Not blocking, so that a pipe with a file's name cannot hold the audit up.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return os.fdopen(descriptor, "rb")
