"""Settings files: TOML, every key known, every path relative to the file.

An unknown key is refused: a misspelt one would leave something in force that nobody chose. The sentence of an error
names the keys and not what stood there.

Runs in: everything that is configured.
Trusts: whoever wrote the file; its form is checked.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo
from pydantic_core import ErrorDetails

from sfrl_secure.crypto.keys import PUBLIC_BYTES
from sfrl_secure.errors import MalformedError
from sfrl_secure.ids import parse_hex_digest, parse_name, parse_trust_domain
from sfrl_secure.storage.files import read_bounded

PROBLEMS_MAX = 8
"""Problems that one error names."""

_ADDRESS = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9a-f:.]{2,45}\]):([0-9]{1,5})")

_T = TypeVar("_T")
SettingsT = TypeVar("SettingsT", bound=BaseModel)


class Section(BaseModel):
    """A table of a settings file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def checked_by(parse: Callable[[str], _T]) -> Callable[[str], str]:
    """Make a validator of a parser: the text stays text, and a MalformedError becomes what pydantic gathers."""

    def check(text: str) -> str:
        try:
            parse(text)
        except MalformedError as error:
            raise ValueError(str(error)) from None
        return text

    return check


def _resolve(path: Path, info: ValidationInfo) -> Path:
    folder = (info.context or {}).get("folder")
    assert isinstance(folder, Path), "settings are read by read_settings"
    return folder / path


def _check_address(address: str) -> str:
    matched = _ADDRESS.fullmatch(address)
    if matched is None or int(matched[2]) > 65_535:
        raise ValueError("an address is host:port")
    return address


def _check_peer_address(address: str) -> str:
    if int(_check_address(address).rpartition(":")[2]) == 0:
        raise ValueError("an address is host:port")
    return address


def parse_peer_address(address: str) -> str:
    """Take the address of somebody who is called: host:port.

    Raises:
        MalformedError: any other form.
    """
    try:
        return _check_peer_address(address)
    except ValueError as error:
        raise MalformedError(str(error)) from None


def _check_suite(suite: str) -> str:
    if suite not in PUBLIC_BYTES:
        raise ValueError(f"a suite is one of {', '.join(sorted(PUBLIC_BYTES))}")
    return suite


SettingsPath = Annotated[Path, AfterValidator(_resolve)]
Address = Annotated[str, AfterValidator(_check_address)]
"""`host:port`; port 0 stands for any free one."""

PeerAddress = Annotated[str, AfterValidator(_check_peer_address)]
"""`host:port` of somebody else."""

Name = Annotated[str, AfterValidator(checked_by(parse_name))]
TrustDomain = Annotated[str, AfterValidator(checked_by(parse_trust_domain))]
Suite = Annotated[str, AfterValidator(_check_suite)]
HexDigest = Annotated[str, AfterValidator(checked_by(parse_hex_digest))]


def read_settings(
    path: Path, kind: type[SettingsT], *, bytes_max: int, what: str, renamed: Mapping[str, str] | None = None
) -> SettingsT:
    """Read a settings file.

    Args:
        what: how errors call it, such as `configuration`.
        renamed: keys of earlier versions, with what to write instead; `*` stands for a place in a list.

    Raises:
        NotFoundError: there is no such file.
        MalformedError: not TOML, an unknown key, a missing key, a value of another form. The sentence names the file
            and the keys.
    """
    raw = read_bounded(path, bytes_max)
    try:
        values = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise MalformedError(f"{path}: the {what} is not TOML") from None
    try:
        return kind.model_validate(values, context={"folder": path.absolute().parent})
    except ValidationError as error:
        # Without what stood there, which may be a key that was pasted by mistake.
        found = error.errors(include_input=False, include_url=False, include_context=False)
        problems = {each["loc"]: sentence_of(each, renamed or {}) for each in found}
        sentences = [problem for _, problem in sorted(problems.items(), key=lambda item: tuple(map(str, item[0])))]
        raise MalformedError(f"{path}: {'; '.join(sentences[:PROBLEMS_MAX])}") from None


def sentence_of(problem: ErrorDetails, renamed: Mapping[str, str]) -> str:
    """Say what is wrong with one key, in the words of a settings file."""
    key = ".".join(map(str, problem["loc"]))
    match problem["type"]:
        case "missing":
            return f"missing key `{key}`"
        case "extra_forbidden":
            hint = renamed.get(".".join("*" if isinstance(each, int) else each for each in problem["loc"]))
            return f"unknown key `{key}`" + (f": {hint}" if hint else "")
        case "tuple_type" | "list_type":
            return f"`{key}` is a list, such as [\"one\", \"two\"], or tables under [[{key}]]"
        case "model_type":
            return f"`{key}` is a table, [{key}]"
        case "int_type" | "int_from_float" | "int_parsing":
            return f"`{key}` is a whole number"
        case "float_type" | "float_parsing":
            return f"`{key}` is a number"
        case "string_type":
            return f"`{key}` is text, in quotation marks"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            return f"`{key}` is {problem['msg'].removeprefix('Input should be ')}"
        case _:
            return f"`{key}`: {problem['msg'].removeprefix('Value error, ')}"
