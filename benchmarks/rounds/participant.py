"""A participant of the round benchmark: fetches each round's model through the SDK and returns it with noise.

    python -m benchmarks.rounds.participant CONFIG NUMBER

What a sparse update changes is drawn before the first round; encoding and signing belong to the round.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.inside.same_job import Trainer
from sfrl_secure.participant.sdk import Participant


@dataclass(frozen=True, slots=True)
class Drawn:
    """What one sparse update changes."""

    indices: NDArray[np.int64]
    values: NDArray[np.float32]


def draw(job: dict[str, Any], number: int) -> list[Drawn]:
    """Draw every round's sparse update."""
    rng = np.random.default_rng([job["seed"], number])
    found = []
    for _ in range(job["rounds"]):
        indices = np.sort(rng.choice(job["parameters"], job["nonzeros"], replace=False)).astype(np.int64)
        found.append(Drawn(indices, rng.standard_normal(indices.size, dtype=np.float32) * np.float32(1e-3)))
    return found


def main() -> None:
    """Take part in all rounds."""
    job, number = json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])
    trainer = Trainer(job, number)
    drawn = draw(job, number) if job["kind"] == "sparse" else []
    with Participant.from_profile(Path(job["profile"])) as participant:
        membership = participant.join(job["segment"])
        for done, training in enumerate(membership.rounds()):
            model = training.fetch()
            if drawn:
                trainer.stamp()
                participant.submit(training.opened, drawn[done].indices, drawn[done].values, 1)
            else:
                training.submit(trainer.train(model.vector()), num_samples=1)
            if done + 1 == job["rounds"]:
                break


if __name__ == "__main__":
    main()
