"""What the papers show exists: commands, options, keys, files and tests."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

from sfrl_secure.cli.main import app
from sfrl_secure.clock import SystemClock
from sfrl_secure.services import config
from sfrl_secure.services.federation.create import create_federation
from sfrl_secure.services.federation.plan import FederationPlan, default_plan, parse_plan

CHECKOUT = Path(__file__).resolve().parents[2]
PAPERS = (
    "README.md", "SECURITY.md", "CHANGELOG.md", "services/README.md", "tests/README.md", "certs/README.md",
    "examples/README.md",
)  # fmt: skip
README = (CHECKOUT / "README.md").read_text(encoding="utf-8")
SECURITY = (CHECKOUT / "SECURITY.md").read_text(encoding="utf-8")
SERVICES = (CHECKOUT / "services" / "README.md").read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"there is a section {heading}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without heads: cells, stripped."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    heads = {position - 1 for position, row in enumerate(cells) if set(row[0]) == {"-"}}
    return [row for position, row in enumerate(cells) if position not in heads and set(row[0]) != {"-"}]


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the command line, with its words."""
    if not hasattr(command, "commands"):
        yield path, command
        return
    for name, below in command.commands.items():
        yield from leaves(below, (*path, name))


COMMANDS = dict(leaves(typer.main.get_command(app)))


def shown_commands() -> list[list[str]]:
    """The words of each `sfrl` command in the README's code blocks; `\\` at a line's end goes on in the next."""
    lines = "\n".join(blocks(README, "(?:sh)?")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("sfrl ")]


def command_of(words: list[str]) -> tuple[str, ...]:
    """The longest beginning of `words` that is a command."""
    for length in range(len(words), 0, -1):
        if tuple(words[:length]) in COMMANDS:
            return tuple(words[:length])
    pytest.fail(f"there is no command sfrl {' '.join(words)}")


@pytest.mark.parametrize("words", shown_commands(), ids=" ".join)
def test_a_command_in_the_readme_has_a_help_and_its_options(words: list[str]) -> None:
    path = command_of(words)
    assert CliRunner().invoke(app, [*path, "--help"]).exit_code == 0
    known = {option for parameter in COMMANDS[path].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_the_readme_shows_commands() -> None:
    assert len(shown_commands()) >= 6


def test_the_table_of_commands_names_all_of_them_and_no_other() -> None:
    shown = {
        tuple(shlex.split(cell)[1:])
        for row in rows(section(README, "Commands"))
        for cell in re.findall(r"`(sfrl [a-z -]+)`", row[0])
    }
    assert shown == set(COMMANDS)


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", "".join(blocks(README, "(?:sh)?")) + section(README, "Commands")))
    assert named >= {"demo", "test"}
    assert named <= targets


def test_the_demos_keys_in_the_readme_are_those_of_its_object(tmp_path: Path) -> None:
    from sfrl_secure.demo.liars import Lie
    from sfrl_secure.demo.reading import LogSummary
    from sfrl_secure.demo.report import DemoReport, TamperingFound

    made = create_federation(tmp_path / "federation", default_plan(), SystemClock())
    report = DemoReport(
        folder=made.folder, participants=1, rounds=1, summary=LogSummary(made.log_size), bytes_of_updates=[1],
        dense_bytes=4, metric_first=0.0, metric_last=0.0, metric_alone=0.0, metric_dense=0.0,
        lies=[Lie("a lie", "malformed", "malformed", None)], receipt="", verification={"verdict": "verified"},
        tampering=[TamperingFound("a byte", {"verdict": "false", "exit_code": 1})], seconds=0.0,
    )  # fmt: skip
    found = report.to_json()
    table = rows(section(README, "What `sfrl demo --json` prints"))
    assert [row[0].strip("`") for row in table] == list(found)
    inner = {row[0].strip("`"): set(re.findall(r"`([a-z_]+)`", row[1])) for row in table}
    for key in ("lies", "altered"):
        assert inner[key] == set(found[key][0])


@pytest.mark.parametrize("block", blocks(README, "python"))
def test_the_readmes_python_imports_what_there_is_and_calls_what_it_has(block: str) -> None:
    tree = ast.parse(block)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name)
    from sfrl_secure.participant.membership import Membership, Training
    from sfrl_secure.participant.sdk import Participant
    from sfrl_secure.participant.update_receipt import UpdateReceipt

    shown = {"rover": Participant, "example": Membership, "training": Training, "receipt": UpdateReceipt}
    used = [
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in shown
    ]
    assert {name for name, _ in used} == shown.keys()
    assert all(hasattr(shown[name], attribute) for name, attribute in used)
    options = {word.arg for node in ast.walk(tree) if isinstance(node, ast.Call) for word in node.keywords}
    assert options <= inspect.signature(Training.submit).parameters.keys()


def test_the_plan_in_the_readme_makes_a_federation(tmp_path: Path) -> None:
    (block,) = blocks(README, "toml")
    made = create_federation(tmp_path / "federation", parse_plan(block.encode()), SystemClock())
    assert made.log_size > 0


def test_the_part_of_a_plan_in_the_services_readme_has_keys_that_there_are() -> None:
    (block,) = blocks(SERVICES, "toml")
    assert tomllib.loads(block).keys() <= FederationPlan.model_fields.keys()


DETAILED = SECURITY.partition("## Threats, and what stands against each\n")[2]
SECURITY_ROWS = [row for row in rows(DETAILED) if len(row) == 4]


@pytest.mark.parametrize("row", SECURITY_ROWS, ids=lambda row: row[0][:40])
def test_code_and_test_of_a_threat_exist(row: list[str]) -> None:
    code = row[2].strip("`")
    assert (CHECKOUT / "sfrl_secure" / code).is_file() or (CHECKOUT / code).is_file()
    for named in re.findall(r"`([^`]+)`", row[3]):
        path, _, test = named.partition("::")
        assert re.search(rf"^def {test}\(", (CHECKOUT / "tests" / path).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_tables_of_threats_are_there() -> None:
    assert len(SECURITY_ROWS) >= 40


THREATS = rows(section(SECURITY, "The threat table"))


def test_every_row_of_the_threat_table_has_its_file_and_every_file_its_row() -> None:
    named = [row[-1].strip("`") for row in THREATS]
    there = {path.name for path in (CHECKOUT / "tests" / "adversary").glob("test_*.py")}
    assert sorted(named) == sorted(there)


@pytest.mark.parametrize("row", THREATS, ids=lambda row: row[0])
def test_a_row_of_the_threat_table_says_what_is_had_and_wanted_and_what_stands_against_it(row: list[str]) -> None:
    assert len(row) == 5
    assert all(row)


def test_what_the_gate_refuses_for_is_what_security_says() -> None:
    table = rows(section(SECURITY, "Leakage gate: what it can and cannot see"))
    shown = {code for row in table for code in re.findall(r"`([a-z_]+)`", row[1])}
    sources = ("rounds/leakage.py", "rounds/measuring.py", "rounds/admission.py", "rounds/payloads.py")
    code = "".join((CHECKOUT / "sfrl_secure" / each).read_text(encoding="utf-8") for each in sources)
    assert shown >= {"weight_limit", "too_few_coordinates", "noise_too_small"}
    assert shown >= set(re.findall(r'DeniedError\("(leak_\w+)"', code))
    assert not {each for each in shown if f'DeniedError("{each}"' not in code}


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Every service", config.ServiceConfig),
        ("Table `[tls]`", config.TlsFiles),
        ("Table `[signing]`", config.SigningFile),
        ("Audit log", config.AuditLogConfig),
        ("Table `[[witnesses]]`", config.WitnessUrls),
        ("Table `[batches]`", config.Batches),
        ("Gatekeeper", config.GatekeeperConfig),
        ("Table `[issuing]`", config.Issuing),
        ("Aggregator", config.AggregatorConfig),
        ("Verifier", config.VerifierConfig),
        ("Table `[[callers]]`", config.KnownCaller),
    ],
)
def test_a_table_of_configuration_has_each_key_with_its_default(heading: str, kind: type[BaseModel]) -> None:
    is_service = issubclass(kind, config.ServiceConfig) and kind is not config.ServiceConfig
    inherited = config.ServiceConfig.model_fields if is_service else {}
    fields = {name: field for name, field in kind.model_fields.items() if name not in inherited}
    shown = {row[0].strip("`"): row[1].strip("`") for row in rows(section(SERVICES, heading))}
    assert shown.keys() == fields.keys()
    for name, field in fields.items():
        if field.default is PydanticUndefined:
            assert shown[name] == "-"
        elif field.default in ((), None):
            assert shown[name] == "none"
        elif not isinstance(field.default, BaseModel):
            assert shown[name] == str(field.default)


def test_the_table_of_a_participants_profile_has_each_key_with_its_default() -> None:
    from sfrl_secure.participant.profile import Profile

    table = rows(section(SERVICES, "A participant's profile").partition("In `receipts`")[0])
    shown = {key: row[1] for row in table for key in re.findall(r"`([a-z_]+)`", row[0])}
    wanted = {key: "none" if field.default is None else "-" for key, field in Profile.model_fields.items()}
    assert shown == wanted


def test_the_mask_of_the_readme_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfrl_secure.sparse.mask import decode_mask

    (command,) = re.findall(r"`(python -c '[^']+')`", README)
    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, *shlex.split(command)[1:]], check=True, timeout=60)
    assert decode_mask((tmp_path / "FILE").read_bytes(), 270).indices.tolist() == list(range(0, 270, 3))


@pytest.mark.parametrize("paper", PAPERS)
def test_files_that_a_paper_links_or_names_with_a_folder_exist(paper: str) -> None:
    text = (CHECKOUT / paper).read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)#:]+)\)", text))
    named = set(re.findall(r"`((?:sfrl_secure|services|proto|tests|certs|benchmarks)/[A-Za-z0-9_./]+\.[a-z]+)`", text))
    beside = (CHECKOUT / paper).parent
    assert not {each for each in linked | named if not (beside / each).exists() and not (CHECKOUT / each).exists()}


def test_the_test_files_of_the_tests_readme_exist() -> None:
    text = (CHECKOUT / "tests" / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:unit|vectors|integration|adversary)/[a-z0-9_/]*(?:\.py)?)`", text))
    assert len(named) > 20
    assert not {each for each in named if not (CHECKOUT / "tests" / each).exists()}
