"""Publication: the log as static files, for whoever reads it without us.

Full bundles and tiles follow the journal whoever witnesses (`advance`); the partial ones and `checkpoint` come with
each size that is under the quorum (`publish`), the checkpoint last. Partial files stay until the tile after theirs is
full, so that whoever has just read an older checkpoint still finds them. Once a minute the checkpoint is also kept
under `checkpoints/<size>`: an old receipt is shown consistent with today by what lies between.

All of it but the checkpoints can be made again from the journal, which drops an entry only after `settle`.

Format: c2sp.org/tlog-tiles; proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: audit_log.
Trusts: the journal; nothing that lies in the folder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.errors import MalformedError, NotFoundError, VerificationError
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.sequencer.signing import check_held
from sfrl_secure.storage.log_store import LogFiles
from sfrl_secure.translog.opened import OpenedCheckpoint, open_checkpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tiles import (
    TILE_WIDTH,
    Bundle,
    Tile,
    bundles_between,
    encode_bundle,
    tile_of_tree,
    tiles_between,
)
from sfrl_secure.translog.tree import MerkleTree

_log = structlog.get_logger()

CHECKPOINT_NAME = "checkpoint"
HISTORY_FOLDER = "checkpoints"
HISTORY_US = 60_000_000
"""One checkpoint of this much time is kept."""


class Publication:
    """The published files of one log. Safe for several threads; one at a time writes.

    Attributes:
        full_size: entries in full bundles and tiles that are written; a multiple of 256.
        settled_size: those that are durable there; the journal need not hold them any more.
        unsettled_bytes: of the bundles written since.
    """

    def __init__(
        self, files: LogFiles, tree: MerkleTree, entry: Callable[[int], bytes], clock: Clock, *, settled_size: int = 0
    ) -> None:
        """Publish into `files`.

        Args:
            tree: over the durable entries.
            entry: reads a durable entry's bytes.
            settled_size: entries that need not be written again.
        """
        assert settled_size % TILE_WIDTH == 0
        self._files = files
        self._tree = tree
        self._entry = entry
        self._clock = clock
        self._lock = threading.Lock()
        self._published_size = 0
        self._history_us = 0
        self.full_size = self.settled_size = settled_size
        self.unsettled_bytes = 0

    def open(self, origin: str, policy: TrustPolicy) -> OpenedCheckpoint | None:
        """Hold the published checkpoint against the tree, and write what may be missing; give the checkpoint.

        Raises:
            UncertainStateError: it is under our keys, and not of this tree.
        """
        opened = self._published(policy)
        if opened is not None:
            check_held(opened, origin, self._tree)
        self.advance(self._tree.size)
        if opened is not None:
            self._published_size = opened.checkpoint.size
            self._write_partials(opened.checkpoint.size, written_size=0)
        return opened

    def _published(self, policy: TrustPolicy) -> OpenedCheckpoint | None:
        try:
            note = self._files.read(CHECKPOINT_NAME, NOTE_BYTES_MAX)
            # Archived: it may be from before the log's keys were replaced.
            return open_checkpoint(note, policy, quorum=False, archived=True)
        except NotFoundError:
            return None
        except (MalformedError, VerificationError) as error:
            # What a power failure leaves of a file that was not synced, or somebody else's: without our signatures it
            # proves nothing. The next one takes its place.
            _log.warning("published_checkpoint_discarded", error=type(error).__name__)
            return None

    def advance(self, size: int) -> None:
        """Write the bundles and tiles that the first `size` entries fill.

        Raises:
            UncertainStateError, ExhaustedError: the store failed, or is full.
        """
        end = size // TILE_WIDTH * TILE_WIDTH
        with self._lock:
            while self.full_size < end:
                following = self.full_size + TILE_WIDTH
                for bundle in bundles_between(self.full_size, following):
                    self.unsettled_bytes += self._write(bundle)
                for tile in tiles_between(self.full_size, following):
                    if tile.width == TILE_WIDTH:
                        self._write(tile)
                self.full_size = following

    def settle(self) -> None:
        """Make durable what `advance` wrote.

        Raises:
            UncertainStateError: the store did not confirm.
        """
        with self._lock:
            self._files.sync()
            self.settled_size, self.unsettled_bytes = self.full_size, 0

    def publish(self, size: int, note: bytes) -> None:
        """Publish the first `size` entries under `note`, which holds the quorum.

        Raises:
            UncertainStateError: the disk failed.
            ExhaustedError: the disk is full; the checkpoint is the older one.
        """
        if size < self._published_size:
            return
        self.advance(size)
        with self._lock:
            self._write_partials(size, written_size=self._published_size)
            self._files.write(CHECKPOINT_NAME, note)
            now_us = self._clock.now_us()
            if abs(now_us - self._history_us) >= HISTORY_US:
                self._files.write(f"{HISTORY_FOLDER}/{size}", note)
                self._history_us = now_us
            self._drop_partials(self._published_size, size)
            self._published_size = size

    def _write_partials(self, size: int, *, written_size: int) -> None:
        if size % TILE_WIDTH:
            self._write(Bundle(size // TILE_WIDTH, size % TILE_WIDTH))
        level, count, written_count = 0, size, written_size
        while count != written_count:
            if count % TILE_WIDTH:
                self._write(Tile(level, count // TILE_WIDTH, count % TILE_WIDTH))
            level, count, written_count = level + 1, count // TILE_WIDTH, written_count // TILE_WIDTH

    def _write(self, file: Tile | Bundle) -> int:
        if isinstance(file, Tile):
            data = tile_of_tree(self._tree, file)
        else:
            first = file.index * TILE_WIDTH
            data = encode_bundle([self._entry(index) for index in range(first, first + file.width)])
        self._files.write(file.path, data)
        return len(data)

    def _drop_partials(self, old_size: int, size: int) -> None:
        """Remove the partial files of each place whose successor has become full."""
        for tile in tiles_between(old_size, size):
            if tile.width == TILE_WIDTH and tile.index:
                self._drop(Tile(tile.level, tile.index - 1, TILE_WIDTH).path)
        for bundle in bundles_between(old_size, size):
            if bundle.width == TILE_WIDTH and bundle.index:
                self._drop(Bundle(bundle.index - 1, TILE_WIDTH).path)

    def _drop(self, full_name: str) -> None:
        # A partial file that stays does no harm: readers ask for the full one.
        for name in self._files.names(f"{full_name}.p"):
            self._files.remove(name)
