"""The job that every peer of the round benchmark does, and how its rounds are timed.

N clients take the global model, add seeded noise to it and return it whole; the server takes the plain mean. No
training. Each client writes down when it had each round's model in hand; a round lasts from the mean of these moments
over all clients to the mean of the next round's. The first round is not counted.

The clock is CLOCK_MONOTONIC, which all processes of one machine share.

Runs in: a developer's machine.
Trusts: the clients' moments.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean

RESNET18 = 11_173_962
"""Parameters of a ResNet-18 for images of 32 x 32 in ten classes."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is done, by whoever does it.

    Attributes:
        parameters: float32 values of the model.
        rounds: in all; the first and the last are not counted, since the last has no next.
    """

    clients: int = 8
    parameters: int = RESNET18
    rounds: int = 9
    seed: int = 7

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensors of the model: a ResNet-18's where it is one, else two."""
        if self.parameters == RESNET18:
            return resnet18_shapes()
        half = self.parameters // 2
        return {"encoder.weight": (half // 100, 100), "decoder.weight": (self.parameters - half // 100 * 100,)}

    def write(self, path: Path, **more: object) -> None:
        """Write it for the processes that do it."""
        path.write_text(json.dumps(asdict(self) | more))


def resnet18_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of a ResNet-18's trained tensors, in order."""
    found: dict[str, tuple[int, ...]] = {}

    def normalised(name: str, number: int, into: int, outof: int, size: int) -> None:
        found[f"{name}.conv{number}.weight"] = (into, outof, size, size)
        found[f"{name}.bn{number}.weight"] = (into,)
        found[f"{name}.bn{number}.bias"] = (into,)

    normalised("stem", 1, 64, 3, 3)
    before = 64
    for stage, width in enumerate((64, 128, 256, 512), 1):
        for block in (0, 1):
            name = f"layer{stage}.{block}"
            normalised(name, 1, width, before, 3)
            normalised(name, 2, width, width, 3)
            if before != width:
                normalised(f"{name}.shortcut", 0, width, before, 1)
            before = width
    found["linear.weight"] = (10, 512)
    found["linear.bias"] = (10,)
    return found


@dataclass(frozen=True, slots=True)
class RoundTimes:
    """Seconds of each counted round, and the server's memory.

    Attributes:
        rss_mib: highest sum of the resident memory of the server's processes.
    """

    seconds: Sequence[float]
    rss_mib: float


def stamps_path(folder: Path, client: int) -> Path:
    """Where a client writes down its moments: a line a round, its number and the second."""
    return folder / f"client-{client}.stamps"


def read_stamps(path: Path) -> dict[int, float]:
    """A client's moments so far, by round."""
    if not path.exists():
        return {}
    lines = [line.split() for line in path.read_text().splitlines()]
    return {int(number): float(second) for number, second in (line for line in lines if len(line) == 2)}


def round_seconds(stamps: Sequence[dict[int, float]]) -> list[float]:
    """Seconds of each counted round, from all clients' moments.

    Rounds that a client has no moment of are left out: its update came too late for it, or not at all.
    """
    common = sorted(set.intersection(*(set(each) for each in stamps)))
    moments = {number: mean(each[number] for each in stamps) for number in common}
    return [moments[number + 1] - moments[number] for number in common[1:-1] if number + 1 in moments]
