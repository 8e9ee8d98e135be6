"""`sfrl audit compare`: exit code 1 only where the log is proven to have signed two histories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sfrl_secure.translog.policy import format_trust_policy

from ..replay.builder import Writer


@pytest.fixture
def writer(tmp_path: Path) -> Writer:
    made = Writer().begin()
    (tmp_path / "policy").write_bytes(format_trust_policy(made.policy))
    (tmp_path / "one.cp").write_bytes(made.checkpoint())
    return made


def compare(run, folder: Path):
    return run("audit", "compare", folder / "one.cp", folder / "two.cp", "--trust-policy", folder / "policy")


def other_history(writer: Writer) -> bytes:
    kept = writer.entries
    writer.entries = [*kept[:-1], b"another"]
    note = writer.checkpoint()
    writer.entries = kept
    return note


def test_two_roots_for_one_size_give_exit_code_1(run, writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "two.cp").write_bytes(other_history(writer))
    ended = compare(run, tmp_path)
    assert ended.code == 1
    assert "FALSE: the log signed two roots" in ended.out


def test_the_same_history_gives_exit_code_0(run, writer: Writer, tmp_path: Path) -> None:
    (tmp_path / "two.cp").write_bytes(writer.checkpoint(witnesses=[]))
    ended = compare(run, tmp_path)
    assert (ended.code, ended.out.splitlines()[-1]) == (0, "the same history")


def test_a_changed_file_accuses_nobody_and_is_named(run, writer: Writer, tmp_path: Path) -> None:
    note = writer.checkpoint()
    size, rest = note.split(b"\n", 2)[1:]
    (tmp_path / "two.cp").write_bytes(note.split(b"\n", 1)[0] + b"\n" + size + b"0\n" + rest)
    ended = compare(run, tmp_path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"error: {tmp_path / 'two.cp'}: ")
    assert ended.err.endswith(": this is not what the log signed\n")


def test_what_is_no_checkpoint_or_another_logs_is_named(run, writer: Writer, tmp_path: Path) -> None:
    for raw in (b"no note", Writer().begin().checkpoint()):
        (tmp_path / "two.cp").write_bytes(raw)
        ended = compare(run, tmp_path)
        assert ended.code == 2
        assert f"{tmp_path / 'two.cp'}: " in ended.err


def test_an_older_generations_keys_alone_prove_nothing_against_the_log(run, writer: Writer, tmp_path: Path) -> None:
    new = Writer()
    new.origin = writer.origin
    new._log_keys()
    log = replace(writer.trust, keys=(*writer.trust.keys, *new.trust.keys))
    (tmp_path / "policy").write_bytes(format_trust_policy(replace(writer.policy, logs=(log,))))
    new.entries, new.now, new.witnesses = writer.entries, writer.now, writer.witnesses
    (tmp_path / "one.cp").write_bytes(new.checkpoint())
    kept, writer.entries = writer.entries, [*writer.entries[:-1], b"another"]
    (tmp_path / "two.cp").write_bytes(writer.checkpoint(witnesses=[]))
    ended = compare(run, tmp_path)
    assert ended.code == 2
    assert "older generation" in ended.err
    # Under the witnesses it is a proof: they saw it when it was made.
    (tmp_path / "two.cp").write_bytes(writer.checkpoint())
    assert compare(run, tmp_path).code == 1
    writer.entries = kept
