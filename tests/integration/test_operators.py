"""Operators govern a running federation by the command line, each over its own TLS identity."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sfrl_secure.cli.main import main
from sfrl_secure.errors import DeniedError

from .conftest import SEGMENT, Site, Start, open_number, small_plan, submit

Sfrl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def site(start: Start) -> Site:
    return start(small_plan())


@pytest.fixture
def sfrl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Sfrl:
    """Call the command in a folder of its own; give exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["sfrl", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def of(site: Site, name: str, *keys: str) -> list[object]:
    """Options of an operator's profile, and of these operators' keys."""
    signing = [part for each in keys for part in ("--key", site.folder.operator(each) / "signing.key")]
    return ["--profile", site.folder.operator(name) / "profile.toml", "--yes", *signing]


def test_a_halt_by_one_operator_holds_and_a_resume_takes_two(site: Site, sfrl: Sfrl) -> None:
    rover = site.participant("rover-1")
    opened = open_number(rover, 1)
    code, _, err = sfrl("order", "halt", SEGMENT, "--reason", "smoke", *of(site, "carol", "carol"))
    assert code == 0, err
    with pytest.raises(DeniedError) as denied:
        submit(rover, 1, opened=opened)
    assert denied.value.reason == "halted"
    again, _, err = sfrl("order", "halt", SEGMENT, *of(site, "carol", "carol"))
    assert (again, "halted already" in err) == (3, True)
    code, _, err = sfrl("order", "resume", SEGMENT, *of(site, "alice", "alice", "bob"))
    assert code == 0, err
    assert submit(rover, 1).index > 0


def test_terms_go_from_a_draft_under_two_signatures_into_force(site: Site, sfrl: Sfrl) -> None:
    profile = ("--profile", site.folder.operator("alice") / "profile.toml")
    _, text, _ = sfrl("policy", "draft", "segment-terms", SEGMENT, *profile)
    Path("terms.toml").write_text(text.replace("rounds_max = 100", "rounds_max = 99"))
    assert sfrl("policy", "build", "terms.toml", *profile, "--out", "terms.json")[0] == 0
    files = []
    for name in ("alice", "bob"):
        key = site.folder.operator(name) / "signing.key"
        code, said, _ = sfrl("policy", "sign", "terms.json", "--key", key, "--yes", "--json")
        assert code == 0
        files.append(json.loads(said)["signature"])
    code, _, err = sfrl("policy", "publish", "terms.json", files[0], *profile)
    assert (code, "1 more of bob, carol" in err) == (3, True)
    code, said, err = sfrl("policy", "publish", "terms.json", *files, *profile, "--json")
    assert code == 0, err
    index = json.loads(said)["index"]
    site.wait_published(lambda found: found.state.size > index)
    assert site.reading().segments(SEGMENT)[0].terms.round.rounds_max == 99


def test_an_operator_who_is_removed_from_root_is_let_in_no_more(site: Site, sfrl: Sfrl) -> None:
    code, _, err = sfrl("policy", "root", "--remove", "carol", *of(site, "alice", "alice", "bob"))
    assert code == 0, err
    code, _, err = sfrl("order", "halt", SEGMENT, *of(site, "carol", "carol"))
    assert (code, "unknown_identity" in err) == (3, True), err
    code, _, err = sfrl("order", "halt", SEGMENT, *of(site, "alice", "carol"))
    assert (code, "nobody who may sign; the operators are alice, bob" in err) == (3, True), err


def test_the_history_that_operators_made_is_verified(site: Site) -> None:
    site.wait_published(lambda found: found.state.root is not None and found.state.root.version == 2)
    report = site.verify()
    assert report.exit_code == 0, report.to_text()
