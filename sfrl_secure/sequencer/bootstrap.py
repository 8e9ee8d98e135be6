"""A new log: made once, on purpose, with its first entries, and without a server.

`NewLog` orders the first entries in memory, by the rules of every later one; `finish` makes the journal with all of
them in it, or none. Nothing is signed: that is the first start's work, after it has asked the witnesses. A log that
is there is never made anew, and a start never makes one: an empty log in an old one's place would be a second
history.

Rules: PROTOCOL 2.

Runs in: `sfrl init`.
Trusts: whoever starts it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Generic

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import ConflictError, NotFoundError, UncertainStateError
from sfrl_secure.ids import Digest
from sfrl_secure.sequencer.history import Codec, ContentT, Fold, History
from sfrl_secure.storage.files import FolderLock, make_folder
from sfrl_secure.storage.journal import BATCH_RECORDS_MAX, Journal

JOURNAL_NAME = "journal"


class NewLog(Generic[ContentT]):
    """The first entries of a log that is not there yet. For one thread."""

    def __init__(self, fold: Fold[ContentT], codec: Codec[ContentT], clock: Clock) -> None:
        """Begin before entry 0 with an empty `fold`."""
        self._history = History(fold, codec, clock)
        self._codec = codec

    def append(self, envelope: Envelope) -> Digest:
        """Order an envelope next; give its entry hash.

        Raises:
            MalformedError: it cannot be parsed, or is too long.
            DeniedError, ConflictError: it would have no effect.
        """
        content = self._codec.parse_content(envelope)
        if self._history.known_index(envelope.digest) is not None:
            raise ConflictError("the statement is already in the log", reason="known")
        self._history.stage(envelope, content)
        return self._history.staged_leaf()

    def finish(self, folder: Path) -> int:
        """Make the log in `folder`, durably; give its size.

        Raises:
            UncertainStateError: there is a log already, or the disk failed.
        """
        entries = self._history.staged_entries()
        make_folder(folder)
        with FolderLock(folder):
            batches = [entries[at:at + BATCH_RECORDS_MAX] for at in range(0, len(entries), BATCH_RECORDS_MAX)]
            Journal.create(folder / JOURNAL_NAME, batches)
        return len(entries)


def open_log(
    folder: Path, fold: Fold[ContentT], codec: Codec[ContentT], clock: Clock
) -> tuple[History[ContentT], Journal]:
    """Open the log in `folder`, whose lock the caller holds, and replay it into `fold`.

    Raises:
        UncertainStateError: there is no log, it is empty, or it is damaged.
    """
    try:
        journal = Journal(folder / JOURNAL_NAME)
    except NotFoundError:
        raise UncertainStateError("there is no log here; `sfrl init` makes one") from None
    try:
        history = History(fold, codec, clock)
        history.replay(journal)
        if not history.size:
            raise UncertainStateError("the log has no entry, not even genesis")
    except BaseException:
        journal.close()
        raise
    return history, journal
