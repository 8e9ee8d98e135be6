"""Key files: readable by their owner alone, never replaced.

A key that others could read is not used: it may be theirs by now.

Runs in: everything that holds a key.
Trusts: the operating system's permissions.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import DeniedError, NotFoundError
from sfrl_secure.storage.files import SECRET_MODE, read_bounded_with_mode, write_new

SECRET_BYTES_MAX = 64 * 1024
"""One key file."""


def read_secret(path: Path) -> SecretBytes:
    """Read a key file.

    Raises:
        NotFoundError: there is none.
        DeniedError: `key_permissions`: its group or others may read, write or run it.
        MalformedError: longer than `SECRET_BYTES_MAX`, or not a regular file.
    """
    try:
        data, mode = read_bounded_with_mode(path, SECRET_BYTES_MAX)
    except NotFoundError:
        raise NotFoundError(f"there is no key file {path}") from None
    if mode & 0o077:
        raise DeniedError("key_permissions", f"the key file {path} must be readable by its owner alone: chmod 600")
    return SecretBytes(data)


def write_secret(path: Path, secret: SecretBytes) -> None:
    """Make a key file, durably; never replace one.

    Raises:
        UncertainStateError: there is a file of this name, or it could not be made durable.
    """
    write_new(path, secret.expose(), mode=SECRET_MODE)
