"""What a service keeps of the fold over a restart: a snapshot, and the statement index.

Both are disposable, and both or none are used: without a snapshot that fits, the index is emptied and the log is
folded anew. The snapshot is written at the end, and in between where enough has come to be worth it; the index a few
times a second, always before a snapshot that needs it.

Folder: `fold`, the snapshot: length of the follower's start (u32, little-endian), its JSON, its SHA-256, the fold (see
`rounds.snapshot`); `statements.sqlite`; `lock`.

Runs in: gatekeeper, aggregator.
Trusts: its own folder, as far as `follower_start` and `rounds.snapshot` say.
"""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import structlog

from sfrl_secure.errors import ExhaustedError, MalformedError, NotFoundError, UncertainStateError, VerificationError
from sfrl_secure.ids import sha256
from sfrl_secure.periodic import PeriodicThread
from sfrl_secure.rounds.fold import FederationFold
from sfrl_secure.rounds.shapes import read_back, shape_of, written
from sfrl_secure.rounds.snapshot import SNAPSHOT_BYTES_MAX, decode_fold
from sfrl_secure.rpc.follower_start import CoveredTree, FollowerStart, open_start
from sfrl_secure.storage.files import SECRET_MODE, FolderLock, make_folder, read_bounded, write_atomically
from sfrl_secure.storage.index import SqliteStatements
from sfrl_secure.storage.system import unlink
from sfrl_secure.translog.policy import TrustPolicy

SNAPSHOT_NAME = "fold"
INDEX_NAME = "statements.sqlite"

ENTRIES_BETWEEN = 4_096
"""Fewer new entries are not worth a snapshot before the end."""

SHARE_OF_TIME = 0.05
"""Of the time between two snapshots, what writing one may take."""

FLUSH_SECONDS = 0.25

_LENGTH = struct.Struct("<I")
_SUM_BYTES = 32
_START = shape_of(FollowerStart)

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Frozen:
    start: FollowerStart
    fold: Callable[[], bytes]


class KeptFold:
    """A service's state folder. One thread offers; `start`, then `stop` once, when nobody offers any more.

    Attributes:
        fold: to go on with, until `begin_anew`.
        begin: where the follower goes on; None where that is the first entry.
        floor: without `begin`, what the log had signed when the snapshot was written, where that much of it is good.
    """

    def __init__(self, folder: Path, origin: str, log_vkeys: tuple[str, str], policy: TrustPolicy) -> None:
        """Take the folder, which is made where it is missing, and read what is kept there.

        Raises:
            MalformedError: another process owns the folder.
            UncertainStateError: the disk failed.
            ExhaustedError: the disk is full.
            MissingEvidenceError: the snapshot is there and cannot be read.
        """
        make_folder(folder)
        self._path = folder / SNAPSHOT_NAME
        self._origin, self._log_vkeys = origin, log_vkeys
        # Held while files are written, and never while somebody offers.
        self._writing = threading.Lock()
        self._changed = threading.Lock()
        self._frozen: _Frozen | None = None
        self._covered_size = self._frozen_size = 0
        self._free_at = 0.0
        self._thread = PeriodicThread("kept-fold", lambda: self._try(self._write), every_seconds=FLUSH_SECONDS)
        with ExitStack() as opening:
            self._lock = opening.enter_context(FolderLock(folder))
            self._index = SqliteStatements(folder / INDEX_NAME, log_id=sha256(origin.encode()))
            opening.callback(self._index.close)
            self.floor: CoveredTree | None = None
            self.fold, self.begin = self._open(policy)
            opening.pop_all()

    def begin_anew(self) -> FederationFold:
        """Throw away what was kept of the entries, and give a fold before entry 0.

        The snapshot stays until the next one: what the log has signed is in it.
        """
        with self._writing:
            self._index.clear()
            with self._changed:
                self._frozen, self._covered_size, self._frozen_size = None, 0, 0
            self.fold, self.begin = FederationFold(self._origin, self._log_vkeys, self._index), None
            return self.fold

    def forget(self) -> None:
        """Remove the snapshot, because what is in memory cannot be relied upon, and neither may what led to it."""
        with self._writing:
            unlink(self._path)
            with self._changed:
                self._frozen = None

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def offer(
        self, size: int, position: Callable[[], FollowerStart], freeze: Callable[[], Callable[[], bytes]]
    ) -> None:
        """Say that the log has signed for the `size` entries that the fold has taken.

        Both callbacks are asked at once where a snapshot is due.
        """
        with self._changed:
            self._covered_size = size
            due = (
                self._frozen is None
                and size - self._frozen_size >= ENTRIES_BETWEEN
                and time.monotonic() >= self._free_at
            )
            if due:
                self._frozen, self._frozen_size = _Frozen(position(), freeze()), size

    def stop(self, last: Callable[[], tuple[FollowerStart, Callable[[], bytes]]] | None) -> None:
        """Write a last snapshot where there is something new and `last` gives it; let the folder go."""
        self._thread.stop()
        if last is not None and self._covered_size > self._frozen_size:
            self._frozen = _Frozen(*last())
        try:
            self._try(self._write)
            self._try(self._index.close)
        finally:
            self._lock.release()

    @staticmethod
    def _try(write: Callable[[], None]) -> None:
        try:
            write()
        except (ExhaustedError, UncertainStateError) as error:
            # Nothing is lost by it but the time of the next start.
            _log.warning("snapshot_not_written", error=type(error).__name__)

    def _write(self) -> None:
        with self._writing:
            with self._changed:
                frozen, size = self._frozen, self._covered_size
            # Without a snapshot the index is begun anew whatever it holds. Beside one it holds only what the log has
            # signed for.
            if self.begin is None:
                size = self.fold.state.size
            if size > self._index.indexed_size:
                self._index.flush(size)
            if frozen is not None:
                self._write_snapshot(frozen)

    def _write_snapshot(self, frozen: _Frozen) -> None:
        begun, written_size = time.monotonic(), 0
        try:
            raw = encode_kept(frozen.start, frozen.fold())
            write_atomically(self._path, raw, mode=SECRET_MODE, durable=False)
            written_size = self._frozen_size
        finally:
            took = time.monotonic() - begun
            with self._changed:
                # Where it failed, the next one that is offered is due, after as long a pause.
                self._frozen, self._frozen_size = None, written_size
                self._free_at = begun + took + took / SHARE_OF_TIME
        size = frozen.start.signed.tree_size
        _log.info("snapshot_written", log_size=size, bytes=len(raw), elapsed_ms=round(took * 1000))

    def _open(self, policy: TrustPolicy) -> tuple[FederationFold, FollowerStart | None]:
        begun = time.monotonic()
        try:
            start, fold_raw = decode_kept(read_bounded(self._path, SNAPSHOT_BYTES_MAX))
            open_start(start, self._origin, policy)
            self.floor = start.signed
            fold = decode_fold(fold_raw, self._origin, self._log_vkeys, self._index)
            size = start.signed.tree_size
            if fold.state.size != size or self._index.indexed_size < size:
                raise MalformedError("fold, follower and index are not of one size")
        except NotFoundError:
            return self.begin_anew(), None
        except (MalformedError, VerificationError) as error:
            _log.warning("snapshot_discarded", error=f"{type(error).__name__}: {error}")
            return self.begin_anew(), None
        self._covered_size = self._frozen_size = size
        self.floor = None
        _log.info("snapshot_read", log_size=size, elapsed_ms=round((time.monotonic() - begun) * 1000))
        return fold, start


def encode_kept(start: FollowerStart, fold_raw: bytes) -> bytes:
    """Write a snapshot file."""
    head = json.dumps(written(start, _START), separators=(",", ":")).encode("ascii")
    return b"".join((_LENGTH.pack(len(head)), head, sha256(head), fold_raw))


def decode_kept(raw: bytes) -> tuple[FollowerStart, bytes]:
    """Read a snapshot file: where the follower goes on, and the encoded fold.

    Raises:
        MalformedError: not one, or damaged.
    """
    if len(raw) < _LENGTH.size:
        raise MalformedError("a snapshot begins with a length")
    end = _LENGTH.size + _LENGTH.unpack_from(raw)[0]
    head = raw[_LENGTH.size:end]
    if sha256(head) != raw[end:end + _SUM_BYTES]:
        raise MalformedError("the snapshot is damaged")
    try:
        found = json.loads(head)
    except (ValueError, RecursionError):
        raise MalformedError("a follower's start is JSON") from None
    start: FollowerStart = read_back(found, _START)
    return start, raw[end + _SUM_BYTES:]
