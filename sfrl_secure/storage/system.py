"""Every system call that changes the disk, each under one name.

Nothing else in `storage` opens a file for writing, writes, syncs, renames, links, removes, locks or gives permissions.
So the order in which a log reaches the disk can be read here and where these are called, and a crash test can stop the
process before each of them: `calls_watched_by`.

After a failed sync nobody knows what the disk holds: the kernel may have dropped the pages and call the next sync a
success, so it is never tried again.

Source: fsync(2), flock(2); Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020.

Runs in: everything that keeps files.
Trusts: the operating system, and its file system to order a rename after the sync before it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sfrl_secure.errors import ExhaustedError, SfrlError, UncertainStateError

BeforeCall = Callable[[str, Path | int, memoryview], None]
"""Is told the call's name, the path or descriptor that it changes, and the bytes that it would write.

An OSError that it raises counts as the call's own. It may write a part of the bytes itself, and end the process."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

_NOTHING = memoryview(b"")

_before_call: BeforeCall | None = None


@contextmanager
def calls_watched_by(before_call: BeforeCall) -> Iterator[None]:
    """Tell `before_call` of each call before it is made, in the whole process. For tests alone."""
    global _before_call
    assert _before_call is None, "one watcher at a time"
    _before_call = before_call
    try:
        yield
    finally:
        _before_call = None


def _announce(call: str, subject: Path | int, data: memoryview = _NOTHING) -> None:
    if _before_call is not None:
        _before_call(call, subject, data)


def _failure(error: OSError, sentence: str) -> SfrlError:
    return ExhaustedError("the disk is full") if error.errno in _FULL else UncertainStateError(sentence)


def open_new(path: Path, mode: int) -> int:
    """Make an empty file of a name that is free, and open it for writing.

    Raises:
        ExhaustedError: the disk is full.
        UncertainStateError: there is a file of this name, or it could not be made.
    """
    try:
        _announce("open_new", path)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    except OSError as error:
        raise _failure(error, "a file could not be made") from error


def open_to_append(path: Path) -> int:
    """Open a file that is there for reading, and for writing behind its end.

    Raises:
        UncertainStateError: it is not there, or could not be opened.
    """
    try:
        _announce("open_to_append", path)
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
    except OSError as error:
        raise _failure(error, "a file could not be opened") from error


def open_to_lock(path: Path, mode: int) -> int:
    """Open a file that stands for a lock, and make it where it is missing.

    Raises:
        ExhaustedError: the disk is full.
        UncertainStateError: it could not be opened.
    """
    try:
        _announce("open_to_lock", path)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode)
    except OSError as error:
        raise _failure(error, "a folder cannot be locked") from error


def lock_exclusively(descriptor: int) -> bool:
    """Take the file's lock without waiting; whether it was free. The kernel frees it when the process ends.

    Raises:
        UncertainStateError: it could not be taken.
    """
    try:
        _announce("lock_exclusively", descriptor)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise _failure(error, "a lock could not be taken") from error
    return True


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write all of `data` where the file's position stands.

    Raises:
        ExhaustedError: the disk is full; some of `data` may be in the file.
        UncertainStateError: the write failed otherwise.
    """
    left = memoryview(data)
    try:
        while left:
            _announce("write_all", descriptor, left)
            left = left[os.write(descriptor, left):]
    except OSError as error:
        raise _failure(error, "a write failed") from error


def truncate(descriptor: int, length: int) -> None:
    """Cut a file.

    Raises:
        UncertainStateError: it could not be cut.
    """
    try:
        _announce("truncate", descriptor)
        os.ftruncate(descriptor, length)
    except OSError as error:
        raise _failure(error, "a file could not be cut") from error


def change_mode(descriptor: int, mode: int) -> None:
    """Give an open file other permissions.

    Raises:
        UncertainStateError: they could not be changed.
    """
    try:
        _announce("change_mode", descriptor)
        os.fchmod(descriptor, mode)
    except OSError as error:
        raise _failure(error, "a file's permissions could not be changed") from error


def sync_data(descriptor: int) -> None:
    """Bring a file's bytes, and its length, to the disk.

    Raises:
        UncertainStateError: the disk did not confirm. Do not try again.
    """
    try:
        _announce("sync_data", descriptor)
        os.fdatasync(descriptor)
    except OSError as error:
        # A full disk too: what the kernel had taken is lost.
        raise UncertainStateError("the disk did not confirm a write") from error


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk: files made, renamed or removed in it.

    Raises:
        UncertainStateError: the disk did not confirm. Do not try again.
    """
    try:
        _announce("sync_folder", folder)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UncertainStateError("the disk did not confirm a folder's change") from error


def rename(path: Path, new_path: Path) -> None:
    """Put the file or folder `path` in place of whatever file bears the new name, at once.

    Raises:
        ExhaustedError: the disk is full; both are as they were.
        UncertainStateError: it could not be renamed.
    """
    try:
        _announce("rename", new_path)
        path.rename(new_path)
    except OSError as error:
        raise _failure(error, "a file could not be renamed") from error


def link(path: Path, new_path: Path) -> None:
    """Give the file `path` a second name that is free.

    Raises:
        ExhaustedError: the disk is full.
        UncertainStateError: there is a file of that name, or it could not be made.
    """
    try:
        _announce("link", new_path)
        os.link(path, new_path)
    except OSError as error:
        raise _failure(error, "a file of this name is there already, or cannot be made") from error


def unlink(path: Path) -> bool:
    """Remove a file; whether there was one.

    Raises:
        UncertainStateError: it could not be removed.
    """
    try:
        _announce("unlink", path)
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _failure(error, "a file could not be removed") from error
    return True


def mkdir(folder: Path) -> None:
    """Make a folder; one that is there is left as it is.

    Raises:
        ExhaustedError: the disk is full.
        UncertainStateError: it could not be made.
    """
    try:
        _announce("mkdir", folder)
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise _failure(error, "a folder could not be made") from error


def rmdir(folder: Path) -> bool:
    """Remove a folder that is empty; whether it is gone by this call.

    Raises:
        UncertainStateError: it could not be removed though it may be empty.
    """
    try:
        _announce("rmdir", folder)
        folder.rmdir()
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
            return False
        raise _failure(error, "a folder could not be removed") from error
    return True
