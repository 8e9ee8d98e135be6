"""What an entry names: all that a round leaves behind, each within a length that comes from its statement or terms."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulator import MANIFEST, Simulator

from sfrl_secure.audit.named_objects import ObjectLengths, objects_named
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
from sfrl_secure.limits import OBJECT_HEADER_BYTES_MAX

THREE = ("rover-1", "rover-2", "rover-3")
MODEL = 8 * MANIFEST.coordinates + OBJECT_HEADER_BYTES_MAX
MASK = 8 * 4 + OBJECT_HEADER_BYTES_MAX
ROUNDS = RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=3, rounds_max=30)


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    """A segment whose rounds leave behind all that a round can."""
    made = Simulator(tmp_path)
    made.publish_terms(
        round_terms=ROUNDS, rule=RuleTerms(CLUSTERED_MEAN, alike_ppm=100_000), support_modes=["agreed", "free"],
        server=MomentumTerms(60_000, 30_000), mask=made.agree(0, 3, 9, 17, next=NextMaskTerms("votes", 2)),
    )  # fmt: skip
    yield made
    made.close()


def named(sim: Simulator, segments: dict[str, ObjectLengths] | None = None) -> dict[Digest, int]:
    """Every object that the log names, by the longest that an entry lets it be."""
    found: dict[Digest, int] = {}
    known: dict[str, ObjectLengths] = {} if segments is None else segments
    for raw in sim.log.raw:
        for digest, bytes_max in objects_named(raw, known):
            found[digest] = max(bytes_max, found.get(digest, 0))
    return found


def last(sim: Simulator) -> ModelPublished:
    assert sim.segment.current is not None
    body = sim.log.statement_at(sim.segment.model_index).body
    assert isinstance(body, ModelPublished)
    return body


def test_all_that_a_round_leaves_behind_is_named_and_nothing_is_longer_than_it_says(sim: Simulator) -> None:
    for _ in range(2):
        sim.play_round(*THREE)
    found, body = named(sim), last(sim)
    assert len(body.clusters) == 1
    assert found[body.clusters[0].model] == found[body.aggregate] == found[body.model] == MODEL
    assert body.next_mask is not None
    assert found[body.next_mask] == MASK
    assert body.server_state is not None
    assert found[body.server_state] >= len(sim.objects.get(body.server_state, 10_000))
    # The store has nothing that the log does not name, and nothing longer than it says.
    stored = {path.name for path in (sim.folder / "objects").rglob("*") if path.is_file()}
    assert stored == {digest.hex() for digest in found}
    assert all(len(sim.objects.get(digest, 10_000)) <= bytes_max for digest, bytes_max in found.items())


@pytest.mark.parametrize(
    ("server", "values"), [(MomentumTerms(1, 1), 1), (AdaptiveTerms(1, 1, 1, 1), 2)], ids=["momentum", "adaptive"]
)
def test_a_server_state_may_have_as_many_values_a_coordinate_as_any_step_has(
    sim: Simulator, server: Any, values: int
) -> None:
    sim.publish_terms(server=server, round_terms=ROUNDS)
    sim.play_round(*THREE)
    state = last(sim).server_state
    assert state is not None
    assert named(sim)[state] >= 8 * values * MANIFEST.coordinates


def test_objects_of_a_kind_that_no_terms_have_are_not_asked_for(tmp_path: Path) -> None:
    """Whoever signs what is void makes no mirror fetch it, nor says how long it may be."""
    sim = Simulator(tmp_path)
    sim.play_round(*THREE)
    honest = last(sim)
    state, mask, cluster = (sha256(each) for each in (b"state", b"mask", b"cluster"))
    lie = replace(honest, server_state=state, next_mask=mask, clusters=(Cluster((0, 1), cluster),))
    writer = sim.log.statement_at(sim.segment.model_index).writer
    sim.log.force(sim.sign(sim.statement(writer, "segment/rocks", lie)))
    sim.log.force(sim.sign(sim.statement(writer, "segment/sand", lie)))
    assert sim.log.voids
    found = named(sim)
    assert found.keys().isdisjoint({state, mask})
    assert found[cluster] == MODEL
    sim.close()


def test_lengths_are_those_of_the_widest_terms_so_far(sim: Simulator) -> None:
    segments: dict[str, ObjectLengths] = {}
    sim.publish_terms(server=AdaptiveTerms(1, 1, 1, 1), mask=sim.agree(0, 1), support_modes=["agreed"])
    sim.publish_terms()
    named(sim, segments)
    assert segments == {"rocks": ObjectLengths(MODEL, 16 * MANIFEST.coordinates + OBJECT_HEADER_BYTES_MAX, MASK)}
