"""What the aggregator makes of a round and what the verifier makes of it: the same objects, to the last bit.

Two programs from one specification.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from .both import check
from .cases import RULES, random_case

LARGER: dict[str, tuple[list[int], str]] = {
    "a": ([30, 20], "int32"), "b": ([500], "int64"), "c": ([7, 1, 100], "int32"),
}  # fmt: skip


@pytest.mark.parametrize("rule", sorted(RULES))
def test_both_make_the_same_of_a_small_round(rule: str) -> None:
    checked = 0
    for number in range(400):
        case = random_case(rule, f"both {number}")
        # Of too few updates none is added up: that is for whoever publishes, and no rule's matter.
        if len(case.kept) >= case.terms["round"]["cohort_min"]:
            check(case, Random(number))
            checked += 1
    assert checked >= 300


@pytest.mark.parametrize("rule", sorted(RULES))
def test_both_make_the_same_of_a_larger_round(rule: str) -> None:
    for number in range(15):
        case = replace(random_case(rule, f"larger {number}", LARGER, 40), left_out=frozenset())
        check(case, Random(number))
