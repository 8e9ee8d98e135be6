"""The statement index, read and never changed, beside a log that may be writing it.

The index is disposable, and a log that finds it damaged begins it anew: so what is wrong with it is no harm to the log,
and yet a sign that something else wrote there, or that a disk forgets.

Format: `index_file`.

Runs in: the log's own machine, in `sfrl audit fsck`.
Trusts: nothing; SQLite reads the file with its schema untrusted.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sfrl_secure.errors import MalformedError, NotFoundError
from sfrl_secure.ids import Digest

_APPLICATION_ID = 0x5346_4C31


class IndexReading:
    """Leaf indices by statement digest.

    Attributes:
        size: every statement below this leaf index is in the file.
        count: statements in the file.
    """

    def __init__(self, path: Path) -> None:
        """Open the index.

        Raises:
            NotFoundError: there is none.
            MalformedError: it is not one, or damaged.
        """
        if not path.is_file():
            raise NotFoundError("there is no statement index")
        # Nobody who has closed it leaves a write-ahead log behind; without one, nothing beside the file is needed.
        in_use = path.with_name(path.name + "-wal").exists()
        address = f"{path.absolute().as_uri()}?mode=ro{'' if in_use else '&immutable=1'}"
        try:
            self._connection = sqlite3.connect(address, uri=True, isolation_level=None)
        except sqlite3.Error:
            raise MalformedError("the statement index cannot be opened") from None
        try:
            self.size, self.count = self._read_state()
        except sqlite3.Error:
            self.close()
            raise MalformedError("the statement index cannot be read") from None
        except MalformedError:
            self.close()
            raise

    def _read_state(self) -> tuple[int, int]:
        self._connection.execute("PRAGMA trusted_schema = OFF")
        if self._connection.execute("PRAGMA application_id").fetchone() != (_APPLICATION_ID,):
            raise MalformedError("the statement index is another file")
        # One transaction: a log that runs goes on, and we see what stood here when we began.
        self._connection.execute("BEGIN")
        row = self._connection.execute("SELECT indexed_size, (SELECT count(*) FROM statements) FROM state").fetchone()
        if row is None or not all(isinstance(each, int) for each in row):
            raise MalformedError("the statement index does not say how far it goes")
        return int(row[0]), int(row[1])

    def find(self, digest: Digest) -> int | None:
        """Leaf index under a digest; None where there is none.

        Raises:
            MalformedError: the file cannot be read.
        """
        try:
            row = self._connection.execute("SELECT leaf FROM statements WHERE digest = ?", (digest,)).fetchone()
        except sqlite3.Error:
            raise MalformedError("the statement index cannot be read") from None
        return int(row[0]) if row is not None and isinstance(row[0], int) else None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()
