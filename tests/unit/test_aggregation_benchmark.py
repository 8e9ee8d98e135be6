"""What the aggregation benchmark counts on: all ways add up the same, and forms of a mask are as long as it says."""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import aggregation, aggregation_sums
from benchmarks.__main__ import main
from benchmarks.aggregation_memory import peak_bytes, stored
from benchmarks.aggregation_nnm import main as nnm_main
from benchmarks.aggregation_sums import Prepared, prepared, sum_rates
from benchmarks.supports import random_supports
from sfrl_secure.aggregation import fast as fast_sums
from sfrl_secure.errors import SfrlError
from sfrl_secure.governance.aggregation_terms import UNION_MEAN
from sfrl_secure.sparse import fast as fast_leaves

N, K = 60_000, 3_000


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[Prepared]:
    """Twelve updates of a small model; afterwards nobody has chosen between numpy and numba."""
    monkeypatch.setenv("SFRL_NUMBA", "0")
    for module in (fast_leaves, fast_sums):
        monkeypatch.setattr(module._Loaded, "tried", False)
        monkeypatch.setattr(module._Loaded, "kernels", None)
    monkeypatch.setattr(aggregation_sums, "PARAMETERS", N)
    rng = np.random.default_rng(2)
    values = rng.choice([-2e-3, 1e-3], K).astype(np.float32)
    return prepared(random_supports(N, K, values, 12, rng), rng)


def test_every_way_gets_a_rate_and_the_ratio_is_between_two_of_them(updates: list[Prepared]) -> None:
    figures = sum_rates(updates, turns=2, group=4)
    names = [f"{prefix}mnnz_s_{path}" for prefix in ("", "union_", "counted_") for path in ("numpy", "numba")]
    names += [f"mnnz_s_{path}_{how}" for path in ("numpy", "numba") for how in ("decode", "digest")]
    for name in (*names, "add_at_mnnz_s"):
        low, high = figures[f"{name}_quartiles"]
        assert 0 < low <= figures[name] <= high
    low, high = figures["add_at_ratio_quartiles"]
    assert 0 < low <= figures["add_at_ratio"] <= high
    assert figures["cohort_mnnz_s_numba"] > 0


def test_a_way_that_adds_up_something_else_is_noticed(
    updates: list[Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = aggregation_sums.decoded_leaves

    def without_the_last(update: Prepared) -> object:
        return [] if update is updates[-1] else honest(update)

    monkeypatch.setattr(aggregation_sums, "decoded_leaves", without_the_last)
    with pytest.raises(SfrlError, match="differ"):
        sum_rates(updates, turns=1, group=12)


def test_processes_of_their_own_read_the_payloads(updates: list[Prepared], tmp_path: Path) -> None:
    for number, update in enumerate(updates):
        (tmp_path / f"{number}.payload").write_bytes(update.payload)
    for payload, update in zip(stored(tmp_path, 12), updates, strict=True):
        (part,) = payload.parts()
        assert np.array_equal(part.indices, update.part.indices)
        assert np.array_equal(part.values, update.part.values)
    assert 0 <= peak_bytes(tmp_path, UNION_MEAN, 12) < 20 * 2**20
    seconds = nnm_main(tmp_path, 12, 2)
    assert {kind: len(times) for kind, times in seconds.items()} == {"agreed": 2, "free": 2}


@pytest.mark.parametrize("count", [1, 5, 700, 1_000])
def test_run_lengths_are_those_of_the_bits(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "PARAMETERS", 40_000)
    indices = np.sort(np.random.default_rng(count).choice(1_000 if count == 700 else 40_000, count, replace=False))
    bits = np.zeros(int(indices[-1]) + 1, dtype=int)
    bits[indices] = 1
    # The first run is of zeros, and may be empty; what follows the last one needs none.
    runs = [0] * int(bits[0]) + [len(list(run)) for _, run in groupby(bits.tolist())]
    assert aggregation.run_length_bytes(indices) == sum(max(1, -(-run.bit_length() // 7)) for run in runs)
    found = aggregation.mask_bytes(indices)
    assert (found["bitmap"], found["bool_array"]) == (5_000, 40_000)
    assert found["saved_of_bitmap"] == round(1 - found["codec"] / 5_000, 4)


def test_the_benchmark_is_one_of_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aggregation", "--only", "streams"]) == 2
    assert "aggregation takes --json" in capsys.readouterr().err
