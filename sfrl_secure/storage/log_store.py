"""Where a log is kept, as the sequencer sees it: a journal, published files, and the last signed note.

Three parts with three promises. The journal takes a batch at once and is durable when it returns: what is in it was
acknowledged. Files can be made again from the journal as long as it holds their entries, so they are durable only
after `sync`, and the journal drops nothing before that. The signed note is compared and swapped: two processes cannot
both go on from it.

A local folder (`log_folder`) and an S3-compatible bucket (`log_bucket`) keep these promises each in its way.

Runs in: audit_log.
Trusts: the store, as far as it confirmed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol


class LogJournal(Protocol):
    """The newest entries in order, each under its leaf index. One thread appends; any thread reads."""

    @property
    def first_index(self) -> int:
        """Index of the first record that is still here."""
        ...

    @property
    def count(self) -> int:
        """Index behind the last durable record: the size of the log."""
        ...

    @property
    def cut_bytes(self) -> int:
        """Bytes that the opening cut off: the traces of an append that a crash interrupted."""
        ...

    def append_batch(self, records: Sequence[bytes]) -> None:
        """Append 1 to 256 records at `count`. They are durable when this returns.

        Raises:
            UncertainStateError: the store did not confirm, now or earlier, or another process appended: nothing more
                is taken.
        """
        ...

    def record(self, index: int) -> bytes:
        """Read one record.

        Raises:
            NotFoundError: there is none at `index`, or it was dropped.
            UncertainStateError: the store gave other bytes than it took.
        """
        ...

    def drop_before(self, index: int) -> None:
        """Drop records below `index`, as far as that is cheap; none from `index` on."""
        ...


class LogFiles(Protocol):
    """Published files by name: `checkpoint`, `tile/...`. One thread writes; any thread reads."""

    def read(self, name: str, bytes_max: int) -> bytes:
        """Read a file.

        Raises:
            NotFoundError: there is none.
            MalformedError: longer than `bytes_max`.
            MissingEvidenceError: it is there and cannot be read.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place of whatever is there: readers see the old bytes or the new. Durable after `sync`.

        Raises:
            ExhaustedError: the store is full; the file is as it was.
            UncertainStateError: it is not known what the file holds.
        """
        ...

    def sync(self) -> None:
        """Make durable what was written.

        Raises:
            UncertainStateError: the store did not confirm.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there, or does not go, is left."""
        ...

    def names(self, folder: str) -> Iterator[str]:
        """Names of the files below `folder`, sorted."""
        ...


class SignedNote(Protocol):
    """The last note that was signed, apart from everything else; before the first one, a mark that says so."""

    def read(self) -> bytes:
        """Read it.

        Raises:
            NotFoundError: there is none: the log was never created, or has lost it.
        """
        ...

    def replace(self, note: bytes) -> None:
        """Put a note in place of the one that was last read or written here, durably.

        Raises:
            UncertainStateError: another one stands there now, or the store did not confirm.
        """
        ...


class LogStore(Protocol):
    """A log that is there, held by this process until `close`."""

    @property
    def journal(self) -> LogJournal: ...

    @property
    def files(self) -> LogFiles: ...

    @property
    def signed(self) -> SignedNote: ...

    def close(self) -> None:
        """Let the log go."""
        ...


NOTHING_SIGNED = b"nothing signed yet\n"
"""What `SignedNote` holds from a log's creation to its first signature."""
