"""Plans: what does not fit is refused, and the key is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sfrl_secure.cli.main import app
from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.aggregation_terms import (
    NNM_TRIMMED_MEAN,
    CapTerms,
    ClipTerms,
    MomentumTerms,
    RuleTerms,
)
from sfrl_secure.governance.terms import parse_terms
from sfrl_secure.ids import ZERO_DIGEST
from sfrl_secure.services.federation.documents import terms_document
from sfrl_secure.services.federation.plan import PLAN_BYTES_MAX, default_plan, parse_plan
from sfrl_secure.services.federation.plan_checks import check_plan

PLAN = """
operators = ["alice", "bob"]
threshold = 2

[[participants]]
name = "rover-1"
groups = ["rovers"]

[[segments]]
name = "rocks"
groups = ["rovers"]
tensors = [{ name = "weight", shape = [4, 4] }, { name = "bias", shape = [4], dtype = "int64" }]
nonzeros_max = 8
norm_max = 100.0
magnitude_max = 10.0
weight_max = 1000
cohort_max = 3
rounds_max = 10
"""


def test_a_plan_is_read_with_defaults_where_it_says_nothing() -> None:
    plan = parse_plan(PLAN.encode())
    assert plan.operators == ["alice", "bob"]
    assert plan.gatekeepers == ["gatekeeper-1"]
    assert plan.segments[0].manifest.coordinates == 20
    assert [tensor.dtype for tensor in plan.segments[0].manifest.tensors] == ["int32", "int64"]
    assert plan.segments[0].value_types == ["fp32", "int8", "packed"]
    assert (plan.segments[0].support_modes, plan.segments[0].relay_groups) == (["free"], [])
    assert (plan.segments[0].mask, plan.segments[0].payload_bytes_max) == (None, None)


@pytest.mark.parametrize(
    ("written", "size"),
    [("4096", 4096), ('"45 MiB"', 45 * 2**20), ('"1 GiB"', 2**30), ("1073741824", 2**30), ('"1 B"', 1)],
)
def test_a_payload_size_is_a_number_or_text_with_a_unit(written: str, size: int) -> None:
    plan = parse_plan(PLAN.replace("weight_max", f"payload_bytes_max = {written}\nweight_max").encode())
    assert plan.segments[0].payload_bytes_max == size


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("threshold = 2", "treshold = 2", "treshold"),
        ("threshold = 2", "threshold = 0", "threshold"),
        ("threshold = 2", 'threshold = "2"', "threshold"),
        ('name = "rover-1"', 'name = "Rover 1"', "participants.0.name"),
        ('groups = ["rovers"]\n\n[[seg', 'groups = ["rovers"]\nsuite = "rsa"\n\n[[seg', "participants.0.suite"),
        ("nonzeros_max = 8\n", "", "segments.0.nonzeros_max"),
        ("norm_max = 100.0", "norm_max = []", "segments.0.norm_max"),
        ('name = "rocks"', 'name = "../rocks"', "segments.0.name"),
        ("nonzeros_max", 'payload_bytes_max = "2 GiB"\nnonzeros_max', "segments.0.payload_bytes_max"),
        ("nonzeros_max", 'payload_bytes_max = "45 mb"\nnonzeros_max', "segments.0.payload_bytes_max"),
        ("nonzeros_max", "payload_bytes_max = 1073741825\nnonzeros_max", "segments.0.payload_bytes_max"),
        ("nonzeros_max", "payload_bytes_max = 0\nnonzeros_max", "segments.0.payload_bytes_max"),
        ("nonzeros_max", "payload_bytes_max = true\nnonzeros_max", "segments.0.payload_bytes_max"),
        ("nonzeros_max", 'value_types = ["int8", "fp16"]\nnonzeros_max', "segments.0.value_types.1"),
        ("nonzeros_max", 'support_modes = ["mask"]\nnonzeros_max', "segments.0.support_modes.0"),
        ("nonzeros_max", 'relay_groups = ["Lorries"]\nnonzeros_max', "segments.0.relay_groups.0"),
        ("nonzeros_max", "mask = 3\nnonzeros_max", "segments.0.mask"),
        ("nonzeros_max = 8", "nonzeros_max = 0", "segments.0.nonzeros_max"),
        ("norm_max = 100.0", "norm_max = -1.0", "segments.0.norm_max"),
        ("norm_max = 100.0", "norm_max = inf", "segments.0.norm_max"),
        ("magnitude_max = 10.0", "magnitude_max = nan", "segments.0.magnitude_max"),
        ("weight_max = 1000", "weight_max = 4194305", "segments.0.weight_max"),
        ("cohort_max = 3", "cohort_max = 501", "segments.0.cohort_max"),
        ("cohort_max = 3", "cohort_max = 3\ncohort_min = 0", "segments.0.cohort_min"),
        ("rounds_max = 10", "rounds_max = 0", "segments.0.rounds_max"),
        ("rounds_max = 10", "rounds_max = 10\nduration_seconds = 0", "segments.0.duration_seconds"),
        ("rounds_max = 10", "rounds_max = 10\ngrid_exponent = 41", "segments.0.grid_exponent"),
        ("rounds_max = 10", "rounds_max = 10\nsensitivity = -1", "segments.0.sensitivity"),
        ("rounds_max = 10", "rounds_max = 10\nevidence_days = 0", "segments.0.evidence_days"),
        ("rounds_max = 10", "rounds_max = 10\nretention_days = 36501", "segments.0.retention_days"),
        ("rounds_max = 10", 'rounds_max = 10\nrule = "median/v1"', "segments.0.rule"),
        ("rounds_max = 10", "rounds_max = 10\nrule = {}", "segments.0.rule.name"),
        ("rounds_max = 10", 'rounds_max = 10\nrule = {name = "median/v1", lairs = 0.1}', "segments.0.rule.lairs"),
        ("rounds_max = 10", 'rounds_max = 10\nrule = {name = "median/v1", liars = "0.1"}', "segments.0.rule.liars"),
        ("rounds_max = 10", "rounds_max = 10\nclip = {norm = nan}", "segments.0.clip.norm"),
        ("rounds_max = 10", "rounds_max = 10\nclip = {norm = -1.0}", "segments.0.clip.norm"),
        ("rounds_max = 10", "rounds_max = 10\ncap = {magnitude = 1}", "segments.0.cap.contributors_below"),
        ("rounds_max = 10", 'rounds_max = 10\nserver = {name = "momentum/v1", decay = 0.9}', "segments.0.server.rate"),
        ("rounds_max = 10", "rounds_max = 10\nmask_next = {score = 1, regrow = 1}", "segments.0.mask_next.score"),
    ],
)
def test_what_does_not_fit_is_refused_and_its_key_named(before: str, after: str, named: str) -> None:
    assert PLAN.count(before) >= 1
    with pytest.raises(MalformedError, match=rf"the plan, line [0-9]+: .*`{re.escape(named)}`"):
        parse_plan(PLAN.replace(before, after, 1).encode())


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("nonzeros_max = 8", "nonzeros_max = 21", "nonzeros_max is an integer from 1 to 20"),
        ("cohort_max = 3", "cohort_max = 3\ncohort_min = 4", "cohort_min is an integer from 1 to 3"),
        ("weight_max = 1000", "weight_max = 4194304", r"cohort_max \* weight_max is at most"),
        ("magnitude_max = 10.0", "magnitude_max = 1e-9", "magnitude_max is one grid unit or more, 5.96"),
        ("norm_max = 100.0", "norm_max = 1e-9", "norm_max is one grid unit or more, 5.96"),
        ("shape = [4, 4]", "shape = [0]", "a shape has 1 to 8 axes"),
        ("rounds_max = 10", 'rounds_max = 10\noperations = ["look"]', "operations has only fetch, record, submit"),
        ("rounds_max", 'rule = { name = "krum/v1" }\nrounds_max', "rule.name: it is one of clustered_mean/v1"),
        ("rounds_max", 'rule = { name = "multi_krum/v1", liars = 0.1 }\nrounds_max', "rule: multi_krum/v1 wants"),
        (
            "rounds_max", 'rule = { name = "nnm_trimmed_mean/v1", liars = 0.5 }\nrounds_max',
            "rule.liars: it is from 0.0 to 0.499999",
        ),
        ("rounds_max", "clip = { }\nrounds_max", "clip: it has one of the keys norm and of_median"),
        ("rounds_max", "clip = { norm = 1e-9 }\nrounds_max", "clip.norm: it is from 0.00000005960464"),
        ("rounds_max", "cap = { contributors_below = 0, magnitude = 1 }\nrounds_max", "cap.contributors_below: "),
        (
            "rounds_max", 'server = { name = "momentum/v1", decay = 1.0, rate = 1.0 }\nrounds_max',
            "server.decay: it is from 0.0 to 0.99998",
        ),
        (
            "rounds_max", 'mask_next = { score = "votes", regrow = 1 }\nrounds_max',
            "mask_next is for a segment with a mask",
        ),
        ("rounds_max", 'leakage = { rows = [{ tensor = "no", min = 1 }] }\nrounds_max', "leakage.rows.tensor"),
    ],
)
def test_keys_that_do_not_fit_each_other_name_file_and_segment_and_nothing_is_made(
    before: str, after: str, said: str, tmp_path: Path
) -> None:
    assert PLAN.count(before) == 1
    (tmp_path / "plan.toml").write_text(PLAN.replace(before, after))
    with pytest.raises(MalformedError, match=rf"^{tmp_path}/plan.toml: the plan's segment rocks: {said}"):
        CliRunner().invoke(
            app, ["init", str(tmp_path / "fed"), "--plan", str(tmp_path / "plan.toml")], catch_exceptions=False
        )
    assert not (tmp_path / "fed").exists()


def test_a_plan_says_how_rounds_are_added_up_in_the_units_of_a_draft() -> None:
    tables = """
    [segments.rule]
    name = "nnm_trimmed_mean/v1"
    liars = 0.2
    [segments.clip]
    of_median = 1.1
    [segments.cap]
    contributors_below = 3
    magnitude = 0.25
    [segments.server]
    name = "momentum/v1"
    decay = 0.9
    rate = 0.1
    """
    plan = parse_plan((PLAN + tables).encode())
    check_plan(plan)
    terms = parse_terms(terms_document(ZERO_DIGEST, plan.segments[0], ZERO_DIGEST, 1))
    assert terms.rule == RuleTerms(NNM_TRIMMED_MEAN, liars_ppm=200_000)
    assert (terms.clip, terms.cap) == (ClipTerms(median_ppm=1_100_000), CapTerms(3, 2**22))
    assert terms.server == MomentumTerms(decay=58_982, rate=6_554)


def test_a_plan_that_does_not_say_how_is_added_up_by_the_weighted_mean_alone() -> None:
    terms = parse_terms(terms_document(ZERO_DIGEST, parse_plan(PLAN.encode()).segments[0], ZERO_DIGEST, 1))
    assert (terms.rule, terms.clip, terms.cap, terms.server) == (RuleTerms(), None, None, None)


def test_a_number_that_is_none_is_one_problem_and_not_one_for_each_kind_of_number() -> None:
    with pytest.raises(MalformedError) as refused:
        parse_plan(f'{PLAN}clip = {{ norm = "one" }}\n'.encode())
    assert str(refused.value) == "the plan, line 19: `segments.0.clip.norm` is a number"
    with pytest.raises(MalformedError, match=r"`segments\.0\.constants\.int` is a list|valid list"):
        parse_plan(f"{PLAN}constants = {{ int = 3 }}\n".encode())


def test_all_that_does_not_fit_is_named_at_once_by_line_and_in_our_words() -> None:
    text = PLAN.replace("weight_max = 1000", "weight_max = 1.5").replace('"alice"', '"Alice"')
    text = text.replace("threshold = 2", "threshold = 0")
    with pytest.raises(MalformedError) as refused:
        parse_plan(text.encode())
    said = str(refused.value)
    assert said.startswith("the plan, line 2: `operators.0`: a name is 1 to 64 lower-case letters")
    assert "; line 3: `threshold` is greater than or equal to 1;" in said
    assert said.endswith("; line 16: `segments.0.weight_max` is a whole number")
    with pytest.raises(MalformedError, match="not TOML: line 2, column 5"):
        parse_plan(b"a = 1\nb = = 2\n")


@pytest.mark.parametrize("raw", [b"\xff", b"= 1", b"[[participants]", b"a = 1\na = 2"])
def test_what_is_not_toml_is_refused(raw: bytes) -> None:
    with pytest.raises(MalformedError, match=r"not TOML|not UTF-8"):
        parse_plan(raw)


def test_a_plan_beyond_the_bound_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(MalformedError, match=str(PLAN_BYTES_MAX)):
        parse_plan(b"#" * (PLAN_BYTES_MAX + 1))


def test_the_default_plan_is_one_that_a_file_could_say() -> None:
    plan = default_plan()
    assert type(plan).model_validate(plan.model_dump()) == plan
