"""The log's own side of its folder: the journal's entries, the last signed note, the statement index.

Read only, beside a log that may run: what the journal has behind its last whole batch is left and noted. Entries that
are not published yet are taken on into the tree, so that what was signed for them, and files that hold them, are
checked too.

Format: `storage.segment_reading`, `storage.index_reading`; proto/README.md, "Entry".

Runs in: the log's own machine.
Trusts: the trust policy, and the tree that the caller has checked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from sfrl_secure.audit.entry_chain import EntryChain
from sfrl_secure.audit.fsck_report import FsckReport, JournalState, Problem
from sfrl_secure.audit.known_keys import open_kept
from sfrl_secure.audit.leaves import cut_entries
from sfrl_secure.audit.source import LogSource
from sfrl_secure.audit.structure import Progress
from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError, VerificationError
from sfrl_secure.governance.statements import STATEMENT_TYPE
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.storage.files import read_bounded
from sfrl_secure.storage.index_reading import IndexReading
from sfrl_secure.storage.log_folder import SEGMENTS_NAME, SIGNED_NAME
from sfrl_secure.storage.log_store import NOTHING_SIGNED
from sfrl_secure.storage.segment_reading import JournalReading
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX, TILE_WIDTH, Bundle
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.wire.entries import parse_entry

INDEX_NAME = "statements.sqlite"


class JournalCheck:
    """Holds a journal, a signed note and an index against a log."""

    def __init__(self, journal_dir: Path, policy: TrustPolicy, report: FsckReport) -> None:
        """Look at what there is; `report` takes what is found.

        A log that runs goes on: what was signed and indexed is read here, before the entries, which are then at least
        as many.
        """
        self._folder = journal_dir
        self._policy = policy
        self._report = report
        self._indexed = 0
        self._index = self._open_index()
        self._signed = self._read_signed()

    def __enter__(self) -> JournalCheck:
        return self

    def __exit__(self, *error: object) -> None:
        self._give_index_up()

    def _open_index(self) -> IndexReading | None:
        try:
            return IndexReading(self._folder / INDEX_NAME)
        except NotFoundError:
            self._note(INDEX_NAME, "there is no statement index; the log makes it again when it starts")
        except MalformedError as error:
            self._note(INDEX_NAME, f"{error}; the log makes it again when it starts")
        return None

    def take(self, first: int, entries: Sequence[bytes]) -> None:
        """Compare the index with the next entries."""
        index = self._index
        if index is None:
            return
        for position, raw in enumerate(entries, start=first):
            if position >= index.size:
                return
            try:
                envelope = parse_entry(raw).envelope
            except MalformedError:
                continue  # The chain's finding.
            try:
                found = index.find(envelope.digest)
            except MalformedError as error:
                self._blame(INDEX_NAME, position, str(error))
                self._give_index_up()
                return
            if found == position:
                self._indexed += 1
            elif envelope.payload_type == STATEMENT_TYPE and (found is None or found > position):
                # A later document may repeat one that had no effect; a statement stands under its first index.
                what = "not there" if found is None else f"under {found}"
                self._blame(INDEX_NAME, position, f"the entry's statement is {what}")
                self._give_index_up()
                return

    def run(self, source: LogSource, tree: MerkleTree, chain: EntryChain, progress: Progress) -> None:
        """Compare the journal with the entries that are published, and take on those that are not."""
        try:
            reading = JournalReading(self._folder / SEGMENTS_NAME)
        except NotFoundError as error:
            self._miss(SEGMENTS_NAME, str(error))
            return
        # Those that the journal has dropped are durable in full bundles, published or not.
        for raw in _entries_ahead(source, tree.size, reading.first_index):
            self._take_on(raw, tree, chain)
        if reading.first_index > tree.size:
            what = f"entries {tree.size} to {reading.first_index - 1} are neither published nor in the journal"
            self._miss(SEGMENTS_NAME, what)
            return
        try:
            if not self._compare(reading, tree, chain, progress):
                return
        except MalformedError as error:
            self._blame(SEGMENTS_NAME, None, str(error))
            return
        except MissingEvidenceError as error:
            self._miss(SEGMENTS_NAME, str(error))
            return
        if reading.torn_bytes:
            what = f"{reading.torn_bytes} bytes behind the last whole batch: an append that goes on, or was interrupted"
            self._note(SEGMENTS_NAME, what)
        if reading.end_index < self._report.size:
            what = f"the journal ends at {reading.end_index}, and the checkpoint covers {self._report.size} entries"
            self._blame(SEGMENTS_NAME, None, what)
        self._report.journal = JournalState(
            reading.first_index,
            reading.end_index,
            self._check_signed(tree),
            None if self._index is None else self._check_index(self._index, tree.size),
        )

    def _compare(self, reading: JournalReading, tree: MerkleTree, chain: EntryChain, progress: Progress) -> bool:
        """Whether the journal holds the entries of the tree; those behind its end are taken on."""
        published = tree.size
        for index, raw in enumerate(reading.records(), start=reading.first_index):
            if index >= published:
                self._take_on(raw, tree, chain)
            elif leaf_hash(raw) != tree.leaf(index):
                self._blame(SEGMENTS_NAME, index, "the journal holds another entry than the log's files")
                return False
            progress("journal", index + 1 - reading.first_index, max(published, index + 1) - reading.first_index)
        return True

    def _take_on(self, raw: bytes, tree: MerkleTree, chain: EntryChain) -> None:
        leaf = leaf_hash(raw)
        index = tree.append(leaf)
        if not self._report.entries_read:
            return
        self.take(index, [raw])
        if chain.misplaced is not None:
            return
        chain.take(index, [raw], [leaf])
        if chain.misplaced is not None:
            self._blame(SEGMENTS_NAME, index, f"the entry {chain.misplaced.what}")

    def _read_signed(self) -> bytes | None:
        """The last signed note; None where it cannot be read."""
        try:
            return read_bounded(self._folder / SIGNED_NAME, NOTE_BYTES_MAX)
        except (NotFoundError, MissingEvidenceError) as error:
            self._miss(SIGNED_NAME, f"the last signed note: {error}; without it the log does not start")
        except MalformedError as error:
            self._blame(SIGNED_NAME, None, f"the last signed note: {error}")
        return None

    def _check_signed(self, tree: MerkleTree) -> int | None:
        """Hold the last signed note against the tree with all that the journal has; give its size."""
        if self._signed is None:
            return None
        if self._signed == NOTHING_SIGNED:
            if self._report.size:
                self._blame(SIGNED_NAME, None, "says that nothing was signed, and a checkpoint is published")
            return None
        try:
            checkpoint = open_kept(self._signed, self._policy).checkpoint
        except MissingEvidenceError as error:
            self._miss(SIGNED_NAME, f"the last signed note: {error}")
            return None
        except (MalformedError, NotFoundError, VerificationError) as error:
            self._blame(SIGNED_NAME, None, str(error))
            return None
        if checkpoint.origin != self._report.origin:
            self._blame(SIGNED_NAME, None, "is another log's")
        elif checkpoint.size > tree.size:
            self._blame(SIGNED_NAME, None, f"is ahead: {checkpoint.size} entries were signed, {tree.size} are here")
        elif checkpoint.root != tree.root(checkpoint.size):
            self._blame(SIGNED_NAME, None, "another root was signed for this size: equivocation; keep both notes")
        return checkpoint.size

    def _check_index(self, index: IndexReading, size: int) -> int:
        # Of a log that runs, the index may be further than the journal was when we read it.
        if index.size <= size and index.count > self._indexed:
            self._blame(INDEX_NAME, None, f"names {index.count - self._indexed} statements that no entry holds")
        return self._indexed

    def _give_index_up(self) -> None:
        if self._index is not None:
            self._index.close()
            self._index = None

    def _blame(self, path: str, index: int | None, what: str) -> None:
        self._report.problems.append(Problem(f"{self._folder.name}/{path}", index, what))

    def _miss(self, path: str, what: str) -> None:
        self._report.missing.append(Problem(f"{self._folder.name}/{path}", None, what))

    def _note(self, path: str, what: str) -> None:
        self._report.notes.append(Problem(f"{self._folder.name}/{path}", None, what))


def _entries_ahead(source: LogSource, size: int, end: int) -> Iterator[bytes]:
    """Entries from `size` to below `end`, from full bundles, as far as those follow one another."""
    while size < end:
        number, place = divmod(size, TILE_WIDTH)
        raw = source.read(Bundle(number, TILE_WIDTH).path, BUNDLE_BYTES_MAX)
        entries = [] if raw is None else cut_entries(raw, TILE_WIDTH)[0]
        if len(entries) < TILE_WIDTH:
            return
        following = entries[place : place + end - size]
        yield from following
        size += len(following)
