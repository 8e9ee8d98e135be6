"""Every rule, with any clip, cap, server step and mask, against plain integers and fractions: to the last bit."""

from __future__ import annotations

from random import Random
from unittest.mock import patch

import pytest

from sfrl_secure.replay import arithmetic, columns, products
from sfrl_secure.replay.terms import parse_terms

from .builder import sha
from .cases import (
    COORDINATES,
    RULES,
    SHAPES,
    VALUE_MAX,
    Case,
    assert_same,
    document,
    of_cohort,
    random_case,
    recomputed,
)


def check(case: Case) -> None:
    assert_same(case.plain(), recomputed(case), parse_terms(case.terms), sha(b"base"))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_rule_gives_what_the_specification_says(rule: str) -> None:
    for number in range(300):
        check(random_case(rule, number))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_nothing_depends_on_how_the_coordinates_are_gone_through(rule: str) -> None:
    """In ranges of a few coordinates, in tables of a few columns, pairs by matrix products."""
    for number in range(100):
        rng = Random(number)
        with (
            patch.object(columns, "_HELD_MAX", rng.randint(1, 60)),
            patch.object(columns, "_ENTRIES_MAX", rng.randint(1, 40)),
            patch.object(columns, "_COORDINATES_MAX", rng.randint(1, 24)),
            patch.object(columns, "_TABLE_MAX", rng.randint(12, 60)),
            patch.object(products, "_PAIRS_MAX", rng.randint(0, 3)),
            patch.object(products, "_TABLES_MAX", 2),
            patch.object(arithmetic, "_PIECE", rng.randint(1, 9)),
        ):
            check(random_case(rule, f"ranges {number}"))


def rule_of(name: str) -> dict[str, int | str]:
    return {"name": name} | {key: (low + high) // 2 for key, (low, high) in RULES[name].items()}


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("count", [1, 2, 3, 16])
def test_the_largest_values_and_weights_fit(rule: str, count: int) -> None:
    weight = 2**22 // count
    for sign in (1, -1):
        dense = {c: sign * VALUE_MAX * (-1) ** c for c in range(COORDINATES)}
        terms = of_cohort(document(SHAPES, rule=rule_of(rule)), 1, count)
        check(Case(terms, (("dense", dense, weight),) * count, [0] * COORDINATES, None, []))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_updates_that_nobody_shares_a_coordinate_with_and_empty_ones_count(rule: str) -> None:
    updates = [("free", {c: 10 * c - 7}, 1 + c) for c in range(8)] + [("free", {}, 5), ("free", {}, 2)]
    terms = of_cohort(document(SHAPES, rule=rule_of(rule)), 2, 10)
    check(Case(terms, tuple(updates), list(range(COORDINATES)), None, []))


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("count", [4, 9, 12])
def test_where_all_are_as_far_from_each_other_the_ties_decide(rule: str, count: int) -> None:
    updates = [("free", {c: 1000}, 1) for c in range(count)]
    for ppm in (250_000, 499_999):
        keys = dict.fromkeys(RULES[rule], ppm)
        terms = of_cohort(document(SHAPES, rule={"name": rule} | keys), 1, count)
        check(Case(terms, tuple(updates), [0] * COORDINATES, None, []))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_five_hundred_updates_of_the_largest_values_are_exact(rule: str) -> None:
    """Sums of neighbours and of products are at their largest."""
    values = [(VALUE_MAX - i % 3) * (1 if i * 7919 % 5 else -1) for i in range(500)]
    updates = [("free", dict.fromkeys(range(3), value), 8000) for value in values]
    terms = of_cohort(document({"a": ([3], "int64")}, rule=rule_of(rule)), 3, 500)
    check(Case(terms, tuple(updates), [1, 2, 3], None, []))
