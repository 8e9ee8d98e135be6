"""`sfrl audit compare`: hold two checkpoints of one log against each other.

Runs in: cli.
Trusts: whoever types, and the trust policy that they name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sfrl_secure.cli.inputs import read_input


def compare(
    first: Annotated[Path, typer.Argument(help="A checkpoint, as a log or a witness gives it.")],
    second: Annotated[Path, typer.Argument(help="Another one of the same log.")],
    trust_policy: Annotated[Path, typer.Option("--trust-policy", help="The keys of the log and its witnesses.")],
) -> None:
    """Say whether a log signed two histories, from two of its checkpoints: what two witnesses have, for example.

    Exit code 0: nothing contradicts. Exit code 1: the log signed two roots for one size: the two files are the
    evidence, for everybody who has this trust policy.
    """
    from sfrl_secure.errors import ConsistencyError
    from sfrl_secure.limits import NOTE_BYTES_MAX, TRUST_POLICY_BYTES_MAX
    from sfrl_secure.translog.equivocation import check_one_history
    from sfrl_secure.translog.opened import open_checkpoint
    from sfrl_secure.translog.policy import parse_trust_policy

    policy = parse_trust_policy(read_input(trust_policy, TRUST_POLICY_BYTES_MAX, "the trust policy"))
    notes = [read_input(path, NOTE_BYTES_MAX, "the checkpoint") for path in (first, second)]
    is_one = True
    try:
        check_one_history(notes[0], notes[1], policy)
    except ConsistencyError:
        is_one = False
    opened = [open_checkpoint(note, policy, quorum=False, archived=True) for note in notes]
    for path, each in zip((first, second), opened, strict=True):
        size, root = each.checkpoint.size, each.checkpoint.root.hex()
        typer.echo(f"{path}: {size} entries, root {root}, cosigned by {', '.join(each.witness_times) or 'nobody'}")
    if not is_one:
        typer.echo("FALSE: the log signed two roots for one size; the two files are the evidence")
        raise typer.Exit(1)
    if opened[0].checkpoint.size == opened[1].checkpoint.size:
        typer.echo("the same history")
    else:
        typer.echo("nothing contradicts; whether the one continues the other, `sfrl audit verify --older` says")
