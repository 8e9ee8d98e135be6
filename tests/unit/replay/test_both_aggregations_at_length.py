"""The aggregator and the verifier on what is long or as large as it may be: the same objects, to the last bit."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from unittest.mock import patch

import pytest

from sfrl_secure.replay import columns
from sfrl_secure.replay.docket import Docket
from sfrl_secure.replay.recomputation import Task, recompute
from sfrl_secure.replay.terms import parse_terms

from .both import check
from .builder import MemoryObjects, sha
from .cases import AT, COORDINATES, RULES, SHAPES, VALUE_MAX, Case, document, objects_of, of_cohort
from .payloads import encode_mask


@pytest.fixture(scope="module")
def long_updates() -> tuple[Case, MemoryObjects, Task]:
    """A round of updates of several leaves, some of which are like others, and its objects."""
    rng, count = Random(6), 140_000
    mask = sorted(rng.sample(range(count), 70_000))
    updates: list[tuple[str, dict[int, int], int]] = []
    for i in range(6):
        support = ("free", "agreed", "dense", "agreed", "free", "agreed")[i]
        where = {"free": rng.sample(range(count), 70_000), "agreed": mask, "dense": range(count)}[support]
        lean = rng.choice([-20, 20])
        updates.append((support, {c: rng.randint(-90, 90) + lean or 1 for c in where}, i + 1))
    terms = document({"a": ([400, 350], "int32")}, support_modes=["agreed", "dense", "free"], mask={
        "digest": sha(encode_mask(mask, count)).hex(), "nonzeros": len(mask),
        "next": {"score": "saliency", "regrow": 9_000, "protected": []},
    })  # fmt: skip
    server = {"name": "adaptive/v1", "decay": 2**15, "decay_max": 60_000, "rate": 100, "floor": 9}
    terms = of_cohort(terms, 2, 6) | {"server": server, "cap": {"contributors_below": 4, "magnitude": 20}}
    state = [rng.randint(-50, 50) for _ in range(count)] + [rng.randint(0, 90) for _ in range(count)]
    case = Case(terms, tuple(updates), [rng.randint(-(2**30), 2**30) for _ in range(count)], state, mask)
    objects = MemoryObjects()
    return case, objects, objects_of(case, parse_terms(terms), objects)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_both_make_the_same_of_updates_of_several_leaves(
    rule: str, long_updates: tuple[Case, MemoryObjects, Task]
) -> None:
    case, objects, task = long_updates
    keys = {key: (low + high) // 3 for key, (low, high) in RULES[rule].items()}
    terms = case.terms | {"rule": {"name": rule} | keys}
    for entries in (2**25, 2**17):
        with patch.object(columns, "_HELD_MAX", entries):
            ours = recompute(Docket(objects), replace(task, terms=parse_terms(terms)), AT)
        check(replace(case, terms=terms), Random(1), ours)


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("count", [1, 2, 3, 64, 500])
def test_both_make_the_same_of_the_largest_values_and_weights(rule: str, count: int) -> None:
    """And of those that cancel each other, and of as many updates as a round may have."""
    rng = Random(count)
    keys = {key: rng.randint(low, high) for key, (low, high) in RULES[rule].items()}
    for signs in ([1], [-1], [1, -1])[2 * (count == 500) :]:
        updates = [
            ("dense", {c: rng.choice(signs) * (VALUE_MAX - i % 2) for c in range(COORDINATES)}, 2**22 // count)
            for i in range(count)
        ]
        terms = of_cohort(document(SHAPES, rule={"name": rule} | keys), 1, count)
        check(Case(terms, tuple(updates), [0] * COORDINATES, None, []), rng)
