"""The closed list of codes that an order can accept is that of the verifier."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sfrl_secure.replay.findings as findings
from sfrl_secure.errors import MalformedError
from sfrl_secure.operating.acceptable import ACCEPTABLE, NEVER, check_acceptable


def codes_of_the_verifier() -> Iterator[tuple[str, bool]]:
    """Each code that stands in the verifier's source, and whether it makes the finding one that can be accepted."""
    for path in Path(findings.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            named = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if named in ("Void", "find", "Finding") and node.args[0].value in findings.CODES:
                keywords = {each.arg for each in node.keywords}
                yield node.args[0].value, named == "Void" or "is_acceptable" in keywords


def test_the_list_is_what_the_verifier_lets_operators_accept() -> None:
    found = list(codes_of_the_verifier())
    can = {code for code, is_acceptable in found if is_acceptable}
    assert len(can) > 50
    assert can <= set(ACCEPTABLE)
    assert not can & NEVER
    assert {code for code, _ in found} - can <= NEVER
    assert findings.CODES.keys() >= NEVER


@pytest.mark.parametrize(
    ("code", "said"),
    [("foo", "the codes are: anchor, "), ("overdu", "mean overdue"), ("aggregate", "nobody can accept")],
)
def test_another_code_is_refused_with_the_list(code: str, said: str) -> None:
    with pytest.raises(MalformedError, match=said):
        check_acceptable(code)
    check_acceptable("overdue")
