"""A change is written where a model will be: round after round nobody asks the system for more memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulator import SEGMENT, Simulator

from sfrl_secure.aggregation.buffers import ROOMS_KEPT, Rooms
from sfrl_secure.aggregation.models import ModelSnapshot, model_bytes
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.terms import ModelTerms
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.weights import BaseModel, change_of
from tests.unit.participant.test_kept_models import MANIFEST, Rounds


def _opened(sdk: Participant) -> OpenRound:
    opened = sdk.open_round(SEGMENT, wait_seconds=0)
    assert isinstance(opened, OpenRound)
    return opened


def test_a_change_is_the_same_to_the_last_bit_in_a_room_that_held_something_else(sim: Simulator) -> None:
    """Over several runs and blocks."""
    sim.open_round()
    terms, rng = _opened(sim.participant("rover-1")).terms, np.random.default_rng(3)
    shapes = (("a", 70_000, "int32"), ("b", 131_072, "int64"), ("c", 3, "int32"))
    manifest = ModelManifest(tuple(TensorSpec(name, (count,), dtype) for name, count, dtype in shapes))
    model = ModelSnapshot(manifest, 20, rng.integers(-(2**31), 2**31, manifest.coordinates))
    weights = rng.standard_normal(manifest.coordinates, dtype=np.float32) * np.float32(1_000)
    given, room = weights.copy(), bytearray(b"\xff" * 4 * manifest.coordinates)
    terms = replace(
        terms, model=ModelTerms(manifest, 20, sim.initial_digest), allowed_tensor_indices=frozenset({0, 1, 2})
    )
    change = change_of(weights, BaseModel(sim.initial_digest, model), terms, lambda length: memoryview(room)[:length])
    assert change.dtype == np.float32
    assert np.array_equal(change.view(np.uint32), (weights - model.to_float32()).view(np.uint32))
    assert np.array_equal(change, change_of(weights, BaseModel(sim.initial_digest, model), terms))
    assert np.array_equal(weights, given)
    assert np.shares_memory(change, np.frombuffer(room, dtype=np.uint8))


def test_the_room_of_a_change_is_that_of_the_next_model_unless_somebody_holds_it(sim: Simulator) -> None:
    rounds = Rounds(sim)
    opened, length = _opened(rounds.sdk), model_bytes(MANIFEST)
    for number in range(3):
        rounds.fetch(number)
    memory = id(rounds.sdk.room(opened, length).obj)
    assert id(rounds.sdk.room(opened, length).obj) == memory
    assert id(rounds.fetch(3).raw.obj) == memory
    held = rounds.sdk.room(opened, length)
    assert id(held.obj) != memory
    assert rounds.fetch(4).raw.obj is not held.obj


def test_weights_change_and_payload_are_written_where_the_last_ones_were(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = replace(sim.segment.terms.limits, nonzeros_max=MANIFEST.coordinates)
    sim.publish_terms(support_modes=("dense",), value_types=("fp32",), tensors=None, limits=limits)
    sim.open_round()
    training = next(iter(sim.participant("rover-1").join(SEGMENT).rounds(wait_seconds=0)))
    made: list[int] = []

    def keep(rooms: Rooms, room: Any) -> None:
        made.append(1)
        _keep(rooms, room)

    _keep = Rooms._keep
    monkeypatch.setattr(Rooms, "_keep", keep)
    made_by = []
    for _ in range(6):
        training.send(training.prepare(training.model.vector() + np.float32(1), num_samples=10))
        made_by.append(len(made))
    # What arrived is one. Weights, then the change, take the next, the payload another, which a call may hold for long.
    assert made_by[1:] == [made_by[1]] * 5
    assert made_by[1] <= ROOMS_KEPT


def test_weights_that_somebody_keeps_stay_what_they_are(sim: Simulator) -> None:
    sim.open_round()
    training = next(iter(sim.participant("rover-1").join(SEGMENT).rounds(wait_seconds=0)))
    kept = [training.model.vector() for _ in range(7)]
    for number, weights in enumerate(kept):
        weights += np.float32(number)
    training.prepare(kept[1], num_samples=10)
    clean = training.model.vector()
    for number, weights in enumerate(kept):
        assert np.array_equal(weights, clean + np.float32(number))
