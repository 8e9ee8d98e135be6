"""`sfrl audit compare`: hold two checkpoints of one log against each other.

Runs in: cli.
Trusts: whoever types, and the trust policy that they name.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.inputs import read_input
from sfrl_secure.errors import (
    ConsistencyError,
    MalformedError,
    MissingEvidenceError,
    NotFoundError,
    VerificationError,
)

if TYPE_CHECKING:
    from sfrl_secure.translog.opened import OpenedCheckpoint
    from sfrl_secure.translog.policy import TrustPolicy


def compare(
    first: Annotated[Path, typer.Argument(help="A checkpoint, as a log or a witness gives it.")],
    second: Annotated[Path, typer.Argument(help="Another one of the same log.")],
    trust_policy: Annotated[Path, typer.Option("--trust-policy", help="The keys of the log and its witnesses.")],
) -> None:
    """Say whether a log signed two histories, from two of its checkpoints: what two witnesses have, for example.

    Exit code 0: nothing contradicts.
    Exit code 1: the log signed two roots for one size: the two files are the evidence, for everybody who has this
    trust policy.
    Exit code 2: a file is not there, or is no checkpoint that the log signed, so that it can say neither.
    """
    from sfrl_secure.audit.fraud_check import rests_on_retired_keys
    from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
    from sfrl_secure.translog.equivocation import check_one_history
    from sfrl_secure.translog.policy import parse_trust_policy

    policy = parse_trust_policy(read_input(trust_policy, TRUST_POLICY_BYTES_MAX, "the trust policy"))
    opened = {path: _open(path, policy) for path in (first, second)}
    for path, each in opened.items():
        size, root = each.checkpoint.size, each.checkpoint.root.hex()
        typer.echo(f"{path}: {size} entries, root {root}, cosigned by {', '.join(each.witness_times) or 'nobody'}")
    one, other = opened[first], opened[second]
    try:
        check_one_history(one.note, other.note, policy)
    except ConsistencyError:
        for path, each in opened.items():
            if rests_on_retired_keys(each, policy):
                raise MissingEvidenceError(
                    f"{path}: an older generation's keys alone vouch for it: whoever has stolen them since can have"
                    " made it, so the two roots prove nothing against the log"
                ) from None
        typer.echo("FALSE: the log signed two roots for one size; the two files are the evidence")
        raise typer.Exit(1) from None
    if one.checkpoint.size == other.checkpoint.size:
        typer.echo("the same history")
    else:
        typer.echo("nothing contradicts; whether the one continues the other, `sfrl audit verify --older` says")


def _open(path: Path, policy: TrustPolicy) -> OpenedCheckpoint:
    """Open one of the two.

    Raises:
        NotFoundError, MalformedError, MissingEvidenceError: it is not there, or proves nothing about the log.
    """
    from sfrl_secure.audit.known_keys import open_kept
    from sfrl_secure.limits import NOTE_BYTES_MAX

    raw = read_input(path, NOTE_BYTES_MAX, "the checkpoint")
    try:
        return open_kept(raw, policy)
    except (MalformedError, NotFoundError) as error:
        raise MalformedError(f"{path}: {error}") from None
    except MissingEvidenceError as error:
        raise MissingEvidenceError(f"{path}: {error}") from None
    except VerificationError as error:
        # Somebody else can have changed it, so it says nothing against the log.
        raise MissingEvidenceError(f"{path}: {error}: this is not what the log signed") from None
