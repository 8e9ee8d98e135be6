"""`sfrl audit mirror`: what it says, its exit codes, and where an address is named instead of a folder."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sfrl_secure.audit import mirror
from sfrl_secure.audit.mirror import MirroredLog
from sfrl_secure.audit.mirror_objects import MirroredObjects
from sfrl_secure.cli import mirror as command
from sfrl_secure.errors import (
    ConsistencyError,
    MalformedError,
    MissingEvidenceError,
    UnavailableError,
    UncertainStateError,
)
from sfrl_secure.ids import sha256
from sfrl_secure.storage import files
from sfrl_secure.translog.checkpoint import Checkpoint

ROOT = sha256(b"root")
LOG = MirroredLog(Checkpoint("log.example", 30, ROOT), 20)


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the copying came to, or the error that it ended with."""
    found: dict[str, Any] = {"objects": MirroredObjects(fetched=3), "error": None}

    def copy_log(folder: Path, named: Any, tell: Any, *, check: bool) -> Any:
        found["check"] = check
        if found["error"] is not None:
            raise found["error"]
        tell("entries", 30, 30)
        return LOG, found["objects"]

    monkeypatch.setattr(command, "copy_log", copy_log)
    named = SimpleNamespace(trust_policy=Path("/home/eve/fed/auditors/../trust policy.txt"))
    monkeypatch.setattr(command, "open_profile", lambda profile: named)
    return found


def test_a_copy_that_is_complete_gives_0_and_its_two_folders(run, tmp_path: Path, copied) -> None:
    ended = run("audit", "mirror", tmp_path, "--profile", "profile.toml")
    assert ended.code == 0
    assert ended.out.splitlines() == [
        "log_size: 30", f"root: {ROOT.hex()}", "new_entries: 10", "new_objects: 3", "missing_objects: 0",
        "altered_objects: none", f"log: {tmp_path / 'log'}", f"objects: {tmp_path / 'objects'}",
        f"next: sfrl audit verify --log {tmp_path / 'log'} --objects {tmp_path / 'objects'}"
        " --trust-policy '/home/eve/fed/trust policy.txt'",
    ]  # fmt: skip
    assert copied["check"] is False


def test_check_reads_objects_again(run, tmp_path: Path, copied) -> None:
    assert run("audit", "mirror", tmp_path, "--profile", "profile.toml", "--check").code == 0
    assert copied["check"] is True


def test_json_is_one_object_on_one_line(run, tmp_path: Path, copied) -> None:
    ended = run("audit", "mirror", tmp_path, "--profile", "profile.toml", "--json")
    assert (ended.code, ended.out.count("\n")) == (0, 1)
    said = json.loads(ended.out)
    assert (said["log_size"], said["new_entries"], said["altered_objects"]) == (30, 10, [])
    assert (said["log"], said["objects"]) == (str(tmp_path / "log"), str(tmp_path / "objects"))


def test_missing_objects_are_counted_and_no_failure(run, tmp_path: Path, copied) -> None:
    copied["objects"] = MirroredObjects(missing={sha256(b"one"), sha256(b"two")})
    ended = run("audit", "mirror", tmp_path, "--profile", "profile.toml")
    assert ended.code == 0
    assert "missing_objects: 2" in ended.out


def test_altered_objects_are_named_with_exit_code_1(run, tmp_path: Path, copied) -> None:
    copied["objects"] = MirroredObjects(altered={sha256(b"one")})
    ended = run("audit", "mirror", tmp_path, "--profile", "profile.toml")
    assert ended.code == 1
    assert f"altered_objects: {sha256(b'one').hex()}" in ended.out


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConsistencyError("the log's checkpoint contradicts the mirror's"), 1),
        (MissingEvidenceError("the log shows fewer entries"), 2),
        (UnavailableError("the log does not answer"), 4),
    ],
)
def test_what_does_not_hold_is_one_line_and_its_exit_code(
    run, tmp_path: Path, copied, error: Exception, code: int
) -> None:
    copied["error"] = error
    ended = run("audit", "mirror", tmp_path, "--profile", "profile.toml")
    assert (ended.code, ended.out) == (code, "")
    assert f"error: {error}" in ended.err
    assert "Traceback" not in ended.err


def test_a_profile_that_is_not_there_is_named_and_no_folder_is_made(run, tmp_path: Path) -> None:
    ended = run("audit", "mirror", tmp_path / "copy", "--profile", tmp_path / "nowhere.toml")
    assert ended.code == 2
    assert "nowhere.toml" in ended.err
    assert not (tmp_path / "copy").exists()


def test_a_file_that_the_profile_names_is_named(run, tmp_path: Path) -> None:
    (tmp_path / "profile.toml").write_text(
        '[auditor]\nname = "eve"\ntrust_domain = "a.example"\naudit_log = "127.0.0.1:1"\n'
        'gatekeepers = ["127.0.0.1:1"]\ncertificate = "tls.crt"\ntls_key = "tls.key"\nservice_ca = "ca.crt"\n'
        'signing_key = "signing.key"\nsuite = "ed25519"\ntrust_policy = "trust.txt"\n'
    )
    ended = run("audit", "mirror", tmp_path / "copy", "--profile", tmp_path / "profile.toml")
    assert ended.code == 2
    assert "tls.crt" in ended.err
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize(
    ("place", "sentence"),
    [("full", "full holds other things"), ("file", "file is no folder"), ("file/a", "file/a is no folder")],
)
def test_a_folder_that_is_none_for_a_mirror_is_named(tmp_path: Path, place: str, sentence: str) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes").touch()
    (tmp_path / "file").touch()
    named: Any = SimpleNamespace()
    with pytest.raises(MalformedError, match=sentence):
        command.copy_log(tmp_path / place, named, lambda *_: None)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(folder: Path) -> None:
        raise UncertainStateError("a folder could not be made")

    monkeypatch.setattr(files, "make_folder", fails)
    monkeypatch.setattr(mirror, "LogMirror", lambda folder, policy: None)
    named: Any = SimpleNamespace(open_trust_policy=lambda: None, open_tls=lambda: None, open_signing_key=lambda: None)
    with pytest.raises(MalformedError, match=f"{tmp_path / 'copy'} cannot be made"):
        command.copy_log(tmp_path / "copy", named, lambda *_: None)


@pytest.mark.parametrize("url", ["http://log.example", "https://log.example/mars/"])
def test_an_address_instead_of_a_folder_is_answered_with_the_command_that_copies(run, made, url: str) -> None:
    verify = run("audit", "verify", "--log", url, "--objects", made.objects, "--trust-policy", made.trust_policy)
    show = run("audit", "show", "--log", url)
    for ended in (verify, show):
        assert ended.code == 2
        assert "sfrl audit mirror" in ended.err
        assert ended.out == ""
