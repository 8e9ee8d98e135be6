"""Whole files: read within a bound, replaced at once or not at all, and a folder for one process.

Whoever reads a file that `write_atomically` writes sees its old bytes or its new ones, after a crash too. A crash can
leave a file whose name begins with a dot and ends with `.tmp`: nothing reads it.

Runs in: everything that keeps files.
Trusts: the operating system; nothing that a file holds.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError, UncertainStateError
from sfrl_secure.storage.system import (
    link,
    lock_exclusively,
    mkdir,
    open_new,
    open_to_lock,
    rename,
    sync_data,
    sync_folder,
    unlink,
    write_all,
)

PUBLIC_MODE = 0o644
SECRET_MODE = 0o600

TEMPORARY_SUFFIX = ".tmp"

LOCK_NAME = "lock"

_NOT_A_FILE_OF_OURS = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EACCES, errno.EPERM})
"""Nothing, a link, a socket, a device, what others keep from us."""


def write_atomically(
    path: Path, data: bytes | memoryview, *, mode: int = PUBLIC_MODE, durable: bool = True
) -> None:
    """Put `data` in place of whatever `path` holds. Its folder is there.

    Args:
        mode: permissions of the file.
        durable: False where the file can be made again from something durable; then a power failure may leave it empty.

    Raises:
        ExhaustedError: the disk is full; `path` is as it was.
        UncertainStateError: it is not known what `path` holds.
    """
    os.close(_put(path, data, mode, durable=durable))
    if durable:
        sync_folder(path.parent)


def write_unsynced(path: Path, data: bytes, *, mode: int = PUBLIC_MODE) -> int:
    """Write as `write_atomically` does, not durably; give the file's descriptor, open, for a later `sync_data`.

    That descriptor learns of every failed write; a new one on the same file may be opened after the kernel has
    forgotten. The folder's name is to be synced too.

    Raises:
        ExhaustedError, UncertainStateError: as `write_atomically`.
    """
    return _put(path, data, mode, durable=False)


def write_temporary(folder: Path, data: bytes | memoryview, *, mode: int = PUBLIC_MODE) -> Path:
    """Write a file that nothing reads, its bytes durable and its name not: for whoever renames or removes it.

    Raises:
        ExhaustedError: the disk is full; nothing is left.
        UncertainStateError: the disk did not confirm.
    """
    temporary = folder / f".{secrets.token_hex(16)}{TEMPORARY_SUFFIX}"
    descriptor = open_new(temporary, mode)
    try:
        write_all(descriptor, data)
        sync_data(descriptor)
    except BaseException:
        with suppress(UncertainStateError):
            unlink(temporary)
        raise
    finally:
        os.close(descriptor)
    return temporary


def _put(path: Path, data: bytes | memoryview, mode: int, *, durable: bool) -> int:
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    descriptor = open_new(temporary, mode)
    try:
        write_all(descriptor, data)
        if durable:
            sync_data(descriptor)
        rename(temporary, path)
    except BaseException:
        os.close(descriptor)
        # It may be in place already where the rename failed; and what matters is the first failure.
        with suppress(UncertainStateError):
            unlink(temporary)
        raise
    return descriptor


def write_new(path: Path, data: bytes, *, mode: int = PUBLIC_MODE) -> None:
    """Make the file `path`, durably; never replace one. For keys and first files.

    Two processes that make one file at the same moment: one of them succeeds.

    Raises:
        ExhaustedError: the disk is full.
        UncertainStateError: there is a file of this name, or it could not be made durable.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    write_atomically(temporary, data, mode=mode)
    try:
        link(temporary, path)
    finally:
        unlink(temporary)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably; one that is there is left as it is.

    Raises:
        ExhaustedError: the disk is full.
        UncertainStateError: it could not be made, or the disk did not confirm.
    """
    for each in missing_folders(folder):
        mkdir(each)
        sync_folder(each.parent)


def missing_folders(folder: Path) -> list[Path]:
    """List what is to be made for `folder` to be there, the highest first."""
    missing: list[Path] = []
    while not folder.is_dir():
        missing.append(folder)
        if folder.parent == folder:
            break
        folder = folder.parent
    return missing[::-1]


def read_bounded(path: Path, bytes_max: int) -> bytes:
    """Read a regular file of at most `bytes_max` bytes.

    Raises:
        NotFoundError: there is no such file.
        MalformedError: longer than `bytes_max`, or not a regular file.
        MissingEvidenceError: it is there and cannot be read.
    """
    return read_bounded_with_mode(path, bytes_max)[0]


def read_bounded_with_mode(path: Path, bytes_max: int) -> tuple[bytes, int]:
    """Read as `read_bounded`, and give the permissions of the very file that was read.

    Raises:
        NotFoundError, MalformedError, MissingEvidenceError: as `read_bounded`.
    """
    descriptor = open_to_read(path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise MalformedError("not a regular file")
        if status.st_size > bytes_max:
            raise MalformedError(f"the file is longer than {bytes_max} bytes")
        return _read_to_end(descriptor, bytes_max), stat.S_IMODE(status.st_mode)
    except OSError as error:
        raise MissingEvidenceError("a file cannot be read") from error
    finally:
        os.close(descriptor)


def open_to_read(path: Path) -> int:
    """Open whatever bears a name for reading; it need not be a regular file.

    Raises:
        NotFoundError: there is no such file.
        MissingEvidenceError: it is there and cannot be opened.
    """
    try:
        # Opening a named pipe must not wait for whoever writes into it.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError("there is no such file") from None
    except OSError as error:
        raise MissingEvidenceError("a file cannot be opened") from error


def open_regular(path: Path) -> int | None:
    """Open a regular file for reading; None where the name is of anything else, or of a file that we may not read.

    For a folder into which others may write: no link is followed, and nothing is waited for.

    Raises:
        MissingEvidenceError: it cannot be opened now.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in _NOT_A_FILE_OF_OURS:
            return None
        raise MissingEvidenceError("a file cannot be opened") from error
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return descriptor
    os.close(descriptor)
    return None


def _read_to_end(descriptor: int, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    left = bytes_max + 1
    while left and (part := os.read(descriptor, min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    # The file may have grown since its length was asked for.
    if not left:
        raise MalformedError(f"the file is longer than {bytes_max} bytes")
    return b"".join(parts)


class FolderLock:
    """One process owns a folder from here until `release`, or until it ends.

    The lock stands on an open file: it needs no clean-up after a crash, and cannot be left behind.
    """

    def __init__(self, folder: Path) -> None:
        """Take the folder, which is there.

        Raises:
            MalformedError: another process owns it.
            UncertainStateError: it cannot be locked.
        """
        self._descriptor = open_to_lock(folder / LOCK_NAME, SECRET_MODE)
        try:
            free = lock_exclusively(self._descriptor)
        except UncertainStateError:
            os.close(self._descriptor)
            raise
        if not free:
            os.close(self._descriptor)
            raise MalformedError(f"another process has {folder} open")

    def release(self) -> None:
        """Give the folder up. The file stays: removing it would let two processes lock two files of one name."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
