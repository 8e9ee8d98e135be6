"""The log's store in local folders: one for journal and signed note, one for what is published.

`journal_dir` holds `segments`, `signed` and the lock that makes one process its owner; `log_dir` holds the published
files and can be served by any web server. A log is created on purpose; opening never makes one, and never goes on
where a part of one is missing.

Runs in: audit_log, `sfrl init`, `sfrl audit fsck`.
Trusts: the disk, as far as it confirmed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError, UncertainStateError
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.storage.files import SECRET_MODE, FolderLock, make_folder, read_bounded, write_atomically
from sfrl_secure.storage.journal import SEGMENT_BYTES, FolderJournal
from sfrl_secure.storage.log_files import FolderLogFiles
from sfrl_secure.storage.log_store import NOTHING_SIGNED

SEGMENTS_NAME = "segments"
SIGNED_NAME = "signed"


class FolderSignedNote:
    """`log_store.SignedNote` in a file. Any thread may use it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: bytes | None = None
        self._lock = threading.Lock()

    def read(self) -> bytes:
        """Read it.

        Raises:
            NotFoundError: there is none: the log was never created, or has lost it.
            UncertainStateError: it cannot be read, or is longer than any note.
        """
        with self._lock:
            self._seen = self._read()
            return self._seen

    def replace(self, note: bytes) -> None:
        """Put a note in place of the one that was last read or written here, durably.

        Raises:
            ExhaustedError: the disk is full; the older note stands.
            UncertainStateError: another one stands there now, or the disk did not confirm.
        """
        with self._lock:
            try:
                stands = self._read()
            except NotFoundError:
                raise UncertainStateError("the last signed note has gone while we ran") from None
            if stands != self._seen:
                raise UncertainStateError("somebody else has put another signed note in the place of ours")
            write_atomically(self._path, note, mode=SECRET_MODE)
            self._seen = note

    def _read(self) -> bytes:
        try:
            return read_bounded(self._path, NOTE_BYTES_MAX)
        except (MalformedError, MissingEvidenceError) as error:
            raise UncertainStateError("the last signed note cannot be read") from error


class FolderLogStore:
    """`log_store.LogStore` in two folders, owned by this process.

    Attributes:
        journal, files, signed: its three parts.
    """

    def __init__(
        self, lock: FolderLock, journal: FolderJournal, files: FolderLogFiles, signed: FolderSignedNote
    ) -> None:
        """Hold what `open` has opened."""
        self._lock = lock
        self.journal = journal
        self.files = files
        self.signed = signed

    @staticmethod
    def create(
        journal_dir: Path, batches: Sequence[Sequence[bytes]], *, segment_bytes: int = SEGMENT_BYTES
    ) -> None:
        """Make a log that holds `batches` and has signed nothing; never in the place of another one.

        The journal comes last: without it there is no log, and an interrupted creation can be asked for again.

        Raises:
            MalformedError: a batch that no journal can hold, or another process owns the folder.
            UncertainStateError: there is a log already, or one has been; or the disk failed.
            ExhaustedError: the disk is full.
        """
        make_folder(journal_dir)
        with FolderLock(journal_dir):
            if (journal_dir / SEGMENTS_NAME).exists():
                raise UncertainStateError("there is a log already")
            signed = FolderSignedNote(journal_dir / SIGNED_NAME)
            try:
                if signed.read() != NOTHING_SIGNED:
                    raise UncertainStateError("a log has signed here, and its journal is gone")
            except NotFoundError:
                write_atomically(journal_dir / SIGNED_NAME, NOTHING_SIGNED, mode=SECRET_MODE)
            FolderJournal.create(journal_dir / SEGMENTS_NAME, batches, segment_bytes=segment_bytes)

    @classmethod
    def open(cls, journal_dir: Path, log_dir: Path, *, segment_bytes: int = SEGMENT_BYTES) -> FolderLogStore:
        """Open a log and own it until `close`.

        Raises:
            MalformedError: there is no such folder, or another process owns it.
            UncertainStateError: there is no log in it, or part of it is gone or damaged.
        """
        if not journal_dir.is_dir():
            raise MalformedError(
                f"there is no log in {journal_dir}: check `journal_dir`; a lost journal cannot be made again"
            )
        try:
            lock = FolderLock(journal_dir)
        except MalformedError as error:
            raise MalformedError(f"{error}: this log is running already") from None
        try:
            signed = FolderSignedNote(journal_dir / SIGNED_NAME)
            journal = _open_journal(journal_dir, signed, segment_bytes)
        except BaseException:
            lock.release()
            raise
        try:
            return cls(lock, journal, FolderLogFiles(log_dir), signed)
        except BaseException:
            journal.close()
            lock.release()
            raise

    def close(self) -> None:
        """Let the log go. What was not synced is left to the operating system."""
        self.files.close()
        self.journal.close()
        self._lock.release()


def _open_journal(journal_dir: Path, signed: FolderSignedNote, segment_bytes: int) -> FolderJournal:
    """Open the journal of a log whose signed note is there; read that."""
    is_there = (journal_dir / SEGMENTS_NAME).exists()
    try:
        has_signed = signed.read() != NOTHING_SIGNED
    except NotFoundError:
        if not is_there:
            raise UncertainStateError("there is no log here; `sfrl init` makes one") from None
        raise UncertainStateError("the log has lost its signed note, and may have signed more than it holds") from None
    if not is_there:
        if has_signed:
            raise UncertainStateError("a log has signed here, and its journal is gone")
        raise UncertainStateError("there is no log here; `sfrl init` makes one")
    return FolderJournal(journal_dir / SEGMENTS_NAME, segment_bytes=segment_bytes)
