"""The fixed corpus: hostile bytes that are refused today and stay refused, and the harness that finds what is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sfrl_secure.errors import MalformedError
from sfrl_secure.translog import opened as opened_module
from tests.fuzz import checks, signed
from tests.fuzz.harness import ACCEPTED, Target, case_bytes, outcome_of, run
from tests.fuzz.targets import all_targets
from tests.fuzz.world import TIME
from tests.fuzz.write_corpus import CORPUS, case_of

TARGETS = {target.name: target for target in all_targets()}
CASES = json.loads(CORPUS.read_text())


def test_the_corpus_has_some_hundreds_of_cases_of_every_target() -> None:
    assert len(CASES) >= 300
    assert {case["target"] for case in CASES} == set(TARGETS)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_every_case_of_the_corpus_has_its_outcome(name: str) -> None:
    target = TARGETS[name]
    cases = [case for case in CASES if case["target"] == name]
    assert [outcome_of(target, case_of(case, target)) for case in cases] == [case["outcome"] for case in cases]


HOSTILE_SEEDS = {"note", "add_checkpoint", "tlog_proof", "append_answers"}


@pytest.mark.parametrize("name", sorted(set(TARGETS) - HOSTILE_SEEDS))
def test_every_seed_is_accepted(name: str) -> None:
    assert {outcome_of(TARGETS[name], seed) for seed in TARGETS[name].seeds} == {ACCEPTED}


@pytest.mark.parametrize("name", sorted(HOSTILE_SEEDS))
def test_some_seeds_are_accepted_and_none_is_malformed(name: str) -> None:
    outcomes = {outcome_of(TARGETS[name], seed) for seed in TARGETS[name].seeds} - {"MalformedError"}
    assert ACCEPTED in outcomes
    assert outcomes <= {ACCEPTED, "SignatureError"}


def test_some_thousands_of_fresh_cases_are_refused_or_true() -> None:
    tally = run(all_targets(), 9_200, seed=1)
    assert tally.findings == []
    assert sum(tally.outcomes.values()) >= 9_200


def test_a_case_is_the_same_whenever_it_is_made() -> None:
    target = TARGETS["note"]
    assert case_bytes(target, 5, 1) == case_bytes(target, 5, 1)
    assert len({case_bytes(target, number, seed) for number in range(20) for seed in (1, 2)}) > 35


@pytest.mark.parametrize("error", [ValueError, KeyError, RecursionError, UnicodeDecodeError, AssertionError])
def test_whatever_is_no_typed_error_is_a_finding(error: type[Exception]) -> None:
    def check(_raw: bytes) -> None:
        raise error("utf-8", b"", 0, 1, "") if error is UnicodeDecodeError else error("no")

    (finding,) = run([Target("broken", (b"seed",), check)], 1, seed=1).findings
    assert error.__name__ in finding.what
    assert finding.case == "broken/0"


def test_a_typed_error_is_a_refusal() -> None:
    def check(_raw: bytes) -> None:
        raise MalformedError("no")

    tally = run([Target("strict", (b"seed",), check)], 10, seed=1)
    assert (tally.findings, dict(tally.outcomes)) == ([], {("strict", "MalformedError"): 10})


@pytest.mark.parametrize(
    ("name", "module", "function", "looks_away"),
    [
        ("inclusion", checks, "verify_inclusion", lambda *_: None),
        ("tile", checks, "root_of", lambda _: b""),
        ("append_request", checks, "verify_single", lambda *_: None),
        ("entry", checks, "verify_single", lambda *_: None),
        ("note", opened_module, "verify_line", lambda *_: TIME + 1),
        ("append_answer", checks, "verify_inclusion", lambda *_: None),
        ("withdraw_request", signed, "verify_single", lambda *_: None),
        ("renew_request", signed, "verify_single", lambda *_: None),
    ],
)
def test_a_check_that_looks_away_is_found(
    name: str, module: object, function: str, looks_away: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, function, looks_away)
    assert run([TARGETS[name]], 1_500, seed=1).findings
