"""What every request that ends in the log has in common: it is sent until it is decided, and its answer is kept.

Runs in: participant, cli.
Trusts: nothing; whoever keeps an answer has verified it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from sfrl_secure.errors import ConflictError, ExhaustedError
from sfrl_secure.participant.acknowledgement import acknowledgement_file
from sfrl_secure.storage.files import SECRET_MODE, make_folder, write_atomically
from sfrl_secure.wire.audit_service import AppendedEntry

CALL_SECONDS = 20.0
UNDECIDED_MAX = 4
"""How often a request is sent where no decision is made."""
UNDECIDED_PAUSE_SECONDS = 0.2
"""Pause before the second time; doubles."""


def send_until_decided(send: Callable[[], AppendedEntry], sleep: Callable[[float], None]) -> AppendedEntry:
    """Send, again where nothing was decided: a gatekeeper lost every race, or has too much in work.

    Raises:
        ConflictError, ExhaustedError: nothing was decided, however often it was sent.
    """
    for attempt in range(UNDECIDED_MAX):
        try:
            return send()
        except (ConflictError, ExhaustedError):
            if attempt + 1 == UNDECIDED_MAX:
                raise
            sleep(UNDECIDED_PAUSE_SECONDS * 2**attempt)
    raise AssertionError("UNDECIDED_MAX is at least 1")


def keep_acknowledged(path: Path, acknowledged: AppendedEntry) -> None:
    """Keep receipt A, for its owner alone: whoever is left out later convicts the log with it.

    Raises:
        ExhaustedError, UncertainStateError: it could not be kept.
        MalformedError: it does not fit the format.
    """
    make_folder(path.parent)
    write_atomically(path, acknowledgement_file(acknowledged), mode=SECRET_MODE)
