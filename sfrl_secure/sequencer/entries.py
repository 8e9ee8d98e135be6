"""Durable entries by leaf index: the newest from the journal, the others from their bundles.

Runs in: audit_log.
Trusts: the store.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

from sfrl_secure.errors import MissingEvidenceError, NotFoundError
from sfrl_secure.ids import Digest
from sfrl_secure.storage.log_store import LogStore
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX, TILE_WIDTH, Bundle, Tile, parse_bundle

BUNDLES_KEPT = 4
"""Bundles that were read last: whoever reads an entry often reads its neighbours."""


class StoredEntries:
    """Entries of one log. One thread appends; any thread reads."""

    def __init__(self, store: LogStore) -> None:
        self._store = store
        self._leaves: Callable[[int], Sequence[Digest]] | None = None
        self._lock = threading.Lock()
        self._bundles: OrderedDict[int, tuple[bytes, ...]] = OrderedDict()

    def hold_to(self, leaves: Callable[[int], Sequence[Digest]]) -> None:
        """From now on believe a bundle only where its entries have the hashes that its number's tile has."""
        self._leaves = leaves

    def append_batch(self, raws: Sequence[bytes]) -> None:
        """Make entries durable.

        Raises:
            UncertainStateError: the store did not confirm.
        """
        self._store.journal.append_batch(raws)

    def read(self, index: int) -> bytes:
        """Read one entry.

        Raises:
            NotFoundError: there is none at `index`.
            MalformedError: its bundle is damaged.
            MissingEvidenceError: its bundle is not the log's.
        """
        journal = self._store.journal
        if index >= journal.first_index:
            try:
                return journal.record(index)
            except NotFoundError:
                # Dropped since we looked, and then its bundle is there; or not appended yet.
                if index >= journal.count:
                    raise
        number, place = divmod(index, TILE_WIDTH)
        return self._bundle(number)[place]

    def tile(self, tile: Tile) -> bytes:
        """Read a tile that is full.

        Raises:
            NotFoundError: it is not there.
        """
        return self._store.files.read(tile.path, 32 * TILE_WIDTH)

    def _bundle(self, number: int) -> tuple[bytes, ...]:
        with self._lock:
            found = self._bundles.get(number)
            if found is not None:
                self._bundles.move_to_end(number)
                return found
        raw = self._store.files.read(Bundle(number, TILE_WIDTH).path, BUNDLE_BYTES_MAX)
        parsed = parse_bundle(raw, TILE_WIDTH)
        if self._leaves is not None and tuple(leaf_hash(each) for each in parsed) != self._leaves(number):
            raise MissingEvidenceError("a bundle's file is not the bundle that the log has written")
        with self._lock:
            self._bundles[number] = parsed
            while len(self._bundles) > BUNDLES_KEPT:
                self._bundles.popitem(last=False)
        return parsed
