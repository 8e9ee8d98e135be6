"""gRPC calls in handmade HTTP/2 frames, for TLS that no library of ours would speak: old versions, odd groups.

Frames: RFC 9113. Headers go out as literals (RFC 7541, section 6.2.2); of those that come back one is looked for.
"""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Self

from sfrl_secure.errors import DeniedError, UnavailableError
from sfrl_secure.rpc.status import ERROR_METADATA
from sfrl_secure.wire.error_detail import ErrorDetail, parse_error_detail

_HEADERS, _DATA, _SETTINGS = 1, 0, 4
_END_STREAM, _END_HEADERS = 1, 4
_TRUE_BINARY = b"\xfe\x03\x00\x00\x00\x01"
"""gRPC's own setting: metadata that is binary comes as it is."""


class RawConnection:
    """One TLS connection and its calls, one after another. Use it in a `with`."""

    def __init__(self, address: str, server_name: str, context: ssl.SSLContext) -> None:
        """Shake hands.

        Raises:
            UnavailableError: the server does not.
        """
        host, _, port = address.rpartition(":")
        self._name, self._stream = server_name, 1
        plain = socket.create_connection((host, int(port)), timeout=10)
        try:
            self._secure = context.wrap_socket(plain, server_hostname=server_name)
        except (ssl.SSLError, ConnectionError):
            plain.close()
            raise UnavailableError("no TLS") from None
        self._send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + _frame(_SETTINGS, 0, 0, _TRUE_BINARY))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._secure.close()

    @property
    def version(self) -> str | None:
        """The version of TLS that was agreed on."""
        return self._secure.version()

    def call(self, path: str, request: bytes) -> ErrorDetail:
        """Call a method that has no answer for this request but an error, and give what it is told.

        Raises:
            DeniedError: refused, with the reason.
            UnavailableError: the server hung up: under TLS 1.3 a client learns so late that it is not let in.
        """
        headers = [
            (":method", "POST"), (":scheme", "https"), (":path", path), (":authority", self._name),
            ("content-type", "application/grpc"), ("te", "trailers"),
        ]  # fmt: skip
        stream, self._stream = self._stream, self._stream + 2
        try:
            self._send(_frame(_HEADERS, _END_HEADERS, stream, b"".join(_literal(*each) for each in headers)))
            self._send(_frame(_DATA, _END_STREAM, stream, b"\0" + len(request).to_bytes(4, "big") + request))
            detail = _detail_in(self._answer(stream))
        except (ssl.SSLError, ConnectionError):
            raise UnavailableError("the server hung up") from None
        if detail.reason:
            raise DeniedError(detail.reason, detail.message)
        return detail

    def _answer(self, stream: int) -> bytes:
        answer = b""
        while True:
            head = self._exactly(9)
            body = self._exactly(int.from_bytes(head[:3], "big"))
            if int.from_bytes(head[5:9], "big") == stream:
                answer += body
                if head[3] in (_DATA, _HEADERS) and head[4] & _END_STREAM:
                    return answer

    def _exactly(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            part = self._secure.recv(count - len(found))
            if not part:
                raise ConnectionError("the server hung up")
            found += part
        return found

    def _send(self, raw: bytes) -> None:
        self._secure.sendall(raw)


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _literal(name: str, value: str) -> bytes:
    return b"\x00" + b"".join(bytes([len(each)]) + each.encode() for each in (name, value))


def _detail_in(answer: bytes) -> ErrorDetail:
    _, name, rest = answer.partition(ERROR_METADATA.encode())
    assert name, "every answer to these calls is an error of ours"
    length, used = _integer(rest)
    assert rest[used] == 0, "binary, as it is"
    return parse_error_detail(rest[used + 1 : used + length])


def _integer(raw: bytes) -> tuple[int, int]:
    """An integer with a prefix of 7 bits (RFC 7541, section 5.1), and how many bytes it took."""
    assert not raw[0] & 0x80, "not Huffman's code"
    value, used = raw[0] & 0x7F, 1
    if value == 0x7F:
        shift = 0
        while True:
            value += (raw[used] & 0x7F) << shift
            shift, used = shift + 7, used + 1
            if not raw[used - 1] & 0x80:
                break
    return value, used
