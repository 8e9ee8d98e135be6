"""ByzFL's rules, in floating point, beside ours on the same inputs: the largest difference in grid units.

ByzFL (Gonzalez and others 2025) is looked for in the environment `byzfl` under the folder that SFRL_PEERS names. Ours
round once, to the nearest grid unit, so that half a unit is all that may lie between.

One definition differs. Krum scores an update by its n - f - 2 nearest others (Blanchard and others 2017), and so do
ours; ByzFL 0.0.11 takes n - f - 1. For the comparison ours are told of one liar less, which makes the two counts equal,
and multi-Krum of as many to select as ByzFL does.

Runs in: a developer's machine.
Trusts: ByzFL, to be what it says.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.robustness import plain_rules
from benchmarks.robustness.rows import liars_ppm
from sfrl_secure.aggregation.combined import Combining
from sfrl_secure.aggregation.contribution import held
from sfrl_secure.aggregation.rules import combine_by
from sfrl_secure.governance.aggregation_terms import MEDIAN, MULTI_KRUM, NNM_TRIMMED_MEAN, RuleTerms
from sfrl_secure.ids import sha256
from sfrl_secure.sparse.update import UpdatePart

PEERS = "SFRL_PEERS"
COHORTS, UPDATES, COORDINATES, LIARS = 6, 20, 2_000, 4
_SCRIPT = Path(__file__).parent / "inside" / "byzfl_rules.py"
_TIMEOUT_SECONDS = 120.0

Table = NDArray[np.int64]


def byzfl_python() -> Path | None:
    """The interpreter of ByzFL's environment; None where there is none."""
    folder = os.environ.get(PEERS)
    python = Path(folder) / "byzfl" / "bin" / "python" if folder else None
    return python if python is not None and python.is_file() else None


def differences(python: Path) -> dict[str, float]:
    """Each rule's largest difference over some cohorts, in grid units.

    Raises:
        subprocess.SubprocessError: ByzFL could not be run.
    """
    cohorts = [_cohort(number) for number in range(COHORTS)]
    with tempfile.TemporaryDirectory(prefix="byzfl-") as made:
        inputs, outputs = Path(made) / "inputs.npz", Path(made) / "outputs.npz"
        np.savez(inputs, liars=LIARS, **{str(number): table.astype(np.float64) for number, table in enumerate(cohorts)})
        subprocess.run([python, _SCRIPT, inputs, outputs], check=True, capture_output=True, timeout=_TIMEOUT_SECONDS)
        found: dict[str, float] = {}
        with np.load(outputs, allow_pickle=False) as theirs:
            for number, table in enumerate(cohorts):
                for rule, step in _steps(table).items():
                    difference = float(np.abs(theirs[f"{rule}/{number}"] - step).max())
                    found[rule] = max(found.get(rule, 0.0), round(difference, 6))
    return found


def _cohort(number: int) -> Table:
    """Updates that differ in length and direction, in blocks of int8 with shared scales, with zeros."""
    rng = np.random.default_rng([number, 7])
    lengths = 2.0 ** rng.uniform(4.0, 14.0, UPDATES)
    values = (rng.normal(0.0, 1.0, (UPDATES, COORDINATES)) + rng.normal(0.0, 1.0, COORDINATES)) * lengths[:, np.newaxis]
    scales = 2.0 ** rng.integers(0, 6, (UPDATES, COORDINATES // 40)).repeat(40, axis=1)
    table = (np.clip(np.rint(values / scales), -127, 127) * scales).astype(np.int64)
    if number % 2:
        table[rng.random(table.shape) < 0.5] = 0
    return table


def _steps(table: Table) -> dict[str, Table]:
    count = len(table)
    cohort = [held(sha256(b"%d" % row), 1, UpdatePart(slice(0, COORDINATES), values))
              for row, values in enumerate(table)]
    rules = {
        "nnm_trimmed_mean": RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=liars_ppm(LIARS, count)),
        "median": RuleTerms(MEDIAN),
        "krum": RuleTerms(MULTI_KRUM, liars_ppm=liars_ppm(LIARS - 1, count)),
        "multi_krum": RuleTerms(MULTI_KRUM, liars_ppm=liars_ppm(LIARS - 1, count),
                                selected_ppm=liars_ppm(count - LIARS, count)),
    }  # fmt: skip
    steps = {"trimmed_mean": plain_rules.trimmed_mean(table, LIARS)}
    for name, rule in rules.items():
        step = combine_by(Combining(COORDINATES, rule), cohort).step
        steps[name] = np.zeros(COORDINATES, dtype=np.int64)
        steps[name][step.at] = step.values
    return steps
