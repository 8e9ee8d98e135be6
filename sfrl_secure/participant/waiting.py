"""Waiting for what comes in its time: a round that opens, a receipt that there will be.

Whoever waits asks seldom and is answered late rather than often, for the bytes are the waiter's own; a gatekeeper that
does not answer is asked again while there is time.

Runs in: participant, cli, demo.
Trusts: nothing; rounds and receipts are proven before they are given out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sfrl_secure.clock import Clock
from sfrl_secure.errors import (
    ClosedError,
    DeniedError,
    NotFoundError,
    RoundStateError,
    UnavailableError,
    VerificationError,
)
from sfrl_secure.participant.exchange import CALL_SECONDS
from sfrl_secure.participant.kept_rounds import KeptRounds
from sfrl_secure.participant.known_roots import KnownRoots
from sfrl_secure.participant.receipts import ProvenReceipt, open_receipt
from sfrl_secure.participant.rounds import FinishedSegment, OpenRound, open_round
from sfrl_secure.participant.submissions import Submitted
from sfrl_secure.rpc.clients import GatekeeperClient
from sfrl_secure.rpc.trying import Patience
from sfrl_secure.storage.files import SECRET_MODE, make_folder, write_atomically
from sfrl_secure.translog.policy import TrustPolicy
from sfrl_secure.wire.gatekeeper_service import ReceiptRequest, RoundRequest
from sfrl_secure.wire.receipts import Receipt, ReceiptKind, encode_receipt

POLL_SECONDS = 5.0
"""Longest wait of one GetRound call; short enough for the share of time that each gatekeeper gets."""

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 2.0


class RoundWaiter:
    """Waits for rounds of any segment, and opens them."""

    def __init__(
        self,
        gatekeeper: GatekeeperClient,
        policy: TrustPolicy,
        known: KnownRoots,
        kept: KeptRounds,
        clock: Clock,
        patience: Patience,
    ) -> None:
        self._gatekeeper, self._policy, self._known, self._kept = gatekeeper, policy, known, kept
        self._clock, self._patience = clock, patience

    def open(
        self, segment: str, after_round: int, *, wait_seconds: float, through_halt: bool
    ) -> OpenRound | FinishedSegment:
        """Wait for a round with a number above `after_round`: see `Participant.open_round`."""
        end = self._patience.monotonic() + wait_seconds
        # Whoever does not wait through a halt asks first how it stands: a halted segment's round would be waited for.
        longest = POLL_SECONDS if through_halt else 0.0
        while True:
            left = max(end - self._patience.monotonic(), 0.0)
            request = RoundRequest(segment, after_round, int(min(left, longest) * 1000))
            longest = POLL_SECONDS
            try:
                answer = self._gatekeeper.get_round(request, deadline_seconds=CALL_SECONDS)
            except (NotFoundError, RoundStateError) as error:
                is_halted = isinstance(error, RoundStateError) and error.reason == "halted"
                left = end - self._patience.monotonic()
                if isinstance(error, RoundStateError) and (not is_halted or not through_halt or left <= 0):
                    raise
                if left <= 0:
                    raise NotFoundError(
                        "no such round opened in time: wait longer, or ask an operator whether the segment's terms "
                        "are in force"
                    ) from None
                # A gatekeeper with many who wait answers at once.
                self._patience.sleep(min(left, FIRST_PAUSE_SECONDS))
                continue
            except DeniedError as denied:
                if denied.reason != "unknown_segment":
                    raise
                raise DeniedError(
                    denied.reason,
                    f"the federation has no segment {segment}: `sfrl segment list` names those that there are",
                    entry_index=denied.entry_index,
                ) from None
            now_us = self._clock.now_us()
            opened = open_round(answer, segment, self._policy, now_us, self._known)
            if isinstance(opened, OpenRound) and opened.number <= after_round:
                raise VerificationError("the gatekeeper shows a round that is over: ask another gatekeeper")
            self._kept.keep(segment, answer, opened, now_us)
            return opened


class ReceiptWaiter:
    """Waits for receipts, verifies them and keeps them."""

    def __init__(
        self,
        gatekeeper: GatekeeperClient,
        policy: TrustPolicy,
        known: KnownRoots,
        receipts: Path,
        patience: Patience,
    ) -> None:
        self._gatekeeper, self._policy, self._known = gatekeeper, policy, known
        self._receipts, self._patience = receipts, patience

    def path(self, segment: str, round_number: int, kind: ReceiptKind) -> Path:
        """Where a receipt is kept."""
        return self._receipts / f"{segment}-{round_number}-{kind.name.lower()}.receipt"

    def receipt(
        self, submitted: Submitted, kind: ReceiptKind, wait_seconds: float, why: Callable[[], str] | None = None
    ) -> bytes:
        """Wait for a receipt of an update: see `Participant.receipt`.

        Args:
            why: asked for the reason where there is none in time.
        """
        update = submitted.update
        raw = self.proven(submitted, kind, wait_seconds, why)
        make_folder(self._receipts)
        write_atomically(self.path(update.segment, update.round, kind), raw, mode=SECRET_MODE)
        return raw

    def proven(
        self, submitted: Submitted, kind: ReceiptKind, wait_seconds: float, why: Callable[[], str] | None = None
    ) -> bytes:
        """Wait for a receipt of an update and verify it, as `receipt`; keep nothing."""
        raw = encode_receipt(self._ask(submitted, kind, wait_seconds, why))
        proven = open_receipt(raw, self._policy)
        self._known.check(proven.roots)
        _check_receipt(proven, submitted, kind)
        return raw

    def _ask(
        self, submitted: Submitted, kind: ReceiptKind, wait_seconds: float, why: Callable[[], str] | None
    ) -> Receipt:
        request = ReceiptRequest(submitted.update.segment, submitted.statement_digest, kind)
        end, pause = self._patience.monotonic() + wait_seconds, FIRST_PAUSE_SECONDS
        while True:
            try:
                return self._gatekeeper.get_receipt(request, deadline_seconds=CALL_SECONDS)
            except ClosedError:
                raise
            except (NotFoundError, UnavailableError) as error:
                left = end - self._patience.monotonic()
                if left <= 0 and isinstance(error, UnavailableError):
                    raise
                if left <= 0:
                    reason = "wait for the round to close, or read the log" if why is None else why()
                    raise NotFoundError(f"there is no receipt of kind {kind.name} yet: {reason}") from None
            self._patience.sleep(min(left, pause))
            pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def _check_receipt(proven: ProvenReceipt, submitted: Submitted, kind: ReceiptKind) -> None:
    if proven.kind is not kind or proven.statement_digest != submitted.statement_digest:
        raise VerificationError("the receipt is another update's, or of another kind: ask another gatekeeper")
    if proven.index != submitted.index:
        # Both places are signed by the log: an update is admitted once.
        raise VerificationError("the receipt names another admission than the one that was acknowledged")
