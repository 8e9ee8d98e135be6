"""The statement index: first one wins, nothing ahead of the log, and whatever is wrong with the file is begun anew."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from sfrl_secure.errors import ExhaustedError, UncertainStateError
from sfrl_secure.ids import Digest, sha256
from sfrl_secure.storage import index_file
from sfrl_secure.storage.index import SqliteStatements

GENESIS = sha256(b"genesis")


def digest_of(index: int) -> Digest:
    return sha256(b"statement %d" % index)


def make_index(path: Path, count: int = 100) -> SqliteStatements:
    statements = SqliteStatements(path, log_id=GENESIS)
    for index in range(count):
        statements.add(digest_of(index), index)
    return statements


def close_as_killed(statements: SqliteStatements) -> None:
    """Close the connections without the word that the file is whole."""
    statements._file._reader.close()
    statements._file._writer.close()


def test_a_statement_is_known_from_add_on_and_after_flush_and_opening(tmp_path: Path) -> None:
    statements = make_index(tmp_path / "index")
    assert statements.get(digest_of(7)) == 7
    assert statements.get(digest_of(100)) is None
    statements.flush(100)
    assert (statements.get(digest_of(7)), statements.indexed_size) == (7, 100)
    statements.close()
    statements = SqliteStatements(tmp_path / "index", log_id=GENESIS)
    assert [statements.get(digest_of(index)) for index in range(100)] == list(range(100))
    assert (statements.get(digest_of(100)), statements.indexed_size) == (None, 100)
    statements.close()


@pytest.mark.parametrize("is_asked_before", [False, True])
@pytest.mark.parametrize("is_flushed", [False, True])
@pytest.mark.parametrize("is_reopened", [False, True])
def test_the_first_index_of_a_digest_stays(
    tmp_path: Path, is_asked_before: bool, is_flushed: bool, is_reopened: bool
) -> None:
    statements = make_index(tmp_path / "index", 0)
    if is_asked_before:
        assert statements.get(digest_of(5)) is None
    statements.add(digest_of(5), 5)
    if is_flushed or is_reopened:
        statements.flush(6)
    if is_reopened:
        statements.close()
        statements = SqliteStatements(tmp_path / "index", log_id=GENESIS)
    statements.add(digest_of(5), 9)
    assert statements.get(digest_of(5)) == 5
    statements.flush(10)
    assert statements.get(digest_of(5)) == 5
    statements.close()


def test_only_what_is_below_the_durable_size_is_written(tmp_path: Path) -> None:
    statements = make_index(tmp_path / "index")
    statements.flush(60)
    assert statements.get(digest_of(60)) == 60
    close_as_killed(statements)
    statements = SqliteStatements(tmp_path / "index", log_id=GENESIS)
    assert statements.indexed_size == 60
    assert [statements.get(digest_of(index)) for index in (0, 59, 60, 99)] == [0, 59, None, None]
    # Another statement may have come to that place.
    statements.add(digest_of(99), 60)
    statements.flush(61)
    assert statements.get(digest_of(99)) == 60
    statements.close()


def test_a_statement_is_known_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = make_index(tmp_path / "index")
    is_written, may_go_on = threading.Event(), threading.Event()
    write = statements._file.write

    def slow_write(*given: object) -> None:
        write(*given)  # type: ignore[arg-type]
        is_written.set()
        assert may_go_on.wait(10)

    monkeypatch.setattr(statements._file, "write", slow_write)
    flushing = threading.Thread(target=statements.flush, args=(100,))
    flushing.start()
    assert is_written.wait(10)
    # Asking and adding do not wait for the flush.
    assert statements.get(digest_of(7)) == 7
    statements.add(digest_of(100), 100)
    statements.add(digest_of(7), 101)
    assert (statements.get(digest_of(7)), statements.indexed_size) == (7, 0)
    may_go_on.set()
    flushing.join()
    assert [statements.get(digest_of(index)) for index in (7, 99, 100)] == [7, 99, 100]
    statements.close()


def test_get_add_and_flush_in_two_threads_lose_nothing(tmp_path: Path) -> None:
    statements = make_index(tmp_path / "index", 0)
    done = threading.Event()
    size = 0

    def flush() -> None:
        while not done.is_set():
            statements.flush(size)

    flushing = threading.Thread(target=flush)
    flushing.start()
    for index in range(5_000):
        assert statements.get(digest_of(index)) is None
        statements.add(digest_of(index), index)
        size = index + 1
        assert statements.get(digest_of(index // 2)) == index // 2
    done.set()
    flushing.join()
    statements.flush(5_000)
    statements.close()
    statements = SqliteStatements(tmp_path / "index", log_id=GENESIS)
    assert [statements.get(digest_of(index)) for index in range(5_000)] == list(range(5_000))
    statements.close()


def test_the_file_and_those_beside_it_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        statements = make_index(tmp_path / "index", 3)
        statements.flush(3)
        found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
        assert found == dict.fromkeys(("index", "index-wal", "index-shm"), 0o600)
        statements.close()
    finally:
        os.umask(before)


def test_a_killed_process_loses_nothing_that_was_flushed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from sfrl_secure.ids import sha256; from sfrl_secure.storage.index import SqliteStatements\n"
        "statements = SqliteStatements(Path(sys.argv[1]), log_id=sha256(b'genesis'))\n"
        "for index in range(1000): statements.add(sha256(b'statement %d' % index), index)\n"
        "statements.flush(1000); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "index"
    assert subprocess.run([sys.executable, "-c", program, str(path)], check=False).returncode == -9
    statements = SqliteStatements(path, log_id=GENESIS)
    assert statements.indexed_size == 1000
    assert [statements.get(digest_of(index)) for index in range(1000)] == list(range(1000))
    statements.close()


def test_an_index_of_an_earlier_boot_is_believed_only_where_it_was_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    monkeypatch.setattr(index_file, "_BOOT_PATH", boot)
    boot.write_text("first\n")
    statements = make_index(tmp_path / "index")
    statements.flush(100)
    statements.close()
    boot.write_text("second\n")
    statements = SqliteStatements(tmp_path / "index", log_id=GENESIS)
    assert statements.indexed_size == 100
    close_as_killed(statements)
    statements = SqliteStatements(tmp_path / "index", log_id=GENESIS)
    assert statements.indexed_size == 100
    close_as_killed(statements)
    boot.write_text("third\n")
    statements = SqliteStatements(tmp_path / "index", log_id=GENESIS)
    assert (statements.indexed_size, statements.get(digest_of(7))) == (0, None)
    statements.flush(100)
    close_as_killed(statements)
    # Where boots have no name, two of them are never the same.
    boot.unlink()
    for _ in range(2):
        statements = SqliteStatements(tmp_path / "index", log_id=GENESIS)
        assert statements.indexed_size == 0
        statements.flush(100)
        close_as_killed(statements)


def write_foreign_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE somebodys (value)")
    connection.commit()
    connection.close()


def alter(statement: str) -> Callable[[Path], None]:
    def altered(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.execute(statement)
        connection.commit()
        connection.close()

    return altered


def flip_bytes(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for at in range(4096, len(data), 512):
        data[at:at + 64] = bytes(64)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        Path.unlink,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"no database at all" * 100),
        lambda path: path.write_bytes(path.read_bytes()[:5000]),
        flip_bytes,
        lambda path: (path.unlink(), write_foreign_database(path)),
        alter("DROP TABLE state"),
        alter("DELETE FROM state"),
        alter("DROP TABLE statements"),
        alter("UPDATE state SET log_id = x'00'"),
        alter("UPDATE state SET indexed_size = 'many'"),
        alter("PRAGMA application_id = 7"),
    ],
)
def test_a_file_that_is_not_our_whole_index_is_begun_anew(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    statements = make_index(tmp_path / "index", 1000)
    statements.flush(1000)
    statements.close()
    damage(tmp_path / "index")
    statements = SqliteStatements(tmp_path / "index", log_id=GENESIS)
    assert (statements.indexed_size, statements.get(digest_of(7))) == (0, None)
    statements.add(digest_of(7), 7)
    statements.flush(8)
    assert (statements.indexed_size, statements.get(digest_of(7))) == (8, 7)
    statements.close()


def test_another_logs_index_is_begun_anew(tmp_path: Path) -> None:
    statements = make_index(tmp_path / "index")
    statements.flush(100)
    statements.close()
    statements = SqliteStatements(tmp_path / "index", log_id=sha256(b"another genesis"))
    assert (statements.indexed_size, statements.get(digest_of(7))) == (0, None)
    statements.close()


def test_a_cleared_index_knows_nothing(tmp_path: Path) -> None:
    statements = make_index(tmp_path / "index")
    statements.flush(60)
    statements.clear()
    assert statements.indexed_size == 0
    assert [statements.get(digest_of(index)) for index in (7, 99)] == [None, None]
    statements.add(digest_of(7), 3)
    statements.flush(4)
    statements.close()
    statements = SqliteStatements(tmp_path / "index", log_id=GENESIS)
    assert (statements.indexed_size, statements.get(digest_of(7))) == (4, 3)
    statements.close()


def test_a_full_disk_loses_nothing_and_the_flush_may_be_tried_again(tmp_path: Path) -> None:
    statements = make_index(tmp_path / "index", 1000)
    statements.flush(10)
    pages = statements._file._writer.execute("PRAGMA page_count").fetchone()[0]
    statements._file._writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ExhaustedError):
        statements.flush(1000)
    assert (statements.indexed_size, statements.get(digest_of(999))) == (10, 999)
    statements.add(digest_of(1000), 1000)
    statements._file._writer.execute("PRAGMA max_page_count = 1000000")
    statements.flush(1001)
    assert [statements.get(digest_of(index)) for index in range(1001)] == list(range(1001))
    statements.close()


def test_a_file_that_another_process_holds_is_not_removed(tmp_path: Path) -> None:
    make_index(tmp_path / "index").close()
    other = sqlite3.connect(tmp_path / "index", isolation_level=None)
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UncertainStateError):
        SqliteStatements(tmp_path / "index", log_id=GENESIS)
    other.execute("COMMIT")
    other.close()
    SqliteStatements(tmp_path / "index", log_id=GENESIS).close()


def test_an_index_that_fails_is_an_uncertain_state(tmp_path: Path) -> None:
    with pytest.raises(UncertainStateError):
        SqliteStatements(tmp_path / "none" / "index")
    statements = make_index(tmp_path / "index")
    close_as_killed(statements)
    for use in (lambda: statements.get(digest_of(1000)), lambda: statements.flush(100), statements.close):
        with pytest.raises(UncertainStateError):
            use()


def test_flushing_never_waits_for_the_disk(tmp_path: Path) -> None:
    statements = make_index(tmp_path / "index")
    assert statements._file._writer.execute("PRAGMA synchronous").fetchone() == (0,)
    assert statements._file._writer.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    statements.close()


def test_parts_of_two_states_of_the_file_are_no_index(tmp_path: Path) -> None:
    """An older copy beside the log of a process that was killed: each page sound, and some of another time."""
    path = tmp_path / "statements.sqlite"
    index = SqliteStatements(path)
    for number in range(2_000):
        index.add(sha256(b"%d" % number), number)
    index.flush(2_000)
    index.close()
    writer = sqlite3.connect(path)
    writer.execute("DELETE FROM statements WHERE leaf = 77")
    writer.commit()
    writer.close()
    again = SqliteStatements(path)
    assert (again.indexed_size, again.get(sha256(b"5"))) == (0, None)
    again.close()
