"""The command as a whole: version, help, error lines, exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sfrl_secure.cli import federation
from sfrl_secure.errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    RoundStateError,
    SfrlError,
    UnavailableError,
    VerificationError,
)

COMMANDS = [
    (), ("audit",), ("audit", "verify"), ("audit", "show"), ("audit", "compare"), ("receipt",), ("receipt", "verify"),
    ("receipt", "tlog-proof"), ("policy",), ("policy", "show"), ("round",), ("round", "list"), ("round", "show"),
    ("policy", "draft"), ("policy", "check"), ("policy", "build"), ("policy", "diff"), ("policy", "sign"),
    ("policy", "publish"), ("policy", "root"), ("policy", "key"), ("round", "reaggregate"), ("segment",),
    ("segment", "list"), ("segment", "show"), ("order",), ("order", "halt"), ("order", "resume"), ("order", "exclude"),
    ("order", "rollback"), ("order", "accept"), ("order", "override"), ("invite",), ("revoke",),
    ("log-keys",), ("log-keys", "rotate"), ("log-keys", "retire"),
    ("init",), ("up",), ("serve",), ("demo",), ("fetch",), ("submit",),
]  # fmt: skip


def test_version_prints_name_and_number(run) -> None:
    ended = run("--version")
    assert ended.code == 0
    assert ended.out.split()[0] == "sfrl"
    assert ended.out.split()[1][0].isdigit()


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_and_every_option_a_sentence(run, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    ended = run(*command, "--help")
    assert ended.code == 0
    assert "Usage: sfrl" in ended.out
    rows = [line for line in ended.out.splitlines() if line.startswith("│") and "--" in line]
    assert rows
    for row in rows:
        assert row.rstrip("│ ").endswith((".", "]")), row


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (VerificationError("does not hold"), 1),
        (MalformedError("wrong"), 2),
        (NotFoundError("gone"), 2),
        (MissingEvidenceError("gone"), 2),
        (DeniedError("not_granted", "no"), 3),
        (RoundStateError("deadline", "late"), 3),
        (ConflictError("moved"), 3),
        (ExhaustedError("full"), 4),
        (UnavailableError("down"), 4),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, SfrlError) else "",
)
def test_each_error_is_one_line_and_its_exit_code(
    run, monkeypatch: pytest.MonkeyPatch, error: SfrlError, code: int
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("sfrl_secure.services.federation.reissue.expired_services", fail)
    ended = run("up", "anywhere")
    assert ended.code == code
    assert ended.out == ""
    assert ended.err.startswith(f"error: {error}")
    assert ended.err.count("\n") == 1
    assert isinstance(error, DeniedError) == ended.err.endswith(f"({getattr(error, 'reason', None)})\n")


def test_an_interrupt_ends_quietly_with_130(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sfrl_secure.services.federation.reissue.expired_services", interrupt)
    ended = run("up", "anywhere")
    assert (ended.code, ended.out, ended.err) == (130, "", "")


def test_an_unknown_command_is_wrong_use(run) -> None:
    assert run("no-such-command").code == 2


def test_a_plan_that_is_not_there_is_named(run, tmp_path: Path) -> None:
    ended = run("init", tmp_path / "new", "--plan", tmp_path / "plan.toml")
    assert ended.code == 2
    assert str(tmp_path / "plan.toml") in ended.err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", [("fetch", "--out", "m.npz"), ("submit", "--update", "u.npz", "--weight", "1")])
def test_a_profile_that_is_not_there_is_named(run, tmp_path: Path, command: tuple[str, ...]) -> None:
    np.savez(tmp_path / "u.npz", indices=np.array([0]), values=np.array([1.0]))
    command = tuple(each.replace("u.npz", str(tmp_path / "u.npz")) for each in command)
    ended = run(*command, "--segment", "rocks", "--profile", tmp_path / "profile.toml")
    assert ended.code == 2
    assert ended.err == f"error: the profile: there is no file {tmp_path / 'profile.toml'}\n"


def test_init_refuses_a_folder_that_holds_something_and_a_file(run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (tmp_path, tmp_path / "file"):
        ended = run("init", place)
        assert ended.code == 2
        assert ended.err.startswith(f"error: the folder {place} is not empty")


def test_init_says_what_comes_next(run, tmp_path: Path) -> None:
    ended = run("init", tmp_path / "new")
    assert ended.code == 0
    assert "trust-policy.txt" in ended.out
    assert f"sfrl up {tmp_path / 'new'}" in ended.out
    # What its plan's rule does not stand is said too.
    assert "CAUTION    segment example: under a mean without [clip] one liar moves the model as far as" in ended.out


def test_up_of_no_federation_is_wrong_use_and_leaves_nothing_behind(run, tmp_path: Path) -> None:
    ended = run("up", tmp_path)
    assert ended.code == 2
    assert "sfrl init" in ended.err
    assert list(tmp_path.iterdir()) == []
    assert run("up", tmp_path / "nowhere").code == 2


def test_help_loads_nothing_heavy() -> None:
    assert federation.__doc__ is not None
    probe = (
        "import sys, sfrl_secure.cli.main; "
        "print([name for name in ('torch', 'numpy', 'grpc', 'cedarpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
