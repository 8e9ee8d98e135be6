"""A whole log folder, checked: that every file in it is what the signed root says, and which is the first that is not.

In order: the checkpoint under the newest keys; entries, tiles and root; entries one after the other; older checkpoints;
the log's own journal, signed note and statement index, where they are at hand; and every other file that lies there.
The log is read once and memory does not grow with it. Nothing is changed, and the log may run meanwhile.

Format: proto/README.md, "Checkpoints, tiles, cosignatures"; c2sp.org/tlog-tiles.

Runs in: auditors' machines, the log's own machine.
Trusts: the trust policy.
"""

from __future__ import annotations

import os
import re
from array import array
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from sfrl_secure.audit.entry_chain import EntryChain
from sfrl_secure.audit.folder import CHECKPOINT, HISTORY, files_of
from sfrl_secure.audit.fraud_check import rests_on_retired_keys
from sfrl_secure.audit.fsck_journal import JournalCheck
from sfrl_secure.audit.fsck_report import FsckReport, Problem
from sfrl_secure.audit.known_keys import open_kept, open_newest
from sfrl_secure.audit.leaves import cut_entries, width_of
from sfrl_secure.audit.source import FolderLog
from sfrl_secure.audit.structure import Progress, check_structure
from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError, VerificationError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.translog.checkpoint import parse_checkpoint
from sfrl_secure.translog.merkle import leaf_hash
from sfrl_secure.translog.note import parse_note
from sfrl_secure.translog.opened import OpenedCheckpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tiles import BUNDLE_BYTES_MAX, TILE_WIDTH, Bundle, Tile, tile_of_tree
from sfrl_secure.translog.tree import MerkleTree

_FEDERATION = re.compile(r".+/sfrl/[0-9a-f]{32}")


def check_log_folder(
    log_dir: Path, policy: TrustPolicy, progress: Progress, *, journal_dir: Path | None = None
) -> FsckReport:
    """Check a log's folder, and its journal where that is given.

    Of a log whose origin is not a federation's, entries are hashed and not read.

    Raises:
        NotFoundError: the trust policy lists no log of the checkpoint's origin.
    """
    return _Fsck(log_dir, policy, progress).run(journal_dir)


class _Fsck:
    def __init__(self, log_dir: Path, policy: TrustPolicy, progress: Progress) -> None:
        self._folder = log_dir
        self._source = FolderLog(log_dir)
        self._policy = policy
        self._progress = progress
        self._report = FsckReport(quorum=policy.quorum)
        self._chain = EntryChain()

    def run(self, journal_dir: Path | None) -> FsckReport:
        report = self._report
        opened = self._open_newest()
        if opened is None:
            return report
        report.entries_read = _FEDERATION.fullmatch(report.origin) is not None
        with ExitStack() as closing:
            journal = None
            if journal_dir is not None:
                journal = closing.enter_context(JournalCheck(journal_dir, self._policy, report))
            tree = self._check_entries(opened, journal)
            if tree is None:
                return report
            self._check_history(tree)
            if journal is not None:
                journal.run(self._source, tree, self._chain, self._progress)
        self._check_files(tree, opened.checkpoint.size)
        return report

    def _open_newest(self) -> OpenedCheckpoint | None:
        report = self._report
        raw = self._source.read(CHECKPOINT, NOTE_BYTES_MAX)
        if raw is None:
            report.missing.append(Problem(CHECKPOINT, None, f"the log's newest checkpoint {self._lack_of(CHECKPOINT)}"))
            return None
        try:
            opened = open_newest(raw, self._policy)
        except MissingEvidenceError as error:
            report.missing.append(Problem(CHECKPOINT, None, str(error)))
            return None
        except (MalformedError, VerificationError) as error:
            report.problems.append(Problem(CHECKPOINT, None, str(error)))
            return None
        checkpoint = opened.checkpoint
        report.origin, report.size, report.root = checkpoint.origin, checkpoint.size, checkpoint.root.hex()
        report.witnesses, report.quorum_met = opened.witness_times, opened.quorum_met
        if not opened.quorum_met:
            what = f"the witnesses that cosigned are not the quorum {self._policy.quorum} of the trust policy"
            report.problems.append(Problem(CHECKPOINT, None, what))
        return opened

    def _check_entries(self, opened: OpenedCheckpoint, journal: JournalCheck | None) -> MerkleTree | None:
        """Structure, and while the entries pass by, their chain and the index; the tree where there is one."""
        report = self._report

        def visit(first: int, entries: Sequence[bytes], leaves: Sequence[Digest]) -> None:
            if report.entries_read:
                self._chain.take(first, entries, leaves)
                wrong = self._chain.misplaced
                report.entries_checked = first + len(entries) if wrong is None else wrong.index
                if journal is not None:
                    journal.take(first, entries)

        structure = check_structure(self._source, opened.checkpoint, self._progress, visit)
        for finding in structure.findings:
            what = f"expected {finding.expected}; found {finding.found}"
            report.problems.append(Problem(finding.subject, finding.index, what))
        report.missing += [
            Problem(each.path, None, f"{self._lack_of(each.path)}: {each.why}") for each in structure.missing
        ]
        misplaced = self._chain.misplaced
        if structure.tree is not None and not structure.findings and misplaced is not None:
            number = misplaced.index // TILE_WIDTH
            path = Bundle(number, width_of(number, report.size)).path
            report.problems.append(Problem(path, misplaced.index, f"the entry {misplaced.what}"))
        return structure.tree

    def _check_history(self, tree: MerkleTree) -> None:
        sizes = array("Q")
        for each in files_of(self._folder):
            self._report.files += 1
            if each.size is not None:
                sizes.append(each.size)
        for done, size in enumerate(sorted(sizes)):
            what = self._flaw_of_older(size, tree)
            if what:
                self._report.problems.append(Problem(f"{HISTORY}/{size}", None, what))
            self._progress("older checkpoints", done + 1, len(sizes))

    def _flaw_of_older(self, size: int, tree: MerkleTree) -> str:
        path = f"{HISTORY}/{size}"
        raw = self._source.read(path, NOTE_BYTES_MAX)
        if raw is None:
            self._report.missing.append(Problem(path, None, "cannot be read"))
            return ""
        try:
            opened = open_kept(raw, self._policy)
        except MissingEvidenceError as error:
            self._report.missing.append(Problem(path, None, str(error)))
            return ""
        except (MalformedError, NotFoundError, VerificationError) as error:
            return str(error)
        checkpoint = opened.checkpoint
        if (checkpoint.origin, checkpoint.size) != (self._report.origin, size):
            return "the checkpoint is of another size or log than its place"
        if size > tree.size:
            if self._published_size() < size:
                what = f"the log has signed for {size} entries, and {tree.size} are here"
                self._report.missing.append(Problem(path, None, what))
            return ""
        if tree.root(size) != checkpoint.root:
            if rests_on_retired_keys(opened, self._policy):
                return "retired keys alone have signed this root, and it is of another history"
            return "the log has signed this root and another history: equivocation; keep both notes"
        if not opened.quorum_met:
            self._report.notes.append(Problem(path, None, "is not under the witness quorum of today's trust policy"))
        self._report.older += 1
        return ""

    def _lack_of(self, path: str) -> str:
        """Why a file gives nothing, as the predicate of a sentence."""
        try:
            os.lstat(self._folder / path)
        except (FileNotFoundError, NotADirectoryError):
            return "is not there"
        except OSError:
            pass
        return "cannot be read"

    def _published_size(self) -> int:
        """The size that the checkpoint claims now: a log that runs has gone on meanwhile."""
        raw = self._source.read(CHECKPOINT, NOTE_BYTES_MAX)
        try:
            return 0 if raw is None else parse_checkpoint(parse_note(raw).text).size
        except MalformedError:
            return 0

    def _check_files(self, tree: MerkleTree, size: int) -> None:
        report = self._report
        for done, each in enumerate(files_of(self._folder)):
            if each.flaw:
                report.notes.append(Problem(each.path, None, each.flaw))
            if each.place is not None and not _is_of_size(each.place, size):
                self._check_surplus(each.path, each.place, tree)
            self._progress("files", done + 1, max(done + 1, report.files))

    def _check_surplus(self, path: str, place: Tile | Bundle, tree: MerkleTree) -> None:
        """A tile or bundle that the checkpoint's size does not need: what it says of entries in the tree must be so."""
        is_tile = isinstance(place, Tile)
        raw = self._source.read(path, 32 * TILE_WIDTH if is_tile else BUNDLE_BYTES_MAX)
        if raw is None:
            # A log that runs takes its narrower tiles away.
            if (self._folder / path).exists():
                self._report.missing.append(Problem(path, None, "cannot be read"))
            return
        level = place.level if isinstance(place, Tile) else 0
        first = place.index * TILE_WIDTH
        known = max(0, min(place.width, _complete(tree.size, level) - first))
        if isinstance(place, Tile):
            expected = tile_of_tree(tree, Tile(level, place.index, known)) if known else b""
            holds = len(raw) == 32 * place.width and raw[: len(expected)] == expected
        else:
            entries, end = cut_entries(raw, place.width)
            leaves = b"".join(leaf_hash(entry) for entry in entries[:known])
            holds = len(entries) == place.width and end == len(raw)
            holds = holds and leaves == (tree.subtree_hashes(0, first, first + known) if known else b"")
        if not holds:
            self._report.problems.append(Problem(path, None, "is not what the log has at this place"))
        elif known < place.width:
            self._report.ahead += 1


def _is_of_size(place: Tile | Bundle, size: int) -> bool:
    """Whether a log of this size has exactly this tile or bundle, so that the structure was its check."""
    complete = _complete(size, place.level if isinstance(place, Tile) else 0)
    first = place.index * TILE_WIDTH
    return first < complete and place.width == min(TILE_WIDTH, complete - first)


def _complete(size: int, level: int) -> int:
    """Hashes of a level in a log of this size."""
    return size >> (8 * level)
