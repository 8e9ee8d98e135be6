"""Plans: what does not fit is refused, and the key is named."""

from __future__ import annotations

import re

import pytest

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
    ],
)
def test_what_does_not_fit_is_refused_and_its_key_named(before: str, after: str, named: str) -> None:
    assert PLAN.count(before) >= 1
    with pytest.raises(MalformedError, match=rf"the plan, line [0-9]+: .*`{re.escape(named)}`"):
        parse_plan(PLAN.replace(before, after, 1).encode())


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
