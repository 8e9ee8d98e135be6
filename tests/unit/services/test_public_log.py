"""The public endpoint over a real server: what it gives, with which headers, and everything that it does not give."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sfrl_secure.errors import MissingEvidenceError, UnavailableError
from sfrl_secure.services.audit_log.http import FOREVER, LISTED, LISTED_SECONDS, NEVER, NEWEST, log_app
from sfrl_secure.services.http import HttpServer
from sfrl_secure.storage.log_files import FolderLogFiles

NOTE = "log.example/sfrl/1\n300\nroot\n\n— log.example/sfrl/1 sig\n".encode()


class Files:
    """The published files of a log, which a test may break; counts how often they are listed."""

    def __init__(self, folder: Path) -> None:
        self.folder = FolderLogFiles(folder)
        self.broken: Exception | None = None
        self.listed = 0
        for name, data in {
            "checkpoint": NOTE,
            "checkpoints/9": b"nine",
            "checkpoints/300": NOTE,
            "checkpoints/1000": b"thousand",
            "tile/0/000": bytes(8192),
            "tile/0/001.p/44": bytes(44 * 32),
            "tile/1/000.p/1": bytes(32),
            "tile/0/x001/234": bytes(8192),
            "tile/0/007": bytes(8191),
            "tile/entries/000": b"who was there",
        }.items():
            self.folder.write(name, data)
        self.folder.close()
        (folder / "secret").write_bytes(b"not one of the log's files")

    def read(self, name: str, bytes_max: int) -> bytes:
        if self.broken is not None:
            raise self.broken
        return self.folder.read(name, bytes_max)

    def names(self, folder: str) -> Iterator[str]:
        self.listed += 1
        return self.folder.names(folder)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A server over the files, asked in raw bytes: no client tidies the path up."""

    def __init__(self, folder: Path) -> None:
        self.files, self.clock = Files(folder), Clock()
        app = log_app(self.files, monotonic=self.clock)
        self.server = HttpServer(app, "127.0.0.1:0", name="public-log", grace_seconds=1)
        self.server.start()

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, dict[str, str], bytes]:
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        sent = f"{method} {path} HTTP/1.1\r\nhost: log\r\nconnection: close\r\n{lines}\r\n".encode("latin-1")
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as connected:
            connected.sendall(sent)
            answer = http.client.HTTPResponse(connected, method=method)
            answer.begin()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("log"))
    yield site
    site.server.stop()


@pytest.fixture
def site(running: Site) -> Iterator[Site]:
    yield running
    running.files.broken = None


@pytest.mark.parametrize(
    ("path", "content_type", "caching", "body"),
    [
        ("/checkpoint", "text/plain; charset=utf-8", NEWEST, NOTE),
        ("/checkpoints", "text/plain; charset=utf-8", LISTED, b"9\n300\n1000\n"),
        ("/checkpoints/300", "text/plain; charset=utf-8", FOREVER, NOTE),
        ("/tile/0/000", "application/octet-stream", FOREVER, bytes(8192)),
        ("/tile/0/001.p/44", "application/octet-stream", FOREVER, bytes(44 * 32)),
        ("/tile/1/000.p/1", "application/octet-stream", FOREVER, bytes(32)),
        ("/tile/0/x001/234", "application/octet-stream", FOREVER, bytes(8192)),
    ],
)
def test_each_kind_of_file_has_its_type_and_its_caching(
    site: Site, path: str, content_type: str, caching: str, body: bytes
) -> None:
    status, headers, found = site.ask(path)
    assert (status, found) == (200, body)
    assert headers["content-type"] == content_type
    assert headers["cache-control"] == caching
    assert headers["access-control-allow-origin"] == "*"
    assert headers["x-content-type-options"] == "nosniff"
    assert "server" not in headers


def test_the_checkpoint_is_fresh_for_a_few_seconds_at_most_and_a_tile_for_good() -> None:
    assert int(NEWEST.rpartition("=")[2]) <= 5
    assert "max-age=31536000" in FOREVER
    assert "immutable" in FOREVER


@pytest.mark.parametrize("path", ["/checkpoint", "/tile/0/000", "/tile/0/009", "/tile/entries/000"])
def test_head_gives_the_head_of_get_and_no_body(site: Site, path: str) -> None:
    status, headers, _ = site.ask(path)
    again, same, body = site.ask(path, "HEAD")
    headers.pop("date")
    same.pop("date")
    if status == 200:
        assert same == headers
    assert (again, body) == (status, b"")


@pytest.mark.parametrize("path", ["/checkpoint", "/tile/0/000"])
def test_who_has_the_bytes_is_told_so(site: Site, path: str) -> None:
    etag = site.ask(path)[1]["etag"]
    for condition in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        status, headers, body = site.ask(path, if_none_match=condition)
        assert (status, body, headers["etag"]) == (304, b"", etag)
        assert headers["cache-control"] == site.ask(path)[1]["cache-control"]
    assert site.ask(path, if_none_match='"other"')[0] == 200


def test_other_bytes_have_another_etag(site: Site) -> None:
    assert site.ask("/tile/0/001.p/44")[1]["etag"] != site.ask("/tile/1/000.p/1")[1]["etag"]


@pytest.mark.parametrize(
    "path",
    [
        "/tile/entries/000", "/tile/entries/001.p/9", "/tile/entries/", "/tile/entries/../0/000",
        "/tile/entries/nothing", "/tile/entries/x001/234",
    ],
)  # fmt: skip
def test_entries_are_refused_with_a_sentence_whether_they_are_there_or_not(site: Site, path: str) -> None:
    status, headers, body = site.ask(path)
    assert (status, body) == (403, b"entry bundles are given to services and auditors, over gRPC\n")
    assert headers["cache-control"] == NEVER


@pytest.mark.parametrize(
    "path",
    [
        "/", "//", "/index.html", "/secret", "/checkpoint/", "//checkpoint", "/./checkpoint", "/Checkpoint",
        "/checkpoints/", "/checkpoints/0300", "/checkpoints/+300", "/checkpoints/301", "/checkpoints/300/",
        "/checkpoints/9223372036854775808", "/checkpoints/" + "9" * 400, "/checkpoints/../secret",
        "/tile", "/tile/", "/tile/0", "/tile/0/", "/tile/0/0", "/tile/00/000", "/tile/0/000/", "/tile//0/000",
        "/tile/0//000", "/tile/64/000", "/tile/0/000.p/256", "/tile/0/001.p/044", "/tile/0/001.p/45", "/tile/0/001",
        "/tile/0/x000/000", "/tile/0/009", "/tile/0/x009/x223/x372/x036/x854/x775/808", "/tile/0/../../secret",
        "/../secret", "/../../etc/passwd", "/tile/../secret", "/%2e%2e/secret", "/tile/%2e%2e/%2e%2e/secret",
        "/tile%2f0%2f000", "/tile/0%2F000", "/%74ile/0/000", "/tile/0/%30%30%30", "/tile%2fentries%2f000",
        "/tile/%65ntries/000", "/checkpoint%00", "/tile/0/000%00", "/tile/0/000%0a", "/checkpoint%3f",
        "/tile\\0\\000", "/tile/0/000;x", "/tile/0/000#", "/tile/0/" + "x000/" * 2000 + "000", "http://log/checkpoint",
        "/tile/0/%d9%a0%d9%a0%d9%a0", "checkpoint", "*",
    ],
)  # fmt: skip
def test_every_other_path_is_not_found_and_no_cache_keeps_that(site: Site, path: str) -> None:
    # What is no request at all gets the 400 of the server, before anything of ours sees it.
    status, headers, body = site.ask(path)
    assert status == 404 or (status == 400 and len(path) > 8_000), path
    assert b"not one of the log's files" not in body
    if status == 404 and path.startswith("/"):
        assert headers["cache-control"] == NEVER


@pytest.mark.parametrize("target", [b"/tile/0/\x00000", b"/tile/0/\xff", b"/ tile"])
def test_bytes_that_no_path_has_are_no_request(site: Site, target: bytes) -> None:
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=10) as connected:
        connected.sendall(b"GET " + target + b" HTTP/1.1\r\nhost: log\r\n\r\n")
        assert connected.recv(64).startswith((b"HTTP/1.1 400", b"HTTP/1.1 404"))


def test_a_query_is_not_looked_at(site: Site) -> None:
    assert site.ask("/checkpoint?size=3&..%2f")[2] == NOTE


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_is_written(site: Site, method: str) -> None:
    status, headers, _ = site.ask("/checkpoint", method)
    assert (status, headers["cache-control"], headers["access-control-allow-origin"]) == (405, NEVER, "*")
    assert headers["allow"] == "GET, HEAD"


def test_a_tile_of_another_length_is_an_error_that_no_cache_keeps(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    status, headers, _ = site.ask("/tile/0/007")
    assert (status, headers["cache-control"]) == (500, NEVER)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(MissingEvidenceError("disk"), 500), (UnavailableError("store"), 503), (RuntimeError("a key: 0x1234"), 500)],
)
@pytest.mark.parametrize("path", ["/checkpoint", "/checkpoints/300", "/tile/0/000"])
def test_what_cannot_be_read_is_an_error_without_a_word_of_why(
    site: Site, path: str, error: Exception, expected: int
) -> None:
    site.files.broken = error
    status, headers, body = site.ask(path)
    assert (status, headers["cache-control"]) == (expected, NEVER)
    assert str(error).encode() not in body


def test_a_fault_is_one_line_of_our_log_and_the_class_alone(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    site.files.broken = RuntimeError("a key: 0x1234")
    site.ask("/checkpoint")
    said = "".join(capfd.readouterr())
    assert "public_read_failed" in said
    assert "RuntimeError" in said
    assert "0x1234" not in said
    assert "Traceback" not in said


def test_strangers_cannot_make_the_folder_be_listed_often(site: Site) -> None:
    site.clock.now += LISTED_SECONDS
    before = site.files.listed
    for _ in range(5):
        site.ask("/checkpoints")
    assert site.files.listed == before + 1
    site.clock.now += LISTED_SECONDS
    site.ask("/checkpoints")
    assert site.files.listed == before + 2


def test_a_log_that_has_published_nothing_says_not_found(tmp_path: Path) -> None:
    server = HttpServer(log_app(FolderLogFiles(tmp_path)), "127.0.0.1:0", name="public-log", grace_seconds=1)
    server.start()
    try:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
        for path, status, body in (("/checkpoint", 404, b"there is no such file\n"), ("/checkpoints", 200, b"")):
            connection.request("GET", path)
            answer = connection.getresponse()
            assert (answer.status, answer.read()) == (status, body)
        connection.close()
    finally:
        server.stop()


def test_several_requests_go_over_one_connection(site: Site) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=10)
    for _ in range(3):
        connection.request("GET", "/tile/0/000")
        assert connection.getresponse().read() == bytes(8192)
    connection.close()


def test_a_path_that_a_server_does_not_give_raw_is_not_answered() -> None:
    # Decoded paths hide what was sent: without the raw one, nothing is found.
    import asyncio

    from starlette.types import Message

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    class Everything:
        def read(self, name: str, bytes_max: int) -> bytes:
            return NOTE

        def names(self, folder: str) -> list[str]:
            return []

    scope = {"type": "http", "method": "GET", "path": "/checkpoint", "headers": [], "query_string": b""}
    asyncio.run(log_app(Everything())(scope, receive, send))
    assert sent[0]["status"] == 404


def test_json_lines_and_nothing_else_go_to_the_services_log(site: Site, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=10) as connected:
        connected.sendall(b"this is not HTTP\r\n\r\n")
        connected.recv(64)
    site.ask("/checkpoint", upgrade="websocket", connection="upgrade")
    for line in "".join(capfd.readouterr()).splitlines():
        json.loads(line)
