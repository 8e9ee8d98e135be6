"""The next mask against the specification's words in Python's integers."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.aggregation import next_mask as module
from sfrl_secure.aggregation.models import ModelSnapshot
from sfrl_secure.aggregation.next_mask import next_mask, order_of, scores_of, seed_of
from sfrl_secure.aggregation.parts import sparse_where_few
from sfrl_secure.governance.aggregation_terms import MaskTerms, NextMaskTerms
from sfrl_secure.governance.manifest import ModelManifest, TensorSpec
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.limits import VALUE_MAX
from sfrl_secure.sparse.update import UpdatePart

MANIFEST = ModelManifest(
    (TensorSpec("w", (4, 5), "int32"), TensorSpec("head", (6,), "int64"), TensorSpec("frozen", (5,), "int32"),
     TensorSpec("tail", (9,), "int64"))
)  # fmt: skip
N = MANIFEST.coordinates
ALLOWED = ("w", "head", "tail")
RANGES = {name: range(start, start + tensor.coordinates) for name, tensor, start in zip(
    ("w", "head", "frozen", "tail"), MANIFEST.tensors, MANIFEST.offsets, strict=True)}  # fmt: skip
CANDIDATES = [at for name in ALLOWED for at in RANGES[name]]
OPENED = sha256(b"opened")


class Terms:
    """The part of terms that the next mask looks at."""

    def __init__(self, mask: MaskTerms, tensors: tuple[str, ...] = ALLOWED, manifest: ModelManifest = MANIFEST) -> None:
        self.mask, self.tensors = mask, tensors
        self.model = type("Model", (), {"manifest": manifest})


def slow_h(coordinate: int, opened: Digest) -> int:
    seed = int.from_bytes(hashlib.sha256(b"sfrl-mask/v1\n" + opened).digest()[:8], "little")
    z = (seed + (coordinate + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def slow(mask: MaskTerms, before: list[int], scores: dict[int, int], opened: Digest = OPENED) -> list[int]:
    """The three steps of the specification."""
    assert mask.next is not None
    ranked = sorted(CANDIDATES, key=lambda at: (-scores.get(at, 0), slow_h(at, opened), at))
    chosen = {at for name in mask.next.protected for at in RANGES[name]}
    places = mask.nonzeros - len(chosen) - mask.next.regrow
    stays = [at for at in ranked if at in before and at not in chosen]
    chosen |= set(stays[:places])
    if places:
        ranked.sort(key=lambda at: at in before)
    return sorted(chosen | set([at for at in ranked if at not in chosen][: mask.nonzeros - len(chosen)]))


@st.composite
def masks(draw: st.DrawFn) -> MaskTerms:
    protected = draw(st.sets(st.sampled_from(ALLOWED)))
    size = sum(len(RANGES[name]) for name in protected)
    protected = protected if size < len(CANDIDATES) else set()
    size = size if protected else 0
    nonzeros = draw(st.integers(size + 1, len(CANDIDATES)))
    regrow = draw(st.integers(1, nonzeros - size))
    return MaskTerms(sha256(b"mask"), nonzeros, NextMaskTerms("votes", regrow, frozenset(protected)))


scores = st.dictionaries(st.integers(0, N - 1), st.one_of(st.integers(1, 3), st.integers(1, VALUE_MAX)), max_size=N)


def chosen_by(terms: Any, before: list[int], scored: dict[int, int], opened: Digest = OPENED) -> list[int]:
    at = sorted(scored)
    given_scores = np.array(at, dtype=np.int64), np.array([scored[each] for each in at], dtype=np.int64)
    found = next_mask(terms, opened, np.array(sorted(before), dtype=np.int64), given_scores)
    assert found.dtype == np.int64
    return found.tolist()


@settings(deadline=None, max_examples=400)
@given(masks(), st.sets(st.integers(0, N - 1)), scores, st.integers(0, 5))
def test_it_is_what_the_specification_says(
    mask: MaskTerms, before: set[int], scored: dict[int, int], salt: int
) -> None:
    """Whatever the round's mask has, coordinates of tensors that are not allowed among it."""
    opened = sha256(b"%d" % salt)
    assert chosen_by(Terms(mask), sorted(before), scored, opened) == slow(mask, sorted(before), scored, opened)


def test_h_is_the_splitmix64_output() -> None:
    """With a known answer: the first outputs for the state 0."""
    assert [f"{h:016x}" for h in order_of(np.arange(3), 0).tolist()] == [
        "e220a8397b1dcdaf", "6e789e6aa1b965f4", "06c45d188009454f",
    ]  # fmt: skip
    at = np.array([0, 1, 4_095, 2**31 - 1])
    assert order_of(at, seed_of(OPENED)).tolist() == [slow_h(each, OPENED) for each in at.tolist()]


def test_what_nobody_scored_is_explored_in_another_order_each_round() -> None:
    terms = Terms(MaskTerms(sha256(b"mask"), 8, NextMaskTerms("votes", 8)))
    found = {tuple(chosen_by(terms, [], {}, sha256(b"%d" % number))) for number in range(20)}
    assert len(found) > 15
    assert all(set(each) <= set(CANDIDATES) and len(each) == 8 for each in found)


def test_what_is_dropped_gives_its_place_to_a_coordinate_that_the_mask_did_not_have() -> None:
    scores = {0: 9, 1: 8, 2: 7, 3: 6, 4: 5}
    assert chosen_by(Terms(MaskTerms(sha256(b"mask"), 4, NextMaskTerms("contribution", 1))), [0, 1, 2, 3], scores) == [
        0, 1, 2, 4,
    ]  # fmt: skip
    # Where the whole mask competes nothing is dropped before.
    assert chosen_by(Terms(MaskTerms(sha256(b"mask"), 4, NextMaskTerms("contribution", 4))), [0, 1, 2, 3], scores) == [
        0, 1, 2, 3,
    ]  # fmt: skip


def test_where_nobody_scores_anything_outside_the_mask_a_place_is_given_up_all_the_same() -> None:
    terms = Terms(MaskTerms(sha256(b"mask"), 4, NextMaskTerms("contribution", 1)))
    chosen = chosen_by(terms, [0, 1, 2, 3], {0: 9, 1: 8, 2: 7, 3: 6})
    assert chosen[:3] == [0, 1, 2]
    assert 3 not in chosen


def test_what_was_dropped_comes_back_where_there_is_nothing_else() -> None:
    every = sorted(CANDIDATES)
    terms = Terms(MaskTerms(sha256(b"mask"), len(every) - 1, NextMaskTerms("contribution", 3)))
    before = every[1:]
    scores = {at: n + 1 for n, at in enumerate(before)}
    # Three are dropped, one is outside: it comes in, and the best two of the dropped come back.
    assert chosen_by(terms, before, scores) == [every[0], *before[1:]]


@pytest.mark.parametrize("touched", [0, 1_000, 30_000, 300_000])
def test_a_large_model_is_ranked_as_a_small_one_is(touched: int) -> None:
    """Over many blocks, where few of those that have no score are looked at."""
    count, places = 400_000, 5_000
    manifest = ModelManifest((TensorSpec("w", (count - 7,), "int32"), TensorSpec("frozen", (7,), "int32")))
    mask = MaskTerms(sha256(b"mask"), places, NextMaskTerms("contribution", 1_500))
    rng = np.random.default_rng(touched)
    at = np.sort(rng.choice(count, touched, replace=False))
    values = rng.integers(1, 50, touched)
    before = np.sort(rng.choice(count, places, replace=False))
    found = next_mask(Terms(mask, ("w",), manifest), OPENED, before, (at, values))  # type: ignore[arg-type]

    by_coordinate = np.zeros(count - 7, dtype=np.int64)
    kept = at < count - 7
    by_coordinate[at[kept]] = values[kept]
    order = order_of(np.arange(count - 7), seed_of(OPENED))
    ranked = np.lexsort((order, -by_coordinate))
    stays = ranked[np.isin(ranked, before)][: places - 1_500]
    grown = ranked[~np.isin(ranked, stays)][: places - stays.size]
    assert found.tolist() == sorted([*stays.tolist(), *grown.tolist()])


def test_an_order_that_is_not_spread_evenly_is_looked_through_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all orders lie in the last thousandth, the first looks find too few."""

    def late(at: np.ndarray, seed: int) -> np.ndarray:
        return np.uint64(2**64 - 1) - at.astype(np.uint64)

    monkeypatch.setattr(module, "order_of", late)
    count = 100_000
    manifest = ModelManifest((TensorSpec("w", (count,), "int32"),))
    terms: Any = Terms(MaskTerms(sha256(b"mask"), 10, NextMaskTerms("votes", 10)), ("w",), manifest)
    nothing = np.empty(0, dtype=np.int64)
    assert next_mask(terms, OPENED, nothing, (nothing, nothing)).tolist() == list(range(count - 10, count))


# Scores

values = st.lists(st.one_of(st.just(0), st.integers(-VALUE_MAX, VALUE_MAX)), min_size=N, max_size=N)


def scored(score: str, step: UpdatePart, base: ModelSnapshot, votes: Any = None) -> dict[int, int]:
    at, found = scores_of(NextMaskTerms(score, 1), step, votes, base)
    assert at.dtype == found.dtype == np.int64
    return {place: value for place, value in zip(at.tolist(), found.tolist(), strict=True) if value}


@settings(deadline=None, max_examples=150)
@given(values, values)
def test_scores_of_a_step_are_exact(a: list[int], b: list[int]) -> None:
    limits = [np.iinfo("int32" if at in RANGES["w"] or at in RANGES["frozen"] else "int64") for at in range(N)]
    b = [max(int(limit.min), min(int(limit.max), each * 2**22)) for each, limit in zip(b, limits, strict=True)]
    base = ModelSnapshot(MANIFEST, 16, np.array(b, dtype=np.int64))
    vector = np.array(a, dtype=np.int64)
    for step in (sparse_where_few(vector), UpdatePart(slice(0, N), vector)):
        assert scored("contribution", step, base) == {at: abs(each) for at, each in enumerate(a) if each}
        salient = {at: abs(a[at]) * min(abs(b[at]), 2**40) // 2**20 for at in range(N)}
        assert scored("saliency", step, base) == {at: each for at, each in salient.items() if each}


def test_the_largest_weights_and_steps_have_a_saliency() -> None:
    """2**40 times 2**40 and the smallest int64 would both leave 64 bits."""
    b = np.zeros(N, dtype=np.int64)
    at = RANGES["head"].start
    b[at : at + 3] = -(2**63), 2**63 - 1, -(2**40) - 1
    base = ModelSnapshot(MANIFEST, 16, b)
    step = UpdatePart(np.arange(at, at + 3), np.array([VALUE_MAX, -VALUE_MAX, VALUE_MAX]))
    assert scored("saliency", step, base) == {at: 2**60, at + 1: 2**60, at + 2: 2**60}


def test_votes_are_counted_wherever_the_step_is_zero() -> None:
    base = ModelSnapshot(MANIFEST, 16, np.zeros(N, dtype=np.int64))
    votes = np.zeros(N, dtype=np.uint16)
    votes[[2, 30]] = 3, 500
    nothing = UpdatePart(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    assert scored("votes", nothing, base, votes) == {2: 3, 30: 500}


def test_protected_tensors_stay_whatever_comes() -> None:
    mask = MaskTerms(sha256(b"mask"), 7, NextMaskTerms("contribution", 1, frozenset({"head"})))
    best = dict.fromkeys(range(10), 100)
    for before in ([], list(range(10))):
        found = chosen_by(Terms(mask), before, best)
        assert set(RANGES["head"]) <= set(found)
        assert len(found) == 7
    smaller = replace(mask, nonzeros=N - 5)
    assert chosen_by(Terms(smaller), [], {}) == CANDIDATES
