"""What lies in a log's folder: every name, what it claims to be, and whether it is a plain file.

Links are not followed and folders are not believed to be finite: the walk stops at a bound.

Format: c2sp.org/tlog-tiles; proto/README.md, "Checkpoints, tiles, cosignatures", folder of a log.

Runs in: auditors' machines, the log's own machine.
Trusts: nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.errors import MalformedError
from sfrl_secure.translog.canonical_text import parse_decimal
from sfrl_secure.translog.tile_paths import parse_tile_path
from sfrl_secure.translog.tiles import Bundle, Tile

CHECKPOINT = "checkpoint"
HISTORY = "checkpoints"
_DEPTH_MAX = 12
_TEMPORARY = ".tmp"


@dataclass(frozen=True, slots=True)
class Named:
    """A file of the folder.

    Attributes:
        path: below the folder, its parts joined by `/`.
        place: the tile or bundle that the path names, if it names one.
        size: the size that a path below `checkpoints/` names, if it names one.
        flaw: why it is not what it should be, whatever it holds; empty where nothing is to be said.
    """

    path: str
    place: Tile | Bundle | None = None
    size: int | None = None
    flaw: str = ""


def files_of(folder: Path) -> Iterator[Named]:
    """List the files of a log's folder, each folder's in the order of their names."""
    yield from _walk(folder, "", 0)


def _walk(folder: Path, prefix: str, depth: int) -> Iterator[Named]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError:
        yield Named(prefix.rstrip("/"), flaw="is a folder that cannot be read")
        return
    for entry in entries:
        path = prefix + _printable(entry.name)
        if not entry.is_dir(follow_symlinks=False):
            yield _named(path, entry)
        elif depth == _DEPTH_MAX:
            yield Named(path, flaw="is a folder deeper than any of a log")
        else:
            yield from _walk(Path(entry.path), path + "/", depth + 1)


def _named(path: str, entry: os.DirEntry[str]) -> Named:
    place: Tile | Bundle | None = None
    size: int | None = None
    try:
        if path.startswith("tile/"):
            place = parse_tile_path(path)
        elif path.startswith(f"{HISTORY}/"):
            size = parse_decimal(path.removeprefix(f"{HISTORY}/"))
    except MalformedError:
        pass
    known = place is not None or size is not None or path == CHECKPOINT
    return Named(path, place, size, _flaw(entry, is_known=known))


def _flaw(entry: os.DirEntry[str], *, is_known: bool) -> str:
    try:
        mode = entry.stat(follow_symlinks=False).st_mode
    except OSError:
        return "cannot be looked at"
    if entry.name.startswith(".") and entry.name.endswith(_TEMPORARY):
        return "was left by an interrupted write; nothing reads it"
    if not is_known:
        return "is no file of a log; nothing reads it"
    if not stat.S_ISREG(mode):
        return "is a link or a device and no plain file"
    return "may be written by everybody on this machine" if mode & stat.S_IWOTH else ""


def _printable(name: str) -> str:
    """A name that steers no terminal."""
    return "".join(character if character.isprintable() else "?" for character in name)
