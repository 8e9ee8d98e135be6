from __future__ import annotations

import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfrl_secure.errors import MalformedError
from sfrl_secure.governance.cedar_text import split_policies
from sfrl_secure.governance.policy import check_rules
from sfrl_secure.limits import POLICIES_MAX, POLICY_NESTING_MAX, POLICY_STEPS_MAX

HEAD = '@id("a") permit (principal, action, resource) when {'
# The two brackets that every policy with a condition opens.
ROOM = POLICY_STEPS_MAX - 3


def policy(condition: str) -> str:
    return f"{HEAD}{condition}}};"


CHAINS = {
    "sum": ("1+", "1 > 0", ROOM),
    "and": ("true&&", "true", ROOM // 2),
    "or": ("false||", "true", ROOM // 2),
    "if": ("if true then true else ", "true", ROOM),
    "attribute": ("context", ".weight", ROOM),
    "has": ("context has a", ".a", ROOM),
    "index": ("context", '["weight"]', ROOM),
}


def chain(kind: str, repeats: int) -> str:
    first, second, _ = CHAINS[kind]
    return policy(first + second * repeats if first.startswith("context") else first * repeats + second)


def test_policies_are_cut_at_their_semicolons_and_know_their_line() -> None:
    texts = split_policies('// one\n\n@id("a")\npermit (p, a, r); @id("b") forbid (p, a, r)\n;\n// end')
    assert [text.line for text in texts] == [3, 4]
    assert texts[1].text == ' @id("b") forbid (p, a, r)\n;'


def test_semicolons_in_strings_and_comments_cut_nothing() -> None:
    texts = split_policies('@id("a;\\";") // ; "\npermit (principal, action, resource);')
    assert len(texts) == 1


@pytest.mark.parametrize("text", ["", "\n\t ", "// nothing", "// a\n// b"])
def test_no_policies_are_rules_that_permit_nothing(text: str) -> None:
    assert split_policies(text) == ()
    assert check_rules(text) == ()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("permit (principal, action, resource)", "line 1: a policy ends with ';'"),
        ("a;\n\n\nb // ;", "line 4: a policy ends with ';'"),
        ('"a\nb";', "line 1: a string ends on its line"),
        ('\n"a;', "line 2: a string ends on its line"),
        ('"a\\', "a string ends on its line"),
        ("\x00;", "printable ASCII"),
        ("// é", "printable ASCII"),
        ("a;\r\n", "printable ASCII"),
        ("a\x0b;", "printable ASCII"),
    ],
)
def test_text_that_two_readers_could_cut_differently_is_refused(text: str, why: str) -> None:
    with pytest.raises(MalformedError, match=why):
        split_policies(text)


def test_policies_are_counted() -> None:
    assert len(split_policies("a;" * POLICIES_MAX)) == POLICIES_MAX
    with pytest.raises(MalformedError, match=f"at most {POLICIES_MAX} policies"):
        split_policies("a;" * (POLICIES_MAX + 1))


@pytest.mark.parametrize("brackets", ["()", "[]", "{}"])
def test_nesting_is_bounded_for_each_bracket(brackets: str) -> None:
    opening, closing = brackets
    split_policies(opening * POLICY_NESTING_MAX + closing * POLICY_NESTING_MAX + ";")
    with pytest.raises(MalformedError, match="nest"):
        split_policies(opening * (POLICY_NESTING_MAX + 1) + ";")


def test_closing_what_is_not_open_makes_no_room() -> None:
    with pytest.raises(MalformedError, match="nest"):
        split_policies(")" * 50 + "(" * (POLICY_NESTING_MAX + 1) + ";")


def test_brackets_in_strings_and_comments_do_not_count() -> None:
    hidden = '"' + ")" * 50 + '" // ' + ")" * 50 + "\n"
    with pytest.raises(MalformedError, match="nest"):
        split_policies("(" * POLICY_NESTING_MAX + hidden + "(;")
    split_policies('"' + "(" * 500 + '" // ' + "(" * 500 + "\n;")


@pytest.mark.parametrize("step", ["(", "[", "{", ".", "+", "-", "*", "!", "&", "|", " if "])
def test_every_step_is_counted_and_only_within_its_policy(step: str) -> None:
    closing = {"(": ")", "[": "]", "{": "}"}.get(step, "")
    split_policies((step + closing) * POLICY_STEPS_MAX + ";" + (step + closing) * POLICY_STEPS_MAX + ";")
    with pytest.raises(MalformedError, match=f"at most {POLICY_STEPS_MAX}"):
        split_policies((step + closing) * (POLICY_STEPS_MAX + 1) + ";")


def test_names_that_contain_if_are_no_steps() -> None:
    split_policies("iff _if if_ elif " * POLICY_STEPS_MAX + ";")


@pytest.mark.parametrize("shape", ["(", "[", "{a:", "!(", "(true&&"])
@pytest.mark.parametrize("depth", [1_000, 10_000])
def test_nesting_that_ends_the_native_parser_never_reaches_it(shape: str, depth: int) -> None:
    with pytest.raises(MalformedError, match=r"nest|at most"):
        check_rules(policy(shape * depth))


@pytest.mark.parametrize("kind", CHAINS)
def test_chains_that_end_the_native_parser_never_reach_it(kind: str) -> None:
    with pytest.raises(MalformedError, match=f"at most {POLICY_STEPS_MAX}"):
        check_rules(chain(kind, 2_500))


def judge(text: str, stack_bytes: int) -> str:
    """What check_rules says in a thread with this much stack."""
    verdict: list[str] = []

    def run() -> None:
        try:
            verdict.append(f"taken: {check_rules(text)}")
        except MalformedError as error:
            verdict.append(type(error).__name__)

    before = threading.stack_size(stack_bytes)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    return verdict[0]


@pytest.mark.parametrize("kind", CHAINS)
def test_the_longest_chains_are_judged_alike_with_little_and_with_much_stack(kind: str) -> None:
    text = chain(kind, CHAINS[kind][2])
    split_policies(text)
    small, large = judge(text, 2**20), judge(text, 2**23)
    assert small == large




@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='()[]{};"\\/\n ifa.+&é', max_size=40))
def test_cutting_loses_nothing_or_refuses(text: str) -> None:
    try:
        texts = split_policies(text)
    except MalformedError:
        return
    joined = "".join(policy_text.text for policy_text in texts)
    assert text.startswith(joined)
    assert all(policy_text.text.endswith(";") for policy_text in texts)
    assert ";" not in text[len(joined) :] or "//" in text[len(joined) :]
