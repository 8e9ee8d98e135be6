"""Paths of tiles and entry bundles, read back: one spelling each.

A path that a stranger sends is taken only if it is exactly the one that `tiles` writes: no other spelling of one file
can get past a rule, or into a cache beside the first.

Format: c2sp.org/tlog-tiles.

Runs in: audit_log, verifier, auditors' machines.
Trusts: nothing.
"""

from __future__ import annotations

import re

from sfrl_secure.errors import MalformedError
from sfrl_secure.translog.tiles import TILE_WIDTH, Bundle, Tile

PATH_CHARACTERS_MAX = 64
"""A path: at most seven groups for an index below 2**63."""

ENTRIES_PREFIX = "tile/entries/"

_PATH = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?")


def parse_tile_path(text: str) -> Tile | Bundle:
    """Take the path of a tile or of an entry bundle, below the log's prefix.

    Raises:
        MalformedError: another form, a second spelling, or a place that no log has.
    """
    matched = _PATH.fullmatch(text) if len(text) <= PATH_CHARACTERS_MAX and text.isascii() else None
    if matched is None:
        raise MalformedError("not the path of a tile")
    level, groups, partial = matched.groups()
    index = int(groups.replace("x", "").replace("/", ""))
    width = TILE_WIDTH if partial is None else int(partial)
    found = Bundle(index, width) if level == "entries" else Tile(int(level), index, width)
    # Leading zeros in level, index or width, and a partial of the full width, are written differently.
    if found.path != text:
        raise MalformedError("not the one spelling of a tile's path")
    return found
