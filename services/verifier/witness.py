"""The witness: cosigns a log's growth, append-only, in milliseconds, and never waits for replay.

What it cosigned is on the disk before it is answered, and check and write are one step under one lock: two roots for
one size are never cosigned, whatever is asked at the same time. Requests are parsed and the log's signatures verified
before the lock is taken, and what was cosigned is read without it: nobody waits for a stranger's request or for the
disk but those who ask for growth. Evidence of a log that signed two is kept.

Format: c2sp.org/tlog-witness; proto/README.md, "Checkpoints, tiles, cosignatures".

Runs in: verifier.
Trusts: the log keys of the trust policy. Nothing in a request.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from pathlib import Path

import structlog

from sfrl_secure.clock import Clock
from sfrl_secure.errors import MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.ids import sha256
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.storage.files import make_folder, read_bounded, write_atomically
from sfrl_secure.translog.checkpoint import parse_checkpoint
from sfrl_secure.translog.cosignature import Cosigner
from sfrl_secure.translog.note import NoteSignature, parse_note
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.translog.witness import WitnessAnswer, WitnessState, decide_growth, open_add_checkpoint

_log = structlog.get_logger()

EVIDENCE_MAX = 64
"""Equivocations kept; one is enough for anybody."""


class Witness:
    """One witness over the logs of a trust policy, its state in one folder: `<hex sha256(origin)>/checkpoint`."""

    def __init__(self, folder: Path, policy: TrustPolicy, cosigners: Sequence[Cosigner], clock: Clock) -> None:
        """Read what was cosigned before.

        Raises:
            UncertainStateError: a kept checkpoint cannot be read: to go on would be to forget it.
        """
        self._folder = folder
        self._logs = {log.origin: log for log in policy.logs}
        self._origins = {_digest_of(log.origin): log.origin for log in policy.logs}
        self._cosigners = tuple(cosigners)
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = False
        make_folder(folder)
        self._recorded = {
            origin: state for origin in self._logs if (state := self._read(origin)) is not None
        }

    def add_checkpoint(self, request: bytes) -> WitnessAnswer:
        """Decide a request, and make its state durable before the answer is given.

        Raises:
            UncertainStateError: the state could not be made durable: nothing was cosigned, and nothing will be.
        """
        opened = open_add_checkpoint(request, self._logs)
        if isinstance(opened, WitnessAnswer):
            return opened
        with self._lock:
            if self._failed:
                raise UncertainStateError("the witness's state is uncertain")
            answer = decide_growth(opened, self._recorded.get(opened.checkpoint.origin), self._cosign)
            if answer.equivocation is not None:
                self._keep_evidence(answer.equivocation.older, answer.equivocation.newer)
            if answer.new_state is not None:
                self._keep(answer.new_state)
            return answer

    def latest(self, origin_sha256: str) -> bytes:
        """The latest cosigned checkpoint of the log with this hexadecimal origin digest.

        Raises:
            NotFoundError: the log is not known, or nothing was cosigned yet.
        """
        # Without the lock: a state is put here whole, and after it is durable.
        state = self._recorded.get(self._origins.get(origin_sha256, ""))
        if state is None:
            raise NotFoundError("no checkpoint of this log")
        return state.note

    def _cosign(self, text: str) -> list[NoteSignature]:
        now_seconds = self._clock.now_us() // 1_000_000
        return [cosigner.cosign(text, now_seconds) for cosigner in self._cosigners]

    def _keep(self, state: WitnessState) -> None:
        origin = state.checkpoint.origin
        try:
            make_folder(self._folder / _digest_of(origin))
            write_atomically(self._path(origin), state.note)
        except BaseException:
            self._failed = True
            raise
        self._recorded[origin] = state

    def _keep_evidence(self, older: bytes, newer: bytes) -> None:
        _log.error("equivocation", older=sha256(older).hex(), newer=sha256(newer).hex())
        folder = self._folder / "equivocation"
        make_folder(folder)
        if len(list(folder.iterdir())) < 2 * EVIDENCE_MAX:
            for note in (older, newer):
                write_atomically(folder / sha256(note).hex(), note)

    def _read(self, origin: str) -> WitnessState | None:
        try:
            note = read_bounded(self._path(origin), NOTE_BYTES_MAX)
        except NotFoundError:
            return None
        try:
            checkpoint = parse_checkpoint(parse_note(note).text)
        except MalformedError:
            raise UncertainStateError("a checkpoint that was cosigned cannot be read") from None
        if checkpoint.origin != origin:
            raise UncertainStateError("a checkpoint that was cosigned belongs to another log")
        return WitnessState(checkpoint, note)

    def _path(self, origin: str) -> Path:
        return self._folder / _digest_of(origin) / "checkpoint"


def _digest_of(origin: str) -> str:
    return hashlib.sha256(origin.encode()).hexdigest()
