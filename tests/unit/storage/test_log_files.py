"""Published files in a folder: in place at once, durable after `sync`, and only under names that are safe."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sfrl_secure.errors import ExhaustedError, MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.storage import log_files
from sfrl_secure.storage.log_files import FolderLogFiles
from tests.unit.storage.watching import failing, recorded

BAD_NAMES = [
    "", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", ".a", "a/.b", "A", "a\n", "a\0", "a b", "é", "a" * 65,
    "/".join("a" * 17),
]


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_file_is_read_as_it_was_written_last(tmp_path: Path) -> None:
    files = FolderLogFiles(tmp_path / "log")
    for data in (b"older", b"newer"):
        files.write("tile/0/x001/234", data)
        assert files.read("tile/0/x001/234", 10) == data
    with pytest.raises(MalformedError):
        files.read("tile/0/x001/234", 4)
    with pytest.raises(NotFoundError):
        files.read("checkpoint", 10)
    assert (tmp_path / "log" / "tile" / "0" / "x001" / "234").stat().st_mode & 0o777 == 0o644
    files.close()


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    files = FolderLogFiles(tmp_path / "log")
    (tmp_path / "a").write_bytes(b"outside")
    for use in (lambda: files.read(name, 10), lambda: files.write(name, b""), lambda: files.remove(name),
                lambda: list(files.names(name))):
        with pytest.raises(MalformedError):
            use()
    assert (tmp_path / "a").read_bytes() == b"outside"


def test_names_are_sorted_and_only_those_of_files_that_are_ours(tmp_path: Path) -> None:
    files = FolderLogFiles(tmp_path)
    names = ["tile/0/000", "tile/0/000.p/12", "tile/0/000.p/7", "tile/0/x001/000", "tile/1/000", "tile/entries/000"]
    for name in reversed(names):
        files.write(name, b"")
    files.write("checkpoint", b"")
    (tmp_path / "tile" / "0" / ".000.0123.tmp").write_bytes(b"")
    (tmp_path / "tile" / "NOTES").write_bytes(b"")
    assert list(files.names("tile")) == sorted(names) == names
    assert list(files.names("tile/entries")) == ["tile/entries/000"]
    assert list(files.names("none")) == []
    assert list(files.names("checkpoint")) == []
    files.close()


def test_writing_syncs_nothing_and_sync_brings_all_of_it_to_the_disk_once(tmp_path: Path) -> None:
    files = FolderLogFiles(tmp_path / "log")
    with recorded() as calls:
        files.write("tile/0/000", b"1")
        files.write("checkpoint", b"2")
        files.write("checkpoint", b"3")
    assert not [call for call, _ in calls if call.startswith("sync")]
    with recorded() as calls:
        files.sync()
    # The files, then their folders, and those in which folders were made.
    assert calls == [
        ("sync_data", "000"), ("sync_data", "checkpoint"),
        ("sync_folder", "0"), ("sync_folder", "tile"), ("sync_folder", "log"),
    ]
    with recorded() as calls:
        files.sync()
    assert calls == []


def test_of_partial_files_the_last_is_synced_and_none_where_the_full_one_is_there(tmp_path: Path) -> None:
    files = FolderLogFiles(tmp_path)
    for width in range(1, 50):
        files.write(f"tile/0/000.p/{width}", bytes(width))
    with recorded() as calls:
        files.sync()
    assert [subject for call, subject in calls if call == "sync_data"] == ["49"]
    files.write("tile/0/000.p/50", bytes(50))
    files.write("tile/0/000", bytes(256))
    with recorded() as calls:
        files.sync()
    assert [subject for call, subject in calls if call == "sync_data"] == ["000"]


def test_what_waits_for_sync_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_files, "UNSYNCED_MAX", 4)
    before = open_descriptors()
    files = FolderLogFiles(tmp_path)
    with recorded() as calls:
        for index in range(9):
            files.write(f"tile/0/{index:03}", b"")
            assert open_descriptors() - before <= 4
    assert [subject for call, subject in calls if call == "sync_data"] == [f"{index:03}" for index in range(8)]
    files.close()
    assert open_descriptors() == before


def test_a_sync_that_fails_is_an_uncertain_state(tmp_path: Path) -> None:
    files = FolderLogFiles(tmp_path)
    files.write("tile/0/000", b"1")
    for call in ("sync_data", "sync_folder"):
        with failing(call, errno.EIO), pytest.raises(UncertainStateError):
            files.sync()
    files.close()


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    files = FolderLogFiles(tmp_path)
    files.write("checkpoint", b"older")
    for call in ("open_new", "write_all", "rename"):
        with failing(call, errno.ENOSPC), pytest.raises(ExhaustedError):
            files.write("checkpoint", b"newer")
    with failing("mkdir", errno.ENOSPC), pytest.raises(ExhaustedError):
        files.write("tile/0/000", b"")
    assert files.read("checkpoint", 10) == b"older"
    assert list(tmp_path.iterdir()) == [tmp_path / "checkpoint"]
    files.close()


def test_a_removed_file_is_gone_with_its_emptied_folder_and_is_not_synced(tmp_path: Path) -> None:
    before = open_descriptors()
    files = FolderLogFiles(tmp_path)
    for name in ("tile/0/000.p/1", "tile/0/000.p/2", "checkpoints/7"):
        files.write(name, b"")
    files.remove("tile/0/000.p/1")
    assert list(files.names("tile")) == ["tile/0/000.p/2"]
    files.remove("tile/0/000.p/2")
    files.remove("checkpoints/7")
    files.remove("checkpoints/7")
    # Only folders of partial files go: they have no further use.
    assert not (tmp_path / "tile" / "0" / "000.p").exists()
    assert (tmp_path / "checkpoints").is_dir()
    assert open_descriptors() == before
    with recorded() as calls:
        files.sync()
    assert not [call for call, _ in calls if call == "sync_data"]


def test_a_file_that_does_not_go_is_left(tmp_path: Path) -> None:
    files = FolderLogFiles(tmp_path)
    files.write("tile/0/000.p/1", b"")
    with failing("unlink", errno.EROFS):
        files.remove("tile/0/000.p/1")
    with failing("rmdir", errno.EROFS):
        files.remove("tile/0/000.p/1")
    assert (tmp_path / "tile" / "0" / "000.p").is_dir()
    files.close()
