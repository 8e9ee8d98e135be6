"""A mirror of a log: an auditor's own copy, which grows only by what is proven.

What a log gives is staged beside the copy and hashed. Only when all of it leads to the root of a checkpoint under the
log's keys and the witness quorum does it become part of the copy, the checkpoint last; so whoever interrupts a mirror
has the old copy or the new one, and the next run goes on with what was staged. The hash tiles are made here, from the
entries. What does not fit leaves the copy as it was, and both checkpoints are kept as evidence.

`<folder>/log` has the layout of a published log, with a `checkpoints/<size>` of every checkpoint that was ever taken.

Format: c2sp.org/tlog-tiles; proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: auditors' machines.
Trusts: the trust policy, and its own copy as far as that leads to its own checkpoint. Nothing that a log gives.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.audit.known_keys import open_kept, open_newest
from sfrl_secure.audit.mirror_bundles import LogSupply, staged_entries
from sfrl_secure.audit.mirror_folder import EVIDENCE_FOLDER, LOG_FOLDER, STAGED_FOLDER
from sfrl_secure.errors import (
    ConsistencyError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    SignatureError,
    VerificationError,
)
from sfrl_secure.ids import sha256
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.storage.files import make_folder, read_bounded, write_atomically
from sfrl_secure.storage.log_files import FolderLogFiles
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.opened import OpenedCheckpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tiles import (
    BUNDLE_BYTES_MAX,
    TILE_WIDTH,
    Bundle,
    Tile,
    bundles_between,
    bundles_of,
    parse_tile,
    tile_of_tree,
    tiles_between,
    tiles_of,
)
from sfrl_secure.translog.tree import MerkleTree

Progress = Callable[[str, int, int], None]
"""Told a stage, how far it is, and of how much."""


@dataclass(frozen=True, slots=True)
class MirroredLog:
    """What the copy has now.

    Attributes:
        checkpoint: it leads to every entry of the copy.
        held_size: entries that it had before.
    """

    checkpoint: Checkpoint
    held_size: int


@dataclass(frozen=True, slots=True)
class _Held:
    """The copy as it was: its tree, and the note that leads to it; empty before the first.

    Attributes:
        is_good_today: whether the note is under the log's newest keys and the quorum of today's trust policy.
    """

    tree: MerkleTree
    size: int
    note: bytes
    is_good_today: bool


class LogMirror:
    """The copy of one log, in a folder that the caller has locked."""

    def __init__(self, folder: Path, policy: TrustPolicy) -> None:
        """Mirror the policy's one log.

        Raises:
            MalformedError: the policy lists no log, or several.
        """
        if len(policy.logs) != 1:
            raise MalformedError("the trust policy of a mirror lists exactly one log")
        self._folder, self._policy = folder, policy

    def update(self, supply: LogSupply, progress: Progress) -> MirroredLog:
        """Bring the copy up to the log's newest checkpoint.

        Raises:
            SignatureError, MalformedError: what the log shows is no checkpoint under its keys and the quorum.
            NotFoundError: the log has published nothing, or is not the one that the trust policy lists.
            ConsistencyError: it contradicts the copy's checkpoint; both are kept as evidence.
            VerificationError: its entries do not lead to it, and are kept as evidence; or the copy was changed.
            MissingEvidenceError: the log shows less than the copy has, does not give all of its entries, or signs with
                keys that the trust policy does not have, or no longer has as the newest.
            UnavailableError: the log does not answer; what came so far is staged.
        """
        held = self._held()
        shown = open_newest(supply.newest_checkpoint(held.size), self._policy)
        if not shown.quorum_met:
            raise SignatureError("the witnesses that cosigned are not the quorum of the trust policy")
        try:
            if shown.checkpoint.size <= held.size:
                _check_not_behind(held, shown)
            else:
                self._stage(held, shown.checkpoint, supply, progress)
        except VerificationError:
            self._keep_evidence(held, shown)
            raise
        with closing(FolderLogFiles(self._folder / LOG_FOLDER)) as log:
            if shown.checkpoint.size > held.size:
                self._take(log, held, shown)
            elif not held.is_good_today:
                # The same tree, under keys that replaced those of the copy's note.
                log.write("checkpoint", shown.note)
                log.sync()
        return MirroredLog(shown.checkpoint, held.size)

    def _held(self) -> _Held:
        log = self._folder / LOG_FOLDER
        try:
            note = read_bounded(log / "checkpoint", NOTE_BYTES_MAX)
        except NotFoundError:
            return _Held(MerkleTree(), 0, b"", True)
        except MalformedError:
            raise VerificationError("the mirror's own checkpoint is damaged: begin a new mirror") from None
        opened = self._open_held(note)
        checkpoint, tree = opened.checkpoint, MerkleTree()
        for tile in tiles_of(checkpoint.size):
            if tile.level > 0:
                break
            try:
                tree.extend(parse_tile(read_bounded(log / tile.path, 32 * TILE_WIDTH), tile.width))
            except NotFoundError:
                raise VerificationError(f"the mirror's own {tile.path} is missing: begin a new mirror") from None
            except MalformedError:
                raise VerificationError(f"the mirror's own {tile.path} is damaged: begin a new mirror") from None
        if tree.root() != checkpoint.root:
            raise VerificationError("the mirror's own tiles do not lead to its checkpoint: begin a new mirror")
        return _Held(tree, checkpoint.size, note, opened.is_current and opened.quorum_met)

    def _open_held(self, note: bytes) -> OpenedCheckpoint:
        """Taken under the quorum once. The log's keys may have been replaced since, and the policy's witnesses."""
        try:
            return open_kept(note, self._policy)
        except NotFoundError:
            raise NotFoundError("the mirror is of another log than the trust policy's") from None
        except MissingEvidenceError as error:
            raise MissingEvidenceError(f"the mirror's own checkpoint: {error}") from None
        except (MalformedError, VerificationError):
            raise VerificationError("the mirror's own checkpoint is damaged: begin a new mirror") from None

    def _stage(self, held: _Held, shown: Checkpoint, supply: LogSupply, progress: Progress) -> None:
        """Fetch what is new, extend the tree by it, and compare roots."""
        tree = held.tree
        with closing(FolderLogFiles(self._folder / STAGED_FOLDER)) as staged:
            for bundle in bundles_between(held.size, shown.size):
                leaves = [leaf_hash(entry) for entry in staged_entries(staged, supply, bundle)]
                known = tree.size - bundle.index * TILE_WIDTH
                # A bundle that the copy has narrower begins with the same entries, or it would replace them.
                if any(tree.leaf(bundle.index * TILE_WIDTH + at) != leaves[at] for at in range(known)):
                    raise VerificationError("the log gives other entries than it gave before: see the evidence")
                tree.extend(leaves[known:])
                progress("entries", tree.size, shown.size)
        if tree.root() != shown.root:
            raise VerificationError("the entries that the log gives do not lead to its checkpoint: see the evidence")

    def _take(self, log: FolderLogFiles, held: _Held, shown: OpenedCheckpoint) -> None:
        """Make what was staged part of the copy: files first, then the checkpoint that needs them."""
        size = shown.checkpoint.size
        with closing(FolderLogFiles(self._folder / STAGED_FOLDER)) as staged:
            for bundle in bundles_between(held.size, size):
                log.write(bundle.path, staged.read(bundle.path, BUNDLE_BYTES_MAX))
        for tile in tiles_between(held.size, size):
            log.write(tile.path, tile_of_tree(held.tree, tile))
        log.write(f"checkpoints/{size}", shown.note)
        log.sync()
        log.write("checkpoint", shown.note)
        log.sync()
        for path in _partials_of(held.size) - _partials_of(size):
            log.remove(path)
        shutil.rmtree(self._folder / STAGED_FOLDER, ignore_errors=True)

    def _keep_evidence(self, held: _Held, shown: OpenedCheckpoint) -> None:
        """Keep both notes and what was staged, once for each note that the log shows; begin to stage anew."""
        kept = self._folder / EVIDENCE_FOLDER / sha256(shown.note).hex()[:16]
        staged = self._folder / STAGED_FOLDER
        if not kept.exists():
            make_folder(kept)
            write_atomically(kept / "shown", shown.note)
            if held.note:
                write_atomically(kept / "held", held.note)
            if staged.exists():
                staged.rename(kept / "entries")
        shutil.rmtree(staged, ignore_errors=True)


def _check_not_behind(held: _Held, shown: OpenedCheckpoint) -> None:
    size = shown.checkpoint.size
    if held.tree.root(size) != shown.checkpoint.root:
        raise ConsistencyError(
            "the log's checkpoint contradicts the mirror's: see the evidence", older=held.note, newer=shown.note
        )
    if size < held.size:
        raise MissingEvidenceError(f"the log shows fewer entries than the {held.size} that it has signed for before")


def _partials_of(size: int) -> set[str]:
    places: Iterable[Tile | Bundle] = (*tiles_of(size), *bundles_of(size))
    return {place.path for place in places if place.width < TILE_WIDTH}
