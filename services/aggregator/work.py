"""The aggregator's work: follow the log, open and close rounds, add up, publish, derive again what an order asks for.

It holds nothing that the log and the objects do not hold. Killed at any point, it starts by following the log and goes
on (promise 5). Payloads are looked at for updates that the log alone does not drop: nobody who withdrew, was excluded
or revoked can hold a round up with an object that is not there.

What can be done ahead is done while nothing else is: updates are decided and added up as they are admitted, and a model
is made while its closing waits for the log and the witnesses. Nothing of that has effect before its time.

Runs in: aggregator.
Trusts: the view. No gatekeeper.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import structlog

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
from sfrl_secure.ids import Digest
from sfrl_secure.rounds.begins import due_server_state, round_begins_with
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
from sfrl_secure.services.aggregator.results import Results, Wanted
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

    def __init__(
        self, view: FederationView, writer: StatementWriter, objects: Objects, clock: Clock, *, threads: int = 1
    ) -> None:
        """Work on what `view` shows; `threads` judge updates and add them up, and change no bit."""
        self._view = view
        self._writer = writer
        self._clock = clock
        self._threads = threads
        self._results = Results(objects, threads=threads)
        self._left_for_closing: dict[str, set[Digest]] = {}

    def run(self, stopping: threading.Event) -> None:
        """Work until `stopping` is set."""
        while not stopping.is_set():
            with self._view.reading() as state:
                seen = (state.size, self._view.witnessed_size)
                actions = self._actions(state)
                pause = self._pause(state)
            worked = [self._try(action) for action in actions]
            if not any(worked) and not self.work_ahead():
                self._wait_for_change(seen, pause, stopping)

    def _wait_for_change(self, seen: tuple[int, int], seconds: float, stopping: threading.Event) -> None:
        self._view.wait_until(
            lambda state: stopping.is_set() or (state.size, self._view.witnessed_size) != seen, seconds
        )

    def work_ahead(self) -> bool:
        """Do one thing that will be needed and has no effect yet; whether there was one."""
        with self._view.reading() as state:
            segments = sorted(state.segments)
        return any(self._decide_some(name) or self._make_ahead(name) for name in segments)

    def _pause(self, state: FederationState) -> float:
        """How long nothing can be due unless the view changes: until the next deadline, or a look around."""
        now_us = self._clock.now_us()
        opened = [segment.open_round for segment in state.segments.values()]
        left = [each.deadline_us - now_us for each in opened if each is not None and each.deadline_us > now_us]
        return min([_IDLE_SECONDS, *(each / 1_000_000 for each in left)])

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
                case PublishModel() | DeriveAgain():
                    self._publish(action)
        except _POSTPONING as error:
            reason = error.reason if isinstance(error, ConflictError | DeniedError) else str(error)
            _log.warning(f"{_EVENTS[type(action)]}_later", segment=action.segment, reason=reason)
            return False
        _log.info(_EVENTS[type(action)], segment=action.segment)
        return True

    def _open(self, action: OpenRound) -> None:
        def decide(state: FederationState, now_us: int) -> Proposal:
            self._check_still_next(state, action, now_us)
            segment = state.segment(action.segment)
            begins = round_begins_with(segment)
            body = RoundOpened(
                action.round, action.base_model, segment.terms.digest, begins.server_state, begins.mask
            )
            return Proposal(f"segment/{action.segment}", body, segment.terms.expires_us)

        self._writer.write(decide)

    def _close(self, action: CloseRound) -> None:
        with self._view.reading() as state:
            current = self._round_of(state, action)
            looked_at = _to_be_looked_at(state, current, self._clock.now_us())
        defective = self._results.cohort(action.segment).decide(current, looked_at)
        decided = {each.update.participant: each for each in looked_at}

        def decide(state: FederationState, now_us: int) -> Proposal:
            opened = state.segment(action.segment).open_round
            if opened is None or opened.opened != current.opened:
                raise DeniedError("moved_on", "the round is closed by now")
            if any(decided.get(each.update.participant) != each for each in _to_be_looked_at(state, opened, now_us)):
                raise ConflictError("an update was admitted, or is to be counted, meanwhile")
            body = close_round(
                opened, defective=defective, is_active=lambda name: state.is_active(name, now_us), now_us=now_us
            )
            return Proposal(f"segment/{action.segment}", body)

        # While the log takes the closing in, the model is made of those that it will count, if nothing comes between.
        sound = tuple(each for each in looked_at if each.update.participant not in defective)
        is_enough = len(sound) >= current.terms.round.cohort_min
        wanted = Wanted(current, sound, current.base_model, current.server_state) if is_enough else None
        with ThreadPoolExecutor(1) as pool:
            making = pool.submit(self._made, wanted)
            try:
                self._writer.write(decide)
            finally:
                making.result()
        self._left_for_closing.pop(action.segment, None)

    def _decide_some(self, segment: str) -> bool:
        """Decide updates of the segment's open round, as many as there are threads, and add them up; whether there was
        one.

        One whose object is not there is left for the closing: to be asked for all the time helps nobody.
        """
        with self._view.reading() as state:
            found = state.segments.get(segment)
            current = None if found is None else found.open_round
            looked_at = () if current is None else _to_be_looked_at(state, current, self._clock.now_us())
        if current is None:
            return False
        cohort, left = self._results.cohort(segment), self._left_for_closing.setdefault(segment, set())
        waiting = [each for each in cohort.undecided(current, looked_at) if each.statement_digest not in left]
        waiting = waiting[: self._threads]
        if not waiting:
            return False
        try:
            cohort.decide(current, waiting)
        except _POSTPONING as error:
            for each in cohort.undecided(current, waiting):
                _log.warning("update_decided_later", index=each.index, reason=str(error))
                left.add(each.statement_digest)
        return True

    def _publish(self, action: PublishModel | DeriveAgain) -> None:
        with self._view.reading() as state:
            self._check_still_next(state, action, self._clock.now_us())
            wanted = self._wanted(state, action)
        result = self._results.of(wanted)
        body = ModelPublished(
            round=wanted.current.number,
            round_closed=wanted.current.closed_hash,
            base_model=wanted.base,
            aggregate=result.aggregate,
            model=result.model,
            rule=wanted.current.terms.rule.name,
            arithmetic=ARITHMETIC,
            supersedes=action.supersedes if isinstance(action, DeriveAgain) else None,
            server_state=result.server_state,
            next_mask=result.next_mask,
            clusters=result.clusters,
        )

        def decide(state: FederationState, now_us: int) -> Proposal:
            # An order may have come while it was computed: it is then another model that is due, or none.
            self._check_still_next(state, action, now_us)
            if self._wanted(state, action).key != wanted.key:
                raise DeniedError("moved_on", "a newer order leaves out others")
            return Proposal(f"segment/{action.segment}", body)

        self._writer.write(decide)

    def _make_ahead(self, segment: str) -> bool:
        """Make the model that will be published as soon as what it rests on is witnessed; whether there was one."""
        with self._view.reading() as state:
            found = state.segments.get(segment)
            # As if all of it were witnessed.
            action = found and next_action(state, found, state.size, self._clock.now_us())
            if not isinstance(action, PublishModel | DeriveAgain):
                return False
            wanted = self._wanted(state, action)
        return not self._results.is_made(wanted) and self._made(wanted)

    def _made(self, wanted: Wanted | None) -> bool:
        """Make a result that is not needed yet; whether there was one that could be made."""
        try:
            return wanted is not None and bool(self._results.of(wanted))
        except _POSTPONING:
            return False

    def _wanted(self, state: FederationState, action: PublishModel | DeriveAgain) -> Wanted:
        """What is to be made: of whom, and on what. A step that is derived again is made without whom orders leave
        out, and stands on what the step before has become."""
        current = self._round_of(state, action)
        if isinstance(action, PublishModel):
            closed = current.closed
            assert closed is not None, "next_action publishes for closed rounds only"
            return Wanted(current, counted_of(current, closed), current.base_model, current.server_state)
        segment = state.segment(action.segment)
        return Wanted(current, counted_in_step(current), due_base(segment), due_server_state(segment), is_again=True)

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
