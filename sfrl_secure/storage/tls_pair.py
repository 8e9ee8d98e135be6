"""A certificate and its key in two files, replaced together: a crash leaves the old pair or the new one.

Two files cannot be renamed at once. So the new certificate waits beside the old one, as `<certificate>.next`, until the
new key has taken its place; whoever finds a key that is not the certificate's looks whether it is the waiting one's.

Runs in: everything that has a TLS identity.
Trusts: its own files, and the operating system's permissions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.svid import check_tls_key
from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.storage.files import SECRET_MODE, read_bounded, write_atomically
from sfrl_secure.storage.secrets import read_secret
from sfrl_secure.storage.system import rename, sync_folder

CERTIFICATES_BYTES_MAX = 64 * 1024

_LOOKS = 5
"""Readings before a pair that does not fit is believed to be none: each replacement spoils one at most."""


@dataclass(frozen=True, slots=True, eq=False)
class TlsPair:
    """A certificate chain in PEM, whose leaf is for `key`, in PEM too."""

    key: SecretBytes
    chain: bytes


def read_tls_pair(certificate: Path, key: Path) -> TlsPair:
    """Read a pair, while another process may be replacing it.

    Raises:
        NotFoundError, DeniedError, MissingEvidenceError: a file is not there, not to be read, or a key that others can
            read.
        MalformedError: a file is too long, or the key is not the certificate's.
    """
    for _ in range(_LOOKS):
        found = TlsPair(read_secret(key), read_bounded(certificate, CERTIFICATES_BYTES_MAX))
        if _fits(found):
            return found
        waiting = _waiting(certificate, found.key)
        if waiting is not None:
            return waiting
    raise MalformedError(f"the TLS key {key} is not that of the certificate {certificate}")


def replace_tls_pair(certificate: Path, key: Path, pair: TlsPair) -> None:
    """Put a pair in place of the one in the two files, durably. One process at a time; any number may read.

    Raises:
        MalformedError: the key is not the certificate's; nothing was written.
        ExhaustedError: the disk is full; the old pair is in force.
        UncertainStateError: it is not known which pair is in force; one of the two is.
    """
    check_tls_key(pair.chain, pair.key)
    next_certificate, next_key = _next(certificate), _next(key)
    _finish(certificate, key)
    write_atomically(next_key, pair.key.expose(), mode=SECRET_MODE)
    write_atomically(next_certificate, pair.chain)
    rename(next_key, key)
    sync_folder(key.parent)
    rename(next_certificate, certificate)
    sync_folder(certificate.parent)


def _finish(certificate: Path, key: Path) -> None:
    """Put the waiting certificate in place if a crash left its key there: the next one would take its name."""
    try:
        current = read_secret(key)
    except NotFoundError:
        return
    if _waiting(certificate, current) is None:
        return
    rename(_next(certificate), certificate)
    sync_folder(certificate.parent)


def _waiting(certificate: Path, key: SecretBytes) -> TlsPair | None:
    """The pair of a key with the certificate that waits, where they fit."""
    try:
        waiting = TlsPair(key, read_bounded(_next(certificate), CERTIFICATES_BYTES_MAX))
    except NotFoundError:
        return None
    return waiting if _fits(waiting) else None


def _fits(pair: TlsPair) -> bool:
    try:
        check_tls_key(pair.chain, pair.key)
    except MalformedError:
        return False
    return True


def _next(path: Path) -> Path:
    return path.with_name(path.name + ".next")
