"""The system calls that durability rests on, each under one name.

`write_all` hands bytes to the kernel; `sync_data` and `sync_folder` bring them to the disk. After a failed sync
nobody knows what the disk holds: the kernel may have dropped the pages and call the next sync a success, so it is
never tried again.

Source: fsync(2), flock(2); Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020.

Runs in: everything that keeps files.
Trusts: the operating system, and its file system to order a rename after the sync before it.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from sfrl_secure.errors import ExhaustedError, UncertainStateError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data` where the file's position stands.

    Raises:
        ExhaustedError: the disk is full; some of `data` may be in the file.
        UncertainStateError: the write failed otherwise.
    """
    left = memoryview(data)
    try:
        while left:
            left = left[os.write(descriptor, left):]
    except OSError as error:
        if error.errno in _FULL:
            raise ExhaustedError("the disk is full") from error
        raise UncertainStateError("a write failed") from error


def sync_data(descriptor: int) -> None:
    """Bring a file's bytes, and its length, to the disk.

    Raises:
        UncertainStateError: the disk did not confirm. Do not try again.
    """
    try:
        os.fdatasync(descriptor)
    except OSError as error:
        raise UncertainStateError("the disk did not confirm a write") from error


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk: files made, renamed or removed in it.

    Raises:
        UncertainStateError: the disk did not confirm. Do not try again.
    """
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise UncertainStateError("the disk did not confirm a folder's change") from error


def lock_exclusively(descriptor: int) -> bool:
    """Take the file's lock without waiting; whether it was free. The kernel frees it when the process ends."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise UncertainStateError("a lock could not be taken") from error
    return True
