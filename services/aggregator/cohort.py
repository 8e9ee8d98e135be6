"""A round's cohort: each update that may be counted, fetched by its digest and decided again.

The aggregator takes updates from the log and from nowhere else, and believes no gatekeeper: signatures are checked by
its fold, payloads here. An admission that fails is defective and is dropped. An object that is not there decides
nothing: it is asked for again.

Runs in: aggregator.
Trusts: the state of the fold. No object, no gatekeeper.
"""

from __future__ import annotations

from collections.abc import Collection

import structlog

from sfrl_secure.errors import DeniedError
from sfrl_secure.ids import Digest
from sfrl_secure.limits import SUBMIT_BYTES_MAX
from sfrl_secure.rounds.payloads import check_admission
from sfrl_secure.rounds.state import Admission, RoundState
from sfrl_secure.sparse.update import SparseUpdate
from sfrl_secure.storage.objects import Objects

_log = structlog.get_logger()


class Cohort:
    """Decided updates of one round; keeps what was decided, so that each payload is decoded once."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._opened: Digest | None = None
        self._decided: dict[str, SparseUpdate | None] = {}

    def decide(self, current: RoundState, admissions: Collection[Admission]) -> frozenset[str]:
        """Decide these admissions of the round; give the names of the defective ones among them.

        Raises:
            NotFoundError, DigestError: an object is not there, or is not what its name says: nothing can be decided.
        """
        if self._opened != current.opened:
            self._opened, self._decided = current.opened, {}
        names = {admission.update.participant for admission in admissions}
        for admission in admissions:
            name = admission.update.participant
            if name not in self._decided:
                self._decided[name] = self._decide(current, admission)
        return frozenset(name for name in names if self._decided[name] is None)

    def names(self) -> frozenset[str]:
        """Participants whose admission was decided."""
        return frozenset(self._decided)

    def update_of(self, participant: str) -> SparseUpdate:
        """The decoded update of a participant whose admission is not defective."""
        update = self._decided[participant]
        assert update is not None, "a defective admission is never counted"
        return update

    def _decide(self, current: RoundState, admission: Admission) -> SparseUpdate | None:
        payload = self._objects.get(admission.update.payload_sha256, SUBMIT_BYTES_MAX)
        try:
            return check_admission(admission, current.terms, payload)
        except DeniedError as denial:
            _log.warning("admission_defective", index=admission.index, reason=denial.reason)
            return None
