"""A checkpoint from a public address: bounded in bytes and in time, and no redirect."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sfrl_secure.audit.public_log import read_public_checkpoint
from sfrl_secure.errors import MalformedError, NotFoundError, UnavailableError
from sfrl_secure.limits import NOTE_BYTES_MAX

Answer = Callable[[socket.socket], None]


def http(status: str, body: bytes, *, length: int | None = None, more: str = "") -> Answer:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body) if length is None else length}\r\n{more}\r\n"

    def answer(connected: socket.socket) -> None:
        connected.sendall(head.encode() + body)

    return answer


def dribble(connected: socket.socket) -> None:
    connected.sendall(b"HTTP/1.1 200 OK\r\n")
    try:
        while True:
            connected.sendall(b"x")
            time.sleep(0.05)
    except OSError:
        return


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], str]]:
    """Answer one connection; give the address."""
    listening: list[socket.socket] = []
    heard: list[bytes] = []

    def begin(answer: Answer) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listening.append(listener)

        def run() -> None:
            connected, _ = listener.accept()
            with connected:
                heard.append(connected.recv(4096))
                answer(connected)

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    begin.heard = heard  # type: ignore[attr-defined]
    yield begin
    for each in listening:
        each.close()


def test_the_note_comes_as_it_is(serve) -> None:
    assert read_public_checkpoint(serve(http("200 OK", b"a note\n")) + "/mars/") == b"a note\n"
    assert serve.heard[0].startswith(b"GET /mars/checkpoint HTTP/1.1\r\n")


def test_a_log_without_a_checkpoint_is_not_found(serve) -> None:
    with pytest.raises(NotFoundError):
        read_public_checkpoint(serve(http("404 Not Found", b"")))


@pytest.mark.parametrize(
    "answer",
    [
        http("302 Found", b"", more="location: http://127.0.0.1:1/checkpoint\r\n"),
        http("500 Internal Server Error", b"a note\n"),
        http("200 OK", bytes(NOTE_BYTES_MAX + 1)),
        http("200 OK", b"a note", length=100),
        lambda connected: connected.sendall(b"not HTTP\r\n\r\n"),
        lambda connected: None,
    ],
)
def test_no_whole_answer_is_unavailable(serve, answer: Answer) -> None:
    with pytest.raises(UnavailableError):
        read_public_checkpoint(serve(answer))


def test_a_note_of_the_longest_length_is_taken(serve) -> None:
    assert len(read_public_checkpoint(serve(http("200 OK", bytes(NOTE_BYTES_MAX))))) == NOTE_BYTES_MAX


def test_an_answer_without_end_ends(serve) -> None:
    begun = time.monotonic()
    with pytest.raises(UnavailableError):
        read_public_checkpoint(serve(dribble), timeout_seconds=0.5)
    assert time.monotonic() - begun < 5


def test_nobody_there_is_unavailable() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(UnavailableError, match=f"{url} does not answer"):
            read_public_checkpoint(url)


@pytest.mark.parametrize(
    "url",
    [
        "", "log.example", "ftp://log.example", "file:///etc/passwd", "http://", "http://log.example/?a=1",
        "http://log.example/#a", "http://me:secret@log.example/", "http://log.example:port", "http://log.example/ a",
        "http://log.example/\r\nx: y", "http://[::1", "http://l\u00f6g.example",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_log_is_refused(url: str) -> None:
    with pytest.raises(MalformedError):
        read_public_checkpoint(url)
