"""Anchors of time: the log puts its witnessed checkpoints into itself, so that its time can be judged later.

An anchor is due when some entry is not covered by one, and that has been so for a while or the log has become quiet: a
log that falls silent is anchored before it does, and an anchor alone never asks for another. What is due is chosen at
once and kept until it is written: a log that takes nothing for a minute would else lose the time of that minute. So is
the checkpoint that was published before a start, because its witnesses saw it before the log went down.

Format: proto/README.md, "Time".

Runs in: audit_log.
Trusts: the trust policy; the sequencer.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

import structlog

from sfrl_secure.errors import DeniedError, MalformedError, SfrlError, SignatureError
from sfrl_secure.governance.statements import STATEMENT_TYPE, TimeAnchored
from sfrl_secure.periodic import PeriodicThread
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.sequencer.sequencer import LogHead, Sequencer
from sfrl_secure.translog.anchor import format_anchor, open_anchor
from sfrl_secure.translog.opened import OpenedCheckpoint
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.content import Content
from sfrl_secure.wire.entries import parse_entry
from sfrl_secure.wire.statements import parse_statement

QUIET_SECONDS = 5.0
"""A log that did not grow for so long is anchored before its time."""

CHOSEN_MAX = 120
"""Anchors that wait to be written; with the default interval, those of an hour."""

RETRY_SECONDS = 2.0

_LOOK_SECONDS = 0.25

_log = structlog.get_logger()


class AnchorWriter:
    """Writes anchors. `start` it after the sequencer and before the witnessing, then `stop` once."""

    def __init__(
        self,
        sequencer: Sequencer[Content],
        state: FederationState,
        policy: TrustPolicy,
        write: Callable[[TimeAnchored], object],
        *,
        interval_seconds: float,
        published: OpenedCheckpoint | None = None,
    ) -> None:
        """Begin with nothing written.

        Args:
            state: the fold's, read under its lock.
            write: returns when the body is in the log, or raises an SfrlError; then it may get the same body again.
            interval_seconds: from an entry that nothing covers to the anchor that does.
            published: what was published before this start, under retired keys perhaps; without it, the sequencer's
                witnessed head says it.
        """
        self._sequencer = sequencer
        self._state = state
        self._policy = policy
        self._write = write
        self._interval_seconds = interval_seconds
        self._quiet_seconds = min(QUIET_SECONDS, interval_seconds)
        self._published = published
        self._chosen: deque[TimeAnchored] = deque()
        self._chosen_size = 0
        self._looked_at = 0
        self._uncovered: int | None = None
        self._uncovered_since = 0.0
        self._size = 0
        self._grown_at = 0.0
        self._retry_at = 0.0
        self._thread = PeriodicThread("anchors", self._look_now, every_seconds=_LOOK_SECONDS)

    def start(self) -> None:
        """Take over what was published before, and begin to look."""
        self.begin(time.monotonic())
        self._thread.start()

    def stop(self) -> None:
        """End. What is due by now is due at the next start."""
        self._thread.stop()

    def begin(self, now: float) -> None:
        """Choose the checkpoint that was published before the start, where it covers more than the last anchor."""
        with self._sequencer.history.lock:
            self._chosen_size = self._state.last_anchor_size
        head = self._sequencer.head
        self._note_growth(head, now)
        size, note = head.witnessed_size, head.witnessed_note
        if self._published is not None and self._published.quorum_met:
            size, note = self._published.checkpoint.size, self._published.note
        if self._is_covering(size):
            self._choose(size, note)

    def look(self, now: float) -> None:
        """Choose a checkpoint if one is due, and write what is chosen.

        Args:
            now: seconds of a clock that never goes back.
        """
        head = self._sequencer.head
        self._note_growth(head, now)
        is_due = (
            now - self._uncovered_since >= self._interval_seconds or now - self._grown_at >= self._quiet_seconds
        )
        if self._is_covering(head.witnessed_size) and is_due and len(self._chosen) < CHOSEN_MAX:
            self._choose(head.witnessed_size, head.witnessed_note)
        if self._chosen and now >= self._retry_at:
            self._write_chosen(now)

    def _note_growth(self, head: LogHead, now: float) -> None:
        if head.size != self._size:
            self._size, self._grown_at = head.size, now
        # Entries from here on are uncovered, unless they are anchors. Only few of those stand in a row, so that the
        # first entry or the second ends the search; it goes on next time from where it got to.
        index = max(self._looked_at, self._chosen_size)
        while self._uncovered is None and index < head.size:
            if not is_anchor(self._sequencer.history.entry(index)):
                self._uncovered, self._uncovered_since = index, now
            index += 1
        self._looked_at = index

    def _is_covering(self, size: int) -> bool:
        """Whether a checkpoint of this size covers an entry that no chosen one does."""
        return self._uncovered is not None and size > self._uncovered

    def _choose(self, size: int, checkpoint_note: bytes) -> None:
        # Whatever comes of it: what cannot be anchored now cannot be later, and newer checkpoints may be.
        self._chosen_size = size
        self._uncovered = None
        try:
            note = format_anchor(checkpoint_note, self._policy)
            opened = open_anchor(note, self._policy)
        except (MalformedError, SignatureError) as error:
            _log.error("anchor_impossible", tree_size=size, error=type(error).__name__)
            return
        if opened.time_seconds is None:
            # The quorum is met by keys that an anchor has no room for, or it is `none`: nobody's time would be in it.
            _log.warning("anchor_without_quorum", tree_size=size)
            return
        self._chosen.append(TimeAnchored(note, opened.checkpoint))

    def _write_chosen(self, now: float) -> None:
        while self._chosen:
            body = self._chosen[0]
            try:
                self._write(body)
            except DeniedError as refusal:
                # Void however often it is tried: another takes its place when it is due.
                _log.error("anchor_refused", tree_size=body.checkpoint.size, reason=refusal.reason)
            except SfrlError as error:
                _log.warning("anchor_not_written", tree_size=body.checkpoint.size, error=type(error).__name__)
                self._retry_at = now + RETRY_SECONDS
                return
            self._chosen.popleft()

    def _look_now(self) -> None:
        try:
            self.look(time.monotonic())
        except SfrlError as error:
            _log.error("anchors_failed", error=type(error).__name__)


def is_anchor(raw: bytes) -> bool:
    """Whether an entry of our log is a time_anchored."""
    try:
        envelope = parse_entry(raw).envelope
        return envelope.payload_type == STATEMENT_TYPE and isinstance(
            parse_statement(envelope.statement).body, TimeAnchored
        )
    except MalformedError:
        return False
