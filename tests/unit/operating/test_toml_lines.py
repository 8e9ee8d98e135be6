"""The line of each key, whatever stands around it."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfrl_secure.operating.toml_lines import key_lines, line_of

TEXT = '''kind = "x" # a = b
a.b = 1
s = """
[not]
x = 1 ""quoted"" """
l = [ # ]
 {a=1}, "]",
 2]
[limits]
payload = 1
[[leakage.rows]]
tensor="x"
[[leakage.rows]]
  axis = 2
[leakage.rows.z]
q=1
"quoted key" = 2
[operators.'al ice']
k=\'\'\'
[not.either]
\'\'\'
end = 1
'''


def test_each_key_is_on_its_line() -> None:
    lines = key_lines(TEXT)
    expected = {
        ("kind",): 1, ("a", "b"): 2, ("s",): 3, ("l",): 6, ("limits",): 9, ("limits", "payload"): 10,
        ("leakage", "rows", 0): 11, ("leakage", "rows", 0, "tensor"): 12, ("leakage", "rows", 1): 13,
        ("leakage", "rows", 1, "axis"): 14, ("leakage", "rows", 1, "z", "q"): 16,
        ("leakage", "rows", 1, "z", "quoted key"): 17, ("operators", "al ice", "k"): 19,
        ("operators", "al ice", "end"): 22,
    }  # fmt: skip
    assert {path: lines[path] for path in expected} == expected
    assert not any("not" in path for path in lines)


def test_no_key_is_invented_and_none_is_left_out() -> None:
    def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
        found = {path} if path else set()
        if isinstance(value, dict):
            return found.union(*(paths(each, (*path, key)) for key, each in value.items()))
        if isinstance(value, list) and value and path == ("leakage", "rows"):
            return found.union(*(paths(each, (*path, at)) for at, each in enumerate(value)))
        return found

    assert key_lines(TEXT).keys() == paths(tomllib.loads(TEXT))


@pytest.mark.parametrize(
    ("path", "line"),
    [(("limits", "unknown"), 9), (("leakage", "rows", 1, "min"), 13), (("l", 0, "a"), 6), (("no",), 1)],
)
def test_what_has_no_line_of_its_own_is_where_the_thing_around_it_is(path: tuple[str | int, ...], line: int) -> None:
    assert line_of(key_lines(TEXT), path) == line


@given(st.text(alphabet="a.=[]{}\"'#\\ \n\t1,-", max_size=60))
def test_no_text_at_all_breaks_it(text: str) -> None:
    assert all(1 <= line <= text.count("\n") + 1 for line in key_lines(text).values())
