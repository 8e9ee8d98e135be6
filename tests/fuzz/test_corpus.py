"""The fixed corpus: hostile bytes that are refused today and stay refused, and the harness that finds what is not."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from sfrl_secure.errors import MalformedError
from sfrl_secure.participant import models as models_module
from sfrl_secure.services.gatekeeper import uploads as intake_module
from sfrl_secure.sparse import mask as mask_module
from sfrl_secure.sparse import reader as reader_module
from sfrl_secure.sparse import scaled as scaled_module
from sfrl_secure.storage.folder_uploads import FolderUpload
from sfrl_secure.translog import opened as opened_module
from sfrl_secure.wire import uploads as upload_messages
from tests.fuzz import checks, payload_checks, signed
from tests.fuzz.harness import ACCEPTED, Target, case_bytes, outcome_of, run, run_in_processes
from tests.fuzz.targets import all_targets, targets_named
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


HOSTILE_SEEDS = {
    "note", "add_checkpoint", "tlog_proof", "append_answers", "upload_stream", "upload_threads", "payload_free",
    "payload_agreed", "payload_dense",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(TARGETS) - HOSTILE_SEEDS))
def test_every_seed_is_accepted(name: str) -> None:
    assert {outcome_of(TARGETS[name], seed) for seed in TARGETS[name].seeds} == {ACCEPTED}


@pytest.mark.parametrize("name", sorted(HOSTILE_SEEDS))
def test_some_seeds_are_accepted_and_none_is_malformed(name: str) -> None:
    outcomes = {outcome_of(TARGETS[name], seed) for seed in TARGETS[name].seeds} - {"MalformedError"}
    assert ACCEPTED in outcomes
    assert outcomes <= {ACCEPTED, "SignatureError", "MeasuredDenial", "PayloadError"}


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


def test_what_takes_memory_that_its_bytes_do_not_account_for_is_a_finding() -> None:
    def check(_raw: bytes) -> None:
        assert bytearray(2**23)

    (finding,) = run([Target("greedy", (b"seed",), check, is_measured=True)], 3, seed=1).findings
    assert finding.case == "greedy/0"
    assert "bytes for" in finding.what


def test_more_is_tried_of_what_has_a_larger_share() -> None:
    targets = [Target("rare", (b"seed",), lambda _: None), Target("often", (b"seed",), lambda _: None, share=9)]
    assert run(targets, 100, seed=1).outcomes == {("rare", ACCEPTED): 10, ("often", ACCEPTED): 90}


def test_processes_try_the_same_cases() -> None:
    apart, here = run_in_processes(targets_named, "tile", 200, 4, 1), run(targets_named("tile"), 200, 4)
    assert (apart.outcomes, apart.findings) == (here.outcomes, here.findings)


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
        ("payload_free", reader_module, "check_leaf", lambda *_: None),
        ("payload_dense", scaled_module, "_check_scales", lambda *_: None),
        ("mask", mask_module, "check_leaf", lambda *_: None),
        ("upload_stream", intake_module, "parse_chunk", lambda raw: _any_chunk(raw)),
        ("upload_stream", FolderUpload, "sync", lambda upload: upload._payload_bytes),
        ("download", models_module, "sha256", lambda _: _Whatever()),
    ],
)
def test_a_check_that_looks_away_is_found(
    name: str, module: object, function: str, looks_away: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, function, looks_away)
    assert run([TARGETS[name]], 1_500, seed=1).findings


class _Whatever:
    """Equals everything."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


def _any_chunk(raw: bytes) -> upload_messages.Chunk:
    """A reader of chunks that takes every protobuf message."""
    try:
        message = upload_messages.messages.SubmitUpdateRequest.FromString(raw)
    except Exception:  # noqa: BLE001 - whatever protobuf raises
        raise MalformedError("no message") from None
    return upload_messages.Chunk(message.offset, message.chunk)


def test_compiled_loops_that_take_too_much_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    if payload_checks.compiled() is None:
        pytest.skip("numba is not installed")
    monkeypatch.setattr(payload_checks.compiled(), "int8", lambda raw, exponents, free, out: out.fill(1) is None)
    assert run([TARGETS["payload_dense"]], 600, seed=1).findings
