"""The public read path: checkpoints and hash tiles over HTTP, for everybody, read only.

`/checkpoint`, `/checkpoints`, `/checkpoints/<size>` and `/tile/<L>/<N>[.p/<W>]`, each in its one spelling; a query is
not looked at. Hashes and checkpoints are public; entries name participants, so `/tile/entries/` is refused whatever
follows, and bundles are given to those whom governance names, over gRPC (`ReadEntryBundle`).

The files are the service: any web server over the same folder answers the same (services/README.md), and goes on
while the log's writer is down.

Format: c2sp.org/tlog-tiles.

Runs in: audit_log.
Trusts: nothing in a request. Of a file it checks the length: a wrong one is not handed to caches for a year.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import structlog
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sfrl_secure.errors import MalformedError, NotFoundError, SfrlError, UnavailableError
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.translog.canonical_text import parse_decimal
from sfrl_secure.translog.tile_paths import ENTRIES_PREFIX, PATH_CHARACTERS_MAX, parse_tile_path
from sfrl_secure.translog.tiles import Bundle, parse_tile

TEXT = "text/plain; charset=utf-8"
BYTES = "application/octet-stream"

NEWEST = "public, max-age=1"
"""The checkpoint: whoever is a second behind sees a shorter log, never another one."""
LISTED = "public, max-age=60"
"""The list of old checkpoints grows once a minute at most."""
FOREVER = "public, max-age=31536000, immutable"
NEVER = "no-store"
"""Every refusal: a tile that is not there yet may be there in a second."""

LISTED_SECONDS = 60.0
HISTORY_FOLDER = "checkpoints"

_log = structlog.get_logger()


class PublicFiles(Protocol):
    """Published files by name, read by any thread: `storage.log_store.LogFiles` is one."""

    def read(self, name: str, bytes_max: int) -> bytes:
        """Read a file; NotFoundError where there is none."""
        ...

    def names(self, folder: str) -> Iterable[str]:
        """Names of the files below a folder."""
        ...


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    content_type: str
    caching: str


def log_app(files: PublicFiles, *, monotonic: Callable[[], float] = time.monotonic) -> Starlette:
    """The ASGI application over a log's published files."""
    reader = _Reader(files, monotonic)

    async def get(request: Request) -> Response:
        # The bytes that came: what was percent-encoded is another spelling, and no file has it.
        raw: bytes = request.scope.get("raw_path") or b""
        answer = await run_in_threadpool(reader.answer, raw)
        return _response(request, answer)

    async def refuse_method(request: Request, _error: Exception) -> Response:
        response = _response(request, _refusal(405, "this is to be read: GET and HEAD"))
        response.headers["allow"] = "GET, HEAD"
        return response

    return Starlette(
        routes=[Route("/{name:path}", get, methods=["GET"])], exception_handlers={405: refuse_method}
    )


class _Reader:
    """Finds the answer to a path. Safe for several threads."""

    def __init__(self, files: PublicFiles, monotonic: Callable[[], float]) -> None:
        self._files, self._monotonic = files, monotonic
        self._listing = threading.Lock()
        self._listed: tuple[float, bytes] | None = None

    def answer(self, raw_path: bytes) -> _Answer:
        """Read what a path names, or say why not."""
        try:
            name = raw_path.decode("ascii").removeprefix("/")
            return self._find(name) if len(name) <= PATH_CHARACTERS_MAX else _refusal(404, "there is no such file")
        except (NotFoundError, UnicodeDecodeError):
            return _refusal(404, "there is no such file")
        except UnavailableError:
            return _refusal(503, "the files cannot be reached now")
        except SfrlError as error:
            _log.error("public_read_failed", error=type(error).__name__)
            return _refusal(500, "the file is damaged")
        except Exception as error:  # noqa: BLE001 - a fault of ours is a 500 and a line, never a trace to a stranger
            _log.error("public_read_failed", error=type(error).__name__)
            return _refusal(500, "the server failed")

    def _find(self, name: str) -> _Answer:
        if name == "checkpoint":
            return _Answer(200, self._files.read(name, NOTE_BYTES_MAX), TEXT, NEWEST)
        if name == HISTORY_FOLDER:
            return _Answer(200, self._sizes(), TEXT, LISTED)
        if name.startswith(ENTRIES_PREFIX):
            return _refusal(403, "entry bundles are given to services and auditors, over gRPC")
        folder, _, size = name.partition("/")
        if folder == HISTORY_FOLDER:
            _check_size(size)
            return _Answer(200, self._files.read(name, NOTE_BYTES_MAX), TEXT, FOREVER)
        return _Answer(200, self._hash_tile(name), BYTES, FOREVER)

    def _hash_tile(self, name: str) -> bytes:
        try:
            tile = parse_tile_path(name)
        except MalformedError as error:
            raise NotFoundError("there is no such file") from error
        assert not isinstance(tile, Bundle), "entries were refused before"
        raw = self._files.read(tile.path, 32 * tile.width)
        parse_tile(raw, tile.width)
        return raw

    def _sizes(self) -> bytes:
        # One thread lists; to list a folder of years again for each stranger would keep the disk busy.
        with self._listing:
            now = self._monotonic()
            if self._listed is None or now - self._listed[0] >= LISTED_SECONDS:
                found = (name.rpartition("/")[2] for name in self._files.names(HISTORY_FOLDER))
                sizes = sorted(int(size) for size in found if size.isascii() and size.isdigit())
                self._listed = now, "".join(f"{size}\n" for size in sizes).encode()
            return self._listed[1]


def _check_size(text: str) -> None:
    try:
        parse_decimal(text)
    except MalformedError as error:
        raise NotFoundError("there is no such file") from error


def _refusal(status: int, sentence: str) -> _Answer:
    return _Answer(status, f"{sentence}\n".encode(), TEXT, NEVER)


def _response(request: Request, answer: _Answer) -> Response:
    headers = {
        "content-type": answer.content_type,
        "cache-control": answer.caching,
        # Public bytes that anybody may fetch without credentials: a verifier in a browser may read them too.
        "access-control-allow-origin": "*",
        "x-content-type-options": "nosniff",
    }
    if answer.status != 200:
        return Response(b"" if request.method == "HEAD" else answer.body, answer.status, headers)
    headers["etag"] = f'"{hashlib.sha256(answer.body).hexdigest()[:32]}"'
    if _has(request.headers.get("if-none-match", ""), headers["etag"]):
        return Response(b"", 304, headers)
    headers["content-length"] = str(len(answer.body))
    return Response(b"" if request.method == "HEAD" else answer.body, 200, headers)


def _has(condition: str, etag: str) -> bool:
    """Whether a cache already holds these bytes (RFC 9110, section 13.1.2: weak comparison)."""
    return any(each.strip().removeprefix("W/") in ("*", etag) for each in condition.split(","))
