"""`sfrl audit fsck`: exit codes, one JSON object, and files that are named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfrl_secure.cli.words import count


def fsck(run, published, *more: object):
    return run("audit", "fsck", published.log, "--trust-policy", published.trust_policy, *more)


def test_a_whole_folder_is_sound_with_exit_code_0(run, made) -> None:
    ended = fsck(run, made)
    assert ended.code == 0
    assert ended.out.startswith("SOUND: ")
    assert "quorum quorum met: w1" in ended.out


def test_json_is_one_object_on_one_line_and_nothing_else(run, made) -> None:
    ended = fsck(run, made, "--json")
    assert (ended.code, ended.out.count("\n")) == (0, 1)
    assert json.loads(ended.out)["verdict"] == "sound"


def test_a_changed_tile_gives_exit_code_1_and_its_name(run, published) -> None:
    (tile,) = (published.log / "tile/0/000.p").iterdir()
    raw = tile.read_bytes()
    tile.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    ended = fsck(run, published)
    assert ended.code == 1
    assert ended.out.startswith(f"DAMAGED: 1 problem\n  tile/0/000.p/{tile.name}: ")
    ended = fsck(run, published, "--json")
    assert (ended.code, json.loads(ended.out)["problems"][0]["path"]) == (1, f"tile/0/000.p/{tile.name}")


def test_a_missing_file_gives_exit_code_2(run, published) -> None:
    (published.log / "checkpoint").unlink()
    ended = fsck(run, published)
    assert ended.code == 2
    assert ended.out.startswith("MISSING: ")


@pytest.mark.parametrize("what", ["log", "policy", "journal"])
def test_what_is_not_there_is_named_with_exit_code_2(run, made, tmp_path: Path, what: str) -> None:
    nowhere = tmp_path / "nowhere"
    ended = run(
        "audit", "fsck", nowhere if what == "log" else made.log,
        "--trust-policy", nowhere if what == "policy" else made.trust_policy,
        *(["--journal", nowhere] if what == "journal" else []),
    )  # fmt: skip
    assert (ended.code, ended.out) == (2, "")
    assert str(nowhere) in ended.err


def test_a_journal_that_holds_nothing_is_missing(run, made, tmp_path: Path) -> None:
    ended = fsck(run, made, "--journal", tmp_path)
    assert ended.code == 2
    assert "no segment of a journal" in ended.out


def test_the_help_says_what_the_exit_codes_mean(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    for command in (("audit", "fsck"), ("audit", "compare"), ("receipt", "verify"), ("receipt", "verify-fraud")):
        ended = run(*command, "--help")
        assert ended.code == 0
        for code in (0, 1, 2):
            assert f"Exit code {code}: " in ended.out


def test_a_mirrors_folder_is_no_log_and_the_log_in_it_is_named(run, published, tmp_path: Path) -> None:
    mirror = tmp_path / "mir"
    mirror.mkdir()
    (mirror / "lock").touch()
    published.log.rename(mirror / "log")
    policy = ("--trust-policy", published.trust_policy)
    receipt = next(iter(published.receipts.values()))
    for command in (
        ("audit", "fsck", mirror),
        ("audit", "verify", "--log", mirror, "--objects", published.objects),
        ("receipt", "verify", receipt, "--log", mirror),
    ):
        ended = run(*command, *policy)
        assert (ended.code, ended.out) == (2, "")
        assert f"{mirror} is a mirror: its log is {mirror / 'log'}" in ended.err
    assert run("audit", "fsck", mirror / "log", *policy).code == 0


def test_a_count_of_one_is_no_plural() -> None:
    assert (count(1, "auditor"), count(2, "auditor")) == ("1 auditor", "2 auditors")
    assert (count(1, "entry", "entries"), count(0, "entry", "entries")) == ("1 entry", "0 entries")
