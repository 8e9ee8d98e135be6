"""`sfrl`: one command for operators, participants and auditors.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from sfrl_secure.cli import audit, bundle, enrol, log_keys, order, participant, policy, receipt, record, rounds, segment
from sfrl_secure.cli.demo import demo
from sfrl_secure.cli.federation import init, reissue, up
from sfrl_secure.cli.invite import invite
from sfrl_secure.cli.revoke import revoke
from sfrl_secure.errors import DeniedError, SfrlError


class Role(StrEnum):
    """The four services."""

    GATEKEEPER = "gatekeeper"
    AGGREGATOR = "aggregator"
    AUDIT_LOG = "audit_log"
    VERIFIER = "verifier"


app = typer.Typer(
    name="sfrl",
    help="Sparse federated learning that nobody has to trust.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    add_completion=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"sfrl {version('sfrl-secure')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def serve(
    role: Annotated[Role, typer.Argument(help="Which service.")],
    config: Annotated[Path, typer.Option(help="Its TOML configuration.")],
) -> None:
    """Run one service until SIGTERM. JSON lines go to standard error."""
    # Only the service's own module: the audit log starts without numpy, and nobody needs torch.
    if role is Role.GATEKEEPER:
        from sfrl_secure.services.gatekeeper.serve import serve as run
    elif role is Role.AGGREGATOR:
        from sfrl_secure.services.aggregator.serve import serve as run
    elif role is Role.AUDIT_LOG:
        from sfrl_secure.services.audit_log.serve import serve as run
    else:
        from sfrl_secure.services.verifier.serve import serve as run
    raise typer.Exit(run(config))


app.command()(init)
app.command()(up)
app.command()(reissue)
app.command()(demo)
app.command()(invite)
app.command()(revoke)
participant.register(app)
enrol.register(app)
app.add_typer(audit.app, name="audit")
app.add_typer(receipt.app, name="receipt")
app.add_typer(bundle.app, name="bundle")
app.add_typer(policy.app, name="policy")
app.add_typer(order.app, name="order")
app.add_typer(segment.app, name="segment")
app.add_typer(rounds.app, name="round")
app.add_typer(record.app, name="record")
app.add_typer(log_keys.app, name="log-keys")


def main() -> None:
    """Run the command; a typed error is one line and its exit code."""
    try:
        app(prog_name="sfrl", standalone_mode=True)
    except SfrlError as error:
        from sfrl_secure.rpc.status import exit_code_of

        reason = f" ({error.reason})" if isinstance(error, DeniedError) else ""
        typer.echo(f"error: {error}{reason}", err=True)
        sys.exit(exit_code_of(error))


if __name__ == "__main__":
    main()
