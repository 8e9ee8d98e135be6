"""Reading drafts and Cedar files: every bad thing with its line and reason, or a draft that can be built.

Nothing here needs a log. Ranges that depend on what is in force are checked when the document is built
(`operating.drafting`); the problems of both have the same form.

Runs in: operators' machines, cli.
Trusts: nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sfrl_secure.errors import MalformedError, SfrlError
from sfrl_secure.governance.cedar_text import PolicyText, split_policies
from sfrl_secure.governance.rule_review import review_rules
from sfrl_secure.limits import DOCUMENT_BYTES_MAX
from sfrl_secure.operating.draft_numbers import Table
from sfrl_secure.operating.draft_tables import KINDS, Draft, RulesDraft
from sfrl_secure.operating.rule_words import place_fault, shut_out
from sfrl_secure.operating.toml_lines import KeyPath, key_lines, line_of
from sfrl_secure.storage.files import read_bounded

DRAFT_BYTES_MAX = 256 * 1024

_AT_LINE = re.compile(r"^(?P<what>.*?) ?\(at (?:line (?P<line>[0-9]+), column [0-9]+|end of document)\)$", re.DOTALL)
_LINE_FIRST = re.compile(r"^line (?P<line>[0-9]+): (?P<what>.*)$", re.DOTALL)
_DECIMAL_CHARACTERS_MAX = 64
_BRANCHES = ("int", "decimal", "str", "datetime", "[key]")
"""How pydantic names the branches of a union, and the name of a member."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong with a file: the line, counted from 1, and why."""

    path: Path
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.reason}"


@dataclass(frozen=True, slots=True)
class DraftFile:
    """A draft that has its form.

    Attributes:
        path: of the file.
        lines: where its keys stand.
        cedar: text of the rules, of a rules draft; `cedar_path` and `cedar_line` are where its first line stands.
    """

    path: Path
    draft: Draft
    lines: Mapping[KeyPath, int]
    cedar: str = ""
    cedar_path: Path = Path()
    cedar_line: int = 1

    def problem(self, path: KeyPath, reason: str) -> Problem:
        """Say what is wrong with one key."""
        return Problem(self.path, line_of(self.lines, path), reason)


def read_draft(path: Path) -> DraftFile | tuple[Problem, ...]:
    """Read a draft; or say everything that is wrong with it.

    Raises:
        NotFoundError, MalformedError, MissingEvidenceError: there is no such file, or it is too long or cannot be read.
    """
    text, problem = _text_of(path, read_bounded(path, DRAFT_BYTES_MAX))
    if problem is not None:
        return (problem,)
    try:
        values = tomllib.loads(text, parse_float=_decimal)
    except tomllib.TOMLDecodeError as error:
        matched = _AT_LINE.match(str(error))
        line = matched["line"] if matched else None
        last = text.count("\n") + 1
        return (Problem(path, int(line) if line else last, f"not TOML: {matched['what'] if matched else error}"),)
    except (MalformedError, ValueError, RecursionError) as error:
        return (Problem(path, 1, f"not TOML of ours: {error}"),)
    lines = key_lines(text)
    kind = values.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        known = ", ".join(f'"{each}"' for each in KINDS)
        return (Problem(path, line_of(lines, ("kind",)), f"the first key says what it is: kind = one of {known}"),)
    try:
        draft = KINDS[kind].model_validate(values)
    except ValidationError as error:
        return _problems_of(path, KINDS[kind], lines, error)
    if isinstance(draft, RulesDraft):
        return _with_cedar(path, draft, lines, text)
    return DraftFile(path, draft, lines)


def read_cedar(path: Path) -> tuple[str, tuple[Problem, ...]]:
    """Read a Cedar file and check it; give its text and everything that is wrong with it.

    Raises:
        NotFoundError, MalformedError, MissingEvidenceError: there is no such file, or it is too long or cannot be read.
    """
    text, problem = _text_of(path, read_bounded(path, DOCUMENT_BYTES_MAX))
    return (text, (problem,)) if problem is not None else (text, cedar_problems(path, text))


def cedar_problems(path: Path, cedar: str, first_line: int = 1) -> tuple[Problem, ...]:
    """Check each rule by itself, then all together: one bad rule does not hide the next.

    Args:
        first_line: where the text begins in its file.
    """
    try:
        policies = split_policies(cedar)
    except MalformedError as error:
        return (_cedar_problem(path, error, first_line - 1),)
    found = [problem for policy in policies for problem in _rule_problems(path, policy, first_line - 1)]
    if not found:
        try:
            review_rules(cedar)
        except MalformedError as error:
            found.append(_cedar_problem(path, error, first_line - 1))
        else:
            because = shut_out(cedar)
            if because:
                found.append(Problem(path, first_line, f"{because}; to stop a segment, see `sfrl order halt`"))
    return tuple(sorted(found))


def _rule_problems(path: Path, policy: PolicyText, offset: int) -> list[Problem]:
    try:
        review_rules(policy.text)
    except MalformedError as error:
        # A rule's own text begins where the one before ended, so its lines are counted from there.
        begins = split_policies(policy.text)[0].line
        return [_cedar_problem(path, error, offset + policy.line - begins, policy.text)]
    return []


def _cedar_problem(path: Path, error: MalformedError, offset: int, rule: str = "") -> Problem:
    matched = _LINE_FIRST.match(str(error))
    if matched is None:
        return Problem(path, offset + 1, str(error))
    line, reason = int(matched["line"]), " ".join(matched["what"].split())
    if rule:
        line, reason = place_fault(rule, line, reason)
    return Problem(path, offset + line, reason)


def _with_cedar(
    path: Path, draft: RulesDraft, lines: Mapping[KeyPath, int], text: str
) -> DraftFile | tuple[Problem, ...]:
    if (draft.file is None) == (draft.cedar is None):
        reason = 'rules are either in a file, file = "rules.cedar", or in the draft, cedar = """..."""'
        return (Problem(path, 1, reason),)
    if draft.file is not None:
        beside = path.parent / draft.file
        try:
            cedar, problems = read_cedar(beside)
        except SfrlError as error:
            return (Problem(path, line_of(lines, ("file",)), f"{beside}: {error}"),)
        return problems or DraftFile(path, draft, lines, cedar, beside)
    assert draft.cedar is not None, "one of the two is there"
    line = line_of(lines, ("cedar",))
    # TOML drops the line feed behind the opening quotes: the text begins a line below its key.
    opened = text.split("\n")[line - 1].rstrip("\r").endswith(('"""', "'''"))
    first_line = line + opened
    problems = cedar_problems(path, draft.cedar, first_line)
    return problems or DraftFile(path, draft, lines, draft.cedar, path, first_line)


def _text_of(path: Path, raw: bytes) -> tuple[str, Problem | None]:
    try:
        return raw.decode("utf-8"), None
    except UnicodeDecodeError as error:
        return "", Problem(path, raw[: error.start].count(b"\n") + 1, "not UTF-8 text")


def _decimal(text: str) -> Decimal:
    if len(text) > _DECIMAL_CHARACTERS_MAX:
        raise MalformedError(f"a number has at most {_DECIMAL_CHARACTERS_MAX} characters")
    return Decimal(text)


def _problems_of(
    path: Path, kind: type[Table], lines: Mapping[KeyPath, int], error: ValidationError
) -> tuple[Problem, ...]:
    found: dict[KeyPath, Problem] = {}
    for each in error.errors(include_input=False, include_url=False, include_context=False):
        # A union's branches stand at the end of the place: the key is before them.
        place = tuple(part for part in each["loc"] if part not in _BRANCHES)
        found.setdefault(place, Problem(path, line_of(lines, place), _reason_of(each, place, kind)))
    return tuple(sorted(found.values()))


def _reason_of(problem: ErrorDetails, place: KeyPath, kind: type[Table]) -> str:
    key = ".".join(str(part) for part in place if isinstance(part, str))
    if problem["loc"][-1] in _BRANCHES and problem["type"].endswith("_type"):
        is_number = problem["loc"][-1] in ("int", "decimal")
        return f"`{key}` is {'a number' if is_number else 'a time or a duration'}"
    match problem["type"]:
        case "missing":
            return f"the key `{key}` is missing"
        case "extra_forbidden":
            known = sorted(_table_at(kind, place[:-1]).model_fields)
            near = get_close_matches(str(place[-1]), known, 1)
            hint = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known)}"
            return f"unknown key `{key}`: {hint}"
        case "model_type" | "dict_type":
            return f"`{key}` is a table, [{key}]"
        case "list_type":
            return f'`{key}` is a list, such as ["one", "two"], or tables under [[{key}]]'
        case "int_type" | "int_from_float":
            return f"`{key}` is a whole number"
        case "string_type":
            return f"`{key}` is text"
        case "literal_error":
            return f"`{key}`: {problem['msg'].replace('Input should be', 'it is')}"
        case _:
            return f"`{key}`: {problem['msg'].removeprefix('Value error, ')}"


def _table_at(kind: type[Table], place: KeyPath) -> type[BaseModel]:
    """The table in which a key stands."""
    table: type[BaseModel] = kind
    for part in place:
        if isinstance(part, str) and part in table.model_fields:
            inner = _inner_table(table.model_fields[part].annotation)
            table = table if inner is None else inner
    return table


def _inner_table(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for each in get_args(annotation):
        inner = _inner_table(each)
        if inner is not None:
            return inner
    return None
