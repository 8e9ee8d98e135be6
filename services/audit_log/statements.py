"""The log's own statements: refusals at its door, documents that lacked signatures, and anchors of its time.

They are appended like anybody else's, with a key of their own that the services document names: the keys that sign
checkpoints sign nothing else.

Runs in: audit_log.
Trusts: the fold's state.
"""

from __future__ import annotations

import secrets

from sfrl_secure.clock import Clock
from sfrl_secure.crypto.envelope import sign_envelope
from sfrl_secure.crypto.keys import SigningKey
from sfrl_secure.errors import ConflictError
from sfrl_secure.governance.statements import STATEMENT_TYPE, RefusalsCounted, Statement, TimeAnchored
from sfrl_secure.ids import ZERO_DIGEST, SpiffeId
from sfrl_secure.limits import STATEMENT_LIFETIME_US
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.sequencer.sequencer import Appended, Sequencer
from sfrl_secure.wire.content import Content
from sfrl_secure.wire.statements import encode_statement

ATTEMPTS = 5
"""Between the reading and the ordering, governance may move on; so often in a row it does not."""


class OwnStatements:
    """Signs and appends what the log itself has to say, in stream `log`."""

    def __init__(
        self,
        sequencer: Sequencer[Content],
        state: FederationState,
        key: SigningKey,
        writer: SpiffeId,
        clock: Clock,
    ) -> None:
        """Write as `writer`, whose key the services document names; `state` is the fold's, read under its lock."""
        self._sequencer = sequencer
        self._state = state
        self._key = key
        self._writer = writer
        self._clock = clock

    def write(self, body: RefusalsCounted | TimeAnchored) -> Appended:
        """Append a statement.

        Raises:
            DeniedError: the services document in force does not name us, or the body would have no effect.
            ConflictError: governance moved on each time.
            ExhaustedError, UnavailableError: the log takes nothing now.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return self._append(body)
            except ConflictError:
                continue
        return self._append(body)

    def _append(self, body: RefusalsCounted | TimeAnchored) -> Appended:
        with self._sequencer.history.lock:
            federation_id, governance_head = self._state.federation_id, self._state.governance_head
        statement = Statement(
            federation_id=federation_id,
            stream="log",
            writer=self._writer,
            key_id=self._key.public_key.key_id,
            reads_governance=governance_head,
            reads_segment=ZERO_DIGEST,
            valid_until_us=self._clock.now_us() + STATEMENT_LIFETIME_US,
            request_id=secrets.token_bytes(16),
            body=body,
        )
        envelope = sign_envelope(STATEMENT_TYPE, encode_statement(statement), [self._key])
        return self._sequencer.append(envelope, statement)
