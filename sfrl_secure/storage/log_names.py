"""Names of the log's published files, and how a web server or a cache may treat them.

A tile never changes under its name, full or partial; only the checkpoint does. Bundles hold the entries themselves,
which are for those that governance names.

Format: c2sp.org/tlog-tiles.

Runs in: audit_log.
Trusts: nothing.
"""

from __future__ import annotations

import re

from sfrl_secure.errors import MalformedError

CHECKPOINT_NAME = "checkpoint"
PARTIAL_SUFFIX = ".p"
"""Behind the name of a tile: the folder of its partial files, each named by its width."""

_PART = r"[a-z0-9][a-z0-9._-]{0,63}"
_FILE_NAME = re.compile(rf"{_PART}(/{_PART}){{0,15}}")
_NOTES = re.compile(r"checkpoint|checkpoints/[0-9]+")


def is_file_name(name: str) -> bool:
    """Whether a file or folder can have this name: no part of it leads elsewhere or is hidden."""
    return _FILE_NAME.fullmatch(name) is not None


def check_file_name(name: str) -> None:
    """Refuse what no file or folder can be called.

    Raises:
        MalformedError: see `is_file_name`.
    """
    if not is_file_name(name):
        raise MalformedError("not the name of a published file")


def content_type_of(name: str) -> str:
    """The media type of a file."""
    return "text/plain; charset=utf-8" if _NOTES.fullmatch(name) else "application/octet-stream"


def caching_of(name: str) -> str:
    """For how long, and where, a file may be cached."""
    if name == CHECKPOINT_NAME:
        return "public, max-age=1"
    reach = "private" if name.startswith("tile/entries/") else "public"
    return f"{reach}, max-age=31536000, immutable"
