"""Figures and bars: medians with their spread, percentiles, and what issue 3 asks of them.

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

SLOW_DISK_SECONDS = 0.002
IN_FLIGHT = 64


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]


@dataclass(frozen=True, slots=True)
class Bar:
    """A figure and what it must reach.

    Attributes:
        formula: how the bar comes about, in words.
        at_most: whether the figure must stay below it, not above.
    """

    value: float | None
    bar: float
    formula: str
    at_most: bool = False

    @property
    def holds(self) -> bool:
        """Whether the figure was taken and reaches the bar."""
        if self.value is None:
            return False
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def to_json(self) -> dict[str, object]:
        """The bar as it is printed."""
        return {"value": self.value, "bar": round(self.bar, 4), "holds": self.holds, "formula": self.formula}


def unary_bar(fsync_seconds: float, bare_per_second: float) -> Bar:
    """The bar of `unary_ratio`, without its figure: 0.4, or what one durable write a batch leaves on a slow disk."""
    slow = 0.35 * IN_FLIGHT / fsync_seconds / bare_per_second
    if fsync_seconds > SLOW_DISK_SECONDS and slow < 0.4:
        return Bar(None, slow, "one fsync takes over 2 ms: 0.35 * 64 / fsync_seconds / bare_unary_per_second")
    return Bar(None, 0.4, "at least 0.4")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and most of repeated measurements."""
    return {"median": round(median(values), 1), "min": round(min(values), 1), "max": round(max(values), 1)}
