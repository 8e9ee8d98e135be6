"""Re-aggregation: the rounds in question to the head, derived again without whom it should not have, and told so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import GRID, MANIFEST, Simulator

from sfrl_secure.aggregation.models import model_bytes, parse_model
from sfrl_secure.errors import ConflictError, DeniedError
from sfrl_secure.governance.aggregation_terms import CLUSTERED_MEAN, RuleTerms
from sfrl_secure.governance.statements import CloseCause
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.rounds.reaggregation import counted_in_step, due_base, due_step, left_out_by, reveals_of

from .scenes import A1, STREAM, findings

THREE = ("rover-1", "rover-2", "rover-3")


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    """Three steps, each counted from three rovers; a cohort has at least two."""
    made = Simulator(tmp_path, terms={
        "round_terms": RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=30)
    })  # fmt: skip
    for _ in range(3):
        made.play_round(*THREE)
    yield made
    made.close()


def reason_of(sim: Simulator, from_round: int, reveals: Any = None) -> str:
    with pytest.raises(DeniedError) as denied:
        sim.reaggregate(from_round, reveals)
    return denied.value.reason


def values(sim: Simulator, model: Digest) -> list[int]:
    return list(parse_model(sim.objects.get(model, model_bytes(MANIFEST)), MANIFEST, GRID).values)


def rounds(sim: Simulator) -> list[int]:
    return [step.round for step in sim.segment.lineage]


def finish(sim: Simulator) -> None:
    while sim.segment.due:
        sim.publish_model()


# Who is left out, and what that gives away


def test_newly_left_out_are_the_excluded_and_the_revoked_of_each_step(sim: Simulator) -> None:
    segment = sim.segment
    assert left_out_by(sim.state, segment, 1) == {}
    sim.exclude("rover-1", 2)
    sim.record("rover-3", state="revoked")
    sim.record("rover-2", state="suspended")
    assert left_out_by(sim.state, segment, 1) == {1: {"rover-3"}, 2: {"rover-1", "rover-3"}, 3: {"rover-3"}}
    assert left_out_by(sim.state, segment, 3) == {3: {"rover-3"}}
    assert left_out_by(sim.state, segment, 4) == {}


def test_what_was_dropped_at_the_close_is_not_newly_left_out(sim: Simulator) -> None:
    current = sim.open_round()
    for name in THREE:
        sim.admit(name)
    sim.withdraw("rover-1")
    sim.exclude("rover-2")
    assert current.number == 4
    sim.close_round()
    assert left_out_by(sim.state, sim.segment, 1) == {}


def test_reveals_names_exactly_those_whom_the_difference_of_a_step_betrays(tmp_path: Path) -> None:
    """Every way to exclude updates of two rounds, for every smallest cohort: counted apart from the code."""
    for cohort_min in (1, 2, 3):
        terms = RoundTerms(duration_us=60_000_000, cohort_min=cohort_min, cohort_max=3, rounds_max=30)
        subsets = [each for n in range(4) for each in combinations(THREE, n)]
        for first, second in product(subsets, repeat=2):
            if not 1 <= len(first) + len(second) <= (6 if cohort_min == 2 else 2):
                continue
            folder = tmp_path / f"{cohort_min}-{'-'.join(first)}-{'-'.join(second)}"
            sim = Simulator(folder, terms={"round_terms": terms})
            for _ in range(2):
                sim.play_round(*THREE)
            for number, names in ((1, first), (2, second)):
                for name in names:
                    sim.exclude(name, number)
            due = {name for names in (first, second) if 0 < len(names) < cohort_min for name in names}
            assert reveals_of(sim.segment, left_out_by(sim.state, sim.segment, 1)) == tuple(sorted(due))
            wrong = due ^ {"rover-1"}
            assert reason_of(sim, 1, sorted(wrong)) == "reveals"
            sim.reaggregate(1, sorted(due))
            sim.close()


def test_beside_clusters_whoever_was_counted_is_betrayed_by_a_step_that_leaves_anyone_out(tmp_path: Path) -> None:
    """A cluster's first model, less what is left of a cluster, may be the update of somebody who stays in."""
    rule = RuleTerms(CLUSTERED_MEAN, alike_ppm=500_000)
    terms = RoundTerms(duration_us=60_000_000, cohort_min=1, cohort_max=3, rounds_max=30)
    sim = Simulator(tmp_path, terms={"rule": rule, "round_terms": terms})
    for _ in range(2):
        sim.play_round(*THREE)
    sim.exclude("rover-2", 2)
    assert reveals_of(sim.segment, left_out_by(sim.state, sim.segment, 1)) == tuple(sorted(THREE))
    for wrong in ((), ("rover-2",)):
        assert reason_of(sim, 1, wrong) == "reveals"
    sim.reaggregate(1, sorted(THREE))
    sim.close()


def test_an_order_that_reveals_others_or_leaves_out_nobody_is_void(sim: Simulator) -> None:
    assert reason_of(sim, 1, ()) == "nothing_left_out"
    sim.exclude("rover-1", 2)
    assert reason_of(sim, 3, ()) == "nothing_left_out"
    for wrong in ((), ("rover-2",), ("rover-1", "rover-2")):
        assert reason_of(sim, 2, wrong) == "reveals"
    for no_step in (4, 30):
        assert reason_of(sim, no_step, ("rover-1",)) == "unknown_round"
    assert sim.segment.due == []


def test_an_aborted_round_has_no_step(sim: Simulator) -> None:
    sim.play_round("rover-1")
    assert sim.segment.rounds[4].closed is not None
    sim.play_round(*THREE)
    sim.exclude("rover-1", 5)
    assert rounds(sim) == [1, 2, 3, 5]
    assert reason_of(sim, 4, ("rover-1",)) == "unknown_round"
    sim.reaggregate(5)
    finish(sim)
    assert findings(sim) == set()


# What is due, and in what order


@pytest.mark.parametrize("from_round", [1, 2, 3])
def test_the_steps_from_a_round_to_the_head_are_derived_again_and_rounds_open_again(
    sim: Simulator, from_round: int
) -> None:
    sim.record("rover-3", state="revoked")
    newest, before = sim.segment.model, list(sim.segment.lineage)
    sim.reaggregate(from_round)
    for number in range(from_round, 4):
        assert sim.segment.due == list(range(number, 4))
        # Until the last is there, the newest model stays what it was, and nothing opens.
        assert sim.segment.model == newest
        with pytest.raises(ConflictError) as waiting:
            sim.open_round()
        assert waiting.value.reason == "due"
        assert [each.update.participant for each in counted_in_step(sim.segment.rounds[number])] == list(THREE[:2])
        index = sim.publish_model()
        step = sim.segment.lineage[number - 1]
        assert (step.round, step.index, step.published) == (number, index, sim.log.leaf(index))
        assert step.base == (sim.segment.lineage[number - 2].model if number > 1 else sim.initial_digest)
        current = sim.segment.rounds[number]
        assert (current.model_index, current.first_model_index) == (index, before[number - 1].index)
    segment = sim.segment
    assert segment.due == []
    assert segment.lineage[: from_round - 1] == before[: from_round - 1]
    assert (segment.model, segment.model_index) == (segment.lineage[-1].model, segment.lineage[-1].index)
    assert sim.open_round().base_model == segment.model != newest
    assert {step.model for step in before} <= segment.models
    # Rounds are as they were: weights 1 and 2, over their own updates; counted by hand.
    sums = [0, 0, 0]
    for number in (1, 2, 3):
        ours = [(1, {0: 5 + number, 1: 10 * number}), (2, {0: 5 + number, 2: 10 * number + 1})]
        theirs = [(3, {0: 5 + number, 3: 10 * number + 2})] if number < from_round else []
        weight = sum(each for each, _ in ours + theirs)
        for at in range(3):
            total = sum(each * update.get(at, 0) for each, update in ours + theirs)
            sums[at] += int(np.rint(np.float64(total) / weight))
    changed = np.array(values(sim, segment.model)) - np.array(values(sim, sim.initial_digest))
    assert list(changed[:3]) == sums
    assert findings(sim) == set()


DAMAGES: list[tuple[str, dict[str, Any]]] = [
    ("no_model_due", {"round": 1}),
    ("no_model_due", {"round": 3}),
    ("no_model_due", {"round": 9}),
    ("model", {"round_closed": sha256(b"other")}),
    ("model", {"base_model": sha256(b"other")}),
    ("model", {"rule": "median/v1"}),
    ("model", {"arithmetic": 2}),
    ("model", {"supersedes": sha256(b"other")}),
    ("no_model_due", {"supersedes": None}),
]


@pytest.mark.parametrize(("reason", "damage"), DAMAGES)
def test_a_damaged_model_of_a_step_that_is_due_is_void(sim: Simulator, reason: str, damage: dict[str, Any]) -> None:
    sim.exclude("rover-1", 2)
    sim.exclude("rover-2", 2)
    sim.reaggregate(2)
    for number in (2, 3):
        changes = {**damage}
        if damage.get("round") == 3 and number == 3:
            changes["round"] = 2
        with pytest.raises((ConflictError, DeniedError)) as refused:
            sim.write(A1, STREAM, sim.due_model(**changes))
        assert refused.value.reason == reason
        sim.log.force(sim.sign(sim.statement(A1, STREAM, sim.due_model(**changes))))
        assert len(sim.log.voids) == number - 1
        sim.publish_model()
    assert findings(sim) == set(sim.log.voids)


def test_a_step_that_is_not_due_any_more_is_not_derived_a_third_time(sim: Simulator) -> None:
    sim.exclude("rover-1", 3)
    sim.reaggregate(3)
    again = sim.due_model()
    sim.publish_model()
    with pytest.raises(ConflictError) as refused:
        sim.write(A1, STREAM, replace(again, supersedes=sim.segment.lineage[-1].published))
    assert refused.value.reason == "no_model_due"


def test_steps_are_derived_in_order_and_name_the_entry_whose_place_they_take(sim: Simulator) -> None:
    sim.exclude("rover-1", 1)
    sim.reaggregate(1)
    second, third = sim.segment.lineage[1:]
    for step in (second, third):
        body = replace(sim.due_model(), round=step.round, supersedes=step.published)
        with pytest.raises(ConflictError):
            sim.write(A1, STREAM, body)
    first = sim.segment.lineage[0].published
    sim.publish_model()
    with pytest.raises(DeniedError) as refused:
        sim.write(A1, STREAM, sim.due_model(supersedes=first))
    assert refused.value.reason == "model"


def test_of_fewer_than_a_cohort_none_is_added_up(sim: Simulator) -> None:
    for name in ("rover-1", "rover-2"):
        sim.exclude(name, 2)
    sim.reaggregate(2)
    sim.publish_model()
    step = sim.segment.lineage[1]
    assert len(counted_in_step(sim.segment.rounds[2])) == 1
    assert step.model == step.base == sim.segment.lineage[0].model
    finish(sim)
    assert findings(sim) == set()


def test_models_are_derived_again_in_a_halted_segment(sim: Simulator) -> None:
    sim.exclude("rover-1", 1)
    sim.halt()
    sim.reaggregate(1)
    finish(sim)
    assert findings(sim) == set()


def test_an_open_round_is_ended_and_its_update_is_not_lost_track_of(sim: Simulator) -> None:
    sim.open_round()
    sim.admit("rover-1")
    sim.exclude("rover-1", 1)
    sim.reaggregate(1)
    current = sim.close_round()
    assert current.closed is not None
    assert current.closed.cause is CloseCause.ORDER
    finish(sim)
    assert sim.open_round().number == 5
    assert findings(sim) == set()


def test_a_round_that_waits_for_its_model_is_abandoned(sim: Simulator) -> None:
    sim.open_round()
    for name in THREE:
        sim.admit(name)
    sim.close_round()
    sim.exclude("rover-1", 1)
    sim.reaggregate(1)
    assert sim.segment.rounds[4].is_abandoned
    finish(sim)
    assert rounds(sim) == [1, 2, 3]
    sim.play_round(*THREE)
    assert rounds(sim) == [1, 2, 3, 5]
    assert findings(sim) == set()


# Orders on top of one another


def test_what_was_left_out_once_is_not_newly_left_out_again(sim: Simulator) -> None:
    sim.exclude("rover-1", 2)
    sim.reaggregate(2)
    finish(sim)
    assert reason_of(sim, 1, ()) == "nothing_left_out"
    sim.exclude("rover-2", 2)
    assert left_out_by(sim.state, sim.segment, 1) == {2: {"rover-2"}}
    sim.reaggregate(2, ("rover-2",))
    finish(sim)
    assert sim.segment.rounds[2].left_out == {"rover-1", "rover-2"}
    assert findings(sim) == set()


def test_what_is_due_and_not_derived_yet_is_newly_left_out_still(sim: Simulator) -> None:
    """The newest model is as the first order found it, so what it leaves out is still to be seen in the difference."""
    sim.exclude("rover-1", 3)
    sim.reaggregate(2)
    sim.publish_model()
    sim.exclude("rover-2", 3)
    assert sim.segment.due == [3]
    assert left_out_by(sim.state, sim.segment, 1) == {3: {"rover-1", "rover-2"}}
    # Two at once are a cohort, which betrays nobody.
    sim.reaggregate(1, ())
    assert sim.segment.due == [1, 2, 3]
    finish(sim)
    assert findings(sim) == set()


def test_a_second_order_does_not_begin_behind_what_is_due(sim: Simulator) -> None:
    sim.exclude("rover-1", 1)
    sim.exclude("rover-1", 3)
    sim.reaggregate(1)
    sim.exclude("rover-2", 3)
    assert reason_of(sim, 2) == "unknown_round"
    assert reason_of(sim, 3) == "unknown_round"
    sim.publish_model()
    assert reason_of(sim, 3) == "unknown_round"
    sim.reaggregate(2)
    assert sim.segment.due == [2, 3]
    finish(sim)
    assert findings(sim) == set()


def test_a_rollback_ends_what_was_due_and_leaves_each_step_as_it_was_derived(sim: Simulator) -> None:
    sim.record("rover-3", state="revoked")
    sim.reaggregate(1)
    sim.publish_model()
    derived = sim.segment.lineage[0]
    sim.roll_back(derived.model)
    assert sim.segment.due == []
    assert due_step(sim.segment) is None
    assert sim.segment.lineage == [derived]
    assert sim.segment.rounds[1].left_out == {"rover-3"}
    assert sim.open_round().base_model == derived.model
    assert findings(sim) == set()


def test_nothing_that_is_still_due_is_rolled_back_to(sim: Simulator) -> None:
    sim.exclude("rover-1", 1)
    sim.reaggregate(1)
    sim.publish_model()
    derived, due = sim.segment.lineage[0], sim.segment.lineage[1]
    with pytest.raises(DeniedError) as denied:
        sim.roll_back(due.model)
    assert denied.value.reason == "unknown_model"
    sim.roll_back(derived.model)
    assert rounds(sim) == [1]
    assert findings(sim) == set()


def test_a_second_order_stands_on_what_the_first_has_derived(sim: Simulator) -> None:
    sim.exclude("rover-1", 1)
    sim.reaggregate(1)
    sim.publish_model()
    derived = sim.segment.lineage[0].model
    assert derived != sim.segment.lineage[1].base
    sim.exclude("rover-1", 2)
    sim.reaggregate(2)
    # The old base would bring back what the first order left out.
    assert due_base(sim.segment) == derived
    finish(sim)
    assert sim.segment.lineage[1].base == derived
    assert findings(sim) == set()

