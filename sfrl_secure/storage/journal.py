"""The journal: the log's newest entries in segments, one write and one sync a batch.

A folder with one file a segment, named by the index of its first record in 20 digits. Batches go to the newest. When
that is full, the next segment is durable under its name before a batch goes into it; old ones are removed from the
front, when what they hold is durable elsewhere. So the segments follow one another without a gap, and a gap means
that one was lost: then nothing is believed.

Format of a segment, and what is cut after a crash: `segment`.

Runs in: audit_log.
Trusts: the disk, as far as it confirmed.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from pathlib import Path

from sfrl_secure.errors import ExhaustedError, NotFoundError, UncertainStateError
from sfrl_secure.storage.batch import LENGTH_BYTES
from sfrl_secure.storage.files import TEMPORARY_SUFFIX, make_folder
from sfrl_secure.storage.segment import BATCH_OVERHEAD_BYTES, SEGMENT_BYTES_MAX, Segment
from sfrl_secure.storage.system import rename, sync_folder, unlink

SEGMENT_BYTES = 16 * 1024 * 1024
"""A segment of this length is full, where the caller asks for nothing else."""

_SEGMENT_NAME = re.compile(r"[0-9]{20}")


class FolderJournal:
    """`log_store.LogJournal` in a folder that this process owns.

    Attributes:
        cut_bytes: what the opening cut off: the traces of an append that a crash interrupted.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Open a journal and read what is left of it; cut the traces of an interrupted append.

        Raises:
            NotFoundError: there is no journal.
            UncertainStateError: it is damaged, or the disk failed.
        """
        assert 0 < segment_bytes <= SEGMENT_BYTES_MAX
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._dead = False
        self._lock = threading.Lock()
        try:
            names = sorted(path.name for path in folder.iterdir())
        except FileNotFoundError:
            raise NotFoundError("there is no journal") from None
        except OSError as error:
            raise UncertainStateError("the journal cannot be read") from error
        # Replaced as a whole, under the lock, and read without it: a reader goes on with the segments it has seen.
        self._segments = self._open_segments(names)
        self.cut_bytes = self._segments[-1].cut_bytes

    @staticmethod
    def create(folder: Path, batches: Sequence[Sequence[bytes]] = (), *, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Make a journal that holds `batches`; never replace one. The folder above is there, and this process owns it.

        It is there whole and durable, or not at all: what an interrupted attempt left is made anew.

        Raises:
            MalformedError: a batch that no journal can hold.
            UncertainStateError: there is a journal already, or the disk failed.
            ExhaustedError: the disk is full.
        """
        if folder.exists():
            raise UncertainStateError("there is a journal already")
        unfinished = folder.parent / f".{folder.name}{TEMPORARY_SUFFIX}"
        make_folder(unfinished)
        for path in unfinished.iterdir():
            unlink(path)
        for first_index, part in _split(batches, segment_bytes):
            Segment.create(unfinished / _name(first_index), first_index, part)
        rename(unfinished, folder)
        sync_folder(folder.parent)

    @property
    def first_index(self) -> int:
        """Index of the first record that is still here."""
        return self._segments[0].first_index

    @property
    def count(self) -> int:
        """Index behind the last record; all are durable."""
        return self._segments[-1].end_index

    def append_batch(self, records: Sequence[bytes]) -> None:
        """Append records, 1 to `BATCH_RECORDS_MAX`: one write, one sync. They are durable when this returns.

        Raises:
            MalformedError: a batch that no journal can hold; nothing was written.
            UncertainStateError: the disk did not confirm, now or earlier: the journal takes nothing more.
        """
        if self._dead:
            raise UncertainStateError("the journal has failed before")
        try:
            if self._segments[-1].bytes_held >= self._segment_bytes:
                self._begin_segment()
            self._segments[-1].append(records)
        except (ExhaustedError, UncertainStateError) as error:
            # Part of the batch may be on the disk: only a new start can tell.
            self._dead = True
            raise UncertainStateError("a batch could not be made durable") from error

    def record(self, index: int) -> bytes:
        """Read one record.

        Raises:
            NotFoundError: there is none at `index`, or it was dropped.
            UncertainStateError: the disk gave fewer bytes than it took.
        """
        segments = self._segments
        at = bisect_right(segments, index, key=_first_index_of)
        if not at:
            raise NotFoundError("the journal has dropped this record")
        return segments[at - 1].record(index)

    def drop_before(self, index: int) -> None:
        """Remove the segments whose records are all below `index`, never the newest.

        Raises:
            UncertainStateError: one could not be removed.
        """
        while len(segments := self._segments) > 1 and segments[0].end_index <= index:
            unlink(segments[0].path)
            # Before the next one goes: of two removals, a power failure may undo the first and keep the second.
            sync_folder(self._folder)
            with self._lock:
                self._segments = self._segments[1:]

    def close(self) -> None:
        """Close the files; nothing is pending."""
        self._dead = True
        for segment in self._segments:
            segment.close()

    def _open_segments(self, names: Sequence[str]) -> tuple[Segment, ...]:
        for name in names:
            if name.startswith(".") and name.endswith(TEMPORARY_SUFFIX):
                # A segment that a crash left half made. It never had a name, so nothing ever went into it.
                unlink(self._folder / name)
        numbered = [name for name in names if _SEGMENT_NAME.fullmatch(name)]
        if not numbered:
            raise UncertainStateError("the journal has lost its segments")
        segments: list[Segment] = []
        try:
            for name in numbered:
                if segments and segments[-1].end_index != int(name):
                    raise UncertainStateError("a segment of the journal is missing")
                segments.append(Segment(self._folder / name, int(name), is_newest=name == numbered[-1]))
        except BaseException:
            for segment in segments:
                segment.close()
            raise
        return tuple(segments)

    def _begin_segment(self) -> None:
        first_index = self.count
        path = self._folder / _name(first_index)
        Segment.create(path, first_index)
        segment = Segment(path, first_index, is_newest=True)
        with self._lock:
            self._segments += (segment,)


def _name(first_index: int) -> str:
    return f"{first_index:020}"


def _first_index_of(segment: Segment) -> int:
    return segment.first_index


def _split(
    batches: Sequence[Sequence[bytes]], segment_bytes: int
) -> Iterator[tuple[int, Sequence[Sequence[bytes]]]]:
    """Split batches into segments, each with the index of its first record; without batches, one segment."""
    part: list[Sequence[bytes]] = []
    first_index = next_index = held = 0
    for records in batches:
        if held >= segment_bytes:
            yield first_index, part
            part, held, first_index = [], 0, next_index
        part.append(records)
        held += BATCH_OVERHEAD_BYTES + sum(LENGTH_BYTES + len(record) for record in records)
        next_index += len(records)
    yield first_index, part
