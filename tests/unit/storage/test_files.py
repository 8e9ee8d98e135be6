"""Whole files: replaced at once, read within a bound, owned by one process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sfrl_secure.crypto.secret import SecretBytes
from sfrl_secure.errors import (
    DeniedError,
    ExhaustedError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    UncertainStateError,
)
from sfrl_secure.storage import files
from sfrl_secure.storage.files import FolderLock, make_folder, read_bounded, write_atomically, write_new
from sfrl_secure.storage.secrets import read_secret, write_secret
from tests.unit.storage.watching import recorded, stops_at_each_call


def fail_with(number: int) -> Callable[..., None]:
    def failing(*_: object) -> None:
        raise OSError(number, "made to fail")

    return failing


def test_a_written_file_holds_the_new_bytes_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_file_that_could_not_be_synced_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fdatasync", fail_with(errno.EIO))
    with pytest.raises(UncertainStateError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_could_not_be_synced_is_an_uncertain_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", fail_with(errno.EIO))
    with pytest.raises(UncertainStateError):
        write_atomically(tmp_path / "a", b"new")


def test_a_full_disk_leaves_the_file_as_it_was_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "write", fail_with(errno.ENOSPC))
    with pytest.raises(ExhaustedError):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


def test_a_write_that_the_kernel_takes_in_pieces_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: whole_write(descriptor, bytes(data)[:3]))
    write_atomically(tmp_path / "a", b"ten bytes!")
    assert (tmp_path / "a").read_bytes() == b"ten bytes!"


def test_only_durable_files_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)
    write_atomically(tmp_path / "a", b"1", durable=False)
    assert synced == []
    write_atomically(tmp_path / "a", b"2")
    assert len(synced) == 1


@pytest.mark.parametrize("write", [write_atomically, write_new])
def test_a_file_is_whole_whichever_call_a_crash_comes_before(
    tmp_path: Path, write: Callable[[Path, bytes], None]
) -> None:
    path = tmp_path / "a"
    old = b"old" if write is write_atomically else None

    def reset() -> None:
        for each in tmp_path.iterdir():
            each.unlink()
        if old is not None:
            path.write_bytes(old)

    found: list[bytes | None] = []
    calls: list[str] = []
    for call in stops_at_each_call(lambda: write(path, b"new"), reset):
        calls.append(call)
        found.append(path.read_bytes() if path.exists() else None)
        # What else is there bears a name that nothing reads.
        assert all(each == path or each.name.startswith(".") for each in tmp_path.iterdir())
    put_in_place = calls.index("rename") if write is write_atomically else calls.index("link")
    assert found == [old] * (put_in_place + 1) + [b"new"] * (len(calls) - put_in_place - 1)
    # The bytes before the name, and the name before it returns.
    assert calls.index("sync_data") < put_in_place
    assert calls[-1] == "sync_folder"


def test_a_folder_is_durable_before_what_is_made_in_it(tmp_path: Path) -> None:
    with recorded() as calls:
        make_folder(tmp_path / "a" / "b")
    assert calls == [("mkdir", "a"), ("sync_folder", tmp_path.name), ("mkdir", "b"), ("sync_folder", "a")]


def test_a_new_file_never_replaces_one(tmp_path: Path) -> None:
    write_new(tmp_path / "a", b"first")
    with pytest.raises(UncertainStateError):
        write_new(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("length", [0, 1, 9, 10])
def test_a_file_within_the_bound_is_read_whole(tmp_path: Path, length: int) -> None:
    (tmp_path / "a").write_bytes(bytes(length))
    assert read_bounded(tmp_path / "a", 10) == bytes(length)


def test_a_file_over_the_bound_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(11))
    with pytest.raises(MalformedError, match="10 bytes"):
        read_bounded(tmp_path / "a", 10)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(bytes(11))
    status = os.stat_result((0o100600, 0, 0, 1, 0, 0, 5, 0, 0, 0))
    monkeypatch.setattr(files.os, "fstat", lambda _: status)
    with pytest.raises(MalformedError, match="10 bytes"):
        read_bounded(tmp_path / "a", 10)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MalformedError):
        read_bounded(tmp_path / "pipe", 10)
    with pytest.raises(MalformedError):
        read_bounded(tmp_path, 10)
    with pytest.raises(NotFoundError):
        read_bounded(tmp_path / "none", 10)
    with pytest.raises(NotFoundError):
        read_bounded(tmp_path / "pipe" / "below", 10)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(MissingEvidenceError):
        read_bounded(tmp_path / "loop", 10)


def test_folders_are_made_with_those_above(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UncertainStateError):
        make_folder(tmp_path / "file" / "below")


def test_another_process_cannot_own_a_folder_that_is_owned(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from sfrl_secure.storage.files import FolderLock\n"
        "FolderLock(Path(sys.argv[1])); print('owned', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"owned\n"
        with pytest.raises(MalformedError, match="another process"):
            FolderLock(tmp_path)
        other.kill()
    # A killed owner leaves nothing behind.
    FolderLock(tmp_path).release()


def test_a_released_folder_can_be_owned_again(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(MalformedError):
        FolderLock(tmp_path)
    FolderLock(tmp_path).release()


def test_a_key_file_is_made_for_its_owner_alone_and_never_replaced(tmp_path: Path) -> None:
    write_secret(tmp_path / "key", SecretBytes(b"secret"))
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    assert read_secret(tmp_path / "key").expose() == b"secret"
    with pytest.raises(UncertainStateError):
        write_secret(tmp_path / "key", SecretBytes(b"other"))


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
def test_a_key_that_others_could_touch_is_not_read(tmp_path: Path, mode: int) -> None:
    write_secret(tmp_path / "key", SecretBytes(b"secret"))
    (tmp_path / "key").chmod(mode)
    with pytest.raises(DeniedError) as refused:
        read_secret(tmp_path / "key")
    assert refused.value.reason == "key_permissions"
