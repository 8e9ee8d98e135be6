"""`sfrl policy sign` and `publish`: an operator's signature, made where the key is, and the way into the log.

`sign` needs the key and this package: no network, no log. What it shows is read from the document that is signed.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from sfrl_secure.cli.operator_acts import (
    gather_checked,
    publish_gathered,
    say,
    sign_with,
    signature_path,
    write_signatures,
)
from sfrl_secure.cli.operator_inputs import (
    JsonOption,
    StateLogOption,
    YesOption,
    check_free,
    open_profile,
    open_state,
    read_request,
    read_signature,
)

RequestArgument = Annotated[Path, typer.Argument(metavar="REQUEST", help="The signing request.")]


def sign(
    request: RequestArgument,
    key: Annotated[Path, typer.Option("--key", help="The operator's key file; nobody else can read it.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="New file for the signature; by default beside the request.")
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a request would put in force, ask, and sign it into a file of its own.

    Works offline, on a machine that has the operator's key and nothing else. Everything shown is read from the exact
    bytes that are signed; the summary in the file is not looked at. Send the signature file back.
    """
    opened = read_request(request)
    if opened.document.version > 1:
        where = shlex.quote(str(request))
        typer.echo(f"note: what this changes, and for whom: sfrl policy diff {where} --log DIR", err=True)
    (signed,) = sign_with(opened, [key], yes=yes)
    path = out or signature_path(request, signed.signature.key_id)
    check_free(path)
    write_signatures([path], [signed])
    said = {
        "signature": str(path),
        "key_id": signed.signature.key_id.hex(),
        "digest": opened.document.digest.hex(),
        "next": f"sfrl policy publish {shlex.quote(str(request))} {shlex.quote(str(path))} OTHERS... --profile PROFILE",
    }
    say(said, as_json)


def publish(
    request: RequestArgument,
    signatures: Annotated[
        list[Path] | None, typer.Argument(metavar="SIGNATURE...", help="The operators' signature files.")
    ] = None,
    *,
    profile: Annotated[Path, typer.Option("--profile", help="The operator's profile.toml: it names the log.")],
    log: StateLogOption = None,
    proof: Annotated[
        Path | None, typer.Option("--proof", help="New file, NAME.tlog-proof: the entry and its proof, to keep.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count the signatures and put the document into the audit log; from its entry on it is in force.

    Everything that the log would refuse is looked for first: a signature that is missing, and who could still give it;
    a version that somebody else has published meanwhile. Publishing again changes nothing and says the same.

    Exit code 0: it is in the log, proven under the log's keys.
    Exit code 3: too few signatures, or it would have no effect; the error says what to do.
    """
    opened = read_request(request)
    named = open_profile(profile)
    if proof is not None:
        check_free(proof, "--proof")
    given = [read_signature(each) for each in signatures or []]
    state = open_state(log, named)
    gathered = gather_checked(opened, given, state, [str(path) for path in signatures or []])
    # A copy may be behind: signatures are counted by it, and the log judges the rest.
    say(publish_gathered(gathered, named, state=state if log is None else None, proof=proof), as_json)
