"""The aggregator's work: follow the log, open and close rounds, add up, publish.

It holds nothing that the log does not hold. Killed at any point, it starts by following the log and goes on (promise
5).

Runs in: aggregator.
Trusts: the view. No gatekeeper.
"""

from __future__ import annotations

import threading

import structlog

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
from sfrl_secure.rounds.closing import close_round, counted_of
from sfrl_secure.rounds.effects import ARITHMETIC
from sfrl_secure.rounds.state import FederationState, RoundState
from sfrl_secure.services.aggregator.actions import Action, CloseRound, OpenRound, PublishModel, next_action
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

_EVENTS = {OpenRound: "round_opened", CloseRound: "round_closed", PublishModel: "model_published"}

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
            next_action(segment, self._view.witnessed_size, now_us) for _, segment in sorted(state.segments.items())
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
        except _POSTPONING as error:
            reason = error.reason if isinstance(error, ConflictError | DeniedError) else str(error)
            _log.warning(f"{_EVENTS[type(action)]}_later", segment=action.segment, reason=reason)
            return False
        _log.info(_EVENTS[type(action)], segment=action.segment)
        return True

    def _open(self, action: OpenRound) -> None:
        def decide(state: FederationState, now_us: int) -> Proposal:
            segment = state.segment(action.segment)
            if next_action(segment, self._view.witnessed_size, now_us) != action:
                raise DeniedError("moved_on", "the segment needs something else by now")
            body = RoundOpened(action.round, action.base_model, segment.terms.digest)
            return Proposal(f"segment/{action.segment}", body, segment.terms.expires_us)

        self._writer.write(decide)

    def _close(self, action: CloseRound) -> None:
        cohort = self._cohorts.setdefault(action.segment, Cohort(self._objects))
        defective = self._decide_cohort(cohort, action.current)

        def decide(state: FederationState, now_us: int) -> Proposal:
            opened = state.segment(action.segment).open_round
            if opened is None or opened.opened != action.current.opened:
                raise DeniedError("moved_on", "the round is closed by now")
            if opened.admissions.keys() - cohort.names():
                raise ConflictError("an update was admitted meanwhile")
            body = close_round(
                opened, defective=defective, is_active=lambda name: state.is_active(name, now_us), now_us=now_us
            )
            return Proposal(f"segment/{action.segment}", body)

        self._writer.write(decide)

    def _decide_cohort(self, cohort: Cohort, current: RoundState) -> frozenset[str]:
        with self._view.reading():
            admissions = tuple(current.admissions.values())
        return cohort.decide(current, admissions)

    def _publish(self, action: PublishModel) -> None:
        current = action.current
        closed = current.closed
        assert closed is not None, "next_action publishes for closed rounds only"
        cohort = self._cohorts.setdefault(action.segment, Cohort(self._objects))
        self._decide_cohort(cohort, current)
        terms = current.terms.model
        mean = WeightedMean(terms.manifest.coordinates)
        for admission in counted_of(current, closed):
            update = cohort.update_of(admission.update.participant)
            mean.add(update.indices, update.values, admission.update.weight)
        raw_base = self._objects.get(current.base_model, model_bytes(terms.manifest))
        base = parse_model(raw_base, terms.manifest, terms.grid_exponent)
        step = mean.result()
        aggregate = self._objects.put(encode_aggregate(terms.manifest, terms.grid_exponent, step))
        model = self._objects.put(base.add(step).to_bytes())
        body = ModelPublished(
            round=current.number,
            round_closed=current.closed_hash,
            base_model=current.base_model,
            aggregate=aggregate,
            model=model,
            rule=WEIGHTED_MEAN,
            arithmetic=ARITHMETIC,
        )
        self._writer.write(lambda _state, _now_us: Proposal(f"segment/{action.segment}", body))
