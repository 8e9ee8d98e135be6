"""Bundles that somebody names on the command line: one that was cut or altered does not hold, whoever reads it.

A file that is none, or is not there, is wrong use; a bundle whose parts do not fit has another exit code, and the words
say what to do: ask for it again.

Runs in: cli.
Trusts: nothing that such a file holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sfrl_secure.cli.inputs import check_file
from sfrl_secure.errors import MalformedError, PayloadError, VerificationError

if TYPE_CHECKING:
    from sfrl_secure.participant.bundles import Bundle


@contextmanager
def opened_bundle(file: Path) -> Iterator[Bundle]:
    """Open a bundle for as long as the block runs.

    Raises:
        NotFoundError, MissingEvidenceError: it is not there, or cannot be read.
        MalformedError: it is no bundle.
        VerificationError: it was cut or altered on its way.
    """
    from sfrl_secure.participant.bundles import is_bundle, open_bundle

    check_file(file, "the bundle")
    if not is_bundle(file):
        raise MalformedError("the file is no bundle")
    try:
        bundle = open_bundle(file)
    except MalformedError as error:
        raise VerificationError(str(error)) from None
    with bundle:
        yield bundle


def payload_words(error: PayloadError, *, is_signature_verified: bool) -> str:
    """Say what is wrong with a payload that has the signed digest, and breaks a rule all the same."""
    if is_signature_verified:
        return f"the payload is the one that was signed, and no gatekeeper takes it: {error}"
    return (
        f"statement and payload do not fit each other: {error}; the bundle was altered on its way (ask for it again), "
        "or was signed so, and then no gatekeeper takes it"
    )
