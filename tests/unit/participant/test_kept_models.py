"""Models that lead on: what of them is on the disk, and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from simulator import GRID, MANIFEST, SEGMENT, DirectChannel, Simulator

from sfrl_secure.aggregation.models import ModelSnapshot, encode_step
from sfrl_secure.errors import UnavailableError
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.participant.models import WRITE_SECONDS
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.wire.downloads import (
    FETCH_MODEL,
    ModelRequest,
    ModelSource,
    encode_model_chunk,
    encode_model_source,
    parse_model_request,
)

NAME = "rover-1"
STEP = np.zeros(MANIFEST.coordinates, dtype=np.int64)
STEP[3] = 5


class Rounds:
    """A participant, and a gatekeeper that has a model a round: the one before and a step, for who has that one."""

    def __init__(self, sim: Simulator) -> None:
        self.sim, self.now, self.models = sim, 0.0, [sim.initial]
        self.asked: list[ModelRequest] = []
        sim.open_round()
        self.sdk = self.started()

    def started(self) -> Participant:
        channel = DirectChannel(self.sim.gatekeeper(), NAME)
        channel._methods[FETCH_MODEL] = replace(channel._methods[FETCH_MODEL], behaviour=self._answer)
        return Participant(
            name=NAME, key=self.sim.rovers[NAME], policy=self.sim.policy, channel=channel,
            receipts=self.sim.folder / "r", clock=self.sim.clock, sleep=lambda seconds: None,
            monotonic=lambda: self.now,
        )  # fmt: skip

    def fetch(self, number: int) -> ModelSnapshot:
        """The model of a round, by whoever takes part now."""
        while len(self.models) <= number:
            self.models.append(self.models[-1].add(STEP))
        opened = self.sdk.open_round(SEGMENT, wait_seconds=0)
        assert isinstance(opened, OpenRound)
        model = self.sdk.model(replace(opened, base_model=self.name(number)))
        assert model.to_bytes() == self.models[number].to_bytes()
        return model

    def name(self, number: int) -> Digest:
        return sha256(self.models[number].raw)

    def on_disk(self) -> set[int]:
        folder = self.sim.folder / "r" / "models" / SEGMENT
        files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return {number for number in range(len(self.models)) if self.name(number).hex() in files}

    def _answer(self, raw: bytes, context: object) -> Iterator[bytes]:
        asked = parse_model_request(raw)
        self.asked.append(asked)
        names = [sha256(each.raw) for each in self.models]
        wanted = names.index(asked.model)
        had = [names.index(each) for each in asked.has]
        if not had:
            whole = self.models[wanted].to_bytes()
            yield encode_model_source(ModelSource(None, (len(whole),)))
            yield encode_model_chunk(whole)
            return
        # One step all the way: several are longer than a model of so few coordinates.
        step = encode_step(MANIFEST, GRID, STEP * (wanted - had[0]))
        yield encode_model_source(ModelSource(names[had[0]], (len(step),)))
        yield encode_model_chunk(step)


@pytest.fixture
def rounds(sim: Simulator) -> Rounds:
    return Rounds(sim)


def test_a_model_that_was_fetched_whole_is_on_the_disk_at_once(rounds: Rounds) -> None:
    rounds.fetch(0)
    assert rounds.on_disk() == {0}


def test_what_came_of_additions_is_written_once_a_minute(rounds: Rounds) -> None:
    rounds.fetch(0)
    for number in range(1, 4):
        rounds.now += (WRITE_SECONDS - 1) / 3
        rounds.fetch(number)
        assert rounds.on_disk() == {0}
    rounds.now += 1
    rounds.fetch(4)
    assert rounds.on_disk() == {0, 4}
    rounds.now += WRITE_SECONDS - 1
    rounds.fetch(5)
    assert rounds.on_disk() == {0, 4}


def test_the_newest_model_is_written_at_the_end_and_found_by_the_next_run(rounds: Rounds) -> None:
    for number in range(3):
        rounds.fetch(number)
    rounds.sdk.close()
    assert rounds.on_disk() == {0, 2}
    rounds.sdk = rounds.started()
    rounds.asked.clear()
    rounds.fetch(2)
    assert not rounds.asked


def test_nothing_is_written_at_the_end_that_is_there(rounds: Rounds) -> None:
    rounds.fetch(0)
    rounds.fetch(1)
    rounds.sdk.close()
    path = rounds.sim.folder / "r" / "models" / SEGMENT / rounds.name(1).hex()
    path.unlink()
    rounds.sdk.close()
    assert rounds.on_disk() == {0}


def test_who_was_killed_asks_with_an_older_model_and_is_led_on_from_there(rounds: Rounds) -> None:
    for number in range(6):
        rounds.fetch(number)
    rounds.sdk = rounds.started()
    rounds.asked.clear()
    rounds.fetch(6)
    assert [asked.has for asked in rounds.asked] == [(rounds.name(0),)]


def test_a_model_that_somebody_holds_stays_what_it_is(rounds: Rounds) -> None:
    """The memory of a model is used for later ones: not while it is held."""
    held = [rounds.fetch(number) for number in (0, 1, 2)]
    for number in range(3, 9):
        rounds.fetch(number)
    assert [each.to_bytes() for each in held] == [each.to_bytes() for each in rounds.models[:3]]


def test_the_connection_is_closed_where_the_disk_fails(rounds: Rounds, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    def fail() -> None:
        raise UnavailableError("the disk")

    rounds.fetch(0)
    monkeypatch.setattr(rounds.sdk._models, "write", fail)
    monkeypatch.setattr(rounds.sdk._channel, "close", lambda: closed.append(True))
    with pytest.raises(UnavailableError):
        rounds.sdk.close()
    assert closed == [True]
