"""How long the trimmed mean of mixed updates takes: a process of its own, with one BLAS thread for each of ours.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.aggregation_nnm FOLDER COUNT REPEATS

reads FOLDER/0.payload and so on, and prints the seconds of each repetition as JSON, by the clock on the wall. What BLAS
does with threads of its own inside of ours only makes them wait for each other.

Runs in: a developer's machine.
Trusts: its arguments.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.aggregation_memory import stored
from sfrl_secure.aggregation.combined import Combining
from sfrl_secure.aggregation.contribution import HeldUpdate, held
from sfrl_secure.aggregation.rules import combine_by
from sfrl_secure.governance.aggregation_terms import NNM_TRIMMED_MEAN, RuleTerms
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.update import UpdatePart

THREADS = 2
LIARS_PPM = 200_000


def nnm_seconds(folder: Path, count: int, repeats: int) -> dict[str, list[float]]:
    """Measure in a fresh process: seconds with one support for all, and with one for each."""
    said = subprocess.run(
        [sys.executable, "-m", "benchmarks.aggregation_nnm", str(folder), str(count), str(repeats)],
        check=True, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1],
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found: dict[str, list[float]] = json.loads(said.stdout)
    return found


def main(folder: Path, count: int, repeats: int) -> dict[str, list[float]]:
    """Decode, and combine again and again."""
    rng = np.random.default_rng(0)
    free, agreed = [], []
    payloads = stored(folder, count)
    coordinates = payloads[0].expected().coordinates
    for number, payload in enumerate(payloads):
        parts = list(payload.parts())
        at = np.concatenate([part.indices for part in parts])
        values = np.concatenate([part.values for part in parts])
        free.append(held(sha256(b"%d" % number), 1, UpdatePart(at, values)))
        # As many as the first support has: what rounded to zero is not in an update.
        shared = free[0].held[0].at
        mixed = rng.permutation(np.resize(values, free[0].nonzeros))
        agreed.append(held(sha256(b"%d" % number), 1, UpdatePart(shared, mixed)))
    return {"agreed": _seconds(agreed, coordinates, repeats), "free": _seconds(free, coordinates, repeats)}


def _seconds(cohort: list[HeldUpdate], coordinates: int, repeats: int) -> list[float]:
    combining = Combining(coordinates, RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=LIARS_PPM))
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        combine_by(combining, cohort, threads=THREADS)
        times.append(round(time.perf_counter() - begun, 4))
    return times


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
