"""The examples, each taking part in a federation in memory; and a class of the real Flower in the adapter."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from simulator import GRID, SEGMENT, Simulator

from sfrl_secure.aggregation.models import parse_model
from sfrl_secure.ids import sha256
from sfrl_secure.participant.receipts import open_receipt
from sfrl_secure.wire.receipts import ReceiptKind

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PEERS = "SFRL_PEERS"


def example(name: str) -> ModuleType:
    """Import an example, as it would run."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sim(tmp_path: Path) -> Iterator[Simulator]:
    made = Simulator(tmp_path)
    yield made
    made.close()


def play(sim: Simulator, *parts: Callable[[], None]) -> None:
    """Let each take part in a thread of its own, and the aggregator do its work until all have ended."""
    failed: list[BaseException] = []

    def guarded(part: Callable[[], None]) -> None:
        try:
            part()
        except BaseException as error:  # noqa: BLE001 - asserted below, with what it is
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(part,)) for part in parts]
    for thread in threads:
        thread.start()
    aggregator, waiting = sim.aggregator(), threading.Event()
    while any(thread.is_alive() for thread in threads) and not failed:
        opened = sim.segment.open_round
        if opened is not None and len(opened.admissions) == len(parts):
            sim.clock.advance(60_000_000)
        aggregator.step()
        waiting.wait(0.01)
    for thread in threads:
        thread.join(30)
    assert not failed, failed


class Client:
    """What a Flower user has: no word of sfrl-secure in it."""

    def __init__(self, step: float, examples: int) -> None:
        self.step, self.examples = step, examples
        self.rounds: list[int] = []
        self.judged: list[list[np.ndarray[Any, Any]]] = []

    def get_parameters(self, config: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
        raise AssertionError("the log names the first model")

    def fit(self, parameters: Any, config: dict[str, Any]) -> Any:
        self.rounds.append(config["server_round"])
        weight, bias, frozen = parameters
        return [weight, bias + np.float32(self.step), frozen], self.examples, {"step": self.step}

    def evaluate(self, parameters: Any, config: dict[str, Any]) -> Any:
        self.judged.append(parameters)
        return 0.5, self.examples, {}


def test_a_flower_client_takes_part_in_every_round(sim: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    take_part = example("flower_numpy_client").take_part
    clients = {"rover-1": Client(0.5, 30), "rover-2": Client(-0.25, 10)}
    play(sim, *(
        lambda name=name, client=client: take_part(client, sim.participant(name).join(SEGMENT))  # type: ignore[misc]
        for name, client in clients.items()
    ))  # fmt: skip
    assert [client.rounds for client in clients.values()] == [[1, 2, 3], [1, 2, 3]]
    weights = {name: each.update.weight for name, each in sim.segment.rounds[3].admissions.items()}
    assert weights == {"rover-1": 30, "rover-2": 10}
    # (30 * 0.5 - 10 * 0.25) / 40, three times: what the third round began from has two of them.
    model = parse_model(sim.objects.get(sim.segment.model, 4_096), sim.initial.manifest, GRID).to_float32()
    before = sim.initial.to_float32()
    np.testing.assert_allclose((model - before)[16:20], 3 * 0.3125, atol=2**-GRID)
    np.testing.assert_array_equal((model - before)[:16], 0)
    np.testing.assert_allclose(clients["rover-1"].judged[2][1] - clients["rover-1"].judged[0][1], 0.625, atol=2**-GRID)
    assert [each.shape for each in clients["rover-1"].judged[0]] == [(4, 4), (4,), (4,)]
    assert "round 3: loss 0.5000, entry" in capsys.readouterr().out


def test_a_flower_client_stops_after_its_rounds_with_the_receipt(
    sim: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    take_part = example("flower_numpy_client").take_part
    client = Client(0.5, 30)
    play(
        sim,
        lambda: take_part(client, sim.participant("rover-1").join(SEGMENT), rounds=1, value_type="int8"),
        lambda: take_part(Client(0.5, 30), sim.participant("rover-2").join(SEGMENT), rounds=1),
    )
    assert client.rounds == [1]
    path = sim.participant("rover-1").receipt_path(SEGMENT, 1, ReceiptKind.COUNTED)
    model = open_receipt(path.read_bytes(), sim.policy).model
    assert model is not None
    assert f"counted in model {model.hex()}" in capsys.readouterr().out


def test_the_client_to_try_it_with_learns() -> None:
    client = example("flower_numpy_client").LineClient("rover-1")
    parameters = client.get_parameters({})
    first = client.evaluate(parameters, {})[0]
    for _ in range(5):
        parameters, examples, _ = client.fit(parameters, {})
    assert examples == 200
    assert client.evaluate(parameters, {})[0] < first / 20


def test_a_torch_module_goes_in_and_out_as_a_state_dict(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    module = example("train_torch")

    class Rocks(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Linear(4, 4)
            self.frozen = torch.nn.Parameter(torch.zeros(4), requires_grad=False)

        def forward(self, inputs: Any) -> Any:
            return self.a(inputs).sum(dim=1)

    monkeypatch.setattr(module, "Line", Rocks)
    torch.manual_seed(1)
    inputs = torch.randn(50, 4)
    play(sim, *(
        lambda name=name: module.take_part(sim.participant(name).join(SEGMENT), inputs, inputs.sum(dim=1), rounds=2)
        for name in ("rover-1", "rover-2")
    ))  # fmt: skip
    assert sim.segment.model != sha256(sim.initial.to_bytes())
    assert {each.update.weight for each in sim.segment.rounds[2].admissions.values()} == {50}


def test_the_torch_example_learns_its_line() -> None:
    torch = pytest.importorskip("torch")
    module = example("train_torch")
    model, (inputs, outputs) = module.Line(), module.examples_of("rover-1")
    losses = [module.train(model, inputs, outputs) for _ in range(5)]
    assert losses[-1] < losses[0] / 20
    assert {name: tuple(each.shape) for name, each in model.state_dict().items()} == {"weight": (16,), "bias": (1,)}
    assert torch.equal(module.examples_of("rover-1")[0], inputs)


@pytest.mark.parametrize("name", ["flower_numpy_client", "train_torch"])
def test_each_example_has_a_help(name: str) -> None:
    if name == "train_torch":
        pytest.importorskip("torch")
    ended = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), "--help"], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "--profile" in ended.stdout


FLOWER = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
import numpy as np
from flwr.client import NumPyClient
from flower_numpy_client import take_part

class Mine(NumPyClient):
    def fit(self, parameters, config):
        return [parameters[0] + config["server_round"]], 7, {{}}
    def evaluate(self, parameters, config):
        return 0.25, 7, {{}}

class Model:
    def arrays(self):
        return [np.zeros(3, np.float32)]

class Training:
    number, model, index = 2, Model(), 5
    def submit(self, parameters, *, num_samples):
        print("submitted", parameters[0].tolist(), num_samples)
        return self

class Membership:
    def rounds(self):
        yield Training()

take_part(Mine(), Membership())
"""


def test_a_class_of_the_real_flower_fits_the_adapter() -> None:
    python = Path(os.environ.get(PEERS, "")) / "flwr" / "bin" / "python"
    if PEERS not in os.environ or not python.exists():
        pytest.skip(f"no Flower in {PEERS}/flwr")
    ended = subprocess.run(
        [str(python), "-c", FLOWER], capture_output=True, text=True, check=False, timeout=120,
        env={**os.environ, "FLWR_TELEMETRY_ENABLED": "0"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "submitted [2.0, 2.0, 2.0] 7" in ended.stdout
    assert "round 2: loss 0.2500, entry 5" in ended.stdout
