"""`sfrl round reaggregate`: derive published rounds again, without what was excluded or whose sender was revoked.

Before it is ordered, the command says what the difference between the models gives away, and has it said back.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from sfrl_secure.cli.operator_acts import Handling
from sfrl_secure.cli.operator_inputs import (
    JsonOption,
    KeysOption,
    OutOption,
    ProfileOption,
    ReasonOption,
    StateLogOption,
    YesOption,
)
from sfrl_secure.cli.order import HoursOption, SegmentArgument, give_order, read_state
from sfrl_secure.errors import DeniedError, MalformedError, NotFoundError, RoundStateError


def reaggregate(
    segment: SegmentArgument,
    from_round: Annotated[int, typer.Option("--from", min=1, help="The first round to derive again.")],
    reveals: Annotated[
        str | None,
        typer.Option("--reveals", help="Names, with commas between: agree that their updates are given away; or none."),
    ] = None,
    reason: ReasonOption = "",
    hours: HoursOption = 24.0,
    log: StateLogOption = None,
    profile: ProfileOption = None,
    key: KeysOption = None,
    out: OutOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Order that the models from a round on are derived again, without excluded updates and revoked participants.

    Who could fetch a round's model before and fetches the new one has both. Where few updates fall out, the difference
    between the two gives away what those few sent: their names are shown, and have to be typed back, or given with
    --reveals. An open round is ended by it.

    For example: sfrl round reaggregate rocks --from 7 --profile operators/alice/profile.toml
    """
    from sfrl_secure.governance.orders import OrderAction, ReaggregateTarget
    from sfrl_secure.operating.acts import segment_of
    from sfrl_secure.rounds.reaggregation import left_out_by, may_begin_at, reveals_of

    state, named = read_state(log, profile)
    found = segment_of(state, segment)
    if not may_begin_at(found, from_round):
        steps = ", ".join(str(step.round) for step in found.lineage) or "none"
        due = f", and what is derived again begins with round {found.due[0]}" if found.due else ""
        raise NotFoundError(f"no such round led to the newest model; those did: {steps}{due}")
    newly = left_out_by(state, found, from_round)
    if not newly:
        raise RoundStateError(
            "nothing_left_out",
            f"from round {from_round} on nothing would change: no update is newly excluded and nobody newly revoked "
            "(`sfrl order exclude`, `sfrl revoke`)",
        )
    betrayed = reveals_of(found, newly)
    for number, names in sorted(newly.items()):
        typer.echo(f"round {number} is derived again without {', '.join(sorted(names))}", err=True)
    typer.echo(_warning(betrayed), err=True)
    _agree(betrayed, reveals)
    target, handling = ReaggregateTarget(from_round, betrayed), Handling(key or [], out, yes, as_json)
    give_order(state, named, segment, OrderAction.REAGGREGATE, target, reason=reason, hours=hours, handling=handling)


def _warning(betrayed: tuple[str, ...]) -> str:
    if not betrayed:
        return "REVEALS: nobody; in each round as many fall out together as make a cohort, or none"
    return (
        f"REVEALS: {', '.join(betrayed)}; whoever holds a round's model as it was and as it will be can compute what "
        "they sent, as a sum over those who fall out of the round"
    )


def _agree(betrayed: tuple[str, ...], said: str | None) -> None:
    """Have the names said back.

    Raises:
        MalformedError: there is nobody to ask, or other names were given.
        DeniedError: `declined`, other names were typed.
    """
    wanted = ",".join(betrayed)
    if said is not None:
        if _names(said) != betrayed:
            raise MalformedError(f"it reveals others than --reveals says: agree with --reveals {wanted or 'none'}")
        return
    if not betrayed:
        return
    if not sys.stdin.isatty():
        raise MalformedError(f"there is no terminal to ask on: agree with --reveals {wanted}")
    if _names(typer.prompt(f"Type {wanted} to agree", err=True)) != betrayed:
        raise DeniedError("declined", "nothing was ordered")


def _names(text: str) -> tuple[str, ...]:
    listed = sorted(name.strip() for name in text.split(",") if name.strip())
    return () if listed == ["none"] else tuple(listed)
