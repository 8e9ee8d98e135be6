"""A published log of a federation in memory, and the command line as a person calls it."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from simulator import SEGMENT, Simulator

from sfrl_secure.cli.main import main
from sfrl_secure.participant.rounds import OpenRound
from sfrl_secure.translog.policy import format_trust_policy
from sfrl_secure.translog.tiles import bundles_of, encode_bundle, tile_of_tree, tiles_of
from sfrl_secure.wire.receipts import ReceiptKind

from .governed import Governed, connected, write_files


@dataclass(frozen=True)
class Published:
    """Where a log and what belongs to it lie.

    Attributes:
        receipts: of rover-1's update in round 1, by kind.
    """

    log: Path
    objects: Path
    trust_policy: Path
    receipts: dict[ReceiptKind, Path]

    @property
    def verify(self) -> list[str]:
        """Arguments of `sfrl audit verify`."""
        return ["audit", "verify", *self.options]

    @property
    def options(self) -> list[str]:
        """The three places."""
        return [
            "--log", str(self.log), "--objects", str(self.objects), "--trust-policy", str(self.trust_policy),
        ]  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Call `sfrl` with arguments, the whole way from `main` to the exit code."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["sfrl", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Ended(int(ended.value.code or 0), said.out, said.err)

    return call


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """One round with its model, a refusal and a second round that is open; made once, never changed."""
    folder = tmp_path_factory.mktemp("published")
    sim = Simulator(folder)
    aggregator = sim.aggregator()
    aggregator.step()
    receipts: dict[ReceiptKind, Path] = {}
    with sim.participant("rover-1") as first:
        opened = first.open_round(SEGMENT)
        assert isinstance(opened, OpenRound)
        sent = first.submit(opened, np.array([0, 3]), np.array([0.5, -0.25]), 10, rng=np.random.default_rng(1))
        sim.admit("rover-2")
        sim.admit("rover-3")
        while aggregator.step():
            pass
        for kind in (ReceiptKind.WITNESSED, ReceiptKind.COUNTED):
            first.receipt(sent, kind)
            receipts[kind] = first.receipt_path(SEGMENT, 1, kind)
    sim.log.witness()
    publish(sim, folder / "log")
    (folder / "trust-policy.txt").write_bytes(format_trust_policy(sim.policy))
    yield Published(folder / "log", folder / "objects", folder / "trust-policy.txt", receipts)
    sim.close()


@pytest.fixture
def published(made: Published, tmp_path: Path) -> Published:
    """A copy of one's own, to alter."""
    shutil.copytree(made.log.parent, tmp_path / "copy")

    def moved(path: Path) -> Path:
        return tmp_path / "copy" / path.relative_to(made.log.parent)

    receipts = {kind: moved(path) for kind, path in made.receipts.items()}
    return Published(moved(made.log), moved(made.objects), moved(made.trust_policy), receipts)


def publish(sim: Simulator, log: Path) -> None:
    """Write the log's files as the audit log publishes them."""
    size = len(sim.log.raw)
    for bundle in bundles_of(size):
        first = bundle.index * 256
        write(log / bundle.path, encode_bundle(sim.log.raw[first : first + bundle.width]))
    for tile in tiles_of(size):
        write(log / tile.path, tile_of_tree(sim.log.tree, tile))
    write(log / "checkpoint", sim.log.witnessed.note)


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


@pytest.fixture
def publish_to() -> Callable[[Simulator, Path], None]:
    """Write a simulated log's files into a folder."""
    return publish


@pytest.fixture
def governed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Governed]:
    """A federation with the files of its operators, its clock everybody's; commands run in a folder of their own."""
    sim = Simulator(tmp_path / "sim")
    made = write_files(sim, tmp_path)
    publish(sim, made.log)
    monkeypatch.setattr("sfrl_secure.clock.SystemClock", lambda: sim.clock)
    monkeypatch.setattr("sfrl_secure.operating.following.connect", lambda profile: connected(sim))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield made
    sim.close()
