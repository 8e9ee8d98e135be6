"""Files that somebody names on the command line: an error says which file it was.

Runs in: cli.
Trusts: whoever types; not what a file holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sfrl_secure.errors import MalformedError, MissingEvidenceError, NotFoundError, PayloadError

if TYPE_CHECKING:
    from sfrl_secure.ids import Digest


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file before what is wrong with its form; a refusal of its content keeps its own words.

    Raises:
        MalformedError: in place of the one that the block raised.
    """
    try:
        yield
    except PayloadError:
        raise
    except MalformedError as error:
        raise MalformedError(f"{path}: {error}") from None


def parse_model_digest(text: str) -> Digest:
    """Take --model.

    Raises:
        MalformedError: not 64 hexadecimal digits.
    """
    from sfrl_secure.ids import parse_hex_digest

    try:
        return parse_hex_digest(text)
    except MalformedError:
        raise MalformedError("--model takes the 64 hexadecimal digits that `sfrl fetch` prints as `model`") from None


def read_input(path: Path, bytes_max: int, what: str) -> bytes:
    """Read a file that the command needs.

    Raises:
        NotFoundError, MalformedError, MissingEvidenceError: not there, too long or no file, not readable.
    """
    from sfrl_secure.storage.files import read_bounded

    try:
        return read_bounded(path, bytes_max)
    except NotFoundError:
        raise NotFoundError(f"{what}: there is no file {path}") from None
    except MalformedError as error:
        raise MalformedError(f"{what} {path}: {error}") from None
    except MissingEvidenceError as error:
        raise MissingEvidenceError(f"{what} {path}: {error}") from None


def check_file(path: Path, what: str) -> None:
    """Check that a file is there, which something below the command line reads.

    Raises:
        NotFoundError: it is not.
    """
    if not path.is_file():
        raise NotFoundError(f"{what}: there is no file {path}")


def check_folder(path: Path, what: str) -> None:
    """Check that a folder is there.

    Raises:
        NotFoundError: it is not.
    """
    if not path.is_dir():
        raise NotFoundError(f"{what}: there is no folder {path}")


def check_published_folder(path: Path) -> None:
    """Check that the folder of a published log is there.

    Raises:
        NotFoundError: it is not, or it holds nothing of a log.
        MalformedError: it is a mirror's folder, which has the log below it.
    """
    check_folder(path, "the log")
    if not (path / "checkpoint").exists() and (path / "lock").exists() and (path / "log" / "checkpoint").exists():
        raise MalformedError(f"{path} is a mirror: its log is {path / 'log'}")
    if not (path / "checkpoint").exists() and not (path / "tile").exists():
        raise NotFoundError(f"{path} holds neither `checkpoint` nor `tile`: it is not a published log")
