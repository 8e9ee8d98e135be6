"""Who may knock: the identities that the log itself records.

Runs in: audit_log.
Trusts: the fold.
"""

from __future__ import annotations

from sfrl_secure.ids import Digest
from sfrl_secure.rounds.state import FederationState
from sfrl_secure.rpc.identity import DoorTerms, RecordedIdentity, door_terms_of


class LogIdentities:
    """The interceptor's registry over the fold's state."""

    def __init__(self, state: FederationState) -> None:
        """Read `state`, which another thread folds."""
        self._state = state

    def lookup(self, spki_sha256: Digest) -> RecordedIdentity | None:
        """What is recorded for a public key, or None. A revoked participant's keys are not recorded any more."""
        # One look-up of a dictionary, without the fold's lock: every call would wait for the batch that is decided.
        found = self._state.identities.get(spki_sha256)
        return None if found is None else RecordedIdentity(found.spiffe_id, found.serial, found.not_after_us)

    def door_terms(self) -> DoorTerms:
        """What connections must be, by the services document in force."""
        return door_terms_of(self._state.services())
