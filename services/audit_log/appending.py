"""From judged envelopes to answers: submit what may be ordered, say of each what became of it.

Runs in: audit_log.
Trusts: the interceptor, for who calls. Nothing in a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sfrl_secure.crypto.envelope import Envelope
from sfrl_secure.errors import DeniedError, MalformedError, SfrlError, UnavailableError, UncertainStateError
from sfrl_secure.ids import sha256
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rpc.identity import Peer, peer_class_of
from sfrl_secure.rpc.status import refusal_of
from sfrl_secure.sequencer.sequencer import Answer, Appended, Result, Sequencer, Submission
from sfrl_secure.services.audit_log.intake import Intake, Judged
from sfrl_secure.translog.entries import LoggedEntry
from sfrl_secure.wire.append_entries import RESULTS_BYTES_MAX, EntriesAnswer, Refusal, result_bytes
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.content import Content
from sfrl_secure.wire.entries import encode_envelope

APPEND_SECONDS = 15.0
"""An entry that is not ordered by then is answered with UNAVAILABLE; asked again, it is found or ordered."""


@dataclass(frozen=True, slots=True)
class Pending:
    """A request that is under way.

    Attributes:
        judged: each envelope's submission, or its refusal.
        answer: the results of the submissions; None where there is none.
    """

    judged: tuple[Judged, ...]
    answer: Answer | None


class Appending:
    """Takes envelopes to the sequencer. Safe for any number of threads."""

    def __init__(self, sequencer: Sequencer[Content], intake: Intake, counter: RefusalCounter) -> None:
        """Count in `counter` what is refused for good: who brings what is not theirs, and what the fold denies."""
        self._sequencer = sequencer
        self._intake = intake
        self._counter = counter

    def append(self, envelope: Envelope, peer: Peer) -> AppendedEntry:
        """Append one envelope; return when it is durable and signed for.

        Raises:
            SfrlError: as intake and sequencer refuse it.
        """
        (result,) = self._results(self.submit(self.judge([envelope], peer)), peer)
        if isinstance(result, SfrlError):
            raise result
        return AppendedEntry(_logged(result), result.checkpoint)

    def judge(self, envelopes: Sequence[Envelope | MalformedError], peer: Peer) -> tuple[Judged, ...]:
        """Judge a request's envelopes, as far as that needs no order."""
        judged = self._intake.judge(envelopes, peer.spiffe_id.role)
        for envelope, each in zip(envelopes, judged, strict=True):
            if isinstance(each, DeniedError) and isinstance(envelope, Envelope):
                self._count(each, envelope, peer)
        return judged

    def submit(self, judged: tuple[Judged, ...]) -> Pending:
        """Queue what may be ordered, all or nothing.

        Raises:
            ExhaustedError, UnavailableError, UncertainStateError: nothing was queued.
        """
        submissions = [each for each in judged if isinstance(each, Submission)]
        return Pending(judged, self._sequencer.submit(submissions) if submissions else None)

    def finish(self, pending: Pending, peer: Peer) -> EntriesAnswer:
        """Wait for what was submitted; say of each envelope what became of it.

        Raises:
            UnavailableError: not in time; what it is about may be logged yet.
            UncertainStateError: the log has failed.
        """
        checkpoint, room = b"", RESULTS_BYTES_MAX
        results: list[LoggedEntry | Refusal] = []
        for result in self._results(pending, peer):
            if isinstance(result, Appended):
                logged = _logged(result)
                room -= result_bytes(logged)
                if room >= 0:
                    assert checkpoint in (b"", result.checkpoint), "a group bears one checkpoint"
                    checkpoint = result.checkpoint
                    results.append(logged)
                    continue
                result = UnavailableError("the answer has no room for this entry: ask for it with fewer others")
            results.append(refusal_of(result))
        return EntriesAnswer(tuple(results), checkpoint)

    def _results(self, pending: Pending, peer: Peer) -> list[Result]:
        ordered = iter(() if pending.answer is None else pending.answer.wait(APPEND_SECONDS))
        results: list[Result] = []
        for judged in pending.judged:
            result = next(ordered) if isinstance(judged, Submission) else judged
            if isinstance(result, UncertainStateError):
                raise result
            if isinstance(result, DeniedError) and isinstance(judged, Submission):
                self._count(result, judged.envelope, peer)
            results.append(result)
        return results

    def _count(self, refusal: DeniedError, envelope: Envelope, peer: Peer) -> None:
        self._counter.count(refusal.reason, peer_class_of(peer.spiffe_id), sha256(encode_envelope(envelope)))


def _logged(appended: Appended) -> LoggedEntry:
    return LoggedEntry(appended.index, appended.raw, appended.path)
