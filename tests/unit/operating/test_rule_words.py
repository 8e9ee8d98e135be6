"""Rules in their author's words: the rule, the line, the name that was meant, and rules that shut everybody out."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfrl_secure.governance.build import build_rules
from sfrl_secure.governance.documents import RulesDocument, parse_document
from sfrl_secure.governance.policy import default_rules
from sfrl_secure.ids import ZERO_DIGEST, sha256
from sfrl_secure.operating.document_words import words_of
from sfrl_secure.operating.drafts import read_cedar
from sfrl_secure.operating.rule_words import shut_out

ALL = '@id("all")\npermit (principal, action, resource);\n'
SUBMIT = '@id("in")\npermit (principal, action == Action::"submit", resource);\n'
ADMIT = '@id("count")\npermit (principal, action == Action::"admit", resource);\n'


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("principal.clearence > 1", ": did you mean clearance?"),
        ("context.wieght > 1", ": did you mean weight?"),
        ("resource.colour > 1", ": there are sensitivity"),
        ("context.norm > 1", 'norm is measured later, so the rule is for action == Action::"admit" alone'),
    ],
)
def test_a_wrong_name_has_its_rule_its_line_and_the_right_one(tmp_path: Path, condition: str, said: str) -> None:
    path = tmp_path / "rules.cedar"
    head = f'{ALL}// {condition}\n@id("limit")\nforbid (principal, action, resource)\n'
    path.write_text(f"{head}when {{\n  {condition}\n}};\n")
    (problem,) = read_cedar(path)[1]
    assert problem.line == 7
    assert problem.reason.startswith("rule limit: ")
    assert problem.reason.endswith(said)


def test_a_wrong_action_has_the_right_one(tmp_path: Path) -> None:
    path = tmp_path / "rules.cedar"
    path.write_text(ALL + SUBMIT.replace("submit", "submt"))
    (problem,) = read_cedar(path)[1]
    assert (problem.line, problem.reason.endswith("did you mean submit?")) == (4, True)


def test_a_word_on_two_lines_points_to_where_the_rule_begins(tmp_path: Path) -> None:
    path = tmp_path / "rules.cedar"
    path.write_text('@id("a")\npermit (principal, action, resource)\nwhen { context.wait > 1\n|| context.wait < 0 };\n')
    (problem,) = read_cedar(path)[1]
    assert problem.line == 1


@pytest.mark.parametrize(
    ("cedar", "said"),
    [
        ("", "no rule permits anybody to submit"),
        ("// nothing\n", "no rule permits anybody to submit"),
        ('@id("no")\nforbid (principal, action, resource);\n', "no rule permits anybody to submit"),
        (ADMIT, "no rule permits anybody to submit"),
        (SUBMIT, "no rule permits anybody to admit"),
        (ALL + ADMIT.replace("permit", "forbid"), "rule count forbids everybody to admit"),
    ],
)
def test_rules_that_shut_everybody_out_are_refused(tmp_path: Path, cedar: str, said: str) -> None:
    path = tmp_path / "rules.cedar"
    path.write_text(cedar)
    (problem,) = read_cedar(path)[1]
    assert problem.reason.startswith(said)
    assert "sfrl order halt" in problem.reason


@pytest.mark.parametrize(
    "cedar",
    [
        default_rules(),
        ALL,
        SUBMIT + ADMIT,
        ALL + '@id("one")\nforbid (principal == Participant::"rover-1", action, resource);\n',
        ALL + '@id("one")\nforbid (principal, action, resource == Segment::"rocks");\n',
        ALL + '@id("some")\nforbid (principal, action, resource) when { context.weight > 9 };\n',
    ],
)
def test_rules_that_let_somebody_in_are_taken(cedar: str) -> None:
    assert shut_out(cedar) == ""


@pytest.mark.parametrize(("word", "said"), [("permit", "no rule permits anybody to admit"), ("grant", "not Cedar")])
def test_whoever_signs_rules_that_let_nobody_in_is_told(word: str, said: str) -> None:
    raw = build_rules(federation_id=sha256(b""), version=1, previous=ZERO_DIGEST, expires_us=9, cedar=SUBMIT)
    raw = raw.replace(b"permit", word.encode())
    (caution,) = [line for line in words_of(parse_document(RulesDocument.payload_type, raw)) if "CAUTION" in line]
    assert said in caution
