"""`sfrl log-keys`: the log of a federation gets new keys, and nobody's receipts are lost.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Replace the keys with which the log signs its checkpoints.", no_args_is_help=True)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A federation's folder, from `sfrl init`.")]


@app.command()
def rotate(folder: Folder) -> None:
    """Make the next generation of keys: the log signs with it beside the old ones from its next start on."""
    from sfrl_secure.services.federation.folder import FederationFolder
    from sfrl_secure.services.federation.rotate import rotate_log_keys

    made = rotate_log_keys(FederationFolder(folder))
    typer.echo(f"new keys   {made.key_file}")
    typer.echo(f"trust      {made.trust_policy} has two more lines: generation {made.generations} of the log's keys")
    typer.echo(f"next       1. sfrl up {folder}: the log signs with {made.signing} generations")
    typer.echo("           2. give the trust policy to every participant, auditor and service elsewhere; their older")
    typer.echo("              one goes on holding until they have it")
    typer.echo(f"           3. when all have it: sfrl log-keys retire {folder}")


@app.command()
def retire(folder: Folder) -> None:
    """Let the oldest generation sign no more: who has no newer trust policy by now cannot verify what comes."""
    from sfrl_secure.services.federation.folder import FederationFolder
    from sfrl_secure.services.federation.rotate import retire_log_keys

    file = retire_log_keys(FederationFolder(folder))
    typer.echo(f"retired    {file}: from the log's next start on it signs no more, and can be destroyed")
    typer.echo("trust      its lines stay in the trust policy: receipts of its time are verified with them")
    typer.echo(f"next       sfrl up {folder}")
