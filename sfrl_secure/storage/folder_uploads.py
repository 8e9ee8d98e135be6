"""Uploads in a folder: one file for each call.

A call's file is a regular file `<upload, 64 hex digits>.<16 random hex digits>`; all else is none of ours. The call
holds the file's lock as long as it lives, and the kernel frees it when the process ends, so that a file is removed only
when nobody writes it. Whoever goes on copies the longest file of the digest, locked or not: bytes are appended and
never changed. Since the size of a file reaches the disk with the sync of its bytes, a crash leaves at least what was
confirmed; what it leaves beyond that is hashed like all the rest.

Who may write into the folder has nothing copied that he cannot read himself: no link is followed, no file is gone on
from that has a second name, and until it is an object a file is for our own user alone.

Runs in: gatekeeper.
Trusts: nothing that a file holds.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from sfrl_secure.errors import MissingEvidenceError, UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import CHUNK_BYTES_MAX
from sfrl_secure.storage.files import PUBLIC_MODE, SECRET_MODE, make_folder, open_regular
from sfrl_secure.storage.objects import Objects
from sfrl_secure.storage.system import (
    change_mode,
    lock_exclusively,
    open_new,
    sync_data,
    sync_folder,
    unlink,
    write_all,
)
from sfrl_secure.storage.uploads import Upload

_NAME = re.compile(r"([0-9a-f]{64})\.[0-9a-f]{16}")
_MADE_ANEW_MAX = 8


class FolderUploads:
    """The uploads in one folder."""

    def __init__(self, folder: Path) -> None:
        """Use `folder`, which lies on the file system of the objects; make it where it is missing.

        Raises:
            UncertainStateError: it could not be made.
        """
        self._folder = folder
        make_folder(folder)

    def begin(self, name: Digest, payload_bytes: int) -> FolderUpload:
        """Begin, or go on with, an upload.

        Raises:
            ExhaustedError, MissingEvidenceError, UncertainStateError: as `Uploads.begin`.
        """
        return FolderUpload(self._folder, name, payload_bytes)

    def sweep(self, older_than_us: int) -> int:
        """Remove the files that were last written before this time and that no call holds; give how many.

        Raises:
            MissingEvidenceError: the folder cannot be read.
            UncertainStateError: a file could not be removed.
        """
        return sum(_remove_unheld(path, older_than_us) for path in _files(self._folder))


class FolderUpload(Upload):
    """One call's file."""

    def __init__(self, folder: Path, name: Digest, payload_bytes: int) -> None:
        """Open the longest remainder, and make a file of our own."""
        super().__init__(payload_bytes)
        self._folder = folder
        self._digest = name
        self._durable = 0
        self._is_named = False
        self._source, self.held = self._longest()
        try:
            self._path, self._descriptor = _make_held(folder, name.hex())
        except BaseException:
            self._close_source()
            raise

    def take_over(self) -> Iterator[bytes]:
        """Copy the remainder, and remove all that nobody writes once the copy is durable: none is longer."""
        assert not self.received, "what was left comes first"
        while self.received < self.held:
            try:
                data = os.pread(self._source, min(CHUNK_BYTES_MAX, self.held - self.received), self.received)
            except OSError as error:
                raise MissingEvidenceError("what an earlier call left cannot be read") from error
            if not data:
                raise MissingEvidenceError("what an earlier call left was cut while it was read")
            self._take(data)
            yield data
        self.sync()
        self._close_source()
        if self.held:
            # Not the source alone: while a call holds that, each that breaks would leave one copy more.
            self._remove_others()

    def sync(self) -> int:
        """Sync the file, and its name once."""
        if self._durable < self.received:
            sync_data(self._descriptor)
            if not self._is_named:
                sync_folder(self._folder)
                self._is_named = True
            self._durable = self.received
        return self._durable

    def _append(self, data: bytes | memoryview) -> None:
        write_all(self._descriptor, data)

    def _commit(self, objects: Objects, digest: Digest) -> None:
        self.sync()
        # As any object: who may read those may be another user.
        change_mode(self._descriptor, PUBLIC_MODE)
        # We hold its lock, so it is there; and from here on nobody, we neither, can write into it.
        objects.adopt(self._path, digest)
        self._close()
        # Into a bucket it was copied.
        unlink(self._path)
        self._remove_others()

    def _discard(self) -> None:
        unlink(self._path)
        self._close()
        self._remove_others()

    def _leave(self) -> None:
        # A copy that was not finished is worth no more than what it was made from.
        if not self._durable or self._durable < self.held:
            unlink(self._path)
        self._close()

    def _remove_others(self) -> None:
        for path in _files(self._folder, self._digest.hex()):
            _remove_unheld(path)

    def _longest(self) -> tuple[int, int]:
        """Descriptor and length of the longest remainder; -1 and 0 where there is none."""
        found = (-1, 0)
        for path in _files(self._folder, self._digest.hex()):
            descriptor = open_regular(path)
            if descriptor is None:
                continue
            # Who has more than the payload has nothing of use; who has all of it may have been cut before the end.
            status = os.fstat(descriptor)
            length = status.st_size
            # A second name may be that of a file of ours which whoever made this one cannot read.
            if status.st_nlink == 1 and found[1] < length <= self._payload_bytes:
                found, (descriptor, _) = (descriptor, length), found
            if descriptor >= 0:
                os.close(descriptor)
        return found

    def _close(self) -> None:
        self._close_source()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _close_source(self) -> None:
        if self._source >= 0:
            os.close(self._source)
            self._source = -1


def _files(folder: Path, digest_hex: str | None = None) -> list[Path]:
    """The calls' files, or those of one upload."""
    try:
        with os.scandir(folder) as entries:
            names = [each.name for each in entries if each.is_file(follow_symlinks=False)]
    except OSError as error:
        raise MissingEvidenceError("the folder of uploads cannot be read") from error
    matched = ((name, _NAME.fullmatch(name)) for name in names)
    return [folder / name for name, found in matched if found is not None and digest_hex in {None, found[1]}]


def _make_held(folder: Path, digest_hex: str) -> tuple[Path, int]:
    """Make a new file and take its lock."""
    for _ in range(_MADE_ANEW_MAX):
        path = folder / f"{digest_hex}.{secrets.token_hex(8)}"
        descriptor = open_new(path, SECRET_MODE)
        # Whoever tidies up may have come between: then it is locked, or has no name any more.
        if lock_exclusively(descriptor) and os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)
    raise UnavailableError("others remove what is made for an upload: try again")


def _remove_unheld(path: Path, older_than_us: int | None = None) -> bool:
    """Remove a file that no call holds and that was last written before a time; whether it is gone by this call."""
    descriptor = open_regular(path)
    if descriptor is None:
        return False
    try:
        written_us = os.fstat(descriptor).st_mtime_ns // 1_000
        is_old = older_than_us is None or written_us < older_than_us
        return is_old and lock_exclusively(descriptor) and unlink(path)
    finally:
        os.close(descriptor)
