"""A mirror's objects: what the entries of the copied log name, fetched under their digests.

What an entry names, and how long it may be, `named_objects` says. An object is kept only if it has the digest that
names it, and is no longer. One that the store does not have (any more) is asked for again the next time; whether it
ought to be there, `audit verify` says.

`objects.json` remembers how far the entries were looked through, what was not to be had, and which names the folder
then had. Where it is lost, or the names are others, the next run looks through all entries again; so an object that was
removed comes back. What is there is read again only where the caller asks for it.

Format: proto/README.md, "Checkpoints, tiles, cosignatures", folder of the objects.

Runs in: auditors' machines.
Trusts: its own folder. Nothing that a store gives.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Protocol

from sfrl_secure.audit.mirror import Progress
from sfrl_secure.audit.mirror_folder import LOG_FOLDER, OBJECTS_FOLDER, RECORD_NAME
from sfrl_secure.audit.named_objects import ObjectLengths, objects_named
from sfrl_secure.crypto.strict_json import parse_strict_json
from sfrl_secure.errors import DigestError, MalformedError, MissingEvidenceError, NotFoundError, VerificationError
from sfrl_secure.ids import Digest, parse_hex_digest
from sfrl_secure.limits import OBJECT_BYTES_MAX
from sfrl_secure.storage.files import read_bounded, write_atomically
from sfrl_secure.storage.objects import ObjectStore
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX, TILE_WIDTH, bundles_between, parse_bundle

RECORD_BYTES_MAX = 64 * 1024 * 1024


class ObjectSupply(Protocol):
    """Where objects are copied from."""

    def fetch_object(self, digest: Digest, bytes_max: int) -> bytes:
        """Give an object; NotFoundError where it is not stored, VerificationError where its bytes are others."""
        ...


@dataclass(slots=True)
class MirroredObjects:
    """What one run came to: objects that it fetched, and those that are not to be had or that are not what they should
    be."""

    fetched: int = 0
    missing: set[Digest] = field(default_factory=set)
    altered: set[Digest] = field(default_factory=set)


@dataclass(slots=True)
class _Record:
    """How far a mirror is.

    Attributes:
        entries: looked through, from 0 on.
        segments: how long each segment's objects may be.
        wanted: objects that were not to be had, and how long each may be: the longest that an entry says.
        listing: digest over the names of the objects that the folder had.
    """

    entries: int = 0
    listing: str = ""
    segments: dict[str, ObjectLengths] = field(default_factory=dict)
    wanted: dict[Digest, int] = field(default_factory=dict)


class ObjectMirror:
    """The objects of one mirror, in a folder that the caller has locked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._store = ObjectStore(folder / OBJECTS_FOLDER)
        self._reread = False
        self._refused: dict[Digest, int] = {}

    def update(
        self, size: int, supply: ObjectSupply, progress: Progress, *, reread: bool = False
    ) -> MirroredObjects:
        """Fetch what the first `size` entries of the copy name and the folder lacks.

        Args:
            reread: read every object that is there, and fetch those that are not what their names say.

        Raises:
            UnavailableError: the store does not answer; what came so far is kept.
            MissingEvidenceError, MalformedError: a bundle of the copy is not there, or damaged.
        """
        self._reread, self._refused = reread, {}
        record = _Record() if reread else self._read_record(size)
        done = MirroredObjects()
        try:
            for digest, bytes_max in list(record.wanted.items()):
                self._fetch(digest, bytes_max, supply, record, done)
            for index, raw in self._entries(record.entries, size):
                for digest, bytes_max in objects_named(raw, record.segments):
                    self._fetch(digest, bytes_max, supply, record, done)
                record.entries = index + 1
                if index % TILE_WIDTH == TILE_WIDTH - 1 or index + 1 == size:
                    progress("objects", index + 1, size)
        finally:
            self._write_record(record)
        return done

    def _fetch(
        self, digest: Digest, bytes_max: int, supply: ObjectSupply, record: _Record, done: MirroredObjects
    ) -> None:
        # Two entries may name one object, and one of them lie about its length: what was too long for the first is
        # tried again for another that lets it be longer.
        if digest in done.missing or bytes_max <= self._refused.get(digest, -1):
            return
        if not self._is_held(digest):
            record.wanted[digest] = max(bytes_max, record.wanted.get(digest, 0))
            try:
                self._store.put(_checked(supply.fetch_object(digest, bytes_max), bytes_max))
            except NotFoundError:
                done.missing.add(digest)
                return
            except (VerificationError, MalformedError):
                self._refused[digest] = bytes_max
                done.altered.add(digest)
                return
            done.fetched += 1
        done.altered.discard(digest)
        record.wanted.pop(digest, None)

    def _is_held(self, digest: Digest) -> bool:
        if not self._reread:
            return self._store.is_stored(digest)
        try:
            self._store.get(digest, OBJECT_BYTES_MAX)
        except (NotFoundError, MalformedError, DigestError, MissingEvidenceError):
            return False
        return True

    def _listing(self) -> str:
        """A digest over the names of what is there, whatever it holds."""
        names = hashlib.sha256()
        for shard in sorted(_names_in(self._folder / OBJECTS_FOLDER)):
            for name in sorted(_names_in(self._folder / OBJECTS_FOLDER / shard)):
                names.update(name.encode("utf-8", "surrogateescape") + b"\n")
        return names.hexdigest()

    def _entries(self, first: int, size: int) -> Iterator[tuple[int, bytes]]:
        for bundle in bundles_between(first, size):
            try:
                raw = read_bounded(self._folder / LOG_FOLDER / bundle.path, BUNDLE_BYTES_MAX)
            except NotFoundError:
                raise MissingEvidenceError(
                    f"the mirror's own {bundle.path} is missing: begin a new mirror"
                ) from None
            try:
                entries = parse_bundle(raw, bundle.width)
            except MalformedError:
                raise MalformedError(f"the mirror's own {bundle.path} is damaged: begin a new mirror") from None
            for position, entry in enumerate(entries):
                index = bundle.index * TILE_WIDTH + position
                if index >= first:
                    yield index, entry

    def _read_record(self, size: int) -> _Record:
        try:
            found = parse_strict_json(
                read_bounded(self._folder / RECORD_NAME, RECORD_BYTES_MAX), bytes_max=RECORD_BYTES_MAX
            )
            record = _record_of(found)
        except (NotFoundError, MalformedError):
            return _Record()
        return record if record.entries <= size and record.listing == self._listing() else _Record()

    def _write_record(self, record: _Record) -> None:
        fields = {
            "entries": record.entries,
            "listing": self._listing(),
            "segments": {name: list(astuple(each)) for name, each in record.segments.items()},
            "wanted": {digest.hex(): bytes_max for digest, bytes_max in record.wanted.items()},
        }
        write_atomically(self._folder / RECORD_NAME, json.dumps(fields).encode())


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # Not there, no folder, or not to be read: it lists nothing.
        return []


def _checked(data: bytes, bytes_max: int) -> bytes:
    if len(data) > bytes_max:
        raise MalformedError(f"the object is longer than {bytes_max} bytes")
    return data


def _record_of(found: dict[str, object]) -> _Record:
    entries, segments, wanted = found.get("entries"), found.get("segments"), found.get("wanted")
    listing = found.get("listing")
    if not isinstance(entries, int) or not isinstance(listing, str):
        raise MalformedError("not a record of a mirror's objects")
    if not isinstance(segments, dict) or not isinstance(wanted, dict):
        raise MalformedError("not a record of a mirror's objects")
    if not all(isinstance(each, list) and len(each) == len(fields(ObjectLengths)) for each in segments.values()):
        raise MalformedError("not a record of a mirror's objects")
    lengths = (*chain.from_iterable(segments.values()), *wanted.values(), entries)
    if not all(isinstance(each, int) and each >= 0 for each in lengths):
        raise MalformedError("not a record of a mirror's objects")
    lengths_of = {parse_hex_digest(digest): each for digest, each in wanted.items()}
    return _Record(entries, listing, {name: ObjectLengths(*each) for name, each in segments.items()}, lengths_of)
