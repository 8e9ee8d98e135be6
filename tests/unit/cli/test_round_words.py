"""What a round begins and ends with, in words: masks, states of the server's step, and clusters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulator import Simulator

from sfrl_secure.audit.published import UnverifiedEntry
from sfrl_secure.cli.words import entry_in_full, short, what_of
from sfrl_secure.governance.aggregation_terms import (
    CLUSTERED_MEAN,
    ClipTerms,
    MomentumTerms,
    NextMaskTerms,
    RuleTerms,
)
from sfrl_secure.governance.statements import ModelPublished, Statement
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.operating.round_words import round_facts, round_lines
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry

from ..aggregator.ruled import ruled


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    """A round that leaves behind all that it can, and the opening of the next."""
    made = Simulator(tmp_path)
    made.publish_terms(
        round_terms=RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=30),
        rule=RuleTerms(CLUSTERED_MEAN, alike_ppm=100_000), server=MomentumTerms(60_000, 30_000),
        support_modes=["agreed", "free"], mask=made.agree(0, 3, 9, 17, next=NextMaskTerms("votes", 2)),
    )  # fmt: skip
    made.play_round("rover-1", "rover-2", "rover-3")
    made.open_round()
    yield made
    made.close()


def published(sim: Simulator) -> dict[int, ModelPublished]:
    """The model_published entries of the log."""
    found: dict[int, ModelPublished] = {}
    for index in range(len(sim.log.raw)):
        content = entry(sim, index).content
        if isinstance(content, Statement) and isinstance(content.body, ModelPublished):
            found[index] = content.body
    return found


def shown(sim: Simulator, number: int) -> list[str]:
    """A round in words."""
    return list(round_lines(round_facts(sim.segment.rounds[number], published(sim))))


def named(sim: Simulator, number: int = 1) -> list[list[str]]:
    """Members of the clusters that are shown."""
    return [each["members"] for each in round_facts(sim.segment.rounds[number], published(sim))["clusters"]]


def entry(sim: Simulator, index: int) -> UnverifiedEntry:
    raw = sim.log.raw[index]
    parsed = parse_entry(raw)
    return UnverifiedEntry(index, raw, parsed, parse_content(parsed.envelope))


def test_an_opening_names_the_mask_and_the_server_state_that_there_are(sim: Simulator) -> None:
    first, second = sim.segment.rounds[1], sim.segment.rounds[2]
    assert first.mask is not None
    assert second.mask is not None
    assert second.server_state is not None
    said = what_of(entry(sim, first.opened_index))
    assert said == f"rocks: round 1 opens on model {short(first.base_model)}, mask {short(first.mask)}"
    said = what_of(entry(sim, second.opened_index))
    assert said.endswith(f", server state {short(second.server_state)}, mask {short(second.mask)}")


def test_a_publication_names_clusters_server_state_and_next_mask(sim: Simulator) -> None:
    (step,) = sim.segment.lineage
    assert step.server_state is not None
    assert step.next_mask is not None
    said = what_of(entry(sim, step.index))
    assert said == (
        f"rocks: round 1: model {short(step.model)} by clustered_mean/v1, 1 cluster, "
        f"server state {short(step.server_state)}, next mask {short(step.next_mask)}"
    )
    lines = "\n".join(entry_in_full(entry(sim, step.index)))
    assert f"next_mask: {step.next_mask.hex()}" in lines
    assert "clusters[0]:" in lines
    assert "members: 0, 1, 2" in lines


def test_a_round_is_shown_with_what_it_began_with(sim: Simulator) -> None:
    first, second = (shown(sim, number) for number in (1, 2))
    mask, state = sim.segment.rounds[2].mask, sim.segment.rounds[2].server_state
    assert mask is not None
    assert state is not None
    assert f"mask      {mask.hex()}, of agreed updates" in second
    assert f"state     {state.hex()}, of the server's step" in second
    assert not [line for line in first if line.startswith("state ")]


def test_a_round_is_shown_with_how_it_is_added_up(sim: Simulator) -> None:
    lines = shown(sim, 1)
    assert "rule      clustered_mean/v1: weighted mean; a model of its own for who is alike from cosine 0.1 on" in lines
    assert [line for line in lines if line.startswith("server    momentum/v1: decay ")]
    assert not [line for line in lines if line.startswith(("clip ", "cap ", "clipped "))]


def test_a_round_is_shown_with_what_it_left_behind(sim: Simulator) -> None:
    (step,) = sim.segment.lineage
    body = published(sim)[step.index]
    assert step.server_state is not None
    assert step.next_mask is not None
    lines = shown(sim, 1)
    assert f"new state {step.server_state.hex()}, after the server's step" in lines
    assert f"next mask {step.next_mask.hex()}, unless other terms come" in lines
    (cluster,) = body.clusters
    assert f"cluster 1 rover-1, rover-2, rover-3: model {cluster.model.hex()}" in lines
    # The open round has left nothing behind yet.
    assert not [line for line in shown(sim, 2) if line.startswith(("new state", "next mask", "cluster"))]


def test_members_of_clusters_are_named_by_the_counted_list_also_after_the_model_was_derived_again(
    tmp_path: Path,
) -> None:
    sim = ruled(tmp_path, {"rule": RuleTerms(CLUSTERED_MEAN, alike_ppm=1)})
    sim.open_round()
    for name, value in (("rover-1", 9), ("rover-2", -9), ("rover-3", 9), ("rover-4", -9)):
        sim.admit(name, {0: value}, value_type="exact")
    sim.withdraw("rover-1")
    sim.close_round()
    sim.publish_model()
    # The one who is alone takes the two with him into the rest.
    assert named(sim) == []
    assert "clusters  none" in shown(sim, 1)
    sim.open_round()
    for name, value in (("rover-1", 9), ("rover-2", -9), ("rover-3", -9), ("rover-4", 9)):
        sim.admit(name, {0: value}, value_type="exact")
    sim.close_round()
    sim.publish_model()
    pairs = [["rover-1", "rover-4"], ["rover-2", "rover-3"]]
    assert sorted(named(sim, 2)) == pairs
    sim.exclude("rover-1", 2)
    sim.reaggregate(2)
    assert sim.aggregator().step() == ["DeriveAgain"]
    assert sorted(named(sim, 2)) == pairs
    assert round_facts(sim.segment.rounds[2], published(sim))["left_out"] == ["rover-1"]
    sim.close()


def test_who_was_clipped_is_named_with_the_bound(tmp_path: Path) -> None:
    """To half of the median norm: of 5, 20 and 40 that is 10, in parameter units on the model's grid."""
    sim = ruled(tmp_path, {"clip": ClipTerms(median_ppm=500_000)})
    unit = 2.0 ** -sim.segment.terms.model.grid_exponent
    sim.open_round()
    for name, value in (("rover-1", 20), ("rover-2", 5), ("rover-3", 40), ("rover-4", 1_000)):
        sim.admit(name, {3: value}, value_type="exact")
    sim.withdraw("rover-4")
    # While the round is open the median is not known.
    assert not [line for line in shown(sim, 1) if line.startswith("clipped")]
    sim.close_round()
    # Who was withdrawn is not among those whose median it is.
    assert f"clipped   to norm {10 * unit:g}: rover-1, rover-3" in shown(sim, 1)
    sim.publish_model()
    sim.exclude("rover-3", 1)
    sim.reaggregate(1)
    assert sim.aggregator().step() == ["DeriveAgain"]
    # Of 5 and 20 the lower one counts, and its half is rounded down.
    assert f"clipped   to norm {2 * unit:g}: rover-1, rover-2" in shown(sim, 1)
    facts = round_facts(sim.segment.rounds[1], published(sim))
    assert (float(facts["clip_norm"]), facts["clipped"]) == (2 * unit, ["rover-1", "rover-2"])
    sim.exclude("rover-1", 1)
    sim.reaggregate(1)
    assert sim.aggregator().step() == ["DeriveAgain"]
    # Too few are left to add anything up.
    assert not [line for line in shown(sim, 1) if line.startswith("clipped")]
    sim.close()


def test_a_round_that_clipped_nobody_says_so_and_an_aborted_one_nothing(tmp_path: Path) -> None:
    sim = ruled(tmp_path, {"clip": ClipTerms(norm=1_000)})
    sim.open_round()
    for name in ("rover-1", "rover-2"):
        sim.admit(name, {3: 5}, value_type="exact")
    sim.clock.advance(61_000_000)
    sim.close_round()
    assert [line for line in shown(sim, 1) if line.startswith("clipped") and line.endswith(": nobody")]
    sim.publish_model()
    sim.open_round()
    sim.admit("rover-1", {3: 5_000}, value_type="exact")
    sim.clock.advance(61_000_000)
    sim.close_round()
    assert not [line for line in shown(sim, 2) if line.startswith("clipped")]
    sim.close()
