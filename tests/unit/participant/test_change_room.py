"""A change is written where a model will be: round after round nobody asks the system for more memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulator import SEGMENT, Simulator

from sfrl_secure.aggregation.models import ModelSnapshot, model_bytes
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.governance.terms import ModelTerms
from sfrl_secure.participant import membership
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.weights import BaseModel, change_of
from tests.unit.participant.test_kept_models import Rounds


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
    given, room = weights.copy(), bytearray(b"\xff" * model_bytes(manifest))
    terms = replace(
        terms, model=ModelTerms(manifest, 20, sim.initial_digest), allowed_tensor_indices=frozenset({0, 1, 2})
    )
    change = change_of(weights, BaseModel(sim.initial_digest, model), terms, room)
    assert change.dtype == np.float32
    assert np.array_equal(change.view(np.uint32), (weights - model.to_float32()).view(np.uint32))
    assert np.array_equal(change, change_of(weights, BaseModel(sim.initial_digest, model), terms))
    assert np.array_equal(weights, given)
    assert np.shares_memory(change, np.frombuffer(room, dtype=np.uint8))


def test_the_room_of_a_change_is_that_of_the_next_model_unless_somebody_holds_it(sim: Simulator) -> None:
    rounds = Rounds(sim)
    opened = _opened(rounds.sdk)
    for number in range(3):
        rounds.fetch(number)
    room = rounds.sdk.room(opened)
    assert rounds.sdk.room(opened) is room
    assert rounds.fetch(3).raw.obj is room
    held = rounds.sdk.room(opened)
    assert held is not room
    view = memoryview(held)
    assert rounds.fetch(4).raw.obj is not held
    view.release()


def test_a_change_is_written_into_the_participants_room(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    sim.open_round()
    sdk = sim.participant("rover-1")
    training = next(iter(sdk.join(SEGMENT).rounds(wait_seconds=0)))
    changes: list[object] = []

    def seen(*arguments: object) -> object:
        changes.append(arguments[-1])
        return change_of(*arguments)  # type: ignore[arg-type] # what it was given, all of it

    monkeypatch.setattr(membership, "change_of", seen)
    for _ in range(2):
        training.prepare(training.model.vector() + np.float32(1), num_samples=10)
    assert changes == [sdk.room(training.opened)] * 2
