"""The sequencer: one thread that orders the world.

Whoever appends waits in a bounded queue. The thread takes what waits as one batch: each statement is decided against
the state after the one before it, then all of them are written and synced once, then one checkpoint is signed, and
only then is anybody answered, the refused ones too. A statement whose digest is in the log gets its entry again, with
a fresh proof.

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
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import (
    ExhaustedError,
    NotFoundError,
    SfrlError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.ids import Digest
from sfrl_secure.sequencer.history import ContentT, History
from sfrl_secure.sequencer.signing import CheckpointSigner


@dataclass(frozen=True, slots=True)
class SequencerSettings:
    """How entries are gathered.

    Attributes:
        batch_entries_max: entries of one batch, 1 to 256.
        batch_delay_seconds: how long the first entry of a batch waits for others, 0 to 1.
        queue_max: entries that wait for a batch; the next one is refused.
    """

    batch_entries_max: int = 256
    batch_delay_seconds: float = 0.002
    queue_max: int = 1024

    def __post_init__(self) -> None:
        assert 1 <= self.batch_entries_max <= 256
        assert 0 <= self.batch_delay_seconds <= 1
        assert self.queue_max >= 1


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


@dataclass(slots=True)
class _Waiting(Generic[ContentT]):
    envelope: Envelope
    content: ContentT
    answer: Future[Appended]


class Sequencer(Generic[ContentT]):
    """Orders statements. Safe for any number of threads; `start`, then `stop` once."""

    def __init__(
        self,
        history: History[ContentT],
        signer: CheckpointSigner,
        settings: SequencerSettings,
        *,
        on_uncertain: Callable[[UncertainStateError], None],
    ) -> None:
        """Go on from `history`, which has replayed its journal.

        Args:
            on_uncertain: stops the process. Called once, by the sequencer's thread.
        """
        self.history = history
        self._signer = signer
        self._settings = settings
        self._on_uncertain = on_uncertain
        # Bounded by `append`, so that `stop` and `_fail` never wait for room.
        self._queue: queue.SimpleQueue[_Waiting[ContentT] | None] = queue.SimpleQueue()
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
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._queue.put(None)
        self._thread.join()

    def append(self, envelope: Envelope, content: ContentT, *, timeout_seconds: float = 20.0) -> Appended:
        """Append a statement once, and return when it is durable and signed for.

        Args:
            content: what `envelope` holds, parsed from it.

        Raises:
            ConflictError, DeniedError, MalformedError: as the fold refuses it; nothing was logged.
            ExhaustedError: too many wait; nothing was logged.
            UnavailableError: not in time, or we are stopping; it may be logged yet: ask again.
            UncertainStateError: the log has failed.
        """
        waiting = _Waiting(envelope, content, Future[Appended]())
        with self._changed:
            self._check_open()
            if self._queue.qsize() >= self._settings.queue_max:
                raise ExhaustedError(f"{self._settings.queue_max} entries wait already")
            self._queue.put(waiting)
        try:
            return waiting.answer.result(timeout_seconds)
        except TimeoutError:
            raise UnavailableError("the entry was not ordered in time") from None

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
        if not 0 <= index < head.size:
            raise NotFoundError("the log has no such entry")
        path = self.history.tree.inclusion_proof(index, head.size).path
        return Appended(index, self.history.entry(index), head.size, path, head.note)

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
        first = self._queue.get()
        if first is None:
            return []
        batch = [first]
        until = time.monotonic() + self._settings.batch_delay_seconds
        while len(batch) < self._settings.batch_entries_max:
            try:
                following = self._queue.get(timeout=max(until - time.monotonic(), 0.0))
            except queue.Empty:
                break
            if following is None:
                # `stop` puts it last: this batch is the last one.
                self._queue.put(None)
                break
            batch.append(following)
        return batch

    def _order(self, batch: list[_Waiting[ContentT]]) -> None:
        ordered: list[tuple[_Waiting[ContentT], int]] = []
        refused: list[tuple[_Waiting[ContentT], SfrlError]] = []
        for waiting in batch:
            index = self.history.known_index(waiting.envelope.digest)
            try:
                ordered.append((waiting, self._stage(waiting) if index is None else index))
            except UncertainStateError:
                raise
            except SfrlError as refusal:
                refused.append((waiting, refusal))
        grown = self.history.next_index > self.history.size
        self.history.commit()
        if grown:
            self._sign_head()
        for waiting, index in ordered:
            waiting.answer.set_result(self.appended(index))
        # Refusals may rest on entries of this very batch, which are durable only now.
        for waiting, reason in refused:
            waiting.answer.set_exception(reason)

    def _stage(self, waiting: _Waiting[ContentT]) -> int:
        return self.history.stage(waiting.envelope, waiting.content)

    def _sign_head(self) -> None:
        size = self.history.size
        note = self._signer.sign(size, self.history.tree.root(size))
        with self._changed:
            self._head = LogHead(size, note, self._head.witnessed_size, self._head.witnessed_note)
            self._changed.notify_all()

    def _fail(self, failure: UncertainStateError) -> None:
        with self._changed:
            self._failure, self._closed = failure, True
            self._changed.notify_all()
        self._on_uncertain(failure)
        # Only where the process still lives: what became of these entries is exactly what is uncertain.
        waiting: _Waiting[ContentT] | None
        while not self._queue.empty() and (waiting := self._queue.get()) is not None:
            self._batch.append(waiting)
        for waiting in self._batch:
            if not waiting.answer.done():
                waiting.answer.set_exception(failure)
