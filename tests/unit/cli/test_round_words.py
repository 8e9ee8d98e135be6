"""What a round begins and ends with, in words: masks, states of the server's step, and clusters."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulator import Simulator

from sfrl_secure.audit.published import UnverifiedEntry
from sfrl_secure.cli.rounds import _in_words
from sfrl_secure.cli.words import entry_in_full, short, what_of
from sfrl_secure.governance.aggregation_terms import CLUSTERED_MEAN, MomentumTerms, NextMaskTerms, RuleTerms
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.wire.content import parse_content
from sfrl_secure.wire.entries import parse_entry


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
    first, second = (list(_in_words(sim.segment.rounds[number])) for number in (1, 2))
    mask, state = sim.segment.rounds[2].mask, sim.segment.rounds[2].server_state
    assert mask is not None
    assert state is not None
    assert f"mask      {mask.hex()}, of agreed updates" in second
    assert f"state     {state.hex()}, of the server's step" in second
    assert not [line for line in first if line.startswith("state ")]


def test_a_round_is_shown_with_how_it_is_added_up(sim: Simulator) -> None:
    shown = list(_in_words(sim.segment.rounds[1]))
    assert "rule      clustered_mean/v1: weighted mean; a model of its own for who is alike from cosine 0.1 on" in shown
    assert [line for line in shown if line.startswith("server    momentum/v1: decay ")]
    assert not [line for line in shown if line.startswith(("clip ", "cap "))]
