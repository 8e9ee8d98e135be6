"""Objects: payloads and models under the SHA-256 of their bytes.

Layout: `<first two hex digits>/<all 64 hex digits>`. A name can mean one content only, so any number of processes may
put and get at the same time. What comes out has the digest that it was asked by, whatever happened on the disk.

Format: proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: gatekeeper, aggregator, participant.
Trusts: nothing that a file holds.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.errors import DigestError, MalformedError, MissingEvidenceError, NotFoundError
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.storage.files import make_folder, read_bounded, write_atomically
from sfrl_secure.storage.system import sync_folder


class ObjectStore:
    """The objects below one folder."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`; make it where it is missing.

        Raises:
            UncertainStateError: it could not be made.
        """
        self._folder = folder
        make_folder(folder)

    def path(self, digest: Digest) -> Path:
        """Where the object lies, whether it is there or not."""
        name = digest.hex()
        return self._folder / name[:2] / name

    def put(self, data: bytes) -> Digest:
        """Keep `data`; it is durable when this returns. What is there already is not written again.

        A file of that name whose bytes have another digest is replaced: only these bytes may bear the name.

        Raises:
            ExhaustedError: the disk is full, and nothing was kept.
            UncertainStateError: the disk did not confirm.
        """
        digest = sha256(data)
        path = self.path(digest)
        if self._holds(path, data):
            # Whoever put it first may not have come to sync the folder yet.
            sync_folder(path.parent)
            return digest
        make_folder(path.parent)
        write_atomically(path, data)
        return digest

    def get(self, digest: Digest, bytes_max: int) -> bytes:
        """Give the object's bytes.

        Raises:
            NotFoundError: it is not here.
            MalformedError: it is longer than `bytes_max`.
            DigestError: the file's bytes have another digest.
        """
        data = read_bounded(self.path(digest), bytes_max)
        if sha256(data) != digest:
            raise DigestError("an object's bytes are not what its name says")
        return data

    def is_stored(self, digest: Digest) -> bool:
        """Whether a file of that name is here; `get` says whether it holds what it should."""
        return self.path(digest).is_file()

    @staticmethod
    def _holds(path: Path, data: bytes) -> bool:
        try:
            return read_bounded(path, len(data)) == data
        except (NotFoundError, MalformedError, MissingEvidenceError):
            return False
