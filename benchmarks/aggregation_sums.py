"""Rates of the means over prepared updates, with numpy and with numba, and of `np.add.at` beside them.

Runs in: a developer's machine.
Trusts: nothing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.pseudo_gradient import PARAMETERS
from benchmarks.supports import Support
from sfrl_secure.aggregation import fast as fast_sums
from sfrl_secure.aggregation.combined import Combining
from sfrl_secure.aggregation.contribution import held
from sfrl_secure.aggregation.large_arrays import zeros
from sfrl_secure.aggregation.rules import combine_by
from sfrl_secure.aggregation.running import RunningMean
from sfrl_secure.aggregation.union_mean import UnionMean
from sfrl_secure.errors import SfrlError
from sfrl_secure.governance.aggregation_terms import UNION_MEAN, WEIGHTED_MEAN, RuleTerms
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.sparse import fast as fast_leaves
from sfrl_secure.sparse.encode import EncodedUpdate, encode_update
from sfrl_secure.sparse.header import parse_leaf_table, parse_preamble
from sfrl_secure.sparse.leaf import decode_leaf
from sfrl_secure.sparse.update import UpdatePart

GRID_EXPONENT = 30
GROUP = 10
"""Updates that one takes before it is the next one's turn."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One update, encoded and decoded."""

    tie: Digest
    weight: int
    encoded: EncodedUpdate
    payload: bytes
    part: UpdatePart

    @property
    def nonzeros(self) -> int:
        """Values that it carries."""
        return self.part.count


def prepared(supports: Iterable[Support], rng: np.random.Generator) -> list[Prepared]:
    """Round updates onto the grid as participants do, into int8 payloads, with weights up to 1,000."""
    found = []
    for number, (indices, values) in enumerate(supports):
        encoded = encode_update(
            PARAMETERS, indices, values, value_type="int8", grid_exponent=GRID_EXPONENT, rng=rng
        )
        update = encoded.update
        part = UpdatePart(update.indices, update.values)
        weight = int(rng.integers(1, 1_000))
        found.append(Prepared(sha256(b"%d" % number), weight, encoded, encoded.payload, part))
    return found


def sum_rates(updates: list[Prepared], turns: int, group: int = GROUP) -> dict[str, Any]:
    """Rates of everything, `turns` times over all updates.

    Raises:
        SfrlError: two that add up the same have other sums.
    """
    ways = _ways()
    times: dict[str, list[float]] = {name: [] for name in ways}
    baseline = _AddAt()
    for way in ways.values():
        # What is compiled is compiled now.
        if way.use():
            way.take(updates[0])
    for turn in range(turns):
        for way in (baseline, *ways.values()):
            way.begin()
        for start in range(0, len(updates), group):
            some = updates[start : start + group]
            values = sum(update.nonzeros for update in some)
            products = [update.part.values * update.weight for update in some]
            begun = time.thread_time()
            for update, product in zip(some, products, strict=True):
                baseline.add(update, product)
            times.setdefault("add_at", []).append((time.thread_time() - begun) / values)
            for name, way in ways.items():
                if not way.use():
                    continue
                begun = time.thread_time()
                for update in some:
                    way.take(update)
                times[name].append((time.thread_time() - begun) / values)
        if turn == 0:
            _check(baseline, ways.values())
    del baseline
    figures: dict[str, Any] = {}
    for name, seconds in times.items():
        figures |= _rate("add_at_mnnz_s" if name == "add_at" else name, seconds)
    ratios = [at / ours for ours, at in zip(times["union_mnnz_s_numpy"], times["add_at"], strict=True)]
    figures["add_at_ratio"] = round(median(ratios), 3)
    figures["add_at_ratio_quartiles"] = _quartiles(ratios)
    return figures | _cohort_rates(updates, turns)


class _Way:
    """A mean that takes updates in one way."""

    def __init__(self, combining: Combining, read: Callable[[Prepared], Iterable[UpdatePart]], compiled: bool) -> None:
        self._combining, self._read, self._compiled = combining, read, compiled
        self.begin()

    def begin(self) -> None:
        """Begin with no updates, in memory that is there."""
        self.running = RunningMean(self._combining)
        mean, counts = self.running._mean, self.running._counts
        mean._numerator.fill(0)
        if isinstance(mean, UnionMean):
            mean._denominator.fill(0)
        if counts is not None:
            counts._carried.fill(0)

    def use(self) -> bool:
        """Take the compiled path or not; say whether it is there."""
        return use_numba(self._compiled)

    def take(self, update: Prepared) -> None:
        """Add one update."""
        self.running.enter(update.weight, 0)
        for part in self._read(update):
            self.running.add_part(part, update.weight, 0)


class _AddAt:
    """The same sums by `np.add.at` alone."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin with no updates, in memory that is there."""
        self.numerator = zeros(PARAMETERS, np.int64)
        self.denominator = zeros(PARAMETERS, np.int64)
        self.numerator.fill(0)
        self.denominator.fill(0)

    def add(self, update: Prepared, product: NDArray[np.int64]) -> None:
        """Add one update."""
        np.add.at(self.numerator, update.part.at, product)
        np.add.at(self.denominator, update.part.at, update.weight)


def _ways() -> dict[str, _Way]:
    mean, union = Combining(PARAMETERS, RuleTerms(WEIGHTED_MEAN)), Combining(PARAMETERS, RuleTerms(UNION_MEAN))
    counted = Combining(PARAMETERS, RuleTerms(WEIGHTED_MEAN), with_carriers=True)
    ways = {}
    for name, compiled in (("numpy", False), ("numba", True)):
        ways[f"mnnz_s_{name}"] = _Way(mean, _decoded, compiled)
        ways[f"union_mnnz_s_{name}"] = _Way(union, _decoded, compiled)
        ways[f"counted_mnnz_s_{name}"] = _Way(counted, _decoded, compiled)
        ways[f"mnnz_s_{name}_decode"] = _Way(mean, decoded_leaves, compiled)
        ways[f"mnnz_s_{name}_digest"] = _Way(mean, _read_whole, compiled)
    return ways


def _decoded(update: Prepared) -> Iterable[UpdatePart]:
    return (update.part,)


def _read_whole(update: Prepared) -> Iterable[UpdatePart]:
    return update.encoded.parts()


def decoded_leaves(update: Prepared) -> Iterator[UpdatePart]:
    """Decode with every rule but the hashes."""
    payload = memoryview(update.payload)
    preamble = parse_preamble(payload)
    header = parse_leaf_table(payload, preamble, len(payload))
    start, base = preamble.header_bytes, 0
    for number, record in enumerate(header.leaves):
        part = decode_leaf(preamble, number, payload[start : start + record.byte_length], base=base)
        start += record.byte_length
        base = int(part.indices[-1]) + 1
        yield part


def use_numba(compiled: bool) -> bool:
    """Let codec and sums take the compiled path or not; say whether it is there."""
    os.environ["SFRL_NUMBA"] = "1"
    for module in (fast_leaves, fast_sums):
        module._Loaded.tried, module._Loaded.kernels = not compiled, None
    if not compiled:
        return True
    return fast_leaves.kernels(fast_leaves.LARGE_LEAF) is not None and fast_sums.kernels(
        fast_sums.LARGE_PART) is not None


def _cohort_rates(updates: list[Prepared], turns: int) -> dict[str, Any]:
    cohort = [held(each.tie, each.weight, each.part) for each in updates]
    values = sum(each.nonzeros for each in updates)
    figures: dict[str, Any] = {}
    times: dict[str, list[float]] = {}
    # Once more at first, for memory that is not there yet and for what is compiled.
    for _ in range(turns + 1):
        for prefix, rule in (("", WEIGHTED_MEAN), ("union_", UNION_MEAN)):
            for name, compiled in (("numpy", False), ("numba", True)):
                if not use_numba(compiled):
                    continue
                begun = time.thread_time()
                combine_by(Combining(PARAMETERS, RuleTerms(rule)), cohort)
                seconds = (time.thread_time() - begun) / values
                times.setdefault(f"{prefix}cohort_mnnz_s_{name}", []).append(seconds)
    for name, seconds_each in times.items():
        figures[name] = _millions(seconds_each[1:])
    return figures


def _check(baseline: _AddAt, ways: Iterable[_Way]) -> None:
    for way in ways:
        mean = way.running._mean
        if mean.weight_sum and not np.array_equal(mean._numerator, baseline.numerator):
            raise SfrlError("two sums of the same updates differ")


def _rate(name: str, seconds: list[float]) -> dict[str, Any]:
    if not seconds:
        return {name: None}
    low, _, high = (_millions([each]) for each in quantiles(seconds, n=4)[::-1])
    return {name: _millions(seconds), f"{name}_quartiles": [low, high]}


def _millions(seconds: list[float]) -> float:
    return round(1e-6 / median(seconds), 1)


def _quartiles(numbers: list[float]) -> list[float]:
    low, _, high = quantiles(numbers, n=4)
    return [round(low, 3), round(high, 3)]
