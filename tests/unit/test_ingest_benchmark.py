"""What the ingest benchmark counts on: 200 rules that pass their review, and a run that measures what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import ingest
from benchmarks.__main__ import main
from benchmarks.ingest import RULES, Scale, general_rules, scoped_rules
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
        assert main(["ingest", "--json", "--quick", "--dir", str(tmp_path)]) == 0
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


@pytest.mark.parametrize("argument", ["--keep", "--rates-only", "--only=bare"])
def test_what_ingest_does_not_take_is_said(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ingest", argument]) == 2
    assert "ingest takes" in capsys.readouterr().err
