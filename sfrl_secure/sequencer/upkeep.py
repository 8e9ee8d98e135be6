"""What follows the journal: full tiles and bundles, the statement index, the fold's snapshot, and then less journal.

Nobody who appends waits for any of it. What is behind when the process dies is made again at the start.

Runs in: audit_log.
Trusts: the store.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from sfrl_secure.errors import ExhaustedError, UnavailableError, UncertainStateError
from sfrl_secure.sequencer.bootstrap import Index
from sfrl_secure.sequencer.publication import Publication
from sfrl_secure.sequencer.sequencer import LogHead, Sequencer
from sfrl_secure.sequencer.snapshot import FoldSnapshot, Freeze, write_snapshot
from sfrl_secure.storage.log_store import LogJournal

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class UpkeepSettings:
    """When things follow.

    Attributes:
        interval_seconds: from one round of upkeep to the next; tiles and index are behind by no more than this and
            their writing.
        settle_bytes: the journal gives up what lies in bundles when so many bytes of them are new.
        snapshot_entries: a snapshot is written when so many entries came since the last, and
        snapshot_share: the writing of the last took no more than this share of the time since.
        full_disk_seconds: pause after the disk was full.
    """

    interval_seconds: float = 0.02
    settle_bytes: int = 4 * 1024 * 1024
    snapshot_entries: int = 4096
    snapshot_share: float = 0.05
    full_disk_seconds: float = 1.0


class Upkeep:
    """Keeps the files of a log up. `start`, then `stop` once, after the sequencer's."""

    def __init__(
        self,
        sequencer: Sequencer[Any],  # Any: what the entries say is of no account here.
        publication: Publication,
        journal: LogJournal,
        index: Index,
        folder: Path,
        freeze: Freeze,
        settings: UpkeepSettings,
        *,
        on_uncertain: Callable[[UncertainStateError], None],
    ) -> None:
        """Keep up what `sequencer` orders.

        Args:
            folder: private, for the snapshot.
            freeze: of the sequencer's fold; called under the history's lock.
            on_uncertain: stops the process.
        """
        self._sequencer = sequencer
        self._publication = publication
        self._journal = journal
        self._index = index
        self._folder = folder
        self._freeze = freeze
        self._settings = settings
        self._on_uncertain = on_uncertain
        self._stopping = threading.Event()
        self._snapshot_size = 0
        self._snapshot_at = time.monotonic()
        self._snapshot_took = 0.0
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End, with everything written."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            head = LogHead()
            while not self._stopping.is_set():
                # The sequencer that ends before us has nothing new; what it has, we finish.
                with suppress(UnavailableError):
                    head = self._sequencer.wait_for_change(head, 0.2)
                self._follow(head.size)
                self._stopping.wait(self._settings.interval_seconds)
            self._follow(self._sequencer.head.size)
            self._write_snapshot()
        except UncertainStateError as failure:
            self._on_uncertain(failure)
        except ExhaustedError:
            _log.error("disk_full")  # At the very end: a start makes again what is missing.
        except Exception as error:  # noqa: BLE001 - a fault of ours: a log that silently stops publishing would be worse
            fault = UncertainStateError("the upkeep failed")
            fault.__cause__ = error
            self._on_uncertain(fault)

    def _follow(self, size: int) -> None:
        try:
            self._publication.advance(size)
            self._index.flush(size)
            if self._publication.unsettled_bytes >= self._settings.settle_bytes:
                self._publication.settle()
                self._journal.drop_before(self._publication.settled_size)
            if self._is_snapshot_due(size):
                self._write_snapshot()
        except ExhaustedError:
            _log.error("disk_full", tree_size=size)
            self._stopping.wait(self._settings.full_disk_seconds)

    def _is_snapshot_due(self, size: int) -> bool:
        since = time.monotonic() - self._snapshot_at
        enough = size - self._snapshot_size >= self._settings.snapshot_entries
        return enough and self._snapshot_took <= self._settings.snapshot_share * since

    def _write_snapshot(self) -> None:
        history = self._sequencer.history
        begun = time.monotonic()
        with history.lock:
            size, last_leaf = history.next_index, history.last_leaf
            last_time_us, void_entries = history.last_time_us, history.void_entries
            encode = self._freeze()
        if size == self._snapshot_size:
            return
        fold = encode()
        # The fold is ahead of the disk by what is staged: a snapshot of it must never be ahead of the journal.
        while history.size < size:
            if self._stopping.wait(0.001) and history.size < size:
                return
        root = history.tree.root(size)
        write_snapshot(self._folder, FoldSnapshot(size, void_entries, last_time_us, last_leaf, root, fold))
        self._snapshot_size = size
        self._snapshot_at = time.monotonic()
        self._snapshot_took = self._snapshot_at - begun
