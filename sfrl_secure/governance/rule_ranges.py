"""What the numbers in a rule can be: whether arithmetic stays inside a Long, and whether a comparison can go both ways.

Format: Cedar's JSON policy format; proto/README.md, "Policy".

Runs in: the operators' command line.
Trusts: Cedar's validator, which has been over the rules.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from sfrl_secure.governance.terms import NORM_MAX
from sfrl_secure.limits import (
    CLEARANCE_MAX,
    COORDINATES_MAX,
    PAYLOAD_BYTES_MAX,
    ROUNDS_MAX,
    VALUE_MAX,
    WEIGHT_SUM_MAX,
)

_LONG = (-(2**63), 2**63 - 1)
_RANGES = {
    "clearance": (0, CLEARANCE_MAX),
    "sensitivity": (0, CLEARANCE_MAX),
    "round": (0, ROUNDS_MAX),
    "weight": (0, WEIGHT_SUM_MAX),
    "nonzeros": (0, COORDINATES_MAX),
    "payload_bytes": (0, PAYLOAD_BYTES_MAX),
    "density_ppm": (0, 10**6),
    "noise_std": (0, VALUE_MAX),
    "norm": (0, NORM_MAX),
    "largest_magnitude": (0, VALUE_MAX),
}
"""What a fact can be when the rules are asked: the limits have been checked before."""

ARITHMETIC = frozenset({"+", "-", "*", "neg"})

Range = tuple[int, int]


def range_of(node: Mapping[str, Any]) -> Range | None:
    """Least and greatest value of an expression that is a Long; None where it can leave the range of a Long."""
    match node:
        case {"Value": int(value)} if type(value) is not bool:
            return value, value
        case {".": {"left": {"Var": _}, "attr": str(name)}}:
            return _RANGES.get(name, _LONG)
        case {"neg": {"arg": arg}}:
            return _within([-bound for bound in range_of(arg) or ()])
        case {"+": {"left": left, "right": right}}:
            return _combined(operator.add, range_of(left), range_of(right))
        case {"-": {"left": left, "right": right}}:
            return _combined(operator.sub, range_of(left), range_of(right))
        case {"*": {"left": left, "right": right}}:
            return _combined(operator.mul, range_of(left), range_of(right))
        case {"if-then-else": {"then": then, "else": otherwise}}:
            first, second = range_of(then), range_of(otherwise)
            return None if first is None or second is None else _within([*first, *second])
    return _LONG


def outcome_of(node: Mapping[str, Any]) -> bool | None:
    """What a comparison says whatever the facts are; None where they decide, or where it compares no Longs."""
    match node:
        case {"<": sides}:
            return _is_less(sides["left"], sides["right"], operator.lt)
        case {"<=": sides}:
            return _is_less(sides["left"], sides["right"], operator.le)
        case {">": sides}:
            return _is_less(sides["right"], sides["left"], operator.lt)
        case {">=": sides}:
            return _is_less(sides["right"], sides["left"], operator.le)
        case {"==": sides}:
            return _is_equal(sides["left"], sides["right"])
        case {"!=": sides}:
            equal = _is_equal(sides["left"], sides["right"])
            return None if equal is None else not equal
    return None


def _is_less(
    smaller: Mapping[str, Any], larger: Mapping[str, Any], compare: Callable[[int, int], bool]
) -> bool | None:
    left, right = range_of(smaller), range_of(larger)
    if left is None or right is None:
        return None
    always, ever = compare(left[1], right[0]), compare(left[0], right[1])
    return always if always or not ever else None


def _is_equal(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool | None:
    left, right = range_of(one), range_of(other)
    if left is None or right is None:
        return None
    if left[1] < right[0] or right[1] < left[0]:
        return False
    return True if left[0] == left[1] == right[0] == right[1] else None


def _combined(operation: Callable[[int, int], int], left: Range | None, right: Range | None) -> Range | None:
    # Each of the three is monotone in either argument, so the corners are the extremes.
    return None if left is None or right is None else _within([operation(a, b) for a in left for b in right])


def _within(bounds: list[int]) -> Range | None:
    if not bounds or min(bounds) < _LONG[0] or max(bounds) > _LONG[1]:
        return None
    return min(bounds), max(bounds)
