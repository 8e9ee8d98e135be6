"""The snapshot of the log's fold: how far it was, and what it amounted to.

Disposable: a log without it folds its entries again. It names the last entry that it covers, whose hash commits to
every entry before it, and it is held against the tree before it is believed.

File: `SFRLFLD2` (8 bytes), entries u64, void entries u64, time of the last entry u64, hash of the last entry 32, root
of the tree 32, then the fold as its owner encodes it; little-endian.

Runs in: audit_log.
Trusts: its own folder. Whoever can write there holds the log anyway.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import Digest
from sfrl_secure.storage.files import SECRET_MODE, read_bounded, write_atomically

SNAPSHOT_NAME = "fold"
SNAPSHOT_BYTES_MAX = 2**30

_MAGIC = b"SFRLFLD2"
_HEAD = struct.Struct("<8sQQQ32s32s")


@dataclass(frozen=True, slots=True)
class FoldSnapshot:
    """A fold after `size` entries.

    Attributes:
        size: entries that it took.
        void_entries: those without effect among them.
        last_time_us: log time of the last one.
        last_leaf: its hash.
        root: of the tree over all of them: the tiles that a start goes on from may have been changed.
        fold: as its owner encodes it.
    """

    size: int
    void_entries: int
    last_time_us: int
    last_leaf: Digest
    root: Digest
    fold: bytes


Freeze = Callable[[], Callable[[], bytes]]
"""Takes the fold's state as it is, quickly; what it gives encodes that state, whatever happens to the fold since."""


def write_snapshot(folder: Path, snapshot: FoldSnapshot) -> None:
    """Put a snapshot in place of the one before.

    Raises:
        UncertainStateError, ExhaustedError: the disk failed, or is full.
    """
    head = _HEAD.pack(
        _MAGIC, snapshot.size, snapshot.void_entries, snapshot.last_time_us, snapshot.last_leaf, snapshot.root
    )
    write_atomically(folder / SNAPSHOT_NAME, head + snapshot.fold, mode=SECRET_MODE, durable=False)


def read_snapshot(folder: Path) -> FoldSnapshot:
    """Read the snapshot.

    Raises:
        NotFoundError: there is none.
        MalformedError: not one.
    """
    raw = read_bounded(folder / SNAPSHOT_NAME, SNAPSHOT_BYTES_MAX)
    if len(raw) < _HEAD.size or not raw.startswith(_MAGIC):
        raise MalformedError("not a snapshot of a fold")
    _, size, void_entries, last_time_us, last_leaf, root = _HEAD.unpack_from(raw)
    if size == 0:
        raise MalformedError("a snapshot covers one entry or more")
    return FoldSnapshot(size, void_entries, last_time_us, Digest(last_leaf), Digest(root), raw[_HEAD.size:])
