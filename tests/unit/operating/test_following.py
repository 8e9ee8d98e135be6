"""Reading what is in force by following the log: verified, or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from simulator import Simulator

from sfrl_secure.errors import DeniedError, MalformedError, SfrlError, UnavailableError, VerificationError
from sfrl_secure.operating.following import follow_state
from sfrl_secure.sequencer.log_keys import LogKeys
from sfrl_secure.translog.note import parse_vkey
from sfrl_secure.translog.policy import TrustedLog
from sfrl_secure.wire.audit_service import FollowBatch


class Source:
    """A log that sends what it has, altered as a test says, and ends."""

    def __init__(
        self, sim: Simulator, *, altered: bool = False, error: SfrlError | None = None, note: bytes | None = None
    ) -> None:
        self._sim, self._altered, self._error, self._note = sim, altered, error, note

    def follow(self, first_index: int, *, deadline_seconds: float) -> Batches:
        assert deadline_seconds > 0
        raw = list(self._sim.log.raw)
        if self._altered:
            raw[2] = raw[3]
        entries = tuple(raw[first_index:])
        note = self._note or self._sim.log.signed.note
        return Batches(FollowBatch(first_index, entries, note), self._error)


class Batches:
    def __init__(self, batch: FollowBatch, error: SfrlError | None) -> None:
        self._batch, self._error = batch, error

    def __iter__(self) -> Iterator[FollowBatch]:
        if self._error is not None:
            raise self._error
        yield self._batch

    def cancel(self) -> None:
        pass


def test_the_state_is_that_of_the_whole_log(sim: Simulator) -> None:
    sim.halt()
    state = follow_state(Source(sim), sim.policy)
    assert state.size == len(sim.log.raw)
    assert state.segments["rocks"].is_halted
    assert state.federation_id == sim.federation_id


def test_a_log_that_shows_another_history_is_not_believed(sim: Simulator) -> None:
    with pytest.raises(VerificationError):
        follow_state(Source(sim, altered=True), sim.policy)


def test_a_log_that_does_not_answer_is_said_to_be_away(sim: Simulator) -> None:
    with pytest.raises(UnavailableError, match="cannot be read: away"):
        follow_state(Source(sim, error=UnavailableError("away")), sim.policy, answer_seconds=0.2)


def test_a_log_that_does_not_let_the_operator_in_says_so_at_once(sim: Simulator) -> None:
    with pytest.raises(DeniedError) as denied:
        follow_state(Source(sim, error=DeniedError("unknown_identity", "who are you")), sim.policy)
    assert denied.value.reason == "unknown_identity"


def test_entries_that_the_log_does_not_sign_for_are_no_state(sim: Simulator) -> None:
    older = sim.log.signed.note
    sim.halt()
    with pytest.raises(UnavailableError, match="before it had signed for all"):
        follow_state(Source(sim, note=older), sim.policy, answer_seconds=0.2)


def test_a_policy_of_two_logs_names_no_federation(sim: Simulator) -> None:
    keys = tuple(parse_vkey(vkey) for vkey in LogKeys.generate().vkeys("other.example"))
    two = replace(sim.policy, logs=(*sim.policy.logs, TrustedLog("other.example", keys)))
    with pytest.raises(MalformedError, match="exactly one log"):
        follow_state(Source(sim), two)
