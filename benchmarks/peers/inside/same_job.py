"""What every peer's client does with a model: note the moment, add seeded noise, give it back.

Runs in: a peer's own environment, which has numpy and nothing of sfrl-secure; our participants use it too.
Trusts: the job's file, named by SFRL_BENCHMARK_JOB.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np


def read_job() -> dict[str, Any]:
    """The job, and what this run adds to it."""
    found: dict[str, Any] = json.loads(Path(os.environ["SFRL_BENCHMARK_JOB"]).read_text())
    return found


def first_model(job: dict[str, Any]) -> np.ndarray:
    """The model before round 1."""
    return np.random.default_rng(job["seed"]).standard_normal(job["parameters"], dtype=np.float32)


class Trainer:
    """One client."""

    def __init__(self, job: dict[str, Any], client: int) -> None:
        """Begin with no round."""
        self._stamps = Path(job["stamps"]) / f"client-{client}.stamps"
        self._seed = [job["seed"], client]
        self._round = len(self._stamps.read_text().splitlines()) if self._stamps.exists() else 0

    def stamp(self) -> None:
        """Note that a round's model is in hand."""
        self._round += 1
        with self._stamps.open("a") as stamps:
            stamps.write(f"{self._round} {time.monotonic():.6f}\n")

    def train(self, model: np.ndarray) -> np.ndarray:
        """Take a round's model; give it back with noise."""
        self.stamp()
        noise = np.random.default_rng([*self._seed, self._round]).standard_normal(model.size, dtype=np.float32)
        noise *= np.float32(1e-3)
        noise += model
        return noise
