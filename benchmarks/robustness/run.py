"""`python -m benchmarks robustness`: what liars among the participants leave of a model, under each rule.

Twenty participants learn; 10, 20 or 30 % of them lie, with full knowledge of the others (`attacks`). Each rule of the
library, and the bare trimmed mean that it does not offer, over dense updates, each participant's own largest
coordinates, and a sparsity mask of all, without and with a clip to the median norm. Figures are mean recalls over three
seeds; a cell is an attack in its strongest strength (`plan`).

The robust default is NNM + trimmed mean. Its bars at 20 %: without a clip its worst attack leaves 10 points more than
the mean's and 5 more than the bare trimmed mean's; with the clip at most 6 less than the mean of the same support has
when nobody lies. `gap` is what is missing to that, with the attack that takes it.

Tables go to standard error, and with `--dir` into `robustness.md` and `robustness.svg` there. The data are looked for
in the folder that SFRL_DATA names, ByzFL in the environment `byzfl` under the folder that SFRL_PEERS names;
`byzfl_difference_units` is null where it is not there.

Runs in: a developer's machine.
Trusts: the data.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Bar
from benchmarks.robustness.attacks import ATTACKS
from benchmarks.robustness.byzfl import byzfl_python, differences
from benchmarks.robustness.federation import ROUNDS
from benchmarks.robustness.figure import figure_of
from benchmarks.robustness.plain_rules import TRIMMED_MEAN
from benchmarks.robustness.plan import (
    LIARS,
    SEEDS,
    Line,
    Wanted,
    changed_rows,
    data_folder,
    lines_of,
    main_rows,
    other_rows,
    quick_rows,
    strengths_of,
)
from benchmarks.robustness.tables import lines_json, tables_text
from benchmarks.robustness.tasks import PARTICIPANTS, TASKS
from sfrl_secure.governance.aggregation_terms import NNM_TRIMMED_MEAN, WEIGHTED_MEAN

MEAN_LEAD_MIN, TRIMMED_LEAD_MIN, GAP_MAX = 0.10, 0.05, 0.06
QUICK_STRENGTHS = {"none": (1.0,), "alie_against": (1.0,), "ipm": (2.0, 10.0), "min_max": (1.0,)}
HARD_ATTACKS = ("none", "alie_against", "ipm", "min_max", "rare_indices", "one_head")


def run(*, quick: bool, folder: Path | None = None) -> dict[str, Any]:
    """Run the benchmark; give its figures.

    Args:
        folder: where tables and figure are written; nowhere by default.
    """
    began = time.monotonic()
    errors: dict[str, str] = {}
    lines: list[Line] = []
    seeds = SEEDS[:1] if quick else SEEDS
    try:
        lines = lines_of(_wanted(quick), seeds, ROUNDS, len(os.sched_getaffinity(0)))
    except OSError:
        errors["data"] = f"the data sets are not in {data_folder()}: name their folder in SFRL_DATA"
    found: dict[str, float] | None = None
    python = byzfl_python()
    if python is not None:
        try:
            found = differences(python)
        except subprocess.SubprocessError as error:
            errors["byzfl"] = type(error).__name__
    main = [line for line in lines if line.liars == LIARS and not line.row.change]
    bars = bars_of(main)
    print(tables_text(lines), file=sys.stderr)
    if folder is not None and lines:
        (folder / "robustness.md").write_text(tables_text(lines), encoding="utf-8")
        title = f"{LIARS} of {PARTICIPANTS} participants lie: what each attack leaves"
        (folder / "robustness.svg").write_text(figure_of(main, title), encoding="utf-8")
    return {
        "benchmark": "robustness", "quick": quick, "participants": PARTICIPANTS, "liars": LIARS, "rounds": ROUNDS,
        "seeds": list(seeds), "bars_hold": bool(bars) and all(bar.holds for bar in bars.values()),
        "bars": {name: bar.to_json() for name, bar in bars.items()}, "gaps": gaps_of(main),
        "byzfl_difference_units": None if found is None else max(found.values()), "byzfl": found,
        "lines": lines_json(lines), "seconds": round(time.monotonic() - began, 1), "errors": errors,
    }  # fmt: skip


def bars_of(lines: Sequence[Line]) -> dict[str, Bar]:
    """The bars of the robust default, by task and support."""
    found = _by_row(lines)
    bars = {}
    for task, support in dict.fromkeys((line.task, line.row.support) for line in lines):
        rows = {(rule, gated): found.get((task, support, rule, gated)) for rule in
                (WEIGHTED_MEAN, TRIMMED_MEAN, NNM_TRIMMED_MEAN) for gated in (False, True)}
        mean, trimmed = rows[WEIGHTED_MEAN, False], rows[TRIMMED_MEAN, False]
        default, gated = rows[NNM_TRIMMED_MEAN, False], rows[NNM_TRIMMED_MEAN, True]
        if mean is None or trimmed is None or default is None or gated is None:
            continue
        name = f"{task}/{support}"
        bars[f"{name}/lead_over_mean"] = Bar(
            _points(_least(default) - _least(mean)), MEAN_LEAD_MIN, "worst attack, no clip: default less mean")
        bars[f"{name}/lead_over_trimmed_mean"] = Bar(
            _points(_least(default) - _least(trimmed)), TRIMMED_LEAD_MIN,
            "worst attack, no clip: default less bare trimmed mean")
        bars[f"{name}/gap"] = Bar(
            _points(mean.cells["none"].mean - _least(gated)), GAP_MAX,
            "mean without liars less the clipped default's worst attack", at_most=True)
    return bars


def gaps_of(lines: Sequence[Line]) -> dict[str, dict[str, object]]:
    """What is left open with the clip: the attack that takes most, from the default and from the best rule."""
    found = _by_row(lines)
    gaps: dict[str, dict[str, object]] = {}
    for task, support in dict.fromkeys((line.task, line.row.support) for line in lines):
        mean = found.get((task, support, WEIGHTED_MEAN, False))
        gated = [line for key, line in found.items() if key[:2] == (task, support) and key[3]]
        default = found.get((task, support, NNM_TRIMMED_MEAN, True))
        if mean is None or default is None:
            continue
        best = max(gated, key=_least)
        gaps[f"{task}/{support}"] = {
            "attack": default.worst, "points": _points(mean.cells["none"].mean - _least(default)),
            "best_rule": best.row.label, "best_rule_attack": best.worst,
            "best_rule_points": _points(mean.cells["none"].mean - _least(best)),
        }  # fmt: skip
    return gaps


def _by_row(lines: Sequence[Line]) -> Mapping[tuple[str, str, str, bool], Line]:
    return {(line.task, line.row.support, line.row.rule, line.row.clip is not None): line for line in lines}


def _least(line: Line) -> float:
    return line.cells[line.worst].mean


def _points(share: float) -> float:
    return round(share, 4)


def _wanted(quick: bool) -> list[Wanted]:
    if quick:
        return [(task, LIARS, row, QUICK_STRENGTHS) for task in TASKS for row in quick_rows()]
    main = [(LIARS, row, HARD_ATTACKS if row.support == "agreed" else tuple(ATTACKS)) for row in main_rows()]
    others = [(liars, row, HARD_ATTACKS) for liars, row in [*other_rows(), *((LIARS, row) for row in changed_rows())]]
    return [(task, liars, row, strengths_of(row, attacks)) for task in TASKS for liars, row, attacks in main + others]
