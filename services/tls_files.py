"""A service's own TLS identity: read at the start, and again whenever its files hold another one.

Server and channels ask here at each handshake and each call, so a renewed certificate is in use at once and no
connection is dropped. A renewal that cannot be read leaves the identity in use as it is: it is good until it expires.

Runs in: gatekeeper, aggregator, audit_log, verifier.
Trusts: its configuration's files.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.crypto.svid import PeerCertificate
from sfrl_secure.errors import SfrlError
from sfrl_secure.rpc.channel import ClientTls
from sfrl_secure.rpc.server import ServerTls
from sfrl_secure.services.config import ServiceConfig
from sfrl_secure.storage.tls_pair import TlsPair, replace_tls_pair

LOOK_SECONDS = 1.0
"""The files are looked at this often, when somebody asks."""

_log = structlog.get_logger()

_Stamp = tuple[tuple[int, int, int], ...]


class ServiceTls:
    """The identity in use. Safe for any number of threads."""

    def __init__(self, config: ServiceConfig, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Read the configuration's files.

        Raises:
            NotFoundError, DeniedError, MalformedError: no file, a key that others can read, or the certificate of
                another service.
        """
        self._config = config
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._client_roots, self._service_roots = config.read_client_roots(), config.read_service_roots()
        self._stamp, self._looked = self._stamp_now(), monotonic()
        self._take(config.read_tls())

    def server(self) -> ServerTls:
        """What a server shows at its next handshake, for `RpcServer(tls=...)`."""
        with self._lock:
            self._look()
            return self._server

    def client(self) -> ClientTls:
        """What a channel shows at its next call, for `RpcChannel(tls=...)`."""
        with self._lock:
            self._look()
            return self._client

    def current(self) -> PeerCertificate:
        """What the certificate in use says: its serial, its key and its times."""
        with self._lock:
            self._look()
            return self._certificate

    def replace(self, chain: bytes, key: SecretBytes) -> None:
        """Put a renewed certificate and its key into the files, durably, and use them from now on.

        Raises:
            MalformedError: the certificate of another service, or another key's; the identity in use stays.
            ExhaustedError, UncertainStateError: the disk is full, or did not confirm; the identity in use stays.
        """
        pair = TlsPair(key, chain)
        self._config.open_certificate(pair)
        with self._lock:
            replace_tls_pair(self._config.tls.certificate, self._config.tls.key, pair)
            self._stamp = self._stamp_now()
            self._take(pair)

    def _take(self, pair: TlsPair) -> None:
        self._certificate = self._config.open_certificate(pair)
        self._server = ServerTls(pair.key, pair.chain, self._client_roots)
        self._client = ClientTls(pair.key, pair.chain, self._service_roots)

    def _look(self) -> None:
        now = self._monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return
        try:
            self._take(self._config.read_tls())
        except SfrlError as error:
            _log.warning("certificate_not_read", error=type(error).__name__)
            return
        self._stamp = stamp

    def _stamp_now(self) -> _Stamp:
        return tuple(map(_stamp_of, (self._config.tls.certificate, self._config.tls.key)))


def _stamp_of(path: Path) -> tuple[int, int, int]:
    """What changes when a file is replaced; zeros where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
