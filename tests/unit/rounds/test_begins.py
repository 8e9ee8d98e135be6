"""What a round begins with: server state and mask follow the lineage, through aborts, rollbacks, and new terms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from simulator import Simulator

from sfrl_secure.errors import DeniedError
from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    AdaptiveTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.statements import Cluster, ModelPublished
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.rounds import effects
from sfrl_secure.rounds.begins import BeginsWith, due_server_state, round_begins_with

from .scenes import A1, Case, Prepare, Scene, check_sound, check_void, findings, ids, model, nothing, says

THREE = ("rover-1", "rover-2", "rover-3")
ROUNDS = RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=30)
MOMENTUM = MomentumTerms(decay=60_000, rate=65_536)
ADAPTIVE = AdaptiveTerms(decay=60_000, decay_max=60_000, rate=1_000, floor=8)
VOTES = NextMaskTerms("votes", 2)
CLUSTERED = RuleTerms(CLUSTERED_MEAN, alike_ppm=900_000)


def terms(sim: Simulator, **changes: Any) -> None:
    """Terms whose rounds have what is asked for; `mask` is how a mask of four coordinates changes."""
    if "mask" in changes:
        changes["mask"] = sim.agree(0, 3, 9, 17, next=changes["mask"])
        changes["support_modes"] = ["agreed", "free"]
    sim.publish_terms(round_terms=ROUNDS, **changes)


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    """Three rounds under momentum, with a mask that changes by votes."""
    made = Simulator(tmp_path)
    terms(made, server=MOMENTUM, mask=VOTES)
    for _ in range(3):
        made.play_round(*THREE)
    yield made
    made.close()


def begins(sim: Simulator) -> BeginsWith:
    return round_begins_with(sim.segment)


def of_step(sim: Simulator, number: int) -> BeginsWith:
    """What a round begins with that follows this round's step."""
    step = next(step for step in sim.segment.lineage if step.round == number)
    assert step.server_state is not None
    assert step.next_mask is not None
    return BeginsWith(step.server_state, step.next_mask)


def of_terms(sim: Simulator) -> Digest:
    assert sim.segment.terms.mask is not None
    return sim.segment.terms.mask.digest


# Along the lineage


def test_a_round_begins_where_the_step_before_it_ended(sim: Simulator) -> None:
    rounds, lineage = sim.segment.rounds, sim.segment.lineage
    assert (rounds[1].server_state, rounds[1].mask) == (None, of_terms(sim))
    for before, current in zip(lineage, (rounds[2], rounds[3]), strict=False):
        assert (current.server_state, current.mask) == (before.server_state, before.next_mask)
    assert len({step.server_state for step in lineage}) == 3
    assert begins(sim) == of_step(sim, 3)
    assert findings(sim) == set()


def test_an_aborted_round_leaves_both_as_they_were(sim: Simulator) -> None:
    before = begins(sim)
    sim.play_round("rover-1")
    assert sim.segment.last_round == 4
    assert begins(sim) == before
    sim.play_round(*THREE)
    assert (sim.segment.rounds[5].server_state, sim.segment.rounds[5].mask) == (before.server_state, before.mask)
    assert findings(sim) == set()


def test_a_rollback_takes_both_back_with_the_model(sim: Simulator) -> None:
    sim.roll_back(sim.segment.lineage[0].model)
    assert begins(sim) == of_step(sim, 1)
    assert sim.play_round(*THREE).mask == of_step(sim, 1).mask
    sim.roll_back(sim.initial_digest)
    assert begins(sim) == BeginsWith(None, of_terms(sim))
    sim.play_round(*THREE)
    assert findings(sim) == set()


def test_without_server_step_or_mask_there_is_neither(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    for _ in range(2):
        assert begins(sim) == BeginsWith(None, None)
        sim.play_round(*THREE)
    sim.close()


def test_a_mask_that_does_not_change_is_the_terms(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    terms(sim, mask=None)
    for _ in range(2):
        assert begins(sim).mask == sim.play_round(*THREE).mask == of_terms(sim)
    assert all(step.next_mask is None for step in sim.segment.lineage)
    sim.close()


# Under new terms


@pytest.mark.parametrize(
    ("server", "goes_on"),
    [(MOMENTUM, True), (replace(MOMENTUM, decay=1, rate=7), True), (ADAPTIVE, False), (None, False)],
    ids=["the same", "other rates", "another step", "none"],
)
def test_a_server_state_goes_on_under_terms_with_the_same_step(sim: Simulator, server: Any, goes_on: bool) -> None:
    before = begins(sim).server_state
    terms(sim, server=server, mask=VOTES)
    assert begins(sim).server_state == (before if goes_on else None)
    sim.play_round(*THREE)
    assert sim.segment.rounds[4].server_state == (before if goes_on else None)
    # Back to momentum: what a step of another kind left is nothing to go on with.
    terms(sim, server=MOMENTUM, mask=VOTES)
    newest = sim.segment.lineage[-1].server_state
    assert begins(sim).server_state == (newest if goes_on else None)
    sim.play_round(*THREE)
    assert findings(sim) == set()


def test_a_mask_goes_on_under_terms_that_name_the_same_first_one(sim: Simulator) -> None:
    before = begins(sim).mask
    assert before != of_terms(sim)
    terms(sim, server=MOMENTUM, mask=NextMaskTerms("contribution", 4))
    assert begins(sim).mask == before
    terms(sim, server=MOMENTUM, mask=NextMaskTerms("saliency", 1))
    assert begins(sim).mask == sim.play_round(*THREE).mask == before
    assert findings(sim) == set()


def test_a_mask_begins_anew_where_terms_name_another_or_stop_changing_it(sim: Simulator) -> None:
    given: dict[str, Any] = {"server": MOMENTUM, "support_modes": ["agreed", "free"], "round_terms": ROUNDS}
    other = sim.agree(1, 2, 3, 4, next=VOTES)
    sim.publish_terms(mask=other, **given)
    assert begins(sim).mask == other.digest
    terms(sim, server=MOMENTUM, mask=None)
    assert begins(sim).mask == of_terms(sim)
    sim.play_round(*THREE)
    # The step before has no next mask: a mask that changes from here on begins with its first.
    terms(sim, server=MOMENTUM, mask=VOTES)
    assert begins(sim).mask == of_terms(sim)
    sim.play_round(*THREE)
    sim.publish_terms(round_terms=ROUNDS)
    assert begins(sim) == BeginsWith(None, None)
    assert findings(sim) == set()


def test_the_open_rounds_terms_and_not_those_in_force_say_what_its_step_may_have(sim: Simulator) -> None:
    sim.open_round()
    for name in THREE:
        sim.admit(name)
    sim.publish_terms(round_terms=ROUNDS)
    sim.close_round()
    sim.publish_model()
    assert begins(sim) == BeginsWith(None, None)
    assert sim.segment.lineage[-1].next_mask is not None
    assert findings(sim) == set()


def test_every_mask_that_a_round_could_have_is_one_that_may_be_fetched(sim: Simulator) -> None:
    lineage = sim.segment.lineage
    sim.roll_back(lineage[0].model)
    other = sim.agree(1, 2, 3, 4)
    sim.publish_terms(mask=other, support_modes=["agreed"], round_terms=ROUNDS)
    first = sim.agree(0, 3, 9, 17).digest
    assert sim.segment.masks == {first, other.digest, *(sim.segment.rounds[n].mask for n in (2, 3)), _last_mask(sim)}


def _last_mask(sim: Simulator) -> Digest | None:
    bodies = [sim.log.statement_at(sim.segment.rounds[3].first_model_index).body]
    return next(body.next_mask for body in bodies if isinstance(body, ModelPublished))


# Derived again


def test_steps_are_derived_again_on_the_states_as_they_have_become_and_on_the_masks_as_they_were(
    sim: Simulator,
) -> None:
    before, masks = list(sim.segment.lineage), [sim.segment.rounds[n].mask for n in (1, 2, 3)]
    sim.record("rover-3", state="revoked")
    sim.reaggregate(1)
    expected: Digest | None = None
    for number in (1, 2, 3):
        assert due_server_state(sim.segment) == expected
        sim.publish_model()
        step = sim.segment.lineage[number - 1]
        expected = step.server_state
        assert expected not in (None, before[number - 1].server_state)
        assert sim.segment.rounds[number].mask == masks[number - 1]
    assert begins(sim) == of_step(sim, 3)
    sim.play_round("rover-1", "rover-2")
    assert findings(sim) == set()


def test_of_fewer_than_a_cohort_a_step_hands_on_what_it_began_with(sim: Simulator) -> None:
    for name in ("rover-1", "rover-2"):
        sim.exclude(name, 2)
    sim.reaggregate(2)
    sim.publish_model()
    lineage = sim.segment.lineage
    assert (lineage[1].model, lineage[1].server_state) == (lineage[0].model, lineage[0].server_state)
    assert lineage[1].next_mask == sim.segment.rounds[2].mask
    while sim.segment.due:
        sim.publish_model()
    assert findings(sim) == set()


def test_of_fewer_than_a_cohort_of_the_first_round_no_state_is_handed_on(sim: Simulator) -> None:
    for name in ("rover-1", "rover-2"):
        sim.exclude(name, 1)
    sim.reaggregate(1)
    sim.publish_model()
    assert sim.segment.lineage[0].server_state is None
    assert due_server_state(sim.segment) is None
    while sim.segment.due:
        sim.publish_model()
    assert findings(sim) == set()


def test_a_step_that_is_due_stands_on_its_own_terms_and_not_on_those_in_force(sim: Simulator) -> None:
    terms(sim, server=ADAPTIVE, mask=VOTES)
    sim.play_round(*THREE)
    sim.play_round(*THREE)
    sim.exclude("rover-1", 3)
    sim.reaggregate(3)
    assert due_server_state(sim.segment) == sim.segment.lineage[1].server_state
    sim.publish_model()
    # Round 4 was the first with another step: it began with zeros, and does again.
    assert due_server_state(sim.segment) is None
    sim.publish_model()
    assert due_server_state(sim.segment) == sim.segment.lineage[3].server_state
    sim.publish_model()
    assert findings(sim) == set()


# What is void


def plain(sim: Simulator) -> None:
    sim.play_round(*THREE)


def moved(sim: Simulator) -> None:
    """A step under momentum, with a mask that changes."""
    terms(sim, server=MOMENTUM, mask=VOTES)
    sim.play_round(*THREE)


def beginning(sim: Simulator) -> None:
    """Such terms, and no step yet."""
    terms(sim, server=MOMENTUM, mask=VOTES)


def kept(sim: Simulator) -> None:
    """A step with a mask that does not change."""
    terms(sim, mask=None)
    sim.play_round(*THREE)


def closed(sim: Simulator, **changes: Any) -> None:
    terms(sim, **changes)
    sim.open_round()
    for name in THREE:
        sim.admit(name)
    sim.close_round()


def closed_plain(sim: Simulator) -> None:
    closed(sim)


def closed_kept(sim: Simulator) -> None:
    closed(sim, mask=None)


def closed_clustered(sim: Simulator) -> None:
    closed(sim, rule=CLUSTERED)


def opening(**changes: Any) -> Any:
    return says(lambda sim: sim.opening(**changes), A1)


def clusters(*members: tuple[int, ...]) -> Any:
    made = tuple(Cluster(each, sha256(b"cluster %d" % n)) for n, each in enumerate(members))
    return says(lambda sim: replace(model()(sim), clusters=made, rule=sim.segment.terms.rule.name), A1)


OTHER = sha256(b"other")
VOID: list[Case] = [
    ("server_state", nothing, opening(server_state=OTHER)),
    ("server_state", plain, opening(server_state=OTHER)),
    ("server_state", beginning, opening(server_state=OTHER)),
    ("server_state", moved, opening(server_state=OTHER)),
    ("server_state", moved, opening(server_state=None)),
    ("mask", nothing, opening(mask=OTHER)),
    ("mask", beginning, opening(mask=OTHER)),
    ("mask", beginning, opening(mask=None)),
    ("mask", moved, opening(mask=OTHER)),
    ("mask", moved, opening(mask=None)),
    ("mask", moved, says(lambda sim: sim.opening(mask=of_terms(sim)), A1)),
    ("mask", kept, opening(mask=OTHER)),
    ("mask", kept, opening(mask=None)),
    ("server_state", closed_plain, says(model(server_state=OTHER), A1)),
    ("next_mask", closed_plain, says(model(next_mask=OTHER), A1)),
    ("next_mask", closed_kept, says(model(next_mask=OTHER), A1)),
    ("clusters", closed_plain, clusters((0, 1))),
    ("clusters", closed_clustered, clusters((0,))),
    ("clusters", closed_clustered, clusters((1, 3))),
    ("clusters", closed_clustered, clusters((0, 1), (2,))),
]


@pytest.mark.parametrize(("reason", "scene", "send"), VOID, ids=ids(VOID))
def test_what_a_round_does_not_begin_or_end_with_is_void(
    prepare: Prepare, reason: str, scene: Scene, send: Any
) -> None:
    check_void(prepare(scene), reason, send)


SOUND: list[tuple[str, Scene, Any]] = [
    ("opening", beginning, opening()),
    ("opening", moved, opening()),
    ("opening", kept, opening()),
]


@pytest.mark.parametrize(("name", "scene", "send"), SOUND, ids=[f"{name}-{scene.__name__}" for name, scene, _ in SOUND])
def test_what_a_round_does_begin_with_has_effect(tmp_path: Path, name: str, scene: Scene, send: Any) -> None:
    check_sound(tmp_path, scene, send).close()


def test_clusters_of_a_cohorts_size_have_effect_and_their_models_may_be_fetched(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    closed(sim, rule=CLUSTERED)
    made = (Cluster((0, 2), sha256(b"cluster")),)
    sim.publish_model(clusters=made)
    assert sim.log.voids == {}
    assert made[0].model in sim.segment.models
    # It is no step: nothing is rolled back to it.
    with pytest.raises(DeniedError) as denied:
        sim.roll_back(made[0].model)
    assert denied.value.reason == "unknown_model"
    sim.close()


@pytest.mark.parametrize(
    "members",
    [((0, 1), (1, 2)), ((1, 0),), ((0, 0),), ((-1, 0),), ((0, 3),), ((),)],
    ids=str,
)
def test_clusters_that_no_parser_lets_through_are_denied_here_too(tmp_path: Path, members: Any) -> None:
    sim = Simulator(tmp_path)
    closed(sim, rule=CLUSTERED)
    assert denial_of(sim, *members) == "clusters"
    assert denial_of(sim, (0, 1, 2)) is None
    sim.close()


def test_a_model_that_is_derived_again_comes_without_clusters(tmp_path: Path) -> None:
    sim = Simulator(tmp_path)
    closed(sim, rule=CLUSTERED)
    sim.publish_model()
    sim.exclude(THREE[0], 1)
    sim.reaggregate(1)
    due = sim.due_model()
    effects.check_model_published(sim.segment, due)
    with pytest.raises(DeniedError) as denied:
        effects.check_model_published(sim.segment, replace(due, clusters=(Cluster((0, 2), sha256(b"cluster")),)))
    assert denied.value.reason == "clusters"
    sim.close()


def test_more_clusters_than_a_round_may_have_are_denied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Simulator(tmp_path)
    closed(sim, rule=CLUSTERED)
    assert denial_of(sim, (0, 2)) is None
    monkeypatch.setattr(effects, "CLUSTERS_MAX", 0)
    assert denial_of(sim, (0, 2)) == "clusters"
    sim.close()


def denial_of(sim: Simulator, *members: tuple[int, ...]) -> str | None:
    made = tuple(Cluster(each, sha256(b"cluster")) for each in members)
    current = sim.segment.rounds[1]
    try:
        effects.check_model_published(sim.segment, replace(sim.model_of(current, current.base_model), clusters=made))
    except DeniedError as denied:
        return denied.reason
    return None
