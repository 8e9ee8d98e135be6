"""The statement index's file: an SQLite database that is begun anew whenever it cannot be trusted.

Nothing here waits for the disk but opening and closing: `synchronous=OFF`, so that the index takes no sync away from
the journal. A killed process loses nothing by that; a machine that stops may leave any bytes. So the file names the
boot of the machine that wrote it, or says that it was closed whole: one of an earlier boot that was not is begun anew.
SQLite makes its own system calls; none of them is needed for a log to be right.

Source: sqlite.org/pragma.html, "synchronous"; sqlite.org/wal.html.

Runs in: audit_log.
Trusts: the file, where its boot is this one or it was closed; SQLite.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import structlog

from sfrl_secure.errors import ExhaustedError, SfrlError, UncertainStateError
from sfrl_secure.ids import Digest
from sfrl_secure.storage.files import SECRET_MODE
from sfrl_secure.storage.system import open_new, unlink

_APPLICATION_ID = 0x5346_4C31
_CACHE_KIB = 4096  # Of each connection, and there are two.
_TABLES = (
    "CREATE TABLE state (log_id BLOB, boot TEXT, is_closed INTEGER, indexed_size INTEGER, row_count INTEGER)",
    "CREATE TABLE statements (digest BLOB PRIMARY KEY, leaf INTEGER NOT NULL) WITHOUT ROWID",
)
_BOOT_PATH = Path("/proc/sys/kernel/random/boot_id")

# Of these the file is not to blame: it stays.
_NO_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
    }
)

_log = structlog.get_logger()


class _UntrustedError(Exception):
    """The file is no index of this log, or not known to be whole."""


class IndexFile:
    """Leaf indices by digest. One thread finds while another writes."""

    def __init__(self, writer: sqlite3.Connection, reader: sqlite3.Connection) -> None:
        """Use what `open_index_file` has opened."""
        self._writer = writer
        self._reader = reader

    def read_size(self) -> int:
        """The log size that was written last.

        Raises:
            UncertainStateError: the file cannot be read.
        """
        try:
            return int(self._writer.execute("SELECT indexed_size FROM state").fetchone()[0])
        except sqlite3.Error as error:
            raise _failure(error) from error

    def find(self, digest: Digest) -> int | None:
        """Leaf index under a digest; None where there is none.

        Raises:
            UncertainStateError: the file cannot be read.
        """
        try:
            row = self._reader.execute("SELECT leaf FROM statements WHERE digest = ?", (digest,)).fetchone()
        except sqlite3.Error as error:
            raise _failure(error) from error
        return None if row is None else int(row[0])

    def write(self, rows: Iterable[tuple[Digest, int]], size: int) -> None:
        """Write rows whose digests are new, and the log size, all or nothing.

        Raises:
            ExhaustedError: the disk is full; nothing was written.
            UncertainStateError: the file cannot be written.
        """
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            # In order of their digests: neighbours share a page.
            before = self._writer.total_changes
            self._writer.executemany("INSERT OR IGNORE INTO statements VALUES (?, ?)", sorted(rows))
            # The count shows pages of two states of the file beside each other, each sound for itself.
            inserted = self._writer.total_changes - before
            self._writer.execute(
                "UPDATE state SET indexed_size = ?, row_count = row_count + ?", (size, inserted)
            )
            self._writer.execute("COMMIT")
        except sqlite3.Error as error:
            with suppress(sqlite3.Error):
                self._writer.execute("ROLLBACK")
            raise _failure(error) from error

    def close(self) -> None:
        """Close the file, and say in it that it is whole.

        Raises:
            ExhaustedError, UncertainStateError: the disk did not confirm: the next boot begins anew.
        """
        try:
            # First all pages, under no boot's name; only then the word that they are whole.
            _write_durably(self._writer, "UPDATE state SET boot = ''")
            _write_durably(self._writer, "UPDATE state SET is_closed = 1")
        except sqlite3.Error as error:
            raise _failure(error) from error
        finally:
            self._reader.close()
            self._writer.close()


def open_index_file(path: Path, log_id: Digest) -> IndexFile:
    """Open the index of one log; begin anew where there is none, or another log's, or one that is not whole.

    Raises:
        ExhaustedError: the disk is full.
        UncertainStateError: another process uses it, or the disk failed.
    """
    try:
        try:
            return _open(path, log_id)
        except (sqlite3.Error, _UntrustedError) as error:
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _NO_DAMAGE:
                raise
            _log.warning("index_begun_anew", error=type(error).__name__)
            remove_index_file(path)
            return _open(path, log_id)
    except sqlite3.Error as error:
        raise _failure(error) from error


def remove_index_file(path: Path) -> None:
    """Remove an index that nobody has open.

    Raises:
        UncertainStateError: it could not be removed.
    """
    # The database first: without one SQLite throws a write-ahead log away; it would believe one without its log.
    for suffix in ("", "-wal", "-shm"):
        unlink(path.with_name(path.name + suffix))


def _open(path: Path, log_id: Digest) -> IndexFile:
    boot = _read_boot()
    _make_private(path)
    writer = _connect(path)
    try:
        if writer.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            _create(writer, log_id)
        _check(writer, log_id, boot)
        # In the database itself before anything is written behind the disk's back.
        _write_durably(writer, "UPDATE state SET boot = ?, is_closed = 0", (boot,))
        return IndexFile(writer, _connect(path))
    except BaseException:
        writer.close()
        raise


def _make_private(path: Path) -> None:
    """Make a file that is missing for its owner alone; SQLite gives its log and shared memory the same mode.

    Raises:
        ExhaustedError, UncertainStateError: it could not be made.
    """
    if not path.exists():
        os.close(open_new(path, SECRET_MODE))


def _connect(path: Path) -> sqlite3.Connection:
    # No transaction but those that we begin. `SqliteStatements` keeps its threads apart.
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA trusted_schema = OFF")
    except BaseException:
        connection.close()
        raise
    return connection


def _create(writer: sqlite3.Connection, log_id: Digest) -> None:
    writer.execute("BEGIN IMMEDIATE")
    writer.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
    for table in _TABLES:
        writer.execute(table)
    writer.execute("INSERT INTO state VALUES (?, '', 1, 0, 0)", (log_id,))
    writer.execute("COMMIT")


def _check(writer: sqlite3.Connection, log_id: Digest, boot: str) -> None:
    if writer.execute("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
        raise _UntrustedError("not a statement index")
    tables = writer.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name").fetchall()
    if tables != [(table,) for table in _TABLES]:
        raise _UntrustedError("another version's")
    if writer.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
        raise _UntrustedError("damaged")
    rows = writer.execute("SELECT log_id, boot, is_closed, indexed_size, row_count FROM state").fetchall()
    if len(rows) != 1 or rows[0][0] != log_id or not isinstance(rows[0][3], int):
        raise _UntrustedError("another log's")
    if writer.execute("SELECT count(*) FROM statements").fetchone() != (rows[0][4],):
        raise _UntrustedError("parts of two states")
    if rows[0][2] != 1 and (not boot or rows[0][1] != boot):
        raise _UntrustedError("the machine stopped while it was in use")


def _write_durably(writer: sqlite3.Connection, statement: str, values: tuple[str, ...] = ()) -> None:
    """Change the state, and bring the whole file to the disk."""
    writer.execute("PRAGMA synchronous = FULL")
    writer.execute(statement, values)
    writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    writer.execute("PRAGMA synchronous = OFF")


def _read_boot() -> str:
    """Name this boot of the machine; nothing where boots have no name."""
    try:
        return _BOOT_PATH.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _failure(error: sqlite3.Error) -> SfrlError:
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_FULL:
        return ExhaustedError("the disk is full")
    return UncertainStateError("the statement index cannot be used; without its file it is made again at a start")
