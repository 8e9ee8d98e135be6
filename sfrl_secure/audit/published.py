"""A published log, read by a person: its checkpoint as it stands, and its entries one after the other.

Reading proves nothing: no signature is looked at and no hash compared. `audit verify` proves.

Format: proto/README.md, "Checkpoints, tiles, cosignatures"; c2sp.org/tlog-tiles.

Runs in: cli, demo.
Trusts: nothing; everything is bounded and parsed, and what does not parse is said to be so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.translog.checkpoint import Checkpoint, parse_checkpoint
from sfrl_secure.translog.entries import LogEntry
from sfrl_secure.translog.note import parse_note
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX, TILE_WIDTH, Bundle, bundles_of, parse_bundle
from sfrl_secure.wire.content import Content, parse_content
from sfrl_secure.wire.entries import parse_entry


@dataclass(frozen=True, slots=True)
class UnverifiedEntry:
    """One entry as the folder has it.

    Attributes:
        entry: None where the bytes are not an entry.
        content: None where what was signed does not parse.
    """

    index: int
    raw: bytes
    entry: LogEntry | None
    content: Content | None


def read_unverified_checkpoint(log_dir: Path) -> Checkpoint:
    """Read the checkpoint of a published log.

    Raises:
        NotFoundError: the folder holds no checkpoint.
        MalformedError: it is not one.
    """
    try:
        raw = read_bounded(log_dir / "checkpoint", NOTE_BYTES_MAX)
    except NotFoundError:
        raise NotFoundError("the folder holds no `checkpoint`: it is not a published log") from None
    return parse_checkpoint(parse_note(raw).text)


def read_unverified_entries(log_dir: Path, size: int) -> Iterator[UnverifiedEntry]:
    """Read the first `size` entries, lazily: a size that a folder claims takes no memory.

    Raises:
        MissingEvidenceError: a bundle is not there; names it.
        MalformedError: a bundle cannot be cut into its entries; names it.
    """
    for bundle in bundles_of(size):
        for position, raw in enumerate(_read_bundle(log_dir, bundle)):
            yield _parse(bundle.index * TILE_WIDTH + position, raw)


def read_unverified_entry(log_dir: Path, size: int, index: int) -> UnverifiedEntry:
    """Read one entry of the first `size`.

    Raises:
        NotFoundError: the log has no such entry.
        MissingEvidenceError, MalformedError: as `read_unverified_entries`.
    """
    if not 0 <= index < size:
        raise NotFoundError(f"the log has {size} entries, from 0 on")
    first = index // TILE_WIDTH * TILE_WIDTH
    bundle = Bundle(index // TILE_WIDTH, min(TILE_WIDTH, size - first))
    return _parse(index, _read_bundle(log_dir, bundle)[index - first])


def _read_bundle(log_dir: Path, bundle: Bundle) -> tuple[bytes, ...]:
    # A log that has grown on may have only the full bundle left.
    for each in (bundle, Bundle(bundle.index, TILE_WIDTH)):
        try:
            return parse_bundle(read_bounded(log_dir / each.path, BUNDLE_BYTES_MAX), each.width)[: bundle.width]
        except NotFoundError:
            continue
        except MalformedError as error:
            raise MalformedError(f"{each.path}: {error}") from None
    raise MissingEvidenceError(f"{bundle.path} is not in the folder")


def _parse(index: int, raw: bytes) -> UnverifiedEntry:
    try:
        entry = parse_entry(raw)
    except MalformedError:
        return UnverifiedEntry(index, raw, None, None)
    try:
        return UnverifiedEntry(index, raw, entry, parse_content(entry.envelope))
    except MalformedError:
        return UnverifiedEntry(index, raw, entry, None)
