"""A log's public endpoint: its newest checkpoint over HTTP.

The address may be anybody's, and plain HTTP will do: what comes is bounded here and believed only under the log's keys
and the quorum. Redirects are not followed.

Format: c2sp.org/tlog-tiles, `checkpoint`.

Runs in: auditors' machines.
Trusts: nothing that comes back.
"""

from __future__ import annotations

import http.client
import socket
import threading
from contextlib import suppress
from urllib.parse import SplitResult, urlsplit

from sfrl_secure.errors import MalformedError, NotFoundError, UnavailableError
from sfrl_secure.limits import NOTE_BYTES_MAX


def parse_public_url(url: str) -> SplitResult:
    """Take the address of a public log: http or https, a host, perhaps a path.

    Raises:
        MalformedError: another form.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # Parsed on access: a port that is no number shows here.
    except ValueError:
        raise MalformedError("the address of a public log cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise MalformedError("the address of a public log is http or https, with a host and without a query")
    if not url.isascii() or any(character <= " " for character in url):
        raise MalformedError("the address of a public log is ASCII without spaces")
    return parts


def read_public_checkpoint(url: str, *, timeout_seconds: float = 10.0) -> bytes:
    """Read `<url>/checkpoint`: a note, not verified.

    Raises:
        MalformedError: the address has another form.
        NotFoundError: the log has published none yet.
        UnavailableError: no whole answer in time, another status, or more than a note has.
    """
    prefix = parse_public_url(url)
    kind = http.client.HTTPSConnection if prefix.scheme == "https" else http.client.HTTPConnection
    assert prefix.hostname is not None
    connection = kind(prefix.hostname, prefix.port, timeout=timeout_seconds)
    is_over = threading.Event()
    hang_up: threading.Timer | None = None
    try:
        connection.connect()
        # The connection's own timeout begins anew with each byte.
        hang_up = threading.Timer(timeout_seconds, _shut, [connection.sock, is_over])
        hang_up.daemon = True
        hang_up.start()
        connection.request("GET", f"{prefix.path.rstrip('/')}/checkpoint", headers={"Connection": "close"})
        answer = connection.getresponse()
        note = answer.read(NOTE_BYTES_MAX + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise UnavailableError(f"the log's public endpoint {url} does not answer") from error
    finally:
        if hang_up is not None:
            hang_up.cancel()
        connection.close()
    if answer.status == http.HTTPStatus.NOT_FOUND:
        raise NotFoundError(f"the log at {url} has published no checkpoint yet")
    # A head or body that ends early is no error to http.client when it is read within a bound.
    is_whole = not is_over.is_set() and not answer.length
    if answer.status != http.HTTPStatus.OK or len(note) > NOTE_BYTES_MAX or not is_whole:
        raise UnavailableError(f"the log's public endpoint {url} gives no checkpoint")
    return note


def _shut(connected: socket.socket, is_over: threading.Event) -> None:
    is_over.set()
    with suppress(OSError):  # It may be closed by now.
        connected.shutdown(socket.SHUT_RDWR)
