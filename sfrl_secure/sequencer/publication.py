"""Publication: the log as static files, for whoever reads it without us.

For each size that is published: entry bundles and tiles first, then `checkpoint`, which is under the witness quorum.
All but the checkpoint can be made again from the journal, and is at each start; a file that says something else than
the journal stops the log. Partial tiles and bundles stay until the tile after theirs is full, so that whoever has
just read an older checkpoint still finds them.

Format: c2sp.org/tlog-tiles; proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: audit_log.
Trusts: the journal; nothing that lies in the folder.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from sfrl_secure.errors import MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.sequencer.signing import check_ours
from sfrl_secure.storage.files import make_folder, read_bounded, write_atomically
from sfrl_secure.translog.opened import OpenedCheckpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tiles import (
    BUNDLE_BYTES_MAX,
    TILE_WIDTH,
    Bundle,
    Tile,
    bundles_between,
    encode_bundle,
    tile_of_tree,
    tiles_between,
)
from sfrl_secure.translog.tree import MerkleTree

CHECKPOINT_NAME = "checkpoint"

_FILE = re.compile(r"tile/(entries|[0-9]{1,2})/((?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/([0-9]{1,3}))?")


class Publication:
    """The published folder of one log. One thread publishes."""

    def __init__(self, folder: Path, tree: MerkleTree, entry: Callable[[int], bytes]) -> None:
        """Publish into `folder`, which is made where it is missing.

        Args:
            tree: over the durable entries.
            entry: reads a durable entry's bytes.
        """
        self._folder = folder
        self._tree = tree
        self._entry = entry
        self._published_size = 0
        make_folder(folder)

    def open(self, origin: str, policy: TrustPolicy) -> OpenedCheckpoint | None:
        """Compare every file there with the journal, make again what is missing; give the published checkpoint.

        Raises:
            UncertainStateError: something there is not what the journal says.
        """
        try:
            note = read_bounded(self._folder / CHECKPOINT_NAME, NOTE_BYTES_MAX)
        except NotFoundError:
            note = b""
        except MalformedError as error:
            raise UncertainStateError("the published checkpoint is not one") from error
        opened = check_ours(note, origin, policy, self._tree) if note else None
        size = opened.checkpoint.size if opened else 0
        self._write_files(0, size, right=self._compare_files())
        self._published_size = size
        return opened

    def publish(self, size: int, note: bytes) -> None:
        """Publish the first `size` entries under `note`, which holds the quorum.

        Raises:
            UncertainStateError: the disk failed.
            ExhaustedError: the disk is full; the checkpoint is the older one.
        """
        if size < self._published_size:
            return
        self._write_files(self._published_size, size)
        write_atomically(self._folder / CHECKPOINT_NAME, note)
        self._drop_partials(self._published_size, size)
        self._published_size = size

    def _write_files(self, old_size: int, size: int, right: Collection[str] = ()) -> None:
        files: Iterator[Tile | Bundle]
        for files in (bundles_between(old_size, size), tiles_between(old_size, size)):
            for file in files:
                if file.path not in right:
                    path = self._folder / file.path
                    path.parent.mkdir(parents=True, exist_ok=True)
                    # No sync: a start writes again what a power failure took.
                    write_atomically(path, self._bytes_of(file), durable=False)

    def _bytes_of(self, file: Tile | Bundle) -> bytes:
        """What the journal says that a file holds.

        Raises:
            NotFoundError: the log has not grown so far.
        """
        if isinstance(file, Tile):
            return tile_of_tree(self._tree, file)
        first = file.index * TILE_WIDTH
        return encode_bundle([self._entry(index) for index in range(first, first + file.width)])

    def _compare_files(self) -> set[str]:
        """Compare every tile and bundle with the journal; give the names of those that are right.

        One that is shorter than it should be is what a power failure leaves, and is not given.
        """
        right: set[str] = set()
        for path in sorted((self._folder / "tile").rglob("*")):
            name = path.relative_to(self._folder).as_posix()
            file = _file_of(name)
            if file is None or not path.is_file():
                continue
            try:
                due, found = self._bytes_of(file), read_bounded(path, BUNDLE_BYTES_MAX)
            except (NotFoundError, MalformedError) as error:
                raise UncertainStateError(f"{name} is published, and the journal does not reach so far") from error
            if not due.startswith(found):
                raise UncertainStateError(f"{name} is published, and is not what the journal says")
            if due == found:
                right.add(name)
        return right

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
        shutil.rmtree(self._folder / f"{full_name}.p", ignore_errors=True)


def _file_of(name: str) -> Tile | Bundle | None:
    """What a published file's name stands for; None for names that are not ours."""
    matched = _FILE.fullmatch(name)
    if matched is None:
        return None
    index = int(matched[2].replace("/", "").replace("x", ""))
    width = int(matched[3] or TILE_WIDTH)
    try:
        file = Bundle(index, width) if matched[1] == "entries" else Tile(int(matched[1]), index, width)
    except MalformedError:
        return None
    # One file has one name: leading zeros or a width of 256 written out are none of ours.
    return file if file.path == name else None
