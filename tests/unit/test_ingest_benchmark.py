"""What the ingest benchmark counts on: 200 rules that pass their review, and a run that measures what it says."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import ingest, machine
from benchmarks.__main__ import main
from benchmarks.ingest import RULES, Scale, general_rules, scoped_rules
from benchmarks.uploads import streams
from benchmarks.uploads.streams import StreamScale
from sfrl_secure.governance.cedar_rules import parse_rules_text
from sfrl_secure.governance.policy import AdmissionPolicy
from sfrl_secure.governance.rule_review import review_rules


def test_both_kinds_of_rules_are_200_that_pass_their_review() -> None:
    for cedar in (scoped_rules(), general_rules()):
        assert len(review_rules(cedar)) == RULES


def test_scoped_rules_are_mostly_about_one_segment_or_participant() -> None:
    scoped = [rule for rule in parse_rules_text(scoped_rules()) if rule.scope.segment or rule.scope.participant]
    assert len(scoped) == RULES * 3 // 4
    assert not [rule for rule in parse_rules_text(general_rules()) if rule.scope.segment or rule.scope.participant]


def test_a_small_run_measures_every_figure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    decide = AdmissionPolicy._decide
    monkeypatch.setattr(ingest, "QUICK", Scale(participants=12, enrolled=2, admitted=3, at_once=4))
    before = structlog.get_config()
    try:
        assert main(["ingest", "--json", "--quick", "--only", "admissions", "--dir", str(tmp_path)]) == 0
    finally:
        structlog.configure(**before)
    figures = json.loads(capsys.readouterr().out)
    assert 290_000 < figures["request_bytes"] < 310_000
    for name in ("decision_share", "decision_share_general"):
        assert 0 < figures[name] < 1
        assert figures["bars"][name]["bar"] == 0.05
    assert figures["enrol_first_us"] > 0
    assert figures["enrol_10001st_us"] > 0
    assert AdmissionPolicy._decide is decide
    assert not list(tmp_path.iterdir())


def test_streams_go_through_a_running_gatekeeper_beside_a_sink_and_the_disk(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = StreamScale(parameters=300_000, dense=2, sparse=2, at_once=3, sparse_bytes=10_000)
    monkeypatch.setattr(streams, "QUICK", small)
    assert main(["ingest", "--json", "--quick", "--only", "streams", "--dir", str(tmp_path)]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["dense_update_bytes"] > 4 * small.parameters
    assert 0 < figures["dense_ratio"] <= figures["disk_ratio"]
    assert figures["sparse_ms"]["min"] <= figures["sparse_ms"]["median"] <= figures["sparse_ms"]["max"]
    assert figures["sparse_extra_ms"] < figures["sparse_ms"]["median"]
    assert figures["memory_mib"] >= 0
    assert set(figures["bars"]) == {"dense", "sparse_extra_ms", "memory_mib"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("dense_ratio", "disk_ratio", "holds"), [(0.25, 0.1, True), (0.1, 0.6, True), (0.24, 0.59, False)]
)
def test_a_stream_is_fast_enough_by_the_network_or_by_the_disk(
    dense_ratio: float, disk_ratio: float, holds: bool
) -> None:
    figures = {"dense_ratio": dense_ratio, "disk_ratio": disk_ratio, "sparse_extra_ms": 1.0, "memory_mib": 1.0}
    assert streams.bars_of(figures)["dense"].holds is holds


def test_memory_is_counted_from_where_its_peak_was_forgotten() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "kept = b'x' * 60_000_000; del kept; input(); kept = b'x' * 30_000_000; input()"],
        stdin=subprocess.PIPE,
    ) as process:
        wait_for(lambda: streams.peak_mb(process.pid) > 60)
        wait_for(lambda: machine.memory_mb(process.pid) < 40)
        streams.reset_peak(process.pid)
        assert streams.peak_mb(process.pid) < 40
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        wait_for(lambda: streams.peak_mb(process.pid) > 30)
        process.communicate(b"\n")


def wait_for(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("argument", ["--keep", "--rates-only", "--only=bare"])
def test_what_ingest_does_not_take_is_said(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", argument]) == 2
    assert "ingest takes" in capsys.readouterr().err
