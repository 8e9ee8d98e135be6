"""The log's store in an S3-compatible bucket.

Below the prefix: `private/` with the journal, its floor and the signed note; `log/` with what is published. There is
no lock: journal, floor and signed note are written on condition, so of two processes that hold one log the second to
write any of them is refused, and stops. Until then the older one may put a file over a newer one of the same name;
only the checkpoint is not the same in both, and the next one mends it.

Runs in: audit_log, `sfrl init`.
Trusts: the store, as far as it confirmed. Who may write to the bucket can stop the log and not forge it: the signed
note is checked against the tree, and the witnesses know the rest.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress

from sfrl_secure.errors import (
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.storage.bucket import Bucket, BucketStore
from sfrl_secure.storage.bucket import open_bucket as open_bucket
from sfrl_secure.storage.bucket_journal import BucketJournal
from sfrl_secure.storage.log_names import caching_of, check_file_name, content_type_of, is_file_name
from sfrl_secure.storage.log_store import NOTHING_SIGNED

_PRIVATE = "private"
_PUBLISHED = "log"
_SIGNED_NAME = "signed"


class BucketLogFiles:
    """`log_store.LogFiles` in a bucket: each file is durable when `write` returns."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    def read(self, name: str, bytes_max: int) -> bytes:
        """Read a file.

        Raises:
            NotFoundError: there is none.
            MalformedError: longer than `bytes_max`, or no name that a file can have.
            MissingEvidenceError: the store does not give it.
        """
        check_file_name(name)
        return self._bucket.read(name, bytes_max)

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place of whatever is there, durably.

        Raises:
            MalformedError: no name that a file can have.
            UncertainStateError: the store did not confirm.
        """
        check_file_name(name)
        self._bucket.put(name, data, content_type=content_type_of(name), caching=caching_of(name))

    def sync(self) -> None:
        """Nothing is left to do."""

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there, or does not go, is left.

        Raises:
            MalformedError: no name that a file can have.
        """
        check_file_name(name)
        with suppress(UncertainStateError):
            self._bucket.remove([name])

    def names(self, folder: str) -> Iterator[str]:
        """Names of the files below `folder`, sorted; names that are none of ours are left out.

        Raises:
            MalformedError: no name that a folder can have.
            MissingEvidenceError: the store does not list them.
        """
        check_file_name(folder)
        names = (f"{folder}/{below}" for below, _ in self._bucket.sizes(folder))
        return iter(sorted(name for name in names if is_file_name(name)))


class BucketSignedNote:
    """`log_store.SignedNote` in a bucket. Any thread may use it."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket
        self._tag: str | None = None
        self._lock = threading.Lock()

    def read(self) -> bytes:
        """Read it.

        Raises:
            NotFoundError: there is none: the log was never created, or has lost it.
            UncertainStateError: it cannot be read, or is longer than any note.
        """
        with self._lock:
            try:
                note, self._tag = self._bucket.read_with_tag(_SIGNED_NAME, NOTE_BYTES_MAX)
            except (MalformedError, MissingEvidenceError) as error:
                raise UncertainStateError("the last signed note cannot be read") from error
            return note

    def replace(self, note: bytes) -> None:
        """Put a note in place of the one that was last read or written here, durably.

        Raises:
            UncertainStateError: another one stands there now, or the store did not confirm.
        """
        with self._lock:
            if self._tag is None:
                raise UncertainStateError("the last signed note was not read")
            tag = self._bucket.replace(_SIGNED_NAME, note, self._tag)
            if tag is None:
                raise UncertainStateError("somebody else has put another signed note in the place of ours")
            self._tag = tag


class BucketLogStore:
    """`log_store.LogStore` in a bucket.

    Attributes:
        journal, files, signed: its three parts.
    """

    def __init__(self, journal: BucketJournal, files: BucketLogFiles, signed: BucketSignedNote) -> None:
        """Hold what `open` has opened."""
        self.journal = journal
        self.files = files
        self.signed = signed

    @staticmethod
    def create(store: BucketStore, prefix: str, batches: Sequence[Sequence[bytes]]) -> None:
        """Make a log that holds `batches` and has signed nothing; never in the place of another one.

        The journal comes last: without it there is no log, and an interrupted creation can be asked for again.

        Raises:
            MalformedError: batches that no journal can hold.
            UncertainStateError: there is a log already, or one has been; or the store did not confirm.
        """
        bucket = Bucket(store, prefix).folder(_PRIVATE)
        if not bucket.create(_SIGNED_NAME, NOTHING_SIGNED):
            raise UncertainStateError("there is a log already, or one has signed here")
        BucketJournal.create(bucket, batches)

    @classmethod
    def open(cls, store: BucketStore, prefix: str) -> BucketLogStore:
        """Open a log. Another process may have it open: see above.

        Raises:
            UnavailableError: the store does not answer, and nothing was asked of it that matters.
            UncertainStateError: there is no log, part of it is gone or damaged, or the store ceased to answer.
        """
        bucket = Bucket(store, prefix)
        try:
            bucket.folder(_PRIVATE).holds(_SIGNED_NAME)
        except MissingEvidenceError as error:
            raise UnavailableError("the bucket of the log does not answer, or lets us not in") from error
        signed = BucketSignedNote(bucket.folder(_PRIVATE))
        try:
            note = signed.read()
        except NotFoundError:
            note = None
        try:
            journal = BucketJournal(bucket.folder(_PRIVATE))
        except NotFoundError:
            if note is None or note == NOTHING_SIGNED:
                raise UncertainStateError("there is no log here; `sfrl init` makes one") from None
            raise UncertainStateError("a log has signed here, and its journal is gone") from None
        if note is None:
            raise UncertainStateError("the log has lost its signed note, and may have signed more than it holds")
        return cls(journal, BucketLogFiles(bucket.folder(_PUBLISHED)), signed)

    def close(self) -> None:
        """Let the log go."""
        self.journal.close()


def read_signed_note(store: BucketStore, prefix: str) -> bytes:
    """Read a log's last signed note, whoever has the log open.

    Raises:
        NotFoundError: there is none.
        UncertainStateError: it cannot be read.
    """
    return BucketSignedNote(Bucket(store, prefix).folder(_PRIVATE)).read()
