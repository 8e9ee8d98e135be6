"""Asking a witness over HTTP: its add-checkpoint endpoint and its monitoring endpoint.

Answers are bounded and not believed: whoever asks verifies cosignatures and notes. Redirects are not followed.

Format: c2sp.org/tlog-witness v1.0.0.

Runs in: audit_log.
Trusts: nothing that comes back.
"""

from __future__ import annotations

import hashlib
import http.client
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from sfrl_secure.errors import MalformedError, UnavailableError
from sfrl_secure.limits import NOTE_BYTES_MAX

ANSWER_BYTES_MAX = NOTE_BYTES_MAX
"""One answer's body."""


@dataclass(frozen=True, slots=True)
class WitnessReply:
    """An HTTP answer: status and body, at most `ANSWER_BYTES_MAX`."""

    status: int
    body: bytes


class Witness(Protocol):
    """A witness as the log sees it. `names` are those that the trust policy gives its keys, one or more."""

    @property
    def names(self) -> tuple[str, ...]: ...

    def add_checkpoint(self, request: bytes) -> WitnessReply:
        """Ask for a cosignature; raises UnavailableError."""
        ...

    def latest(self, origin: str) -> WitnessReply:
        """Ask for the latest checkpoint that it cosigned; raises UnavailableError."""
        ...


class HttpWitness:
    """A witness at two URLs. Each question is a connection of its own, so any number of threads may ask."""

    def __init__(
        self, names: tuple[str, ...], submission_url: str, monitoring_url: str, *, timeout_seconds: float = 5.0
    ) -> None:
        """Check the URLs: http or https, a host, no query.

        Raises:
            MalformedError: one is of another form.
        """
        self.names = names
        self._submission = _parse_prefix(submission_url)
        self._monitoring = _parse_prefix(monitoring_url)
        self._timeout_seconds = timeout_seconds

    def add_checkpoint(self, request: bytes) -> WitnessReply:
        """POST to `<submission>/add-checkpoint`.

        Raises:
            UnavailableError: no whole answer in time, or a longer one than `ANSWER_BYTES_MAX`.
        """
        return self._ask(self._submission, "POST", "add-checkpoint", request)

    def latest(self, origin: str) -> WitnessReply:
        """GET `<monitoring>/<hex sha256(origin)>/checkpoint`.

        Raises:
            UnavailableError: no whole answer in time, or a longer one than `ANSWER_BYTES_MAX`.
        """
        return self._ask(self._monitoring, "GET", f"{hashlib.sha256(origin.encode()).hexdigest()}/checkpoint", None)

    def _ask(self, prefix: SplitResult, method: str, name: str, body: bytes | None) -> WitnessReply:
        kind = http.client.HTTPSConnection if prefix.scheme == "https" else http.client.HTTPConnection
        assert prefix.hostname is not None
        connection = kind(prefix.hostname, prefix.port, timeout=self._timeout_seconds)
        is_over = threading.Event()
        last_word: threading.Timer | None = None
        try:
            connection.connect()
            # The connection's own timeout begins anew with each byte.
            last_word = threading.Timer(self._timeout_seconds, _hang_up, [connection.sock, is_over])
            last_word.daemon = True
            last_word.start()
            connection.request(method, f"{prefix.path.rstrip('/')}/{name}", body, {"Connection": "close"})
            answer = connection.getresponse()
            data = answer.read(ANSWER_BYTES_MAX + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise UnavailableError("a witness does not answer") from error
        finally:
            if last_word is not None:
                last_word.cancel()
            connection.close()
        if len(data) > ANSWER_BYTES_MAX:
            raise UnavailableError(f"a witness's answer is longer than {ANSWER_BYTES_MAX} bytes")
        # A body that ends early is no error to http.client when it is read within a bound.
        if is_over.is_set() or answer.length:
            raise UnavailableError("a witness's answer is not whole")
        return WitnessReply(answer.status, data)


def _hang_up(connected: socket.socket, is_over: threading.Event) -> None:
    is_over.set()
    with suppress(OSError):  # It may be closed by now.
        connected.shutdown(socket.SHUT_RDWR)


def _parse_prefix(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port  # Parsed on access: a port that is no number shows here.
    except ValueError:
        raise MalformedError("a witness's URL cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise MalformedError("a witness's URL is http or https, with a host and without a query")
    if not url.isascii() or any(character <= " " for character in url):
        raise MalformedError("a witness's URL is ASCII without spaces")
    return parts
