"""Writing statements: decide on the newest state, sign, append; on a conflict read on and decide again.

Nothing is decided on a state that the log has left behind: the sequencer compares the reads (PROTOCOL R2).

Runs in: gatekeeper, aggregator.
Trusts: the view.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import Envelope, sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError
from sfrl_secure.governance.statements import STATEMENT_TYPE, Body, Statement
from sfrl_secure.ids import ZERO_DIGEST, SpiffeId
from sfrl_secure.limits import STATEMENT_LIFETIME_US
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.services.view import FederationView
from sfrl_secure.wire.audit_service import AppendedEntry
from sfrl_secure.wire.statements import encode_statement

CATCH_UP_SECONDS = 10.0
"""How long a writer waits for its view to reach what the log told it to read."""


class Appender(Protocol):
    """The audit log, as a writer sees it."""

    def append(self, envelope: Envelope) -> AppendedEntry:
        """Append; raises ConflictError, DeniedError, ExhaustedError, UnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a decision wants to state.

    Attributes:
        valid_until_us: no later than this, beside the 30 s that every statement has.
    """

    stream: str
    body: Body
    valid_until_us: int = 2**62


Decide = Callable[[FederationState, int], Proposal]
"""Decides under the view's lock, from the state and one reading of the clock; raises when there is nothing to state."""


class StatementWriter:
    """Signs and appends one service's statements."""

    def __init__(
        self, log: Appender, view: FederationView, key: SigningKey, writer: SpiffeId, clock: Clock
    ) -> None:
        self._log = log
        self._view = view
        self._key = key
        self._writer = writer
        self._clock = clock

    def write(self, decide: Decide, *, attempts: int = 3) -> AppendedEntry:
        """Decide, sign and append, deciding again after a conflict, `attempts` times in all.

        When it returns, the entry is durable in the log and in the view.

        Raises:
            ConflictError: the log moved on each time.
            DeniedError, ExhaustedError, UnavailableError: as `decide` and the log raise them.
        """
        for attempt in range(attempts):
            try:
                acknowledged = self._log.append(self._envelope(decide))
            except ConflictError as conflict:
                if conflict.log_size:
                    self._view.wait_size(conflict.log_size, CATCH_UP_SECONDS)
                if attempt + 1 == attempts:
                    raise
                continue
            self._view.wait_size(acknowledged.logged.index + 1, CATCH_UP_SECONDS)
            return acknowledged
        raise AssertionError("attempts is at least 1")

    def _envelope(self, decide: Decide) -> Envelope:
        now_us = self._clock.now_us()
        with self._view.reading() as state:
            proposal = decide(state, now_us)
            segment = state.segments.get(proposal.stream.removeprefix("segment/"))
            in_segment = proposal.stream.startswith("segment/") and segment is not None
            statement = Statement(
                federation_id=state.federation_id,
                stream=proposal.stream,
                writer=self._writer,
                key_id=self._key.public_key.key_id,
                reads_governance=state.governance_head,
                reads_segment=segment.control_head if in_segment and segment is not None else ZERO_DIGEST,
                valid_until_us=min(proposal.valid_until_us, now_us + STATEMENT_LIFETIME_US),
                request_id=secrets.token_bytes(16),
                body=proposal.body,
            )
        return sign_envelope(STATEMENT_TYPE, encode_statement(statement), [self._key])
