"""What is run, and what the tables are made of.

A row's cell is one attack in its strongest strength: on the first seed every strength is tried, and the one that left
least is what the other seeds run. Rounds, rates, densities and the strengths themselves were chosen on seeds from 1,001
up, which no table reports.

Runs in: a developer's machine.
Trusts: its caller.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

from benchmarks.robustness.attacks import ATTACKS
from benchmarks.robustness.federation import ROUNDS, Scene, run
from benchmarks.robustness.plain_rules import TRIMMED_MEAN
from benchmarks.robustness.rows import MEDIAN_CLIP, Row
from benchmarks.robustness.tasks import Task, load_tasks
from sfrl_secure.governance.aggregation_terms import (
    MEDIAN,
    MULTI_KRUM,
    NNM_TRIMMED_MEAN,
    UNION_MEAN,
    WEIGHTED_MEAN,
    CapTerms,
    ClipTerms,
    MomentumTerms,
)

LIARS = 4
"""20 % of the participants."""
OTHER_LIARS = (2, 6)
SERVER_MOMENTUM = MomentumTerms(decay=58_982, rate=13_107)
"""0.9, and a tenth of the rate that the rows without it have: one update moves the model as far in the end."""
TRIPLE_RATE = MomentumTerms(decay=0, rate=196_608)
FIXED_NORM = 250_000
"""About the median norm over all rounds without liars: long updates come early, short ones late."""
CAP = CapTerms(contributors_below=LIARS + 1, magnitude=4_096)
"""So few may all be liars; and about the largest step that a mean of all takes."""
SEEDS = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Trial:
    """One training."""

    task: str
    liars: int
    row: Row
    attack: str
    strength: float
    seed: int
    rounds: int = ROUNDS


@dataclass(frozen=True, slots=True)
class Cell:
    """What an attack leaves of a row.

    Attributes:
        metrics: of each seed, the mean of the classes' recalls.
        strength: of the attack, the strongest that was tried.
    """

    metrics: tuple[float, ...]
    strength: float

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.metrics)


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a table with its cells, by attack."""

    task: str
    liars: int
    row: Row
    cells: dict[str, Cell]

    @property
    def worst(self) -> str:
        """The attack that leaves least."""
        return min((name for name in self.cells if name != "none"), key=lambda name: self.cells[name].mean)


Strengths = Mapping[str, Sequence[float]]
"""Of each attack, those that are tried."""
Wanted = tuple[str, int, Row, Strengths]
"""A line to be: task, liars, row, attacks."""


def strengths_of(row: Row, attacks: Iterable[str]) -> Strengths:
    """All strengths of some attacks, as they are worth trying on a row."""
    return {name: ATTACKS[name].strengths if row.clip is None else ATTACKS[name].gated for name in attacks}


def main_rows() -> list[Row]:
    """Every rule over every support, with and without the norm gate.

    Where all carry the same coordinates the union mean is the mean.
    """
    rows = []
    for clip in (None, MEDIAN_CLIP):
        for support in ("dense", "free", "agreed"):
            rules = [WEIGHTED_MEAN, TRIMMED_MEAN, NNM_TRIMMED_MEAN]
            if support != "agreed":
                rules += [MULTI_KRUM, MEDIAN]
            if support == "free":
                rules.append(UNION_MEAN)
            rows += [Row(rule, support, clip) for rule in rules]
    return rows


def quick_rows() -> list[Row]:
    """What the bars of dense updates need."""
    rules = (WEIGHTED_MEAN, TRIMMED_MEAN, NNM_TRIMMED_MEAN)
    return [*(Row(rule) for rule in rules), Row(NNM_TRIMMED_MEAN, clip=MEDIAN_CLIP)]


def other_rows() -> list[tuple[int, Row]]:
    """Fewer liars and more."""
    return [
        (liars, Row(rule, support, MEDIAN_CLIP))
        for liars in OTHER_LIARS for support in ("dense", "free") for rule in (WEIGHTED_MEAN, NNM_TRIMMED_MEAN)
    ]  # fmt: skip


def changed_rows() -> list[Row]:
    """The robust default with one thing changed, to see what it is worth."""
    dense, free = (Row(NNM_TRIMMED_MEAN, support, MEDIAN_CLIP) for support in ("dense", "free"))
    return [
        replace(dense, participant_momentum=0.0, change="no momentum"),
        replace(dense, participant_momentum=0.0, server=SERVER_MOMENTUM, change="server momentum instead"),
        replace(dense, clip=ClipTerms(norm=FIXED_NORM), change="a fixed norm"),
        replace(dense, server=None, change="server rate 1"),
        replace(dense, server=TRIPLE_RATE, change="server rate 3"),
        replace(dense, told=6, change="told of 6 liars"),
        replace(dense, server_top=0.1, change="server top 10 %"),
        replace(free, cap=CAP, change="cap where at most 4 carry"),
        Row(UNION_MEAN, "free", MEDIAN_CLIP, cap=CAP, change="cap where at most 4 carry"),
    ]


def lines_of(wanted: Sequence[Wanted], seeds: Sequence[int], rounds: int, processes: int) -> list[Line]:
    """Run all, and give the lines.

    Args:
        processes: that run at a time, each on one thread.
    """
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    first = [
        Trial(task, liars, row, attack, strength, seeds[0], rounds)
        for task, liars, row, attacks in wanted for attack, strengths in attacks.items() for strength in strengths
    ]  # fmt: skip
    # Not forked: a child of a process that computes on several threads inherits their locks.
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = dict(zip(first, pool.map(run_trial, first, chunksize=4), strict=True))
        strongest: dict[tuple[str, int, Row, str], Trial] = {}
        for trial in first:
            key = (trial.task, trial.liars, trial.row, trial.attack)
            if key not in strongest or found[trial] < found[strongest[key]]:
                strongest[key] = trial
        others = [replace(trial, seed=seed) for trial in strongest.values() for seed in seeds[1:]]
        found |= dict(zip(others, pool.map(run_trial, others, chunksize=4), strict=True))
    lines = []
    for task, liars, row, attacks in wanted:
        cells = {}
        for attack in attacks:
            trial = strongest[(task, liars, row, attack)]
            metrics = tuple(found[replace(trial, seed=seed)] for seed in seeds)
            cells[attack] = Cell(metrics, trial.strength)
        lines.append(Line(task, liars, row, cells))
    return lines


def run_trial(trial: Trial) -> float:
    """Run one training; give its metric."""
    scene = _scene(trial.task, trial.seed, trial.liars, trial.rounds)
    return run(scene, trial.row, trial.attack, trial.strength)


@lru_cache(maxsize=12)
def _scene(task: str, seed: int, liars: int, rounds: int) -> Scene:
    return Scene(_tasks()[task], seed, liars, rounds)


@lru_cache(maxsize=1)
def _tasks() -> dict[str, Task]:
    return {task.name: task for task in load_tasks(data_folder())}


def data_folder() -> Path:
    """Where the data sets are: `SFRL_DATA`, or `shared/data` beside the checkout."""
    given = os.environ.get("SFRL_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[3] / "shared" / "data"
