"""The sequencer: one thread that orders the world.

Whoever appends waits in a bounded queue, alone or with a group of entries. The thread takes what waits as one batch:
each statement is decided against the state after the one before it, then all of them are written and synced once,
then one checkpoint is signed, and only then is anybody answered, the refused ones too. A statement whose digest is in
the log gets its entry again, with a fresh proof.

When the journal, the clock or the fold leaves our state uncertain, `on_uncertain` stops the process before anybody is
answered.

Rules: PROTOCOL R2, R4; DESIGN 6.

Runs in: audit_log.
Trusts: history and signer. No writer.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.crypto.keys import PublicKey
from sfrl_secure.errors import (
    ExhaustedError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    SfrlError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.ids import Digest
from sfrl_secure.sequencer.history import ContentT, History
from sfrl_secure.sequencer.signing import CheckpointSigner
from sfrl_secure.translog.entries import LoggedEntry

BATCH_ENTRIES_MAX = 256
"""Entries of one batch, and of one group."""


@dataclass(frozen=True, slots=True)
class SequencerSettings:
    """How entries are gathered.

    Attributes:
        batch_entries_max: entries of one batch, 1 to 256.
        batch_delay_seconds: how long the first entry of a batch waits for others, 0 to 1.
        queue_max: entries that wait for a batch; a group that would exceed it is refused.
    """

    batch_entries_max: int = BATCH_ENTRIES_MAX
    batch_delay_seconds: float = 0.002
    queue_max: int = 4096

    def __post_init__(self) -> None:
        assert 1 <= self.batch_entries_max <= BATCH_ENTRIES_MAX
        assert 0 <= self.batch_delay_seconds <= 1
        assert self.queue_max >= 1


@dataclass(frozen=True, slots=True)
class Submission(Generic[ContentT]):
    """What somebody wants in the log.

    Attributes:
        content: what `envelope` holds, parsed from it.
        verified_by: the key whose single signature over the envelope the caller has verified; None where it has not.
    """

    envelope: Envelope
    content: ContentT
    verified_by: PublicKey | None = None


Verify = Callable[[Sequence[Submission[ContentT]]], Sequence[Submission[ContentT] | SfrlError]]
"""Gives for each submission the same with `verified_by` set where its signature held, or why it is refused."""


@dataclass(frozen=True, slots=True)
class Appended:
    """Receipt A: an entry that is durable and signed for.

    Attributes:
        index: leaf index.
        raw: the entry's bytes.
        tree_size: size of the checkpoint.
        path: audit path to its root.
        checkpoint: a note under both keys of the log.
    """

    index: int
    raw: bytes
    tree_size: int
    path: tuple[Digest, ...]
    checkpoint: bytes


Result = Appended | SfrlError
"""What became of one submission; an error says that nothing was logged."""


@dataclass(frozen=True, slots=True)
class LogHead:
    """How far the log is.

    Attributes:
        size: entries that are durable and signed for.
        note: their checkpoint under the log's keys; empty before the first.
        witnessed_size: entries under the witness quorum.
        witnessed_note: their checkpoint with the witnesses' lines; empty before the first.
    """

    size: int = 0
    note: bytes = b""
    witnessed_size: int = 0
    witnessed_note: bytes = b""


class Answer:
    """What will hold the results of one group. A queue of one: a tenth of what a future costs, 3,000 times a second."""

    __slots__ = ("_told", "is_told")

    def __init__(self) -> None:
        self._told: queue.SimpleQueue[tuple[Result, ...] | UncertainStateError] = queue.SimpleQueue()
        self.is_told = False

    def tell(self, results: tuple[Result, ...] | UncertainStateError) -> None:
        """Say what became of the group; once."""
        self.is_told = True
        self._told.put(results)

    def wait(self, timeout_seconds: float) -> tuple[Result, ...]:
        """Wait for the results; one caller, once.

        Raises:
            UnavailableError: not in time; the entries may be logged yet: ask again.
            UncertainStateError: the log has failed.
        """
        try:
            told = self._told.get(timeout=timeout_seconds)
        except queue.Empty:
            raise UnavailableError("the entry was not ordered in time") from None
        if isinstance(told, UncertainStateError):
            raise told
        return told


@dataclass(slots=True)
class _Waiting(Generic[ContentT]):
    submissions: Sequence[Submission[ContentT]]
    answer: Answer


@dataclass(frozen=True, slots=True)
class _Placed:
    """A submission's place: of an entry of this batch (`raw` is known), or of an older one."""

    index: int
    raw: bytes | None


class Sequencer(Generic[ContentT]):
    """Orders statements. Safe for any number of threads; `start`, then `stop` once."""

    def __init__(
        self,
        history: History[ContentT],
        signer: CheckpointSigner,
        settings: SequencerSettings,
        *,
        on_uncertain: Callable[[UncertainStateError], None],
        verify: Verify[ContentT] = lambda submissions: submissions,
        after_batch: Callable[[], None] = lambda: None,
    ) -> None:
        """Go on from `history`, which has taken in what is durable.

        Args:
            on_uncertain: stops the process. Called once, by the sequencer's thread.
            verify: looks at the signatures of a batch together, where that is cheaper than one by one; called by the
                sequencer's thread. What it does not settle the fold does.
            after_batch: called by the sequencer's thread after each batch, before anybody is answered.
        """
        self.history = history
        self._signer = signer
        self._settings = settings
        self._on_uncertain = on_uncertain
        self._verify = verify
        self._after_batch = after_batch
        # Bounded by `submit`, so that `stop` and `_fail` never wait for room.
        self._queue: queue.SimpleQueue[_Waiting[ContentT] | None] = queue.SimpleQueue()
        # Of the queue's bound and its end alone: appending waits for nobody who watches the head.
        self._queue_lock = threading.Lock()
        self._queued = 0
        self._held_over: _Waiting[ContentT] | None = None
        self._batch: list[_Waiting[ContentT]] = []
        self._changed = threading.Condition()
        self._head = LogHead()
        self._closed = False
        self._failure: UncertainStateError | None = None
        self._thread = threading.Thread(target=self._run, name="sequencer", daemon=True)

    def start(self) -> None:
        """Sign for what the journal holds, and begin to order."""
        self._sign_head()
        self._thread.start()

    def stop(self) -> None:
        """Take nothing more, order what waits, end."""
        with self._queue_lock, self._changed:
            self._closed = True
            self._changed.notify_all()
        self._queue.put(None)
        self._thread.join()

    def append(
        self,
        envelope: Envelope,
        content: ContentT,
        *,
        verified_by: PublicKey | None = None,
        timeout_seconds: float = 20.0,
    ) -> Appended:
        """Append a statement once, and return when it is durable and signed for.

        Raises:
            ConflictError, DeniedError, MalformedError: as the fold refuses it; nothing was logged.
            ExhaustedError: too many wait; nothing was logged.
            UnavailableError: not in time, or we are stopping; it may be logged yet: ask again.
            UncertainStateError: the log has failed.
        """
        (result,) = self.submit([Submission(envelope, content, verified_by)]).wait(timeout_seconds)
        if isinstance(result, SfrlError):
            raise result
        return result

    def submit(self, submissions: Sequence[Submission[ContentT]]) -> Answer:
        """Append a group of 1 to 256 statements, each decided for itself; give what will hold one result for each.

        They are ordered as they stand, in one batch, and what is appended bears one checkpoint.

        Raises:
            ExhaustedError: too many wait; nothing was logged.
            UnavailableError: we are stopping.
            UncertainStateError: the log has failed.
        """
        assert 1 <= len(submissions) <= BATCH_ENTRIES_MAX
        waiting = _Waiting(submissions, Answer())
        with self._queue_lock:
            self._check_open()
            if self._queued + len(submissions) > self._settings.queue_max:
                raise ExhaustedError(f"{self._settings.queue_max} entries may wait, and not one more")
            self._queued += len(submissions)
            self._queue.put(waiting)
        return waiting.answer

    @property
    def head(self) -> LogHead:
        """How far the log is."""
        with self._changed:
            return self._head

    def wait_for_change(self, known: LogHead, timeout_seconds: float) -> LogHead:
        """Wait until the head is another than `known`, or the time is over; give the head.

        Raises:
            UnavailableError: the log is stopping, and has nothing more to tell than `known`.
            UncertainStateError: the log has failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._head != known or self._closed, timeout_seconds)
            if self._head == known:
                self._check_open()
            return self._head

    def appended(self, index: int) -> Appended:
        """Prove an entry against the newest checkpoint.

        Raises:
            NotFoundError: there is none at `index` yet.
        """
        head = self.head
        logged = self.prove(index, head.size)
        return Appended(index, logged.raw, head.size, logged.path, head.note)

    def prove(self, index: int, tree_size: int) -> LoggedEntry:
        """Give an entry with its path to the root at `tree_size`.

        Raises:
            NotFoundError: there is no such tree yet, or no such entry in it.
        """
        if not 0 <= index < tree_size <= self.head.size:
            raise NotFoundError("the log has no such entry")
        path = self.history.tree.inclusion_path(index, tree_size)
        return LoggedEntry(index, self.history.entry(index), path)

    def set_witnessed(self, size: int, note: bytes) -> None:
        """Note that the first `size` entries are under the quorum, by `note`, which was published."""
        with self._changed:
            if size >= self._head.witnessed_size:
                self._head = LogHead(self._head.size, self._head.note, size, note)
                self._changed.notify_all()

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closed:
            raise UnavailableError("the log is stopping")

    def _run(self) -> None:
        try:
            while batch := self._next_batch():
                self._batch = batch
                self._order(batch)
        except UncertainStateError as failure:
            self._fail(failure)
        except Exception as error:  # noqa: BLE001 - a fault of ours in the middle of a batch: what is staged is not known
            fault = UncertainStateError("the sequencer failed")
            fault.__cause__ = error
            self._fail(fault)

    def _next_batch(self) -> list[_Waiting[ContentT]]:
        """Wait for work; an empty list means the end."""
        first = self._held_over if self._held_over is not None else self._queue.get()
        self._held_over = None
        if first is None:
            return []
        batch, count = [first], len(first.submissions)
        until = time.monotonic() + self._settings.batch_delay_seconds
        while count < self._settings.batch_entries_max:
            try:
                following = self._queue.get(timeout=max(until - time.monotonic(), 0.0))
            except queue.Empty:
                break
            if following is None:
                # `stop` puts it last: this batch is the last one.
                self._queue.put(None)
                break
            count += len(following.submissions)
            if count > BATCH_ENTRIES_MAX:
                # A group is never divided: it is the beginning of the next batch.
                self._held_over = following
                break
            batch.append(following)
        with self._queue_lock:
            self._queued -= sum(len(waiting.submissions) for waiting in batch)
        return batch

    def _order(self, batch: list[_Waiting[ContentT]]) -> None:
        verified = iter(self._verify([each for waiting in batch for each in waiting.submissions]))
        placed = [[self._place(next(verified)) for _ in waiting.submissions] for waiting in batch]
        grown = self.history.next_index > self.history.size
        self.history.commit()
        if grown:
            self._sign_head()
        self._after_batch()
        # Refusals too are told only now: they may rest on entries of this very batch.
        for waiting, places in zip(batch, placed, strict=True):
            waiting.answer.tell(tuple([self._result(place) for place in places]))

    def _place(self, submission: Submission[ContentT] | SfrlError) -> _Placed | SfrlError:
        if isinstance(submission, SfrlError):
            return submission
        try:
            staged = self.history.stage(submission.envelope, submission.content, submission.verified_by)
        except UncertainStateError:
            raise
        except SfrlError as refusal:
            # Known already, or else refused: a second look is only for those.
            index = self.history.known_index(submission.envelope.digest)
            return refusal.with_traceback(None) if index is None else _Placed(index, None)
        return _Placed(staged.index, staged.raw)

    def _result(self, place: _Placed | SfrlError) -> Result:
        if isinstance(place, SfrlError):
            return place
        head = self._head
        try:
            raw = self.history.entry(place.index) if place.raw is None else place.raw
        except (NotFoundError, MalformedError, MissingEvidenceError) as error:
            # An older entry whose file was altered: no fault of the batch that it was asked for in.
            return error.with_traceback(None)
        path = self.history.tree.inclusion_path(place.index, head.size)
        return Appended(place.index, raw, head.size, path, head.note)

    def _sign_head(self) -> None:
        size = self.history.size
        note = self._signer.sign(size, self.history.tree.root(size))
        with self._changed:
            self._head = LogHead(size, note, self._head.witnessed_size, self._head.witnessed_note)
            self._changed.notify_all()

    def _fail(self, failure: UncertainStateError) -> None:
        with self._queue_lock, self._changed:
            self._failure, self._closed = failure, True
            self._changed.notify_all()
        self._on_uncertain(failure)
        # Only where the process still lives: what became of these entries is exactly what is uncertain.
        if self._held_over is not None:
            self._batch.append(self._held_over)
        waiting: _Waiting[ContentT] | None
        while not self._queue.empty() and (waiting := self._queue.get()) is not None:
            self._batch.append(waiting)
        for waiting in self._batch:
            if not waiting.answer.is_told:
                waiting.answer.tell(failure)
