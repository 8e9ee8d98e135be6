"""The benchmark of the auditor's recomputation, on a scale at which nothing is measured: what it compares with what."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import replay
from sfrl_secure.replay import recomputation


@pytest.fixture(autouse=True)
def small() -> Any:
    with patch.object(replay, "QUICK", (20_000, 4, 1)):
        yield


def test_every_rule_has_a_ratio_and_the_worst_one_is_named(tmp_path: Path) -> None:
    figures = replay.run(quick=True, folder=tmp_path)
    assert figures["errors"] == []
    assert {f"{rule}_{support}" for rule in replay.RULES for support in ("free", "agreed")} < figures["cases"].keys()
    assert figures["replay_ratio"] == figures["cases"][figures["worst"]]["ratio"] == figures["bar"]["value"]
    assert figures["replay_ratio"] == max(case["ratio"] for case in figures["cases"].values())
    assert all(len(case["auditor_seconds"]) == 1 for case in figures["cases"].values())


def test_a_round_that_the_auditor_finds_fault_with_is_an_error_and_no_figure(tmp_path: Path) -> None:
    with (
        patch.object(recomputation, "encode_aggregate", lambda *_: b"another"),
        patch.object(replay, "RULES", {"weighted_mean": replay.RULES["weighted_mean"]}),
    ):
        figures = replay.run(quick=True, folder=tmp_path)
    assert len(figures["errors"]) == 3
    assert all("aggregate" in error or "server_state" in error for error in figures["errors"])
    assert (figures["replay_ratio"], figures["worst"]) == (None, None)
    assert not figures["bar"]["holds"]
