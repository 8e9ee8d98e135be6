"""The tables as one figure: a line for each row, a dot for each attack, the worst one named.

Written as SVG by hand: a few hundred circles need no library.

Runs in: a developer's machine.
Trusts: its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.robustness.plan import Line

ROW, HEAD, LEFT, WIDTH, GAP = 19, 64, 300, 330, 150
COLOURS = {
    "none": "#111111", "alie": "#0072b2", "alie_against": "#000080", "ipm": "#d55e00", "sign_flip": "#009e73",
    "label_flip": "#cc79a7", "min_max": "#e69f00", "rare_indices": "#56b4e9", "one_head": "#8c564b",
    "free_rider": "#999999",
}  # fmt: skip


def figure_of(lines: Sequence[Line], title: str) -> str:
    """Draw the lines, one panel for each task, side by side.

    Args:
        lines: of one share of liars; each task with the same rows.
    """
    tasks = list(dict.fromkeys(line.task for line in lines))
    rows = list(dict.fromkeys(line.row for line in lines))
    width, height = LEFT + len(tasks) * (WIDTH + GAP), HEAD + ROW * len(rows) + 56
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(12, 20, title, size=14),
    ]
    for number, row in enumerate(rows):
        y = HEAD + ROW * number
        if number % 2 == 0:
            out.append(f'<rect x="0" y="{y}" width="{width}" height="{ROW}" fill="#f4f4f4"/>')
        out.append(_text(LEFT - 10, y + 13, row.label, anchor="end"))
    for panel, task in enumerate(tasks):
        own = {line.row: line for line in lines if line.task == task}
        out += _panel(own, rows, LEFT + panel * (WIDTH + GAP), task)
    x = 12.0
    for name, colour in COLOURS.items():
        out.append(f'<circle cx="{x + 4}" cy="{height - 16}" r="4" fill="{colour}"/>')
        out.append(_text(x + 12, height - 12, name.replace("_", " ")))
        x += 34 + 6.2 * len(name)
    return "\n".join([*out, "</svg>", ""])


def _panel(own: dict, rows: Sequence, left: float, task: str) -> list[str]:
    bottom = HEAD + ROW * len(rows)
    out = [_text(left, 42, f"{task.replace('_', ' ')}: mean recall, percent", size=12)]
    for tenth in range(0, 11, 2):
        x = left + WIDTH * tenth / 10
        out.append(f'<line x1="{x}" y1="{HEAD}" x2="{x}" y2="{bottom}" stroke="#cccccc"/>')
        out.append(_text(x, HEAD - 6, str(10 * tenth), anchor="middle"))
    for number, row in enumerate(rows):
        y = HEAD + ROW * number + ROW / 2
        cells = own[row].cells
        places = {name: left + WIDTH * cell.mean for name, cell in cells.items()}
        out.append(f'<line x1="{min(places.values()):.1f}" y1="{y}" x2="{max(places.values()):.1f}" y2="{y}" '
                   'stroke="#888888"/>')
        for name in reversed(list(cells)):
            out.append(f'<circle cx="{places[name]:.1f}" cy="{y}" r="4" fill="{COLOURS[name]}" fill-opacity="0.85"/>')
        worst = own[row].worst
        out.append(_text(left + WIDTH + 8, y + 4, f"{100 * cells[worst].mean:.0f}  {worst.replace('_', ' ')}"))
    return out


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'
