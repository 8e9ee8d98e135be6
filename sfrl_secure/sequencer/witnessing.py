"""Witnessing: the newest checkpoint goes to every witness, and is published when the quorum has cosigned it.

All witnesses are asked for the same checkpoint, the target, or their cosignatures would never meet in a growing log.
The next target is the newest checkpoint of the moment at which the quorum is met, or at which the target is older
than `target_seconds`. One thread a witness asks; a slow or lying one delays nobody but itself.

Format: c2sp.org/tlog-witness v1.0.0. Rules: PROTOCOL R4.

Runs in: audit_log.
Trusts: the trust policy, for witnesses' keys and the quorum. Nothing that a witness answers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from sfrl_secure.errors import ExhaustedError, SfrlError, UnavailableError, UncertainStateError, VerificationError
from sfrl_secure.sequencer.publication import Publication
from sfrl_secure.sequencer.sequencer import LogHead, Sequencer
from sfrl_secure.sequencer.signing import SignedHead
from sfrl_secure.sequencer.start_check import is_level_with
from sfrl_secure.sequencer.witness_client import Witness
from sfrl_secure.translog.note import Note, NoteSignature, VerifierKey, add_signatures, format_note, parse_note
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.tree import MerkleTree
from sfrl_secure.translog.witness import (
    AddCheckpointRequest,
    format_add_checkpoint,
    open_cosignature_lines,
    parse_recorded_size,
)

_log = structlog.get_logger()

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class WitnessingSettings:
    """How often checkpoints go out.

    Attributes:
        interval_seconds: from one publication to the next at least, under load.
        target_seconds: after this a newer checkpoint becomes the target, quorum or not.
        refresh_seconds: a log that does not grow is cosigned again this often: participants act on fresh cosignatures
            only.
        quiet_seconds: the interval after a publication that brought no entry; each that it brought adds
            `entry_seconds`. A round is a few entries, each waiting for the one before to be witnessed; thousands a
            second share publications.
    """

    interval_seconds: float = 0.1
    target_seconds: float = 5.0
    refresh_seconds: float = 60.0
    quiet_seconds: float = 0.005
    entry_seconds: float = 0.001

    def interval_after(self, entries: int) -> float:
        """Seconds from a publication that brought so many entries to the next, at least."""
        return min(self.interval_seconds, self.quiet_seconds + entries * self.entry_seconds)


@dataclass(slots=True)
class _Target:
    """A checkpoint that the witnesses are asked for, and who has cosigned it."""

    size: int
    note: Note
    begun: float
    lines: dict[str, tuple[NoteSignature, ...]] = field(default_factory=dict)


class Witnessing:
    """Carries checkpoints to the witnesses and publishes. `start`, then `stop` once."""

    def __init__(
        self,
        sequencer: Sequencer[Any],  # Any: what the entries say is of no account here.
        publication: Publication,
        signed_head: SignedHead,
        witnesses: Sequence[Witness],
        policy: TrustPolicy,
        origin: str,
        settings: WitnessingSettings,
        *,
        on_uncertain: Callable[[UncertainStateError], None],
    ) -> None:
        """Carry the checkpoints of `sequencer` to `witnesses`, whose names and keys are in `policy`.

        Args:
            on_uncertain: stops the process.
        """
        self._sequencer = sequencer
        self._publication = publication
        self._signed_head = signed_head
        self._policy = policy
        self._origin = origin
        self._settings = settings
        self._on_uncertain = on_uncertain
        self._changed = threading.Condition()
        self._target: _Target | None = None
        self._stopping = threading.Event()
        keys = {witness.name: witness.key for witness in policy.witnesses}
        self._threads = [threading.Thread(target=self._guarded, args=(self._lead,), name="witnessing", daemon=True)]
        for witness in witnesses:
            asker = _Asker(witness, {name: keys[name] for name in witness.names}, self)
            name = f"witness-{witness.names[0]}"
            self._threads.append(threading.Thread(target=self._guarded, args=(asker.run,), name=name, daemon=True))

    def start(self) -> None:
        """Begin to carry."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; what is under the quorum by now is published. Call it before the sequencer is stopped."""
        with self._changed:
            self._stopping.set()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    # Of the askers

    @property
    def tree(self) -> MerkleTree:
        """The tree that is signed for."""
        return self._sequencer.history.tree

    @property
    def is_stopping(self) -> bool:
        """Whether to end."""
        return self._stopping.is_set()

    def pause(self, seconds: float) -> None:
        """Wait, unless we are stopping."""
        self._stopping.wait(seconds)

    def next_target(self, done: _Target | None) -> _Target | None:
        """Wait for a target other than the one that this witness has cosigned; None when we are stopping."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_stopping or self._target is not done)
            return None if self.is_stopping else self._target

    def check_level(self, witness: Witness) -> None:
        """Ask a witness that does not go along what it has seen.

        Raises:
            UncertainStateError: it shows what our tree does not hold.
        """
        is_level_with(witness, self._origin, self._policy, self.tree)

    def take_lines(self, target: _Target, lines: Mapping[str, tuple[NoteSignature, ...]]) -> None:
        """Take a witness's verified cosignatures of a target, by the trust policy's name of each key."""
        with self._changed:
            target.lines.update(lines)
            self._changed.notify_all()

    # Of the leading thread

    def _lead(self) -> None:
        head = LogHead()
        # What was published before our start may be old: the first checkpoint is carried in any case.
        fresh_until = time.monotonic()
        while not self.is_stopping:
            try:
                head = self._sequencer.wait_for_change(head, 0.2)
            except UnavailableError:
                return  # The sequencer ended before us: there is nothing more to carry.
            if head.size > head.witnessed_size or time.monotonic() >= fresh_until:
                try:
                    self._signed_head.keep(head.note)
                    if self._carry(head):
                        fresh_until = time.monotonic() + self._settings.refresh_seconds
                except ExhaustedError:
                    _log.error("disk_full", tree_size=head.size)
                    self.pause(LONGEST_PAUSE_SECONDS)
                # `head` stays the one that was carried: what has come meanwhile is a change, and is not waited for.

    def _carry(self, head: LogHead) -> bool:
        """Ask for a checkpoint's cosignatures and publish it; whether the quorum was met."""
        begun = time.monotonic()
        target = _Target(head.size, parse_note(head.note), begun)
        with self._changed:
            self._target = target
            self._changed.notify_all()
            self._changed.wait_for(
                lambda: self.is_stopping or self._policy.is_quorum(target.lines), self._settings.target_seconds
            )
            lines = dict(target.lines)
        if not self._policy.is_quorum(lines):
            if not self.is_stopping:
                _log.warning("quorum_not_met", tree_size=target.size, count=len(lines))
            return False
        note = format_note(add_signatures(target.note, [line for each in lines.values() for line in each]))
        self._publication.publish(target.size, note)
        self._sequencer.set_witnessed(target.size, note)
        interval = self._settings.interval_after(head.size - head.witnessed_size)
        self.pause(max(0.0, interval - (time.monotonic() - begun)))
        return True


    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except UncertainStateError as failure:
            self._on_uncertain(failure)
        except Exception as error:  # noqa: BLE001 - a fault of ours: a log that silently stops publishing would be worse
            fault = UncertainStateError("witnessing failed")
            fault.__cause__ = error
            self._on_uncertain(fault)


class _Asker:
    """Asks one witness for each target, under all the names that the trust policy gives its keys."""

    def __init__(self, witness: Witness, keys: Mapping[str, VerifierKey], witnessing: Witnessing) -> None:
        self._witness = witness
        self._keys = keys
        self._witnessing = witnessing
        self._recorded_size = 0
        self._done: _Target | None = None

    def run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while (target := self._witnessing.next_target(self._done)) is not None:
            try:
                self._ask(target)
                pause = FIRST_PAUSE_SECONDS
            except UncertainStateError:
                raise
            except SfrlError as error:
                _log.warning("witness_failed", witness=self._witness.names[0], error=type(error).__name__)
                self._witnessing.pause(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _ask(self, target: _Target) -> None:
        # Twice: the first 409 tells the size that the proof must start from.
        for _ in range(2):
            if self._recorded_size > target.size:
                break
            path = self._witnessing.tree.consistency_proof(self._recorded_size, target.size).path
            request = AddCheckpointRequest(self._recorded_size, path, format_note(target.note))
            reply = self._witness.add_checkpoint(format_add_checkpoint(request))
            if reply.status == 200:
                lines = open_cosignature_lines(reply.body, target.note.text, list(self._keys.values()))
                self._recorded_size = target.size
                self._done = target
                self._witnessing.take_lines(target, self._by_name(lines))
                return
            if reply.status != 409:
                break
            self._recorded_size = parse_recorded_size(reply.body)
        # It does not go along. If it has seen another history of ours, or more of it, it can show it.
        self._recorded_size = 0
        self._witnessing.check_level(self._witness)
        raise VerificationError("a witness refuses our checkpoint")

    def _by_name(self, lines: tuple[NoteSignature, ...]) -> dict[str, tuple[NoteSignature, ...]]:
        """Book verified lines under the names of their keys."""
        booked = {
            name: tuple(line for line in lines if (line.name, line.key_id) == (key.name, key.key_id))
            for name, key in self._keys.items()
        }
        missing = [name for name, found in booked.items() if not found]
        if missing:
            # What it did sign counts. Asking again for the same checkpoint would not help.
            _log.warning("witness_key_silent", witness=missing[0])
        return {name: found for name, found in booked.items() if found}
