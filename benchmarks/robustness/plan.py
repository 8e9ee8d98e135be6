"""What is run, and what the tables are made of.

A row's cell is one attack in its strongest strength: on the first seed every attack is tried in every strength. The
other seeds run the three attacks that left least there, each in the strength that did, and no attack at all; a cell of
another attack has one seed and no spread. Rounds, rates, densities, momentum, how many liars a rule is told of and the
strengths themselves were chosen on other seeds, which no table reports: from 1,001 up, and 1 to 3, on which an earlier
choice had fallen to an attack that it was not chosen against.

Runs in: a developer's machine.
Trusts: its caller.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean

from benchmarks.robustness.attacks import ATTACKS
from benchmarks.robustness.federation import ROUNDS, Scene, run
from benchmarks.robustness.plain_rules import TRIMMED_MEAN
from benchmarks.robustness.rows import MEDIAN_CLIP, Row, bare
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
TOLD = 8
"""What terms say that may lie, 40 %: twice what does, because lies that only lean one way are trimmed less."""
HARDEST = 3
"""Attacks of a row that every seed runs."""
SERVER_MOMENTUM = MomentumTerms(decay=58_982, rate=13_107)
"""0.9, and a tenth of the rate that the rows without it have: one update moves the model as far in the end."""
FIXED_NORM = 250_000
"""About the median norm over all rounds without liars: long updates come early, short ones late."""
CAP = CapTerms(contributors_below=LIARS + 1, magnitude=4_096)
"""So few may all be liars; and about the largest step that a mean of all takes."""
SEEDS = (11, 12, 13)
HARD_ATTACKS = ("none", "alie", "ipm", "min_max", "tries", "roll_back", "outvote", "one_head", "free_rider")
LONG_ATTACKS = ("none", "ipm", "one_head")
CHANGE_ATTACKS = ("none", "alie", "ipm", "min_max", "roll_back", "outvote", "one_head", "free_rider")


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
        """The attack that leaves least, of those that every seed ran."""
        seeds = len(self.cells["none"].metrics)
        tried = [name for name, cell in self.cells.items() if name != "none" and len(cell.metrics) == seeds]
        return min(tried, key=lambda name: self.cells[name].mean)


Strengths = Mapping[str, Sequence[float]]
"""Of each attack, those that are tried."""
Wanted = tuple[str, int, Row, Strengths]
"""A line to be: task, liars, row, attacks."""


def strengths_of(row: Row, attacks: Iterable[str]) -> Strengths:
    """All strengths of some attacks, as they are worth trying on a row.

    To outvote the others where they are few, others must be few somewhere.
    """
    return {name: ATTACKS[name].strengths if row.clip is None else ATTACKS[name].gated
            for name in attacks if row.support == "free" or name != "outvote"}


def main_rows() -> list[Row]:
    """Every rule of the library with the norm gate; without it, and bare, those that the bars compare.

    Where all carry the same coordinates the union mean is the mean. A trimmed mean is told what it does better with:
    where few carry a coordinate, 40 % from both ends leave next to nothing of it.
    """
    rows = []
    for support in ("dense", "free", "agreed"):
        trimmed = LIARS if support == "free" else TOLD
        rows += [bare(WEIGHTED_MEAN, support), bare(TRIMMED_MEAN, support, trimmed)]
        rows += [Row(WEIGHTED_MEAN, support), Row(TRIMMED_MEAN, support, told=trimmed)]
        rows.append(Row(NNM_TRIMMED_MEAN, support, told=TOLD))
        rules = [WEIGHTED_MEAN, NNM_TRIMMED_MEAN]
        if support != "agreed":
            rules += [MULTI_KRUM, MEDIAN]
        if support == "free":
            rules.append(UNION_MEAN)
        rows += [Row(rule, support, MEDIAN_CLIP, told=TOLD) for rule in rules]
    return rows


def attacks_on(row: Row) -> tuple[str, ...]:
    """The attacks that are worth their time.

    A mean without a clip is lost to any long lie, so that few are shown. What no bar over dense or free supports
    compares has those that left least on the seeds from 1,001 up.
    """
    if row.rule == WEIGHTED_MEAN and row.clip is None:
        return LONG_ATTACKS
    if row.rule in (MULTI_KRUM, MEDIAN):
        return CHANGE_ATTACKS
    is_compared = row.rule in (TRIMMED_MEAN, NNM_TRIMMED_MEAN) and row.support != "agreed"
    return tuple(ATTACKS) if is_compared else HARD_ATTACKS


def quick_rows() -> list[Row]:
    """What the bars of dense updates need."""
    rules = (WEIGHTED_MEAN, TRIMMED_MEAN, NNM_TRIMMED_MEAN)
    alone = [bare(rule, "dense", TOLD) for rule in (WEIGHTED_MEAN, TRIMMED_MEAN)]
    return [*alone, *(Row(rule, told=TOLD) for rule in rules), _default("dense")]


def other_rows() -> list[tuple[int, Row]]:
    """Fewer liars and more."""
    return [(liars, _default(support)) for liars in OTHER_LIARS for support in ("dense", "free")]


def _default(support: str) -> Row:
    return Row(NNM_TRIMMED_MEAN, support, MEDIAN_CLIP, told=TOLD)


def changed_rows() -> list[Row]:
    """The robust default with one thing changed, to see what it is worth."""
    dense, free = _default("dense"), _default("free")
    return [
        replace(dense, participant_momentum=0.9, change="participants' momentum"),
        replace(dense, server=SERVER_MOMENTUM, change="server momentum"),
        replace(dense, clip=ClipTerms(norm=FIXED_NORM), change="a fixed norm"),
        replace(dense, told=LIARS, change="told of 4 liars"),
        replace(free, told=LIARS, change="told of 4 liars"),
        replace(dense, told=6, change="told of 6 liars"),
        replace(dense, server_top=0.1, change="server top 10 %"),
        Row(UNION_MEAN, "free", MEDIAN_CLIP, cap=CAP, change="cap where at most 4 carry"),
    ]


Runner = Callable[[Sequence[Trial]], Sequence[float]]
"""Runs trials, and gives their metrics in the same order."""


def lines_of(wanted: Sequence[Wanted], seeds: Sequence[int], run_trials: Runner) -> list[Line]:
    """Run what is needed, and give the lines."""
    first = [
        Trial(task, liars, row, attack, strength, seeds[0])
        for task, liars, row, attacks in wanted for attack, strengths in attacks.items() for strength in strengths
    ]  # fmt: skip
    found = dict(zip(first, run_trials(first), strict=True))
    lines: list[tuple[Wanted, dict[str, Trial]]] = []
    again: list[Trial] = []
    for line in wanted:
        task, liars, row, attacks = line
        strongest = {
            attack: min((Trial(task, liars, row, attack, strength, seeds[0]) for strength in strengths),
                        key=lambda trial: found[trial])
            for attack, strengths in attacks.items()
        }  # fmt: skip
        hardest = sorted((name for name in strongest if name != "none"), key=lambda name: found[strongest[name]])
        kept = [name for name in strongest if name == "none" or name in hardest[:HARDEST]]
        again += [replace(strongest[name], seed=seed) for name in kept for seed in seeds[1:]]
        lines.append((line, strongest))
    found |= dict(zip(again, run_trials(again), strict=True))
    return [Line(task, liars, row, {name: _cell(trial, seeds, found) for name, trial in strongest.items()})
            for (task, liars, row, _), strongest in lines]


def _cell(trial: Trial, seeds: Sequence[int], found: Mapping[Trial, float]) -> Cell:
    trials = [replace(trial, seed=seed) for seed in seeds]
    return Cell(tuple(found[each] for each in trials if each in found), trial.strength)


def in_processes(trials: Sequence[Trial]) -> list[float]:
    """Run trials, one on each CPU that this process may use, each on one thread."""
    for library in ("OPENBLAS", "OMP", "MKL"):
        os.environ[f"{library}_NUM_THREADS"] = "1"
    # Not forked: a child of a process that computes on several threads inherits their locks.
    found = []
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        for number, metric in enumerate(pool.map(run_trial, trials, chunksize=4), 1):
            found.append(metric)
            if number % 100 == 0:
                print(f"{number} of {len(trials)} trainings", file=sys.stderr)
    return found


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
