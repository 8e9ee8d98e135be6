"""The aggregator's work: follow the log, open and close rounds, add up, publish, derive again what an order asks for.

It holds nothing that the log does not hold. Killed at any point, it starts by following the log and goes on (promise
5). Payloads are looked at for updates that the log alone does not drop: nobody who withdrew, was excluded or revoked
can hold a round up with an object that is not there.

Runs in: aggregator.
Trusts: the view. No gatekeeper.
"""

from __future__ import annotations

import threading

import numpy as np
import structlog
from numpy.typing import NDArray

from sfrl_secure.aggregation.models import encode_aggregate, model_bytes, parse_model
from sfrl_secure.aggregation.weighted_mean import WEIGHTED_MEAN, WeightedMean
from sfrl_secure.clock import Clock
from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    UnavailableError,
    VerificationError,
)
from sfrl_secure.governance.statements import ModelPublished, RoundOpened
from sfrl_secure.governance.terms import SegmentTerms
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.closing import close_round, counted_of, drop_reason
from sfrl_secure.rounds.effects import ARITHMETIC
from sfrl_secure.rounds.reaggregation import counted_in_step, due_base
from sfrl_secure.rounds.state import Admission, FederationState, RoundState
from sfrl_secure.services.aggregator.actions import (
    Action,
    CloseRound,
    DeriveAgain,
    OpenRound,
    PublishModel,
    next_action,
)
from sfrl_secure.services.aggregator.cohort import Cohort
from sfrl_secure.services.view import FederationView
from sfrl_secure.services.writer import Proposal, StatementWriter
from sfrl_secure.storage.objects import Objects

_log = structlog.get_logger()

_POSTPONING = (
    ConflictError, DeniedError, ExhaustedError, MalformedError, MissingEvidenceError, NotFoundError, UnavailableError,
    VerificationError,
)  # fmt: skip
"""What may hold on a newer state, or once an object or a service is there. Malformed is a store's file that is too long
or none: whoever writes into the store could end the process otherwise."""

_EVENTS = {
    OpenRound: "round_opened",
    CloseRound: "round_closed",
    PublishModel: "model_published",
    DeriveAgain: "model_derived_again",
}

_IDLE_SECONDS = 0.25
"""Longest pause between two looks at the deadlines; a change of the view ends it at once."""


class Aggregator:
    """Does what the segments need, one thing at a time."""

    def __init__(self, view: FederationView, writer: StatementWriter, objects: Objects, clock: Clock) -> None:
        self._view = view
        self._writer = writer
        self._objects = objects
        self._clock = clock
        self._cohorts: dict[str, Cohort] = {}

    def run(self, stopping: threading.Event) -> None:
        """Work until `stopping` is set."""
        while not stopping.is_set():
            with self._view.reading() as state:
                seen = (state.size, self._view.witnessed_size)
                actions = self._actions(state)
            worked = [self._try(action) for action in actions]
            if not any(worked):
                self._wait_for_change(seen, stopping)

    def _wait_for_change(self, seen: tuple[int, int], stopping: threading.Event) -> None:
        self._view.wait_until(
            lambda state: stopping.is_set() or (state.size, self._view.witnessed_size) != seen, _IDLE_SECONDS
        )

    def _actions(self, state: FederationState) -> list[Action]:
        now_us = self._clock.now_us()
        found = [
            next_action(state, segment, self._view.witnessed_size, now_us)
            for _, segment in sorted(state.segments.items())
        ]
        return [action for action in found if action is not None]

    def _try(self, action: Action) -> bool:
        """Do it; whether it was done. What fails now is tried again on a newer state."""
        try:
            match action:
                case OpenRound():
                    self._open(action)
                case CloseRound():
                    self._close(action)
                case PublishModel():
                    self._publish(action)
                case DeriveAgain():
                    self._derive_again(action)
        except _POSTPONING as error:
            reason = error.reason if isinstance(error, ConflictError | DeniedError) else str(error)
            _log.warning(f"{_EVENTS[type(action)]}_later", segment=action.segment, reason=reason)
            return False
        _log.info(_EVENTS[type(action)], segment=action.segment)
        return True

    def _open(self, action: OpenRound) -> None:
        def decide(state: FederationState, now_us: int) -> Proposal:
            self._check_still_next(state, action, now_us)
            terms = state.segment(action.segment).terms
            return Proposal(
                f"segment/{action.segment}",
                RoundOpened(action.round, action.base_model, terms.digest),
                terms.expires_us,
            )

        self._writer.write(decide)

    def _close(self, action: CloseRound) -> None:
        with self._view.reading() as state:
            current = self._round_of(state, action)
            looked_at = _to_be_looked_at(state, current, self._clock.now_us())
        cohort = self._cohort(action)
        defective = cohort.decide(current, looked_at)

        def decide(state: FederationState, now_us: int) -> Proposal:
            opened = state.segment(action.segment).open_round
            if opened is None or opened.opened != current.opened:
                raise DeniedError("moved_on", "the round is closed by now")
            names = {admission.update.participant for admission in _to_be_looked_at(state, opened, now_us)}
            if names - cohort.names():
                raise ConflictError("an update was admitted, or is to be counted, meanwhile")
            body = close_round(
                opened, defective=defective, is_active=lambda name: state.is_active(name, now_us), now_us=now_us
            )
            return Proposal(f"segment/{action.segment}", body)

        self._writer.write(decide)

    def _publish(self, action: PublishModel) -> None:
        with self._view.reading() as state:
            current = self._round_of(state, action)
            closed = current.closed
            assert closed is not None, "next_action publishes for closed rounds only"
            counted = counted_of(current, closed)
        mean = self._mean(self._cohort(action), current, counted)
        self._publish_model(action, current, counted, current.base_model, mean)

    def _derive_again(self, action: DeriveAgain) -> None:
        """Derive the first step that is due: without whom the order leaves out, on what the step before has become."""
        with self._view.reading() as state:
            self._check_still_next(state, action, self._clock.now_us())
            current, counted, base = self._due(state, action)
        if len(counted) < current.terms.round.cohort_min:
            # Too few to hide among: nothing is added up, and the step leads nowhere.
            mean = np.zeros(current.terms.model.manifest.coordinates, dtype=np.int64)
        else:
            mean = self._mean(self._cohort(action), current, counted)
        self._publish_model(action, current, counted, base, mean)

    def _due(self, state: FederationState, action: DeriveAgain) -> tuple[RoundState, tuple[Admission, ...], Digest]:
        """The round that is due, the updates that its model is now made of, and the model that it stands on."""
        current = self._round_of(state, action)
        return current, counted_in_step(current), due_base(state.segment(action.segment))

    def _publish_model(
        self,
        action: PublishModel | DeriveAgain,
        current: RoundState,
        counted: tuple[Admission, ...],
        base: Digest,
        mean: NDArray[np.int64],
    ) -> None:
        supersedes = action.supersedes if isinstance(action, DeriveAgain) else None
        aggregate, model = self._put_model(current.terms, base, mean)
        body = ModelPublished(
            round=current.number,
            round_closed=current.closed_hash,
            base_model=base,
            aggregate=aggregate,
            model=model,
            rule=WEIGHTED_MEAN,
            arithmetic=ARITHMETIC,
            supersedes=supersedes,
        )

        def decide(state: FederationState, now_us: int) -> Proposal:
            # An order may have come while it was computed: it is then another model that is due, or none.
            self._check_still_next(state, action, now_us)
            if isinstance(action, DeriveAgain) and (counted, base) != self._due(state, action)[1:]:
                raise DeniedError("moved_on", "a newer order leaves out others")
            return Proposal(f"segment/{action.segment}", body)

        self._writer.write(decide)

    def _mean(self, cohort: Cohort, current: RoundState, counted: tuple[Admission, ...]) -> NDArray[np.int64]:
        if cohort.decide(current, counted):
            # Whoever closed the round counted what its payload forbids. There is no model of it that anyone should
            # publish; operators can roll back, which gives the round up.
            raise DeniedError("counted_defective", "the round counts an update that its payload forbids")
        mean = WeightedMean(current.terms.model.manifest.coordinates)
        for admission in counted:
            update = cohort.update_of(admission.update.participant)
            mean.add(update.indices, update.values, admission.update.weight)
        return mean.result()

    def _put_model(self, terms: SegmentTerms, base: Digest, mean: NDArray[np.int64]) -> tuple[Digest, Digest]:
        """Store the aggregate and the model; give their names."""
        manifest, grid_exponent = terms.model.manifest, terms.model.grid_exponent
        found = parse_model(self._objects.get(base, model_bytes(manifest)), manifest, grid_exponent)
        aggregate = self._objects.put(encode_aggregate(manifest, grid_exponent, mean))
        return aggregate, self._objects.put(found.add(mean).to_bytes())

    def _cohort(self, action: Action) -> Cohort:
        return self._cohorts.setdefault(action.segment, Cohort(self._objects))

    @staticmethod
    def _round_of(state: FederationState, action: CloseRound | PublishModel | DeriveAgain) -> RoundState:
        found = state.segment(action.segment).rounds.get(action.round)
        if found is None:
            raise DeniedError("moved_on", "the log that we follow has begun anew")
        return found

    def _check_still_next(self, state: FederationState, action: Action, now_us: int) -> None:
        if next_action(state, state.segment(action.segment), self._view.witnessed_size, now_us) != action:
            raise DeniedError("moved_on", "the segment needs something else by now")


def _to_be_looked_at(state: FederationState, current: RoundState, now_us: int) -> tuple[Admission, ...]:
    """Admissions that are counted unless their payload forbids it; none where an order ended the round."""
    if current.ended_by_order:
        return ()

    def is_active(name: str) -> bool:
        return state.is_active(name, now_us)

    return tuple(
        admission
        for name, admission in sorted(current.admissions.items())
        if drop_reason(current, name, defective=(), is_active=is_active) is None
    )
