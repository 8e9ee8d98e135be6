"""Who may knock: the identities that the log itself records.

Runs in: audit_log.
Trusts: the fold.
"""

from __future__ import annotations

import threading

from sfrl_secure.ids import Digest
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity import RecordedIdentity


class LogIdentities:
    """The interceptor's registry over the fold's state."""

    def __init__(self, state: FederationState, lock: threading.RLock) -> None:
        """Read `state` under `lock`."""
        self._state = state
        self._lock = lock

    def lookup(self, spki_sha256: Digest) -> RecordedIdentity | None:
        """What is recorded for a public key, or None. A revoked participant's keys are not recorded any more."""
        with self._lock:
            found = self._state.identities.get(spki_sha256)
        return None if found is None else RecordedIdentity(found.spiffe_id, found.not_after_us)
