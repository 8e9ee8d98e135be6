"""The model of those who are alike: which cluster an update was in is proven, and its model is fetched and compared."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from simulator import GRID, MANIFEST, SEGMENT, DirectChannel, Simulator
from typer.testing import CliRunner

from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.cli.participant import register
from sfrl_secure.cli.receipt_words import in_json, in_words
from sfrl_secure.errors import DigestError, MalformedError, NotFoundError
from sfrl_secure.governance.aggregation_terms import CLUSTERED_MEAN, RuleTerms
from sfrl_secure.governance.terms import RoundTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.participant.aio import AsyncParticipant, AsyncReceipt
from sfrl_secure.participant.receipts import open_receipt
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.participant.sdk import Participant
from sfrl_secure.participant.update_receipt import UpdateReceipt
from sfrl_secure.wire.downloads import FETCH_MODEL, encode_model_chunk, parse_model_chunk
from sfrl_secure.wire.receipts import ReceiptKind

NAMES = tuple(f"rover-{number}" for number in range(1, 7))
PULLS = {"rover-1": 0, "rover-2": 0, "rover-3": 8, "rover-4": 8, "rover-5": 12, "rover-6": 17}
"""The first of three coordinates that a rover moves: two pairs are alike, and two rovers are like nobody."""


class Round:
    """A round under the clustered mean that was counted, and what its rovers hold."""

    def __init__(self, folder: Path) -> None:
        self.sim = sim = Simulator(folder, rovers=NAMES)
        sim.publish_terms(
            rule=RuleTerms(CLUSTERED_MEAN, alike_ppm=900_000),
            round_terms=RoundTerms(duration_us=60_000_000, cohort_min=2, cohort_max=6, rounds_max=30),
        )
        aggregator = sim.aggregator()
        aggregator.step()
        self.channels = {name: DirectChannel(sim.gatekeeper(), name) for name in NAMES}
        self.rovers = {name: sim.participant(name, self.channels[name]) for name in NAMES}
        self.receipts = {name: self._hand_in(rover) for name, rover in self.rovers.items()}
        assert [aggregator.step() for _ in range(3)] == [["CloseRound"], ["PublishModel"], ["OpenRound"]]

    def _hand_in(self, rover: Participant) -> UpdateReceipt:
        training = rover.join(SEGMENT).next_round(wait_seconds=0)
        assert training is not None
        delta = np.zeros(MANIFEST.coordinates, np.float32)
        delta[PULLS[rover.name] : PULLS[rover.name] + 3] = 0.5
        return training.submit(delta=delta, num_samples=1)

    def cluster_of(self, name: str) -> Digest:
        """The model of the cluster that the log says a rover was in."""
        published = self.sim.log.statement_at(self.sim.segment.rounds[1].model_index).body
        at = NAMES.index(name)
        return next(each.model for each in published.clusters if at in each.members)  # type: ignore[union-attr]

    def asked(self, name: str) -> int:
        """How often a rover asked for a model."""
        return self.channels[name].calls.count(FETCH_MODEL)

    def kept(self, name: str) -> list[str]:
        """Digests of the clusters' models that a rover keeps."""
        folder = self.sim.folder / "receipts" / name / "cluster-models" / SEGMENT
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []


@pytest.fixture
def played(tmp_path: Path) -> Iterator[Round]:
    made = Round(tmp_path)
    yield made
    made.sim.close()


def test_each_has_the_model_of_those_who_are_like_it(played: Round) -> None:
    initial, models = played.sim.initial.to_float32(), {}
    for name in NAMES[:4]:
        found = played.receipts[name].cluster_model(wait_seconds=0)
        assert found is not None
        moved = found.vector() - initial
        at = slice(PULLS[name], PULLS[name] + 3)
        # The mean of its own cluster: that of all moves a coordinate by no more than a third of it.
        assert moved[at] == pytest.approx(0.5, abs=0.01)
        assert not np.delete(moved, at).any()
        assert found.digest == played.cluster_of(name) == sha256(found.snapshot.to_bytes())
        assert played.sim.segment.fetches[name, found.digest] == 1
        models[name] = found.digest
    assert models["rover-1"] == models["rover-2"] != models["rover-3"] == models["rover-4"]


def test_who_is_like_nobody_has_no_model_of_its_own_and_asks_for_none(played: Round) -> None:
    asked = played.asked("rover-5")
    for name in ("rover-5", "rover-6"):
        assert played.receipts[name].cluster_model(wait_seconds=0) is None
    assert played.asked("rover-5") == asked


def test_the_receipt_alone_proves_which_cluster_it_was(played: Round) -> None:
    receipt = played.receipts["rover-3"]
    receipt.wait(wait_seconds=0)
    proven = open_receipt(receipt.path().read_bytes(), played.sim.policy)
    assert proven.cluster is not None
    assert (proven.cluster.members, proven.cluster.model) == ((2, 3), played.cluster_of("rover-3"))
    witnessed = receipt.wait(ReceiptKind.WITNESSED, wait_seconds=0)
    assert witnessed.cluster is None


def test_a_receipt_in_words_names_the_clusters_model(played: Round) -> None:
    for name, updates in (("rover-3", 2), ("rover-5", None)):
        proven = played.receipts[name].wait(wait_seconds=0)
        words = "\n".join(in_words(proven, played.sim.policy, None))
        said = in_json(proven, played.sim.policy, None)
        if updates is None:
            assert "cluster" not in words
            assert (said["cluster_updates"], said["cluster_model"]) == (None, None)
        else:
            model = played.cluster_of(name).hex()
            assert f"for this update's cluster, of {updates} updates, model {model}" in words
            assert (said["cluster_updates"], said["cluster_model"]) == (updates, model)


def test_rounds_go_on_from_the_model_of_all(played: Round) -> None:
    rover, receipt = played.rovers["rover-1"], played.receipts["rover-1"]
    found = receipt.cluster_model(wait_seconds=0)
    opened = rover.open_round(SEGMENT, 1, wait_seconds=0)
    assert isinstance(opened, OpenRound)
    assert found is not None
    assert opened.base_model == played.sim.segment.model != found.digest
    assert sha256(rover.model(opened).to_bytes()) == opened.base_model


def test_the_model_is_asked_for_once_and_kept(played: Round) -> None:
    receipt, name = played.receipts["rover-1"], "rover-1"
    first, asked = receipt.cluster_model(wait_seconds=0), played.asked(name)
    again = receipt.cluster_model(wait_seconds=0)
    assert first is not None
    assert again is not None
    assert again.snapshot.to_bytes() == first.snapshot.to_bytes()
    assert played.asked(name) == asked
    assert played.kept(name) == [first.digest.hex()]


def test_another_model_than_the_clusters_is_refused_and_not_kept(played: Round) -> None:
    other = ModelSnapshot(MANIFEST, GRID, np.ones(MANIFEST.coordinates, np.int64)).to_bytes()
    chunk = encode_model_chunk(other)

    def swapped(raw: bytes) -> bytes:
        try:
            parse_model_chunk(raw)
        except MalformedError:
            return raw  # what all of it is, which comes first
        return chunk

    played.channels["rover-1"].answers[FETCH_MODEL] = swapped
    with pytest.raises(DigestError, match="not the one that the log names"):
        played.receipts["rover-1"].cluster_model(wait_seconds=0)
    assert played.kept("rover-1") == []


def test_a_damaged_file_is_fetched_again(played: Round) -> None:
    receipt = played.receipts["rover-1"]
    found = receipt.cluster_model(wait_seconds=0)
    assert found is not None
    path = played.sim.folder / "receipts" / "rover-1" / "cluster-models" / SEGMENT / found.digest.hex()
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    asked = played.asked("rover-1")
    again = receipt.cluster_model(wait_seconds=0)
    assert again is not None
    assert (sha256(again.snapshot.to_bytes()), played.asked("rover-1")) == (found.digest, asked + 1)


def test_it_can_be_awaited(played: Round) -> None:
    told: list[tuple[int, int]] = []

    async def work() -> None:
        async with AsyncParticipant(played.rovers["rover-2"]) as rover:
            receipt = AsyncReceipt(played.receipts["rover-2"], rover._thread)
            found = await receipt.cluster_model(wait_seconds=0, on_progress=lambda *now: told.append(now))
            assert found is not None
            assert found.digest == played.cluster_of("rover-2")

    asyncio.run(asyncio.wait_for(work(), 30))
    assert told
    assert told[-1][0] == told[-1][1]


# By hand


@pytest.fixture
def fetch(played: Round, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Run `sfrl fetch` as a rover; give its one JSON object."""
    app = typer.Typer()
    register(app)

    def run(name: str, *arguments: str) -> Any:
        monkeypatch.setattr(Participant, "from_profile", lambda path: played.sim.participant(name))
        result = CliRunner().invoke(
            app, ["fetch", "--profile", "p.toml", "--segment", SEGMENT, "--wait", "0", "--json",
                  "--out", str(tmp_path / "model.npz"), *arguments],
        )  # fmt: skip
        if result.exception is not None:
            raise result.exception
        return json.loads(result.stdout.splitlines()[-1])

    return run


@pytest.mark.parametrize("arguments", [(), ("--round", "1")])
def test_fetch_writes_the_model_of_the_cluster(
    played: Round, fetch: Any, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    said = fetch("rover-4", "--cluster", *arguments)
    assert said == {
        "segment": SEGMENT, "round": 1, "cluster_updates": 2, "model": played.cluster_of("rover-4").hex(),
        "coordinates": MANIFEST.coordinates, "out": str(tmp_path / "model.npz"),
    }  # fmt: skip
    with np.load(tmp_path / "model.npz", allow_pickle=False) as arrays:
        before = played.sim.initial.to_float32()[8:11]
        assert arrays["a.weight"].reshape(-1)[8:11] == pytest.approx(before + 0.5, abs=0.01)


def test_fetch_says_where_there_is_no_cluster(played: Round, fetch: Any, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"in no cluster.*without --cluster"):
        fetch("rover-5", "--cluster")
    with pytest.raises(NotFoundError, match="round 7"):
        fetch("rover-4", "--cluster", "--round", "7")
    with pytest.raises(MalformedError, match="--cluster"):
        fetch("rover-4", "--round", "1")
    assert not (tmp_path / "model.npz").exists()
