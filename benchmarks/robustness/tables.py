"""The lines of a run as tables in Markdown, and as what is printed in JSON.

Runs in: a developer's machine.
Trusts: its caller.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.robustness.plan import Cell, Line
from benchmarks.robustness.rows import RULE_NAMES


def tables_text(lines: Sequence[Line]) -> str:
    """One table for each task and share of liars: percent, the spread of the seeds behind it; the worst in bold."""
    text = []
    for task, liars in dict.fromkeys((line.task, line.liars) for line in lines):
        own = [line for line in lines if (line.task, line.liars) == (task, liars)]
        attacks = list(dict.fromkeys(name for line in own for name in line.cells))
        text.append(f"**{task}, {liars} liars of 20**\n")
        text.append("| support, rule | " + " | ".join(name.replace("_", " ") for name in attacks) + " |")
        text.append("| --- |" + " --- |" * len(attacks))
        for line in own:
            cells = [_cell(line.cells.get(name), is_worst=name == line.worst) for name in attacks]
            text.append(f"| {line.row.label} | " + " | ".join(cells) + " |")
        text.append("")
    return "\n".join(text)


def _cell(cell: Cell | None, *, is_worst: bool) -> str:
    if cell is None:
        return ""
    if len(cell.metrics) == 1:
        return f"**{100 * cell.mean:.1f}**" if is_worst else f"{100 * cell.mean:.1f}"
    spread = (max(cell.metrics) - min(cell.metrics)) / 2
    shown = f"{100 * cell.mean:.1f}"
    return f"**{shown}** ±{100 * spread:.1f}" if is_worst else f"{shown} ±{100 * spread:.1f}"


def lines_json(lines: Sequence[Line]) -> list[dict[str, object]]:
    """What is printed of each line."""
    return [
        {
            "task": line.task, "liars": line.liars, "support": line.row.support, "rule": RULE_NAMES[line.row.rule],
            "bare": line.row.is_bare, "gate": line.row.clip is not None, "told": max(line.liars, line.row.told),
            "change": line.row.change, "worst": line.worst,
            "attacks": {
                name: {"mean": round(cell.mean, 4), "low": round(min(cell.metrics), 4),
                       "high": round(max(cell.metrics), 4), "seeds": len(cell.metrics),
                       "strength": cell.strength}
                for name, cell in line.cells.items()
            },
        }
        for line in lines
    ]  # fmt: skip
