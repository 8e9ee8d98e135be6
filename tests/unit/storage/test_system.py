"""System calls: each is announced under its name, and each failure has its type."""

from __future__ import annotations

import ast
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sfrl_secure.errors import ExhaustedError, UncertainStateError
from sfrl_secure.storage import system
from tests.unit.storage.watching import failing, recorded

STORAGE = Path(system.__file__).parent
CHANGING = {
    "os": {"open", "write", "pwrite", "writev", "ftruncate", "truncate", "fsync", "fdatasync", "sync", "rename",
           "replace", "link", "symlink", "unlink", "remove", "mkdir", "makedirs", "rmdir", "removedirs", "chmod",
           "fchmod", "chown", "fchown"},
    "path": {"write_bytes", "write_text", "mkdir", "rename", "replace", "unlink", "rmdir", "touch", "hardlink_to",
             "chmod"},
}


def open_file(folder: Path) -> int:
    return os.open(folder / "file", os.O_RDWR | os.O_CREAT)


CALLS: dict[str, Callable[[Path, int], object]] = {
    "open_new": lambda folder, _: system.open_new(folder / "new", 0o600),
    "open_to_append": lambda folder, _: system.open_to_append(folder / "file"),
    "open_to_lock": lambda folder, _: system.open_to_lock(folder / "lock", 0o600),
    "lock_exclusively": lambda _, descriptor: system.lock_exclusively(descriptor),
    "write_all": lambda _, descriptor: system.write_all(descriptor, b"x"),
    "truncate": lambda _, descriptor: system.truncate(descriptor, 0),
    "change_mode": lambda _, descriptor: system.change_mode(descriptor, 0o600),
    "sync_data": lambda _, descriptor: system.sync_data(descriptor),
    "sync_folder": lambda folder, _: system.sync_folder(folder),
    "rename": lambda folder, _: system.rename(folder / "file", folder / "renamed"),
    "link": lambda folder, _: system.link(folder / "file", folder / "linked"),
    "unlink": lambda folder, _: system.unlink(folder / "file"),
    "mkdir": lambda folder, _: system.mkdir(folder / "made"),
    "rmdir": lambda folder, _: system.rmdir(folder / "empty"),
}


@pytest.mark.parametrize("call", sorted(CALLS))
def test_each_call_is_announced_once_and_fails_with_a_type(tmp_path: Path, call: str) -> None:
    descriptor = open_file(tmp_path)
    (tmp_path / "empty").mkdir()
    with failing(call, errno.EIO), pytest.raises(UncertainStateError):
        CALLS[call](tmp_path, descriptor)
    full = UncertainStateError if call.startswith("sync") else ExhaustedError
    with failing(call, errno.ENOSPC), pytest.raises(full):
        CALLS[call](tmp_path, descriptor)
    with recorded() as calls:
        given = CALLS[call](tmp_path, descriptor)
    assert [name for name, _ in calls] == [call]
    os.close(descriptor)
    if call.startswith("open"):
        assert isinstance(given, int)
        os.close(given)


def test_the_real_calls_fail_with_the_same_types(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for refused in (
        lambda: system.open_new(tmp_path / "file", 0o600),
        lambda: system.open_to_append(tmp_path / "none"),
        lambda: system.open_to_lock(tmp_path / "none" / "lock", 0o600),
        lambda: system.lock_exclusively(1 << 20),
        lambda: system.write_all(1 << 20, b"x"),
        lambda: system.truncate(1 << 20, 0),
        lambda: system.change_mode(1 << 20, 0o600),
        lambda: system.sync_data(1 << 20),
        lambda: system.sync_folder(tmp_path / "none"),
        lambda: system.rename(tmp_path / "none", tmp_path / "renamed"),
        lambda: system.link(tmp_path / "file", tmp_path / "file"),
        lambda: system.unlink(tmp_path),
        lambda: system.mkdir(tmp_path / "file" / "made"),
        lambda: system.rmdir(tmp_path / "file"),
    ):
        with pytest.raises(UncertainStateError):
            refused()


def test_what_is_not_there_or_not_empty_is_no_failure(tmp_path: Path) -> None:
    assert not system.unlink(tmp_path / "none")
    assert not system.rmdir(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    system.mkdir(tmp_path / "folder")
    (tmp_path / "folder" / "file").write_bytes(b"")
    assert not system.rmdir(tmp_path / "folder")
    assert system.unlink(tmp_path / "folder" / "file")
    assert system.rmdir(tmp_path / "folder")


def test_a_write_that_is_taken_in_pieces_is_announced_with_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole_write(descriptor, bytes(data)[:4]))
    left: list[bytes] = []
    descriptor = open_file(tmp_path)
    with system.calls_watched_by(lambda call, subject, data: left.append(bytes(data))):
        system.write_all(descriptor, b"ten bytes!")
    os.close(descriptor)
    assert left == [b"ten bytes!", b"bytes!", b"s!"]
    assert (tmp_path / "file").read_bytes() == b"ten bytes!"


def test_a_watcher_sees_nothing_after_its_time(tmp_path: Path) -> None:
    with recorded() as calls:
        pass
    system.mkdir(tmp_path / "made")
    assert calls == []


def test_no_other_module_of_storage_changes_the_disk() -> None:
    """But for the descriptors that are opened for reading, which are named here."""
    found: set[tuple[str, str]] = set()
    for path in STORAGE.glob("*.py"):
        if path.name == "system.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if ast.unparse(node.func.value) == "self._bucket":
                    continue
                kind = "os" if isinstance(node.func.value, ast.Name) and node.func.value.id == "os" else "path"
                if node.func.attr in CHANGING[kind]:
                    found.add((path.name, node.func.attr))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
                found.add((path.name, "open"))
    assert found == {("files.py", "open")}
