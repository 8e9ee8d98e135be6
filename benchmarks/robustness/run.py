"""`python -m benchmarks robustness`: what liars among the participants leave of a model, under each rule.

Twenty participants learn; 10, 20 or 30 % of them lie, with full knowledge of the others (`attacks`). Each rule of the
library, and a trimmed mean that it does not offer, over dense updates, each participant's own largest coordinates, and
a sparsity mask of all, without and with a clip to the median norm. Figures are mean recalls over three seeds; a cell is
an attack in its strongest strength (`plan`).

The robust default is NNM + trimmed mean at server rate 2, behind a clip, told that 40 % may lie. A trimmed mean is told
the same, or the truth where that serves it better (`plan.main_rows`). The default's bars at 20 %: without the clip its
worst attack leaves 10 points more than the mean's and 5 more than the trimmed mean's; with it at most 6 less than a
mean has when nobody lies.

The server rate is a part of what the default brings, so that each lead stands twice: `lead_over_bare_mean` and
`lead_over_bare_trimmed_mean` over the rule alone, at server rate 1; `lead_over_mean` and `lead_over_trimmed_mean` over
the same rule with the default's rate, which is what mixing alone is worth. Both have the same bar. `gap` counts from
the better of the two means that nobody attacks.

Tables go to standard error, and with `--dir` into `robustness.md` and `robustness.svg` there. The data are looked for
in the folder that SFRL_DATA names, ByzFL in the environment `byzfl` under the folder that SFRL_PEERS names;
`byzfl_difference_units` is null where it is not there.

Runs in: a developer's machine.
Trusts: the data.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import Bar
from benchmarks.robustness.byzfl import byzfl_python, differences
from benchmarks.robustness.federation import ROUNDS
from benchmarks.robustness.figure import figure_of
from benchmarks.robustness.plain_rules import TRIMMED_MEAN
from benchmarks.robustness.plan import (
    CHANGE_ATTACKS,
    LIARS,
    SEEDS,
    Line,
    Wanted,
    attacks_on,
    changed_rows,
    data_folder,
    in_processes,
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
QUICK_STRENGTHS = {"none": (1.0,), "ipm": (2.0, 10.0), "min_max": (1.0,), "roll_back": (1.0,)}


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
        lines = lines_of(wanted_lines(quick), seeds, in_processes)
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
        title = f"{LIARS} of {PARTICIPANTS} participants lie: what the worst attack leaves of the model"
        (folder / "robustness.svg").write_text(figure_of(main, title, GAP_MAX), encoding="utf-8")
    return {
        "benchmark": "robustness", "quick": quick, "participants": PARTICIPANTS, "liars": LIARS, "rounds": ROUNDS,
        "seeds": list(seeds), "bars_hold": bool(bars) and all(bar.holds for bar in bars.values()),
        "bars": {name: bar.to_json() for name, bar in bars.items()}, "gaps": gaps_of(main),
        "byzfl_difference_units": None if found is None else max(found.values()), "byzfl": found,
        "lines": lines_json(lines), "seconds": round(time.monotonic() - began, 1), "errors": errors,
    }  # fmt: skip


def bars_of(lines: Sequence[Line]) -> dict[str, Bar]:
    """The bars of the robust default, by task and support."""
    bars = {}
    for task, support, found in _groups(lines):
        default, gated = found.get(NNM_TRIMMED_MEAN), found.get(f"{NNM_TRIMMED_MEAN} clip")
        if default is None or gated is None:
            continue
        name = f"{task}/{support}"
        for rule, words, least in ((WEIGHTED_MEAN, "mean", MEAN_LEAD_MIN),
                                   (TRIMMED_MEAN, "trimmed_mean", TRIMMED_LEAD_MIN)):  # fmt: skip
            for how in ("", "bare "):
                other = found.get(f"{how}{rule}")
                if other is not None:
                    bars[f"{name}/lead_over_{how.replace(' ', '_')}{words}"] = Bar(
                        _points(_least(default) - _least(other)), least,
                        f"worst attack, no clip: default less {how}{words.replace('_', ' ')}")
        bars[f"{name}/gap"] = Bar(
            _points(_unattacked(found) - _least(gated)), GAP_MAX,
            "the better mean without liars less the clipped default's worst attack", at_most=True)
    return bars


def gaps_of(lines: Sequence[Line]) -> dict[str, dict[str, object]]:
    """What is left open with the clip: the attack that takes most, from the default and from the best rule."""
    gaps: dict[str, dict[str, object]] = {}
    for task, support, found in _groups(lines):
        default = found.get(f"{NNM_TRIMMED_MEAN} clip")
        if default is None:
            continue
        # Who stood fewer attacks would look better for it.
        stood = [line for line in found.values() if line.row.clip and line.cells.keys() >= default.cells.keys()]
        best, top = max(stood, key=_least), _unattacked(found)
        gaps[f"{task}/{support}"] = {
            "attack": default.worst, "points": _points(top - _least(default)), "best_rule": best.row.label,
            "best_rule_attack": best.worst, "best_rule_points": _points(top - _least(best)),
        }  # fmt: skip
    return gaps


def _groups(lines: Sequence[Line]) -> Iterator[tuple[str, str, Mapping[str, Line]]]:
    """Task, support, and its lines by rule, with what stands before or behind it."""
    for task, support in dict.fromkeys((line.task, line.row.support) for line in lines):
        own = [line for line in lines if (line.task, line.row.support) == (task, support)]
        found = {("bare " if line.row.is_bare else "") + line.row.rule + (" clip" if line.row.clip else ""): line
                 for line in own}
        if WEIGHTED_MEAN in found:
            yield task, support, found


def _unattacked(found: Mapping[str, Line]) -> float:
    means = [found[key] for key in (WEIGHTED_MEAN, f"bare {WEIGHTED_MEAN}") if key in found]
    return max(line.cells["none"].mean for line in means)


def _least(line: Line) -> float:
    return line.cells[line.worst].mean


def _points(share: float) -> float:
    return round(share, 4)


def wanted_lines(quick: bool) -> list[Wanted]:
    """What a run is made of."""
    if quick:
        return [(task, LIARS, row, QUICK_STRENGTHS) for task in TASKS for row in quick_rows()]
    main = [(LIARS, row, attacks_on(row)) for row in main_rows()]
    others = [(liars, row, CHANGE_ATTACKS) for liars, row in [*other_rows(), *((LIARS, row) for row in changed_rows())]]
    return [(task, liars, row, strengths_of(row, attacks)) for task in TASKS for liars, row, attacks in main + others]
