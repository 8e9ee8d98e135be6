"""Every rule through the whole aggregator: what it publishes is what the updates in the log make, whoever dies.

What it must publish is computed beside it in one piece from updates held in memory (`Simulator.model_of`), which
knows no streaming, no stored leaves and nothing that was kept from round to round.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulator import Simulator, SteppedAggregator, submission

from sfrl_secure.governance.aggregation_terms import RULE_KEYS, MaskTerms, NextMaskTerms
from sfrl_secure.governance.statements import ModelPublished
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.ids import sha256
from sfrl_secure.services.aggregator.results import Results, Wanted
from sfrl_secure.sparse.mask import decode_mask

from .ruled import ADAPTIVE, CASES, COUNT, MOMENTUM, NAMES, ruled, send


def published(sim: Simulator, number: int) -> ModelPublished:
    """The newest model_published of a round."""
    body = sim.log.statement_at(sim.segment.rounds[number].model_index).body
    assert isinstance(body, ModelPublished)
    return body


def run_round(
    sim: Simulator, aggregator: SteppedAggregator, draw: np.random.Generator, *, deaths: bool = False
) -> SteppedAggregator:
    """A round from its opening to its model by the aggregator itself, which may die anywhere; who lives is given."""
    number = sim.segment.last_round + 1
    while sim.segment.open_round is None:
        aggregator.step()
    for name in NAMES:
        send(sim, name, draw)
        if deaths and draw.random() < 0.4:
            aggregator = sim.aggregator()
        elif draw.random() < 0.5:
            aggregator.work_ahead()
    while sim.segment.rounds[number].model is None:
        if deaths and draw.random() < 0.4:
            aggregator = sim.aggregator()
        if draw.random() < 0.5:
            aggregator.work_ahead()
        else:
            aggregator.step()
    return aggregator


def check_newest(sim: Simulator) -> None:
    """The last round's model, and all that stands beside it, is what its updates make."""
    current = sim.segment.rounds[sim.segment.last_round]
    assert published(sim, current.number) == sim.model_of(current, current.base_model, current.server_state)


def test_every_rule_is_tried() -> None:
    assert {case.get("rule") and case["rule"].name for case in CASES.values()} - {None} | {"weighted_mean/v1"} == set(
        RULE_KEYS
    )


@pytest.mark.parametrize("name", CASES)
def test_whoever_dies_anywhere_publishes_what_the_updates_make(tmp_path: Path, name: str) -> None:
    sim = ruled(tmp_path, CASES[name])
    aggregator, draw = sim.aggregator(), np.random.default_rng(len(name))
    for _ in range(3):
        aggregator = run_round(sim, aggregator, draw, deaths=True)
        check_newest(sim)
    assert sim.log.voids == {}
    sim.close()


@pytest.mark.parametrize("name", CASES)
def test_what_is_derived_again_is_what_the_others_make(tmp_path: Path, name: str) -> None:
    """Without one, then without so many that nothing is added up; each by an aggregator that has just been started."""
    sim = ruled(tmp_path, CASES[name])
    aggregator, draw = sim.aggregator(), np.random.default_rng(len(name))
    for _ in range(3):
        aggregator = run_round(sim, aggregator, draw)
        check_newest(sim)
    for gone in (("rover-2",), ("rover-3", "rover-1")):
        for each in gone:
            sim.exclude(each, 2)
        sim.reaggregate(2)
        while sim.segment.due:
            expected = sim.due_model()
            assert sim.aggregator().step() == ["DeriveAgain"]
            assert published(sim, expected.round) == expected
    nothing = published(sim, 2)
    assert (nothing.model, nothing.server_state) == (nothing.base_model, sim.segment.lineage[0].server_state)
    assert nothing.clusters == ()
    # And the rounds go on from what the last step has become, its state and its mask among it.
    run_round(sim, aggregator, draw)
    current = sim.segment.rounds[4]
    last = sim.segment.lineage[-2]
    assert (current.base_model, current.server_state) == (last.model, last.server_state)
    check_newest(sim)
    assert sim.log.voids == {}
    sim.close()


def test_a_step_of_too_few_hands_on_no_state_where_it_stood_on_none(tmp_path: Path) -> None:
    sim = ruled(tmp_path, CASES["nnm"])
    aggregator, draw = sim.aggregator(), np.random.default_rng(7)
    for _ in range(2):
        aggregator = run_round(sim, aggregator, draw)
    for each in NAMES[:3]:
        sim.exclude(each, 1)
    sim.reaggregate(1)
    assert [aggregator.step(), aggregator.step()] == [["DeriveAgain"], ["DeriveAgain"]]
    first, second = sim.segment.lineage
    assert first.server_state is None
    assert second.server_state is not None
    assert sim.log.voids == {}
    sim.close()


def test_clusters_are_published_once_and_not_with_a_model_that_is_derived_again(tmp_path: Path) -> None:
    """Without rover-1 there are two clusters of two: less what was published before, that would be rover-1's update."""
    names = (*NAMES, "rover-5")
    sim = ruled(tmp_path, {**CASES["clusters"], "next": None}, rovers=names)
    aggregator = sim.aggregator()
    aggregator.step()
    for name, sign in zip(names, (1, -1, 1, -1, 1), strict=True):
        sim.admit(name, {0: 9 * sign, 5: 4 * sign}, value_type="exact", weight=1)
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    made = published(sim, 1).clusters
    assert [each.members for each in made] == [(0, 2, 4), (1, 3)]
    assert all(sim.objects.is_stored(each.model) and each.model in sim.segment.models for each in made)
    sim.exclude("rover-1", 1)
    sim.reaggregate(1)
    assert aggregator.step() == ["DeriveAgain"]
    assert published(sim, 1).clusters == ()
    assert sim.log.voids == {}
    sim.close()


@pytest.mark.parametrize("server", [MOMENTUM, ADAPTIVE])
def test_the_state_is_read_again_by_whoever_did_not_make_it(
    tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who made it has it; after a start it is read, and a state that is not there holds the model up and no more."""
    sim = ruled(tmp_path, {"server": server})
    aggregator, draw = sim.aggregator(), np.random.default_rng(3)
    aggregator = run_round(sim, aggregator, draw)
    aggregator.step()
    for name in NAMES:
        send(sim, name, draw)
    state = sim.segment.rounds[2].server_state
    assert state is not None
    path = sim.objects.path(state)
    raw = path.read_bytes()
    path.unlink()
    started = sim.aggregator()
    assert [started.step(), started.step()] == [["CloseRound"], []]
    path.write_bytes(raw[:-1] + b"x")
    assert sim.aggregator().step() == []
    path.unlink()
    assert aggregator.step() == ["PublishModel"]
    path.write_bytes(raw)
    check_newest(sim)
    sim.close()


def test_new_terms_with_another_step_or_mask_begin_anew(tmp_path: Path) -> None:
    """What the first terms left behind is of no use to the second: zeros, and the mask that they name."""
    sim = ruled(tmp_path, {"server": MOMENTUM, "next": CASES["median"]["next"]})
    aggregator, draw = sim.aggregator(), np.random.default_rng(4)
    for _ in range(2):
        aggregator = run_round(sim, aggregator, draw)
    second = sim.segment.rounds[2]
    assert second.server_state is not None
    terms = sim.segment.terms.mask
    assert terms is not None
    assert second.mask != terms.digest
    sim.publish_terms(
        tensors=["a.weight", "a.bias"], value_types=["exact"], support_modes=["agreed", "dense", "free"],
        mask=sim.agree(1, 2, 4, 5, next=terms.next), limits=sim.segment.terms.limits, server=ADAPTIVE,
        round_terms=RoundTerms(60_000_000, 2, 4, 9),
    )  # fmt: skip
    aggregator.step()
    third = sim.segment.rounds[3]
    assert (third.server_state, third.mask) == (None, sim.agree(1, 2, 4, 5).digest)
    sim.close()


def test_agreed_updates_of_a_round_have_the_coordinates_that_the_round_before_chose(tmp_path: Path) -> None:
    sim = ruled(tmp_path, {"next": NextMaskTerms("contribution", 4)})
    aggregator, draw = sim.aggregator(), np.random.default_rng(5)
    masks = []
    for number in range(1, 5):
        aggregator = run_round(sim, aggregator, draw)
        current = sim.segment.rounds[number]
        assert current.mask is not None
        masks.append(current.mask)
        if number > 1:
            assert current.mask == published(sim, number - 1).next_mask
        mask = decode_mask(sim.objects.get(current.mask, 4_096), COUNT)
        assert mask.indices.size == 4
        assert current.admissions["rover-2"].update.nonzeros == 4
    assert len(set(masks)) > 1
    sim.close()


def test_a_mask_that_is_none_holds_no_round_up(tmp_path: Path) -> None:
    """Operators named an object that is no mask: agreed updates cannot be, and the next round names it again."""
    sim = ruled(tmp_path, {})
    no_mask = MaskTerms(sim.objects.put(b"SFRU and no more"), 4, NextMaskTerms("votes", 2))
    sim.publish_terms(
        tensors=["a.weight", "a.bias"], value_types=["exact"], support_modes=["agreed", "free"], mask=no_mask,
        limits=sim.segment.terms.limits, round_terms=RoundTerms(60_000_000, 2, 2, 9),
    )  # fmt: skip
    aggregator = sim.aggregator()
    aggregator.step()
    values = {0: 5, 3: -2}
    for name in NAMES[:2]:
        envelope, update, payload = sim.update(name, values, value_type="exact")
        sim.objects.put(payload)
        sim.gatekeeper().admitter.submit(submission(name, (envelope, update, payload)))
    assert [aggregator.step(), aggregator.step()] == [["CloseRound"], ["PublishModel"]]
    assert published(sim, 1).next_mask is None
    aggregator.step()
    assert sim.segment.rounds[2].mask == no_mask.digest
    assert sim.log.voids == {}
    sim.close()


def test_a_result_is_of_its_updates_its_base_and_its_state(tmp_path: Path) -> None:
    """One that was made for others is not given in its place."""
    sim = ruled(tmp_path, {"server": MOMENTUM})
    run_round(sim, sim.aggregator(), np.random.default_rng(1))
    current, made = sim.segment.rounds[1], Results(sim.objects)
    counted = tuple(current.admissions[name] for name in NAMES)
    wanted = Wanted(current, counted, current.base_model, None)
    first = made.of(wanted)
    assert made.is_made(wanted)
    others = (
        replace(wanted, counted=counted[:3]),
        replace(wanted, base=sim.segment.model),
        replace(wanted, server_state=sim.segment.lineage[0].server_state),
        replace(wanted, current=replace(current, opened=sha256(b"another"))),
    )
    for other in others:
        assert not made.is_made(other)
    assert len({first.model, *(made.of(other).model for other in others[:3])}) == 4
    sim.close()
