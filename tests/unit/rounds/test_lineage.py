"""Which aggregates lead from a model to another: the steps in force, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulator import MANIFEST, Simulator

from sfrl_secure.aggregation.models import ModelSnapshot, decode_step, model_bytes, parse_model
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import STEPS_MAX
from sfrl_secure.rounds.lineage import StepsFrom, steps_between
from sfrl_secure.rounds.state import LineageStep

ROVERS = ("rover-1", "rover-2", "rover-3")


@pytest.fixture
def sim(tmp_path: Path) -> Simulator:
    made = Simulator(
        tmp_path,
        terms={"round_terms": RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=100)},
    )
    for _ in range(3):
        made.play_round(*ROVERS)
    return made


def model_after(sim: Simulator, steps: StepsFrom) -> ModelSnapshot:
    """The base with all aggregates added."""
    def read(digest: Digest) -> bytes:
        return sim.objects.get(digest, model_bytes(MANIFEST) + 4_096)

    grid = sim.segment.terms.model.grid_exponent
    model = parse_model(read(steps.base), MANIFEST, grid)
    for aggregate in steps.aggregates:
        model = model.add_parts(decode_step(read(aggregate), MANIFEST, grid))
    return model


def test_every_model_before_leads_there_and_the_nearest_comes_first(sim: Simulator) -> None:
    models = [sim.initial_digest, *(step.model for step in sim.segment.lineage)]
    for at, wanted in enumerate(models):
        found = steps_between(sim.segment, models, wanted)
        assert [each.base for each in found] == models[:at][::-1]
        assert [len(each.aggregates) for each in found] == list(range(1, at + 1))
        assert all(sha256(model_after(sim, each).to_bytes()) == wanted for each in found)


def test_what_is_not_had_or_not_on_the_lineage_leads_nowhere(sim: Simulator) -> None:
    wanted = sim.segment.model
    assert steps_between(sim.segment, (), wanted) == ()
    assert steps_between(sim.segment, (sha256(b"other"), wanted), wanted) == ()
    assert steps_between(sim.segment, (sim.initial_digest,), sha256(b"other")) == ()
    assert steps_between(sim.segment, (sim.initial_digest,), sim.initial_digest) == ()


def test_only_steps_in_force_count_after_a_rollback(sim: Simulator) -> None:
    first, second, third = (step.model for step in sim.segment.lineage)
    sim.roll_back(first)
    assert steps_between(sim.segment, (first,), third) == ()
    assert steps_between(sim.segment, (second,), third) == ()
    sim.play_round(*ROVERS)
    (found,) = steps_between(sim.segment, (first, second, third), sim.segment.model)
    assert (found.base, len(found.aggregates)) == (first, 1)


def test_while_rounds_are_derived_again_the_old_steps_do_not_join_the_new(sim: Simulator) -> None:
    models = [sim.initial_digest, *(step.model for step in sim.segment.lineage)]
    sim.exclude("rover-1", 2)
    sim.reaggregate(2)
    sim.publish_model()
    assert [step.round for step in sim.segment.lineage] == [1, 2, 3]
    again = sim.segment.lineage[1].model
    assert again not in models
    assert steps_between(sim.segment, models[:2], models[3]) == ()
    assert [each.base for each in steps_between(sim.segment, models, again)] == models[1::-1]
    sim.publish_model()
    found = steps_between(sim.segment, (*models, again), sim.segment.model)
    assert [each.base for each in found] == [again, models[1], models[0]]
    assert all(sha256(model_after(sim, each).to_bytes()) == sim.segment.model for each in found)


def test_no_more_than_so_many_steps_are_walked(sim: Simulator) -> None:
    def model(number: int) -> Digest:
        return sha256(b"%d" % number)

    sim.segment.lineage = [
        LineageStep(at + 1, model(at + 1), model(at), sha256(b"step %d" % at), sha256(b"entry"), at)
        for at in range(STEPS_MAX + 2)
    ]
    bases = [each.base for each in steps_between(sim.segment, [model(at) for at in range(STEPS_MAX + 2)],
                                                 model(STEPS_MAX + 2))]  # fmt: skip
    assert bases == [model(at) for at in range(STEPS_MAX + 1, 1, -1)]


def test_a_step_that_changed_nothing_is_not_walked_twice(sim: Simulator) -> None:
    same, other = sha256(b"same"), sha256(b"other")
    step, none = sha256(b"step"), sha256(b"none")
    sim.segment.lineage = [
        LineageStep(1, same, other, step, sha256(b"1"), 1), LineageStep(2, same, same, none, sha256(b"2"), 2)
    ]
    assert steps_between(sim.segment, (same, other), same) == (
        StepsFrom(same, (none,)), StepsFrom(other, (step, none))
    )
