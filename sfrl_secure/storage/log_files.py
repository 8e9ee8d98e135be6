"""The log's published files in a local folder: in place at once, by a rename; on the disk after `sync`.

A file that waits for `sync` is kept open: its descriptor learns of every write that fails meanwhile, even where the
kernel has let the file's pages go. So `sync` never confirms what the disk has not.

Format: c2sp.org/tlog-tiles.

Runs in: audit_log.
Trusts: the disk, as far as it confirmed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from sfrl_secure.errors import MissingEvidenceError, UncertainStateError
from sfrl_secure.storage.files import PUBLIC_MODE, make_folder, missing_folders, read_bounded, write_unsynced
from sfrl_secure.storage.log_names import PARTIAL_SUFFIX, check_file_name, is_file_name
from sfrl_secure.storage.system import mkdir, rmdir, sync_data, sync_folder, unlink

UNSYNCED_MAX = 256
"""Files that wait for `sync`, each open. When there are so many, the next write syncs them first."""


class FolderLogFiles:
    """`log_store.LogFiles` in a folder.

    Of a tile's partial files, `sync` makes durable the one that was written last: the narrower ones stand there for
    readers of older checkpoints, and the wider one says all that they say.
    """

    def __init__(self, folder: Path) -> None:
        """Use `folder`; make it where it is missing.

        Raises:
            UncertainStateError: it could not be made.
        """
        self._folder = folder
        # By name, or by the folder of the partial files. An open descriptor learns of each failed write.
        self._unsynced: dict[str, int] = {}
        self._unsynced_folders: dict[Path, None] = {}
        make_folder(folder)

    def read(self, name: str, bytes_max: int) -> bytes:
        """Read a file.

        Raises:
            NotFoundError: there is none.
            MalformedError: longer than `bytes_max`, or no name that a file can have.
            MissingEvidenceError: it is there and cannot be read.
        """
        return read_bounded(self._path(name), bytes_max)

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place of whatever is there: readers see the old bytes or the new. Durable after `sync`.

        Raises:
            MalformedError: no name that a file can have.
            ExhaustedError: the disk is full; the file is as it was.
            UncertainStateError: it is not known what the file holds.
        """
        path = self._path(name)
        place = name.rpartition("/")[0]
        key = place if place.endswith(PARTIAL_SUFFIX) else name
        if len(self._unsynced) >= UNSYNCED_MAX:
            self.sync()
        for folder in missing_folders(path.parent):
            mkdir(folder)
            self._unsynced_folders[folder.parent] = None
        descriptor = write_unsynced(path, data, mode=PUBLIC_MODE)
        self._forget(key)
        # A full tile says all that its partial files say.
        self._forget(name + PARTIAL_SUFFIX)
        self._unsynced[key] = descriptor
        self._unsynced_folders[path.parent] = None

    def sync(self) -> None:
        """Make durable what was written.

        Raises:
            UncertainStateError: the disk did not confirm. Do not try again.
        """
        for key, descriptor in list(self._unsynced.items()):
            sync_data(descriptor)
            self._forget(key)
        # The lower ones first: a folder's name is no use before what is in it.
        for folder in sorted(self._unsynced_folders, reverse=True):
            if folder.is_dir():
                sync_folder(folder)
        self._unsynced_folders.clear()

    def remove(self, name: str) -> None:
        """Remove a file, and the folder of partial files that it leaves empty; one that does not go is left.

        Raises:
            MalformedError: no name that a file can have.
        """
        path = self._path(name)
        self._forget(name)
        try:
            unlink(path)
            if path.parent.name.endswith(PARTIAL_SUFFIX) and rmdir(path.parent):
                self._forget(name.rpartition("/")[0])
        except UncertainStateError:
            return

    def names(self, folder: str) -> Iterator[str]:
        """Names of the files below `folder`, sorted; names that are none of ours are left out.

        Raises:
            MalformedError: no name that a folder can have.
            MissingEvidenceError: a folder cannot be read.
        """
        return self._names(self._path(folder), folder)

    def close(self) -> None:
        """Close what waits for `sync`, unsynced."""
        for key in list(self._unsynced):
            self._forget(key)

    def _path(self, name: str) -> Path:
        check_file_name(name)
        return self._folder / name

    def _forget(self, key: str) -> None:
        descriptor = self._unsynced.pop(key, None)
        if descriptor is not None:
            os.close(descriptor)

    def _names(self, folder: Path, name: str) -> Iterator[str]:
        try:
            with os.scandir(folder) as entries:
                # A folder sorts as its files' names do.
                found = sorted((each.name + "/" if each.is_dir() else each.name) for each in entries)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise MissingEvidenceError("a published folder cannot be read") from error
        for each in found:
            below = f"{name}/{each.removesuffix('/')}"
            if not is_file_name(below):
                continue
            if each.endswith("/"):
                yield from self._names(folder / each, below)
            else:
                yield below
