"""Altered copies: what the verifier says when one thing is changed.

Each copy shares its unchanged files with the original by hard links; what is altered is written anew.

Runs in: demo.
Trusts: nothing.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sfrl_secure.ids import Digest
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.services.federation.folder import FederationFolder
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.storage.objects import ObjectStore
from sfrl_secure.translog.checkpoint import parse_checkpoint
from sfrl_secure.translog.note import parse_note
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX, Bundle, bundles_of, encode_bundle, parse_bundle, tiles_of

_FLIPPED = 0x01


@dataclass(frozen=True, slots=True)
class Alteration:
    """One thing changed in a copy.

    Attributes:
        what: in words.
        folder: the altered copy.
    """

    what: str
    folder: FederationFolder


def altered_copies(original: FederationFolder, into: Path, model: Digest) -> list[Alteration]:
    """Make four copies, each altered in one place: an entry, a tile, an object, the order of two entries.

    Args:
        model: digest of the object that is altered.
    """
    size = parse_checkpoint(parse_note(read_bounded(original.log_dir / "checkpoint", NOTE_BYTES_MAX)).text).size
    bundle = next(iter(bundles_of(size)))
    middle = bundle.width // 2
    tile = next(iter(tiles_of(size)))

    def entry(copy: FederationFolder) -> str:
        entries = _entries(copy, bundle)
        changed = bytearray(entries[middle])
        changed[len(changed) // 2] ^= _FLIPPED
        entries[middle] = bytes(changed)
        _replace(copy.log_dir / bundle.path, encode_bundle(entries))
        return f"one byte of entry {middle}"

    def order(copy: FederationFolder) -> str:
        entries = _entries(copy, bundle)
        entries[middle], entries[middle + 1] = entries[middle + 1], entries[middle]
        _replace(copy.log_dir / bundle.path, encode_bundle(entries))
        return f"the order of entries {middle} and {middle + 1}"

    def hashes(copy: FederationFolder) -> str:
        path = copy.log_dir / tile.path
        _replace(path, _flip(path.read_bytes(), 32 * middle))
        return f"one byte of {tile.path}"

    def stored(copy: FederationFolder) -> str:
        path = ObjectStore(copy.objects_dir).path(model)
        _replace(path, _flip(path.read_bytes(), path.stat().st_size // 2))
        return f"one byte of object {model.hex()[:16]}..."

    changes: dict[str, Callable[[FederationFolder], str]] = {
        "entry": entry, "tile": hashes, "object": stored, "order": order,
    }  # fmt: skip
    return [_alter(original, into / name, change) for name, change in changes.items()]


def _alter(original: FederationFolder, root: Path, change: Callable[[FederationFolder], str]) -> Alteration:
    copy = FederationFolder(root)
    for source, target in ((original.log_dir, copy.log_dir), (original.objects_dir, copy.objects_dir)):
        shutil.copytree(source, target, copy_function=os.link)
    shutil.copyfile(original.trust_policy, copy.trust_policy)
    return Alteration(change(copy), copy)


def _entries(copy: FederationFolder, bundle: Bundle) -> list[bytes]:
    return list(parse_bundle(read_bounded(copy.log_dir / bundle.path, BUNDLE_BYTES_MAX), bundle.width))


def _flip(data: bytes, position: int) -> bytes:
    changed = bytearray(data)
    changed[position] ^= _FLIPPED
    return bytes(changed)


def _replace(path: Path, data: bytes) -> None:
    path.unlink()  # a hard link: the original keeps its bytes
    path.write_bytes(data)
