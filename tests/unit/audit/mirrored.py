"""A log that a mirror copies: it shows what a test lets it show, and lies where a test makes it lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfrl_secure.errors import DigestError, NotFoundError, UnavailableError
from sfrl_secure.ids import Digest
from sfrl_secure.translog.checkpoint import Checkpoint
from sfrl_secure.translog.cosignature import sign_checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import add_signatures, format_note, parse_note
from sfrl_secure.translog.tiles import encode_bundle, tile_of_tree, tiles_of
from sfrl_secure.translog.tree import MerkleTree

from ..replay.builder import SECOND, Writer, sha

WITNESSES = ("w1", "w2")


def written_log(size: int) -> Writer:
    """Two rounds with their models, refusals with and without evidence, and counts up to `size` entries."""
    writer = Writer().begin()
    writer.run_round({"r1": {0: 5, 13: -7}, "r2": {0: 6, 3: 100}, "r3": {16: 1}})
    writer.run_round({"r1": {1: 5}, "r4": {2: 7}})
    writer.refuse("r1", "round_not_open", fields={"round": 7}, payload=b"not kept")
    writer.refuse("r2", "round_not_open", fields={"round": 7}, payload=b"kept as evidence", evidence=2)
    while len(writer.entries) < size:
        writer.count()
    return writer


def note_of(
    writer: Writer, entries: Sequence[bytes], *, witnesses: Sequence[str] = WITNESSES, size: int | None = None
) -> bytes:
    """A checkpoint over any entries, under the log's keys; `size` to claim another one."""
    tree = MerkleTree(leaf_hash(entry) for entry in entries)
    seconds = writer.now // SECOND
    checkpoint = Checkpoint(writer.origin, tree.size if size is None else size, tree.root())
    note = parse_note(sign_checkpoint(checkpoint, writer.signer, writer.cosigner, seconds))
    lines = [writer.witnesses[name].cosign(note.text, seconds + 1) for name in witnesses]
    return format_note(add_signatures(note, lines))


@dataclass
class Supply:
    """The log as it is shown.

    Attributes:
        shown: entries under the note that it gives.
        note: what it gives instead of the note over those.
        served: entries that it gives bundles of; more than are shown where the log has grown on.
        lie: changes a bundle's bytes.
        ends_after: bundles after which it does not answer any more.
        asked: bundles that it was asked for.
    """

    writer: Writer
    shown: int
    note: bytes | None = None
    served: list[bytes] = field(default_factory=list)
    lie: Callable[[int, bytes], bytes] = lambda index, raw: raw
    ends_after: int = 10**6
    only_full: bool = False
    asked: list[tuple[int, int]] = field(default_factory=list)
    held_sizes: list[int] = field(default_factory=list)

    def newest_checkpoint(self, held_size: int) -> bytes:
        self.held_sizes.append(held_size)
        return note_of(self.writer, self.writer.entries[: self.shown]) if self.note is None else self.note

    def read_bundle(self, index: int, width: int) -> bytes:
        self.asked.append((index, width))
        if len(self.asked) > self.ends_after:
            raise UnavailableError("away")
        entries = self.served or self.writer.entries[: self.shown]
        found = entries[256 * index : 256 * index + width]
        if len(found) < width or (self.only_full and width < 256):
            raise NotFoundError("there is no such bundle")
        return self.lie(index, encode_bundle(found))


@dataclass
class Store:
    """The objects as they are given out."""

    objects: dict[bytes, bytes]
    altered: set[bytes] = field(default_factory=set)
    asked: list[tuple[bytes, int]] = field(default_factory=list)
    ends_after: int = 10**6

    def fetch_object(self, digest: Digest, bytes_max: int) -> bytes:
        self.asked.append((digest, bytes_max))
        if len(self.asked) > self.ends_after:
            raise UnavailableError("away")
        if digest in self.altered:
            raise DigestError("what came is not the object of this digest")
        if digest not in self.objects:
            raise NotFoundError("no object of this digest is stored")
        assert sha(self.objects[digest]) == digest
        return self.objects[digest]


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def published_files(writer: Writer, size: int, note: bytes) -> dict[str, bytes]:
    """What a log of that size publishes, but for the history of its checkpoints."""
    entries = writer.entries[:size]
    tree = MerkleTree(leaf_hash(entry) for entry in entries)
    files = {"checkpoint": note} | {tile.path: tile_of_tree(tree, tile) for tile in tiles_of(size)}
    for at in range(0, size, 256):
        width = min(256, size - at)
        partial = f".p/{width}" if width < 256 else ""
        files[f"tile/entries/{at // 256:03}{partial}"] = encode_bundle(entries[at : at + width])
    return files
