"""Closing: what a round counts is what anyone computes."""

from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import pytest
from simulator import SEGMENT, Simulator, service_id

from sfrl_secure.errors import ConflictError, RoundStateError
from sfrl_secure.governance.statements import CloseCause, CloseOutcome, ModelPublished
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.ids import sha256
from sfrl_secure.rounds.closing import close_cause, close_round, counted_leaf, counted_of, counted_root
from sfrl_secure.translog.merkle import EMPTY_ROOT, leaf_hash, node_hash

DURATION_US = 60_000_000
NAMES = ("rover-1", "rover-2", "rover-3")
A1 = service_id("aggregator", "a1")


def everybody(name: str) -> bool:
    return True


def filled(sim: Simulator) -> None:
    sim.open_round()
    for weight, name in enumerate(reversed(NAMES), start=7):
        sim.admit(name, {weight: 1}, weight=weight)


def test_the_counted_root_is_that_of_the_specification(sim: Simulator) -> None:
    filled(sim)
    admissions = sim.segment.rounds[1].admissions
    leaves = [
        leaf_hash(name.encode() + b"\0" + admissions[name].statement_digest + weight.to_bytes(4, "big"))
        for name, weight in zip(NAMES, (9, 8, 7), strict=True)
    ]
    due = close_round(sim.segment.rounds[1], defective=(), is_active=everybody, now_us=0)
    assert due.counted_root == node_hash(node_hash(leaves[0], leaves[1]), leaves[2])
    assert [leaf_hash(counted_leaf(each)) for each in counted_of(sim.segment.rounds[1], due)] == leaves
    assert counted_root([]) == EMPTY_ROOT


SUBSETS = [each for n in range(4) for each in combinations(NAMES, n)]
FIRST_REASONS = ("withdrawn", "excluded", "participant_inactive", "defective")


@pytest.mark.parametrize("ended_by_order", [False, True])
@pytest.mark.parametrize("defective", SUBSETS)
def test_every_set_of_dropped_updates_closes_as_it_should(
    sim: Simulator, defective: tuple[str, ...], ended_by_order: bool
) -> None:
    filled(sim)
    current = sim.segment.rounds[1]
    current.ended_by_order = ended_by_order
    for withdrawn, excluded, inactive in product(SUBSETS, repeat=3):
        current.withdrawn, current.excluded = set(withdrawn), set(excluded)
        due = close_round(current, defective=defective, is_active=lambda name: name not in inactive, now_us=0)  # noqa: B023
        holds = (withdrawn, excluded, inactive, () if ended_by_order else defective)
        expected = {
            name: next(reason for reason, names in zip(FIRST_REASONS, holds, strict=True) if name in names)
            for name in NAMES if any(name in names for names in holds)
        }  # fmt: skip
        assert {each.participant: each.reason for each in due.dropped} == expected
        assert [each.participant for each in due.dropped] == sorted(expected)
        digests = {each.participant: each.statement_digest for each in due.dropped}
        assert digests == {name: current.admissions[name].statement_digest for name in expected}
        left = [name for name in NAMES if name not in expected]
        assert due.counted_count == len(left)
        assert due.counted_root == counted_root([current.admissions[name] for name in left])
        is_closed = len(left) >= 2 and not ended_by_order
        assert due.outcome is (CloseOutcome.CLOSED if is_closed else CloseOutcome.ABORTED)
        assert due.cause is (CloseCause.ORDER if ended_by_order else CloseCause.FULL)


def test_an_order_wins_over_full_and_full_over_the_deadline_and_before_all_nothing_closes(sim: Simulator) -> None:
    current = sim.open_round()
    assert close_cause(current, current.deadline_us - 1) is None
    assert close_cause(current, current.deadline_us) is CloseCause.DEADLINE
    with pytest.raises(RoundStateError) as early:
        close_round(current, defective=(), is_active=everybody, now_us=current.deadline_us - 1)
    assert early.value.reason == "round_not_over"
    for name in NAMES:
        sim.admit(name)
    assert close_cause(current, 0) is CloseCause.FULL
    assert close_cause(current, current.deadline_us) is CloseCause.FULL
    current.ended_by_order = True
    assert close_cause(current, 0) is close_cause(current, current.deadline_us) is CloseCause.ORDER


def test_an_aborted_round_leaves_the_base_as_it_was(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")
    sim.clock.advance(DURATION_US)
    current = sim.close_round()
    assert current.closed is not None
    assert (current.closed.outcome, current.closed.counted_count) == (CloseOutcome.ABORTED, 1)
    assert not sim.segment.awaits_model
    assert sim.open_round().base_model == sim.initial_digest


def test_a_published_model_is_the_next_base(sim: Simulator) -> None:
    filled(sim)
    current = sim.close_round()
    assert sim.segment.awaits_model
    body = ModelPublished(
        1, current.closed_hash, current.base_model, sha256(b"aggregate"), sha256(b"model"), "weighted_mean/v1", 1
    )
    sim.write(A1, f"segment/{SEGMENT}", body)
    assert not sim.segment.awaits_model
    assert sim.segment.models == {sim.initial_digest, sha256(b"model")}
    assert sim.open_round().base_model == sha256(b"model")


def test_a_suspended_participant_falls_out_and_a_closing_that_forgets_it_is_refused(sim: Simulator) -> None:
    filled(sim)
    sim.record("rover-2", state="suspended")
    forgetful = close_round(sim.segment.rounds[1], defective=(), is_active=everybody, now_us=0)
    with pytest.raises(ConflictError, match="closing does not say"):
        sim.write(A1, f"segment/{SEGMENT}", forgetful)
    closed = sim.close_round().closed
    assert closed is not None
    assert [(each.participant, each.reason) for each in closed.dropped] == [("rover-2", "participant_inactive")]


def test_an_expired_participant_falls_out_at_the_logs_own_time(sim: Simulator) -> None:
    sim.record("rover-1", expires_us=sim.clock.now_us() + DURATION_US)
    filled(sim)
    sim.clock.advance(DURATION_US)
    closed = sim.close_round().closed
    assert closed is not None
    assert [each.participant for each in closed.dropped] == ["rover-1"]


def test_a_defective_admission_fills_the_cohort_and_bars_a_second_update(tmp_path: Path) -> None:
    rounds = RoundTerms(duration_us=DURATION_US, cohort_min=1, cohort_max=2, rounds_max=3)
    sim = Simulator(tmp_path, terms={"round_terms": rounds})
    sim.open_round()
    sim.admit("rover-1")
    with pytest.raises(ConflictError, match="already has an update"):
        sim.admit("rover-1", {2: 2})
    sim.admit("rover-2")
    with pytest.raises(ConflictError, match="takes 2 updates"):
        sim.admit("rover-3")
    closed = sim.close_round(defective=["rover-1"]).closed
    assert closed is not None
    assert (closed.counted_count, closed.cause, closed.outcome) == (1, CloseCause.FULL, CloseOutcome.CLOSED)
