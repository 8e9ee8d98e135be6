"""Models and masks kept between runs: files named by their digests, the last few of each.

A convenience, and no evidence: a file counts for nothing unless its SHA-256 is its name, and one that is damaged is
thrown away. None is needed; a full disk costs a download.

Runs in: participant, cli, demo.
Trusts: nothing that such a file holds.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from sfrl_secure.errors import ExhaustedError, MalformedError, NotFoundError
from sfrl_secure.ids import Digest, parse_hex_digest, sha256
from sfrl_secure.storage.files import SECRET_MODE, make_folder, read_bounded, write_atomically


class ObjectFiles:
    """A folder of the `keep` objects that were used last."""

    def __init__(self, folder: Path, *, keep: int) -> None:
        """Name the folder; it is made with the first file."""
        self._folder, self._keep = folder, keep

    def names(self) -> tuple[Digest, ...]:
        """Digests of the objects that are there, the last used first; what they hold was not looked at."""
        found = []
        for path in self._folder.glob("*") if self._folder.is_dir() else ():
            with suppress(MalformedError, FileNotFoundError):
                found.append((path.stat().st_mtime_ns, parse_hex_digest(path.name)))
        return tuple(digest for _, digest in sorted(found, reverse=True))

    def read(self, digest: Digest, bytes_max: int) -> bytes | None:
        """Read an object; None where it is not there, or is damaged."""
        path = self._folder / digest.hex()
        try:
            raw = read_bounded(path, bytes_max)
        except (NotFoundError, MalformedError):
            return None
        with suppress(FileNotFoundError):
            if sha256(raw) != digest:
                path.unlink()
                return None
            _use(path)
        return raw

    def keep(self, digest: Digest, raw: bytes | memoryview, *, spared: Digest | None = None) -> None:
        """Keep an object, in place of the one that was used longest ago and is not `spared`."""
        with suppress(ExhaustedError):
            make_folder(self._folder)
            write_atomically(self._folder / digest.hex(), raw, mode=SECRET_MODE, durable=False)
            _use(self._folder / digest.hex())
        names = self.names()
        ordered = sorted(names, key=lambda name: name not in (digest, spared))
        for old in ordered[self._keep :]:
            (self._folder / old.hex()).unlink(missing_ok=True)


def _use(path: Path) -> None:
    """Let a file be the one that was used last. A kernel's own stamps are too coarse to tell two apart."""
    now_ns = time.time_ns()
    os.utime(path, ns=(now_ns, now_ns))
