"""The log's store in folders: created once, on purpose; opened whole, by one process, or not at all."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from sfrl_secure.errors import ExhaustedError, MalformedError, NotFoundError, UncertainStateError
from sfrl_secure.limits import NOTE_BYTES_MAX
from sfrl_secure.storage.log_folder import FolderLogStore, FolderSignedNote
from sfrl_secure.storage.log_store import NOTHING_SIGNED, LogStore
from tests.unit.storage.watching import failing, recorded, stops_at_each_call

BATCHES = [[b"genesis"], [b"one", b"two"]]


def create(folder: Path) -> None:
    FolderLogStore.create(folder / "journal", BATCHES)


def open_store(folder: Path) -> LogStore:
    return FolderLogStore.open(folder / "journal", folder / "log")


def test_a_new_log_holds_its_batches_and_has_signed_nothing(tmp_path: Path) -> None:
    create(tmp_path)
    store = open_store(tmp_path)
    assert [store.journal.record(index) for index in range(store.journal.count)] == [b"genesis", b"one", b"two"]
    assert store.signed.read() == NOTHING_SIGNED
    assert list(store.files.names("tile")) == []
    store.close()


def test_a_log_is_opened_again_as_it_was_left(tmp_path: Path) -> None:
    create(tmp_path)
    store = open_store(tmp_path)
    store.journal.append_batch([b"three"])
    store.signed.replace(b"note of 4")
    store.signed.replace(b"note of 5")
    store.files.write("checkpoint", b"published")
    store.close()
    store = open_store(tmp_path)
    assert (store.journal.count, store.signed.read()) == (4, b"note of 5")
    assert store.files.read("checkpoint", 100) == b"published"
    store.close()


def test_a_log_is_never_created_over_another(tmp_path: Path) -> None:
    create(tmp_path)
    with pytest.raises(UncertainStateError, match="already"):
        create(tmp_path)
    store = open_store(tmp_path)
    assert store.journal.count == 3
    store.close()


def test_opening_never_makes_a_log(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(MalformedError, match=f"no log in {tmp_path}/journal: check `journal_dir`"):
            open_store(tmp_path)
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "journal").mkdir()
    with pytest.raises(UncertainStateError, match="no log here"):
        open_store(tmp_path)


def test_a_log_that_has_lost_its_journal_is_neither_opened_nor_made_anew(tmp_path: Path) -> None:
    create(tmp_path)
    store = open_store(tmp_path)
    store.signed.replace(b"a note")
    store.close()
    (tmp_path / "journal" / "segments").rename(tmp_path / "away")
    for refused in (open_store, create):
        with pytest.raises(UncertainStateError, match="its journal is gone"):
            refused(tmp_path)


def test_a_log_that_has_lost_its_signed_note_does_not_open(tmp_path: Path) -> None:
    create(tmp_path)
    (tmp_path / "journal" / "signed").unlink()
    with pytest.raises(UncertainStateError, match="lost its signed note"):
        open_store(tmp_path)


@pytest.mark.parametrize("damaged", ["long", "folder"])
def test_a_signed_note_that_cannot_be_one_stops_the_opening(tmp_path: Path, damaged: str) -> None:
    create(tmp_path)
    path = tmp_path / "journal" / "signed"
    if damaged == "long":
        path.write_bytes(bytes(NOTE_BYTES_MAX + 1))
    else:
        path.unlink()
        path.mkdir()
    with pytest.raises(UncertainStateError, match="cannot be read"):
        open_store(tmp_path)


def test_a_log_belongs_to_one_process_until_it_is_closed(tmp_path: Path) -> None:
    create(tmp_path)
    store = open_store(tmp_path)
    with pytest.raises(MalformedError, match=f"process has {tmp_path}/journal open: this log is running already"):
        open_store(tmp_path)
    with pytest.raises(MalformedError, match="another process"):
        create(tmp_path)
    store.close()
    open_store(tmp_path).close()


def test_a_refused_opening_lets_the_folder_go(tmp_path: Path) -> None:
    create(tmp_path)
    (tmp_path / "log").write_bytes(b"in the way")
    with pytest.raises(UncertainStateError):
        open_store(tmp_path)
    (tmp_path / "log").unlink()
    open_store(tmp_path).close()


def test_a_killed_process_leaves_what_it_was_told_is_durable(tmp_path: Path) -> None:
    create(tmp_path)
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from sfrl_secure.storage.log_folder import FolderLogStore\n"
        "folder = Path(sys.argv[1]); store = FolderLogStore.open(folder / 'journal', folder / 'log')\n"
        "store.journal.append_batch([b'acknowledged']); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False).returncode == -9
    store = open_store(tmp_path)
    assert store.journal.record(3) == b"acknowledged"
    store.close()


def test_a_creation_that_a_crash_interrupts_can_be_asked_for_again(tmp_path: Path) -> None:
    folder = tmp_path
    round_number = 0

    def reset() -> None:
        nonlocal folder, round_number
        round_number += 1
        folder = tmp_path / str(round_number)
        folder.mkdir()

    finished = 0
    for _ in stops_at_each_call(lambda: create(folder), reset):
        if (folder / "journal" / "segments").exists():
            finished += 1
        else:
            with pytest.raises((MalformedError, UncertainStateError), match="there is no log"):
                open_store(folder)
            create(folder)
        store = open_store(folder)
        assert (store.journal.count, store.signed.read()) == (3, NOTHING_SIGNED)
        store.close()
    # Only the last sync may come after the log is there.
    assert finished == 1
    assert round_number > 15


def test_a_note_is_replaced_only_where_ours_stands(tmp_path: Path) -> None:
    path = tmp_path / "signed"
    ours, theirs = FolderSignedNote(path), FolderSignedNote(path)
    with pytest.raises(NotFoundError):
        ours.read()
    with pytest.raises(UncertainStateError):
        ours.replace(b"never read")
    assert not path.exists()
    path.write_bytes(NOTHING_SIGNED)
    with pytest.raises(UncertainStateError, match="somebody else"):
        ours.replace(b"never read")
    assert ours.read() == theirs.read() == NOTHING_SIGNED
    theirs.replace(b"theirs")
    with pytest.raises(UncertainStateError, match="somebody else"):
        ours.replace(b"ours")
    assert path.read_bytes() == b"theirs"
    assert ours.read() == b"theirs"
    ours.replace(b"ours")
    assert path.read_bytes() == b"ours"
    path.unlink()
    with pytest.raises(UncertainStateError, match="gone"):
        ours.replace(b"again")


def test_a_note_is_durable_before_replace_returns_and_private(tmp_path: Path) -> None:
    path = tmp_path / "signed"
    path.write_bytes(NOTHING_SIGNED)
    signed = FolderSignedNote(path)
    signed.read()
    with recorded() as calls:
        signed.replace(b"note")
    assert [call for call, _ in calls] == ["open_new", "write_all", "sync_data", "rename", "sync_folder"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_note_whose_replacing_failed_stands_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "signed"
    path.write_bytes(NOTHING_SIGNED)
    signed = FolderSignedNote(path)
    signed.read()
    with failing("write_all", errno.ENOSPC), pytest.raises(ExhaustedError):
        signed.replace(b"note")
    with failing("sync_data", errno.EIO), pytest.raises(UncertainStateError):
        signed.replace(b"note")
    assert path.read_bytes() == NOTHING_SIGNED
    signed.replace(b"note")
