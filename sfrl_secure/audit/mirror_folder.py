"""A mirror's folder: what is in it, and that it is no place where others write.

Whoever mirrors into a log's own folder, or into a federation's, would have two writers in one place: payloads of
updates could land where everybody reads. So a folder that has anything in it is taken only with a mirror's marks.

Runs in: auditors' machines.
Trusts: the names in the folder, as far as they say whose it is.
"""

from __future__ import annotations

from pathlib import Path

from sfrl_secure.errors import MalformedError
from sfrl_secure.storage.files import LOCK_NAME

LOG_FOLDER = "log"
STAGED_FOLDER = "staged"
EVIDENCE_FOLDER = "evidence"
OBJECTS_FOLDER = "objects"
RECORD_NAME = "objects.json"

_OWN_NAMES = frozenset({LOCK_NAME, LOG_FOLDER, STAGED_FOLDER, EVIDENCE_FOLDER, OBJECTS_FOLDER, RECORD_NAME})


def check_is_mirror(folder: Path) -> None:
    """Refuse a folder that has anything in it and is no mirror: what others write there would lie among the copy.

    Raises:
        MalformedError: it holds other things, is no folder, or cannot be read.
    """
    try:
        names = {each.name for each in folder.iterdir()}
    except FileNotFoundError:
        return
    except OSError:
        raise MalformedError(f"{folder} is no folder, or cannot be read") from None
    # A desktop's own files, and what a crash left of a write, begin with a dot.
    seen = {name for name in names if not name.startswith(".")}
    if seen and (LOCK_NAME not in seen or not seen <= _OWN_NAMES):
        raise MalformedError(f"{folder} holds other things: a mirror is made in a new or empty folder")
