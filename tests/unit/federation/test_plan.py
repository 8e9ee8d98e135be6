"""Plans: what does not fit is refused, and the key is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sfrl_secure.cli.main import app
from sfrl_secure.errors import MalformedError
from sfrl_secure.services.federation.plan import PLAN_BYTES_MAX, default_plan, parse_plan

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
