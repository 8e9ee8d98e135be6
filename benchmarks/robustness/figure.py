"""What the bars are about as one figure: how far the worst attack pulls each rule down from where it is without liars.

An open ring is the model that nobody attacks, a disc what the worst attack leaves, named beside it; small ticks are the
other attacks, most of one seed, so that some lie below the disc. The dashed line is the mean that nobody attacks, the
band below it what the bar lets the default lose.

Written as SVG by hand: a few hundred shapes need no library.

Runs in: a developer's machine.
Trusts: its caller.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from benchmarks.robustness.plain_rules import TRIMMED_MEAN
from benchmarks.robustness.plan import Line
from sfrl_secure.governance.aggregation_terms import NNM_TRIMMED_MEAN, WEIGHTED_MEAN

ROW, HEAD, LEFT, WIDTH, GAP, FOOT = 24, 112, 246, 450, 56, 46
HIGHEST = 0.9
"""Recall at the right end of the scale."""
GROUP = 34
"""Height of a support's heading."""
SHORT = ("alie", "ipm")
"""Attacks whose names are letters."""
FEWER = " *"
"""Behind a row that stood fewer attacks than the default."""
LOST, STANDS, PLAIN, INK, FAINT = "#b3261e", "#0b6e4f", "#6b7280", "#1f2328", "#d0d4da"
TITLES = {"fashion_mnist": "Fashion-MNIST", "rock_eons": "Eons of rocks"}
SUPPORTS = {
    "dense": "whole updates",
    "free": "each one's own largest tenth",
    "agreed": "a quarter that all agree on",
}
ROWS = {
    (WEIGHTED_MEAN, "bare"): "mean",
    (TRIMMED_MEAN, "bare"): "trimmed mean",
    (TRIMMED_MEAN, ""): "trimmed mean, server rate 2",
    (WEIGHTED_MEAN, "clip"): "mean, rate 2, clip",
    (NNM_TRIMMED_MEAN, ""): "NNM + trimmed mean, rate 2",
    (NNM_TRIMMED_MEAN, "clip"): "default: the same, and clip",
}
"""What is drawn of each support, in this order."""
DEFAULT = (NNM_TRIMMED_MEAN, "clip")


def figure_of(lines: Sequence[Line], title: str, allowed: float) -> str:
    """Draw the lines, one panel for each task, side by side.

    Args:
        lines: of one share of liars; those without a place in `ROWS` are left out.
        allowed: what the default may lose, as a share.
    """
    drawn = {(line.task, line.row.support, _kind(line)): line for line in lines if _kind(line) in ROWS}
    tasks = list(dict.fromkeys(task for task, _, _ in drawn))
    places: list[tuple[float, str, tuple[str, str] | None]] = []
    y = float(HEAD)
    for support in SUPPORTS:
        kinds = [kind for kind in ROWS if any(key[1:] == (support, kind) for key in drawn)]
        if kinds:
            places.append((y, support, None))
            places += [(y + GROUP + ROW * number, support, kind) for number, kind in enumerate(kinds)]
            y += GROUP + ROW * len(kinds)
    width, height = LEFT + len(tasks) * (WIDTH + GAP), int(y) + FOOT
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        _text(16, 30, title, size=19, weight="bold"),
        *_legend(16, 54, round(100 * allowed)),
    ]
    for top, support, kind in places:
        if kind is None:
            out.append(_text(16, top + 24, SUPPORTS[support], weight="bold"))
            continue
        if kind == DEFAULT:
            out.append(f'<rect x="8" y="{top}" width="{width - 16}" height="{ROW}" rx="4" fill="#e7f4ee"/>')
        out.append(_text(LEFT - 14, top + 16, ROWS[kind], anchor="end", colour=_colour(kind),
                         weight="bold" if kind == DEFAULT else "normal"))  # fmt: skip
    for panel, task in enumerate(tasks):
        left = LEFT + panel * (WIDTH + GAP)
        out += _axis(left, task, y)
        for support in SUPPORTS:
            own = {kind: line for (of, where, kind), line in drawn.items() if (of, where) == (task, support)}
            rows = [(top, kind) for top, where, kind in places if where == support and kind is not None]
            if rows:
                out += _reference(_unattacked(lines, task, support), allowed, rows, left)
            for top, kind in rows:
                if kind in own:
                    attacks = len(own.get(DEFAULT, own[kind]).cells)
                    out += _dumbbell(own[kind], top + ROW / 2, left, _colour(kind), attacks, is_default=kind == DEFAULT)
    return "\n".join([*out, "</svg>", ""])


def _kind(line: Line) -> tuple[str, str]:
    return line.row.rule, "bare" if line.row.is_bare else "clip" if line.row.clip else ""


def _colour(kind: tuple[str, str]) -> str:
    return STANDS if kind == DEFAULT else LOST if kind[1] == "bare" else PLAIN


def _legend(x: float, y: float, points: int) -> list[str]:
    ring, disc, tick = x + 6, x + 130, x + 314
    return [
        f'<circle cx="{ring}" cy="{y - 4}" r="5" fill="#ffffff" stroke="{INK}" stroke-width="1.5"/>',
        _text(ring + 12, y, "nobody lies"),
        f'<circle cx="{disc}" cy="{y - 4}" r="6" fill="{INK}"/>', _text(disc + 12, y, "the worst attack leaves"),
        f'<path d="M{tick} {y - 9}v10" stroke="{PLAIN}" stroke-width="1.5"/>', _text(tick + 8, y, "other attacks"),
        f'<rect x="{tick + 108}" y="{y - 11}" width="22" height="14" fill="#cfe8dc"/>',
        f'<path d="M{tick + 130} {y - 12}v16" stroke="{INK}" stroke-dasharray="3 2"/>',
        _text(tick + 138, y, f"the mean that nobody attacks, and {points} points below it"),
        _text(tick + 500, y, f"{FEWER.strip()} fewer attacks were tried"),
    ]  # fmt: skip


def _axis(left: float, task: str, bottom: float) -> list[str]:
    out = [_text(left, HEAD - 22, f"{TITLES.get(task, task)}: mean recall of the classes, percent", weight="bold")]
    for percent in range(0, round(100 * HIGHEST) + 1, 10):
        x = _place(left, percent / 100)
        out.append(f'<path d="M{x:.1f} {HEAD}V{bottom + 6:.1f}" stroke="{FAINT}"/>')
        out.append(_text(x, bottom + 22, str(percent), anchor="middle", colour=PLAIN))
    return out


def _unattacked(lines: Sequence[Line], task: str, support: str) -> float:
    """Of the better mean, as `run.gaps_of` counts."""
    return max((line.cells["none"].mean for line in lines if (line.task, line.row.support) == (task, support)
                and line.row.rule == WEIGHTED_MEAN and line.row.clip is None), default=0.0)  # fmt: skip


def _reference(share: float, allowed: float, rows: Sequence[tuple[float, tuple[str, str]]], left: float) -> list[str]:
    above, below = rows[0][0] - 2, rows[-1][0] + ROW
    top, low = _place(left, share), _place(left, max(share - allowed, 0.0))
    return [
        f'<rect x="{low:.1f}" y="{above}" width="{top - low:.1f}" height="{below - above}" fill="{STANDS}" '
        'fill-opacity="0.14"/>',
        f'<path d="M{top:.1f} {above}V{below}" stroke="{INK}" stroke-dasharray="3 2"/>',
    ]


def _dumbbell(line: Line, y: float, left: float, colour: str, attacks: int, *, is_default: bool) -> list[str]:
    places = {name: _place(left, cell.mean) for name, cell in line.cells.items()}
    worst, free = places[line.worst], places["none"]
    out = [f'<path d="M{worst:.1f} {y}H{free:.1f}" stroke="{colour}" stroke-width="{3 if is_default else 2}"/>']
    out += [f'<path d="M{x:.1f} {y - 5}v10" stroke="{colour}" stroke-opacity="0.55" stroke-width="1.5"/>'
            for name, x in places.items() if name not in ("none", line.worst)]
    out.append(f'<circle cx="{free:.1f}" cy="{y}" r="5" fill="#ffffff" stroke="{colour}" stroke-width="1.5"/>')
    out.append(f'<circle cx="{worst:.1f}" cy="{y}" r="6" fill="{colour}"/>')
    name = " ".join(word.upper() if word in SHORT else word for word in line.worst.split("_"))
    said = f"{100 * line.cells[line.worst].mean:.0f}  {name}" + ("" if len(line.cells) >= attacks else FEWER)
    weight = "bold" if is_default else "normal"
    # A rule that is lost has its place on the right; the others have theirs on the left of all.
    if line.cells[line.worst].mean < 0.5:
        return [*out, _text(worst + 12, y + 4 if free - worst < 80 else y - 6, said, colour=colour, weight=weight)]
    return [*out, _text(min(places.values()) - 12, y + 4, said, anchor="end", colour=colour, weight=weight)]


def _place(left: float, share: float) -> float:
    return left + WIDTH * share / HIGHEST


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = INK, weight: str = "normal"
) -> str:
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" '
            f'fill="{colour}">{escape(text)}</text>')
