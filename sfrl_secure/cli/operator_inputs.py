"""What operators' commands take: where the state is read, keys, and the files that travel between machines.

Runs in: cli.
Trusts: whoever types; not what the files hold.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.errors import DeniedError, MalformedError

if TYPE_CHECKING:
    from sfrl_secure.audit.profile import OperatorProfile
    from sfrl_secure.crypto.keys import SigningKey
    from sfrl_secure.operating.signing import DetachedSignature, SigningRequest
    from sfrl_secure.rounds.state import FederationState

StateLogOption = Annotated[
    Path | None,
    typer.Option("--log", help="Folder of a published log, or of a mirror of it: what is in force is read there."),
]
ProfileOption = Annotated[
    Path | None,
    typer.Option("--profile", help="The operator's profile.toml: the log that it names is read, and published to."),
]
KeysOption = Annotated[
    list[Path] | None,
    typer.Option("--key", help="Sign with this operator's key at once. Repeatable; without it a request is written."),
]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="New file for the signing request; by default one named after what it is.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts that have shown what is signed.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one object on one line of standard output.")]
ReasonOption = Annotated[str, typer.Option("--reason", help="For people: up to 200 characters, in the log for ever.")]


def open_profile(path: Path) -> OperatorProfile:
    """Read an operator's profile whose files are there.

    Raises:
        NotFoundError, MalformedError: it is not there, one of its files is not, or it is no operator's.
    """
    from sfrl_secure.audit.profile import read_operator_profile
    from sfrl_secure.cli.inputs import check_file

    check_file(path, "the profile")
    named = read_operator_profile(path)
    for each in (named.certificate, named.tls_key, named.service_ca, named.trust_policy):
        check_file(each, f"a file that the profile {path} names")
    return named


def open_state(log: Path | None, profile: OperatorProfile | None) -> FederationState:
    """Read what is in force: from a folder where one is named, else by following the log as the profile says.

    Raises:
        MalformedError: neither is named.
        SfrlError: as `read_folded` and `follow_state`.
    """
    if log is not None:
        from sfrl_secure.cli.audit import say_reading
        from sfrl_secure.cli.reading import read_folded

        folder = log_folder(log)
        say_reading()
        return read_folded(folder).state
    if profile is None:
        raise MalformedError(
            "say where to read what is in force: --profile FILE follows the log as an operator, --log DIR reads a "
            "published log or a mirror"
        )
    from sfrl_secure.operating.following import connect, follow_state

    policy = profile.open_trust_policy()
    with connect(profile) as client:
        return follow_state(client, policy)


def log_folder(log: Path) -> Path:
    """The folder of the published log: a mirror has it inside.

    Raises:
        NotFoundError: there is no such folder.
    """
    from sfrl_secure.cli.inputs import check_folder

    check_folder(log, "the log")
    inside = log / "log"
    return inside if not (log / "checkpoint").exists() and (inside / "checkpoint").exists() else log


def read_key(path: Path) -> SigningKey:
    """Read an operator's key.

    Raises:
        NotFoundError, DeniedError, MalformedError: no file, readable by others, or no key of ours.
    """
    from sfrl_secure.operating.signing import operator_key_from_pem
    from sfrl_secure.storage.secrets import read_secret

    try:
        return operator_key_from_pem(read_secret(path))
    except MalformedError as error:
        raise MalformedError(f"the key file {path}: {error}") from None


def read_request(path: Path) -> SigningRequest:
    """Read a signing request.

    Raises:
        NotFoundError, MalformedError: no file, or no request.
    """
    from sfrl_secure.cli.inputs import read_input
    from sfrl_secure.operating.signing import REQUEST_BYTES_MAX, parse_request

    raw = read_input(path, REQUEST_BYTES_MAX, "the signing request")
    try:
        return parse_request(raw)
    except MalformedError as error:
        raise MalformedError(f"{path} is no signing request of `sfrl policy build`: {error}") from None


def read_signature(path: Path) -> DetachedSignature:
    """Read a detached signature.

    Raises:
        NotFoundError, MalformedError: no file, or no signature.
    """
    from sfrl_secure.cli.inputs import read_input
    from sfrl_secure.operating.signing import SIGNATURE_BYTES_MAX, parse_signature

    raw = read_input(path, SIGNATURE_BYTES_MAX, "the signature")
    try:
        return parse_signature(raw)
    except MalformedError as error:
        raise MalformedError(f"{path} is no signature of `sfrl policy sign`: {error}") from None


def write_file(path: Path, data: bytes, option: str = "--out") -> None:
    """Make a new file; never replace one.

    Raises:
        MalformedError: there is one of this name, or no folder for it.
    """
    from sfrl_secure.storage.files import write_new

    check_free(path, option)
    write_new(path, data)


def check_free(path: Path, option: str = "--out") -> None:
    """Check that a file can be made, before the work that ends with it.

    Args:
        option: that names another file; empty where there is none.

    Raises:
        MalformedError: there is one of this name, or no folder for it.
    """
    another = f"name another with {option}" if option else "name another"
    if path.exists():
        raise MalformedError(f"{path} is there already: {another}")
    if not path.absolute().parent.is_dir():
        raise MalformedError(f"{path} has no folder to lie in: make {path.parent}, or {another}")


def check_one(what: str, first: bool, second: bool, ways: str) -> None:
    """Check that something is named in one of two ways.

    Raises:
        MalformedError: it is named in neither, or in both; names the ways.
    """
    if first and second:
        raise MalformedError(f"{what} is said in two ways: give only one of {ways}")
    if not first and not second:
        raise MalformedError(f"say {what}: {ways}")


def confirm(question: str, *, yes: bool) -> None:
    """Ask, unless it was answered already.

    Raises:
        MalformedError: there is nobody to ask.
        DeniedError: `declined`.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise MalformedError("there is no terminal to ask on: read what is to be signed, and say --yes")
    if not typer.confirm(question, err=True):
        raise DeniedError("declined", "nothing was signed")
