"""What participants sign beside updates, put on record: decided on the newest state, quoted in the log, answered.

What was put on record before is answered with the entry that there is. What is refused is counted and gets no entry: it
changed nothing, and nobody may fill the log with it.

Format: proto/README.md, "What participants sign".

Runs in: gatekeeper.
Trusts: the view. Nothing in the request.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from sfrl_secure.errors import ConflictError, DeniedError, MalformedError, SfrlError
from sfrl_secure.governance.statements import DecisionRecorded, PeerClass, UpdateWithdrawn
from sfrl_secure.ids import Digest, SpiffeId
from sfrl_secure.rounds.refusals import RefusalCounter
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.services.writer import Proposal, StatementWriter
from sfrl_secure.wire.audit_service import AppendedEntry

_log = structlog.get_logger()

Word = UpdateWithdrawn | DecisionRecorded
DecideWord = Callable[[FederationState, int], int | Word]
"""Gives the leaf index of the entry that there is, or what is to be written; raises DeniedError."""


class WordTaker:
    """Puts participants' withdrawals and decisions on record."""

    def __init__(self, writer: StatementWriter, counter: RefusalCounter) -> None:
        self._writer = writer
        self._counter = counter

    def take(self, event: str, segment: str, request_digest: Digest, decide: DecideWord) -> AppendedEntry | int:
        """Decide, and put what was decided on record.

        Args:
            event: what our log calls it.
            request_digest: SHA-256 of the request message.

        Returns: receipt A of the new entry; or the leaf index of the entry that there is.

        Raises:
            DeniedError: refused, and counted.
            ConflictError, ExhaustedError, UnavailableError: nothing was decided.
        """

        def propose(state: FederationState, now_us: int) -> Proposal:
            try:
                decided = decide(state, now_us)
            except DeniedError as denial:
                raise _RefusedError(denial) from None
            if isinstance(decided, int):
                raise _KnownError(decided)
            return Proposal(f"segment/{segment}", decided)

        try:
            acknowledged = self._writer.write(propose)
        except _KnownError as known:
            return known.index
        except _RefusedError as refused:
            raise self.refused(refused.denial, request_digest) from None
        except DeniedError as denial:
            # Our state allows it and the log does not: no services document is in force, or its clock is ahead.
            _log.warning(f"{event}_not_taken", reason=denial.reason)
            raise ConflictError("the log does not take it yet", reason=denial.reason) from None
        _log.info(event, segment=segment, index=acknowledged.logged.index)
        return acknowledged

    def refused(
        self, denial: DeniedError, request_digest: Digest, peer_class: PeerClass = PeerClass.PARTICIPANT
    ) -> DeniedError:
        """Count a refusal; give the error to answer with."""
        self._counter.count(denial.reason, peer_class, request_digest)
        return denial

    def malformed(self, error: MalformedError, request_digest: Digest) -> DeniedError:
        """Count a request that did not parse; give the error to answer with."""
        return self.refused(DeniedError("malformed", str(error)), request_digest)


def check_speaker(peer: SpiffeId, participant: str) -> None:
    """Check that a participant speaks for itself.

    Raises:
        DeniedError: `wrong_peer`.
    """
    if peer.role != "participant" or peer.name != participant:
        raise DeniedError("wrong_peer", "signed by another participant than the one that sends it")


class _KnownError(SfrlError):
    def __init__(self, index: int) -> None:
        super().__init__("it is on record")
        self.index = index


class _RefusedError(SfrlError):
    def __init__(self, denial: DeniedError) -> None:
        super().__init__(denial.reason)
        self.denial = denial
