"""The statement index: at which leaf index a statement stands, by its digest. Disposable.

What is added is in memory until `flush`, which writes it together with the log size up to which the index is
complete. Only statements of durable entries are written: the file never knows one that the log may still lose.
Whatever is wrong with the file, it is begun anew, and the caller reads the log again from `indexed_size` on.

Runs in: audit_log.
Trusts: `index_file`.
"""

from __future__ import annotations

import threading
from pathlib import Path

from sfrl_secure.errors import SfrlError
from sfrl_secure.ids import ZERO_DIGEST, Digest
from sfrl_secure.storage.index_file import open_index_file, remove_index_file

_MISSED_MAX = 4096


class SqliteStatements:
    """Leaf indices by statement digest. One thread gets and adds; any thread flushes.

    Attributes:
        indexed_size: every statement below this leaf index is in the file.
    """

    def __init__(self, path: Path, *, log_id: Digest = ZERO_DIGEST) -> None:
        """Open the index of one log; begin anew, at `indexed_size` 0, where there is none that can be trusted.

        Args:
            log_id: names the log, such as the entry hash of its genesis.

        Raises:
            ExhaustedError: the disk is full.
            UncertainStateError: another process uses it, or the disk failed.
        """
        self._path = path
        self._log_id = log_id
        # Held while memory changes and for one look into the file, never while the file is written.
        self._lock = threading.Lock()
        self._one_flush = threading.Lock()
        self._pending: dict[Digest, int] = {}
        self._flushing: dict[Digest, int] = {}
        # What the file does not hold and was not added since.
        self._missed: set[Digest] = set()
        self._file = open_index_file(path, log_id)
        self.indexed_size = self._file.read_size()

    def get(self, digest: Digest) -> int | None:
        """Leaf index of a statement; None where it was never added.

        Raises:
            UncertainStateError: the file cannot be read.
        """
        with self._lock:
            return self._find(digest)

    def add(self, digest: Digest, index: int) -> None:
        """Add a statement; where it is known, its first index stays.

        Raises:
            UncertainStateError: the file cannot be read.
        """
        with self._lock:
            # Whoever adds has mostly asked before: no second look into the file.
            if digest in self._missed or self._find(digest) is None:
                self._missed.discard(digest)
                self._pending[digest] = index

    def flush(self, size: int) -> None:
        """Write what was added below `size`, together with `size`.

        The log's first `size` entries are durable, and their statements were added.

        Raises:
            ExhaustedError: the disk is full; nothing is lost, and it may be tried again.
            UncertainStateError: the file cannot be written.
        """
        with self._one_flush:
            with self._lock:
                # Both before either changes: `get` finds each statement in one of them until it is in the file.
                due = {digest: index for digest, index in self._pending.items() if index < size}
                later = {digest: index for digest, index in self._pending.items() if index >= size}
                self._flushing, self._pending = due, later
            try:
                self._file.write(due.items(), size)
            except SfrlError:
                with self._lock:
                    self._flushing, self._pending = {}, due | self._pending
                raise
            with self._lock:
                self._flushing = {}
                self.indexed_size = size

    def clear(self) -> None:
        """Forget everything, as where the log turns out to be shorter than `indexed_size`.

        Raises:
            ExhaustedError: the disk is full.
            UncertainStateError: the file could not be made anew.
        """
        with self._one_flush, self._lock:
            self._file.close()
            remove_index_file(self._path)
            self._pending, self._flushing, self.indexed_size = {}, {}, 0
            self._missed.clear()
            self._file = open_index_file(self._path, self._log_id)

    def close(self) -> None:
        """Close the file, durably; what was not flushed is left out.

        Raises:
            ExhaustedError, UncertainStateError: the disk did not confirm: the next boot begins anew.
        """
        with self._one_flush, self._lock:
            self._file.close()

    def _find(self, digest: Digest) -> int | None:
        index = self._pending.get(digest)
        if index is None:
            index = self._flushing.get(digest)
        if index is None:
            index = self._file.find(digest)
        if index is None:
            if len(self._missed) >= _MISSED_MAX:
                self._missed.clear()
            self._missed.add(digest)
        return index
