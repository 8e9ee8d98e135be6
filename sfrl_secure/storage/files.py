"""Whole files: read within a bound, replaced at once or not at all, and a folder for one process.

Whoever reads a file that `write_atomically` writes sees its old bytes or its new ones, after a crash too. A crash can
leave a file whose name begins with a dot and ends with `.tmp`: nothing reads it.

Runs in: everything that keeps files.
Trusts: the operating system; nothing that a file holds.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path
from types import TracebackType

from sfrl_secure.errors import ExhaustedError, MalformedError, MissingEvidenceError, NotFoundError, UncertainStateError
from sfrl_secure.storage.system import lock_exclusively, sync_data, sync_folder, write_all

PUBLIC_MODE = 0o644
SECRET_MODE = 0o600

LOCK_NAME = "lock"


def write_atomically(path: Path, data: bytes, *, mode: int = PUBLIC_MODE, durable: bool = True) -> None:
    """Put `data` in place of whatever `path` holds. Its folder is there.

    Args:
        mode: permissions of the file.
        durable: False where the file can be made again from something durable; then a power failure may leave it empty.

    Raises:
        ExhaustedError: the disk is full; `path` is as it was.
        UncertainStateError: it is not known what `path` holds.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise UncertainStateError("a file could not be made") from error
    try:
        try:
            write_all(descriptor, data)
            if durable:
                sync_data(descriptor)
        finally:
            os.close(descriptor)
    except (ExhaustedError, UncertainStateError):
        temporary.unlink(missing_ok=True)
        raise
    try:
        temporary.replace(path)
    except OSError as error:
        raise UncertainStateError("a file could not be renamed") from error
    if durable:
        sync_folder(path.parent)


def write_new(path: Path, data: bytes, *, mode: int = PUBLIC_MODE) -> None:
    """Make the file `path`, durably; never replace one. For keys and first files.

    Two processes that make one file at the same moment: one of them succeeds.

    Raises:
        UncertainStateError: there is a file of this name, or it could not be made durable.
    """
    temporary = path.parent / f".{path.name}.{secrets.token_hex(8)}.tmp"
    write_atomically(temporary, data, mode=mode)
    try:
        os.link(temporary, path)
    except OSError as error:
        raise UncertainStateError("a file of this name is there already, or cannot be made") from error
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, durably; one that is there is left as it is.

    Raises:
        UncertainStateError: it could not be made, or the disk did not confirm.
    """
    missing: list[Path] = []
    above = folder
    while not above.is_dir():
        missing.append(above)
        if above.parent == above:
            break
        above = above.parent
    for each in reversed(missing):
        try:
            each.mkdir(exist_ok=True)
        except OSError as error:
            raise UncertainStateError("a folder could not be made") from error
        sync_folder(each.parent)


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
    try:
        # Opening a named pipe must not wait for whoever writes into it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        raise NotFoundError("there is no such file") from None
    except OSError as error:
        raise MissingEvidenceError("a file cannot be opened") from error
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
            UncertainStateError: another process owns it, or it cannot be locked.
        """
        try:
            self._descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, SECRET_MODE)
        except OSError as error:
            raise UncertainStateError("a folder cannot be locked") from error
        try:
            free = lock_exclusively(self._descriptor)
        except UncertainStateError:
            os.close(self._descriptor)
            raise
        if not free:
            os.close(self._descriptor)
            raise UncertainStateError("another process owns the folder")

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
