"""`sfrl order`: operators intervene in a segment, by numbered orders that a threshold signs.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.operator_acts import Handling, carry_out
from sfrl_secure.cli.operator_inputs import (
    JsonOption,
    KeysOption,
    OutOption,
    ProfileOption,
    ReasonOption,
    StateLogOption,
    YesOption,
    check_one,
    open_profile,
    open_state,
)
from sfrl_secure.errors import MalformedError
from sfrl_secure.operating.acceptable import ACCEPTABLE, check_acceptable

if TYPE_CHECKING:
    from sfrl_secure.audit.profile import OperatorProfile
    from sfrl_secure.governance.orders import OrderAction, OrderTarget
    from sfrl_secure.ids import Digest
    from sfrl_secure.rounds.state import FederationState

app = typer.Typer(
    help="Intervene in a segment. To derive published rounds again, see `sfrl round reaggregate`.\n\n"
    "Without --key an order is written as a signing request, for `sfrl policy sign` and `publish`. With the keys that "
    "it takes and --profile it is signed and published at once. A halt takes the threshold `revocation`, every other "
    "order `governance`.",
    no_args_is_help=True,
)

SegmentArgument = Annotated[str, typer.Argument(metavar="SEGMENT", help="Name of the segment.")]
HoursOption = Annotated[
    float, typer.Option("--hours", help="How long it may be logged, above 0, at most 72; its effect does not expire.")
]


@app.command()
def halt(
    segment: SegmentArgument,
    reason: ReasonOption = "",
    hours: HoursOption = 24.0,
    log: StateLogOption = None,
    profile: ProfileOption = None,
    key: KeysOption = None,
    out: OutOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Halt a segment: no round opens, no update is admitted and no model published until it is resumed."""
    from sfrl_secure.governance.orders import NoTarget, OrderAction

    state, named = read_state(log, profile)
    handling = Handling(key or [], out, yes, as_json)
    give_order(state, named, segment, OrderAction.HALT, NoTarget(), reason=reason, hours=hours, handling=handling)


@app.command()
def resume(
    segment: SegmentArgument,
    reason: ReasonOption = "",
    hours: HoursOption = 24.0,
    log: StateLogOption = None,
    profile: ProfileOption = None,
    key: KeysOption = None,
    out: OutOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let a halted segment go on."""
    from sfrl_secure.governance.orders import NoTarget, OrderAction

    state, named = read_state(log, profile)
    handling = Handling(key or [], out, yes, as_json)
    give_order(state, named, segment, OrderAction.RESUME, NoTarget(), reason=reason, hours=hours, handling=handling)


@app.command()
def exclude(
    segment: SegmentArgument,
    round_number: Annotated[int | None, typer.Option("--round", min=1, help="The round of the update.")] = None,
    participant: Annotated[str | None, typer.Option("--participant", help="Whose update in that round.")] = None,
    update: Annotated[str | None, typer.Option("--update", help="Or its statement digest, in hexadecimal.")] = None,
    reason: ReasonOption = "",
    hours: HoursOption = 24.0,
    log: StateLogOption = None,
    profile: ProfileOption = None,
    key: KeysOption = None,
    out: OutOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Exclude an update that was admitted.

    An open round drops it at its close. A round that is closed stays as it was until it is derived again: see
    `sfrl round reaggregate`.

    For example: sfrl order exclude rocks --round 7 --participant rover-2 --profile operators/alice/profile.toml
    """
    from sfrl_secure.governance.orders import ExcludeTarget, OrderAction
    from sfrl_secure.operating.acts import update_to_exclude

    placed = round_number is not None or participant is not None
    check_one("which update", placed, update is not None, "--round N --participant NAME, or --update DIGEST")
    if placed and (round_number is None or participant is None):
        raise MalformedError("an update is of one round and one participant: --round N --participant NAME")
    state, named = read_state(log, profile)
    if update is not None:
        target = ExcludeTarget(_digest(update, "--update"))
    else:
        assert round_number is not None, "checked above"
        assert participant is not None, "checked above"
        target = update_to_exclude(state, segment, round_number, participant)
    handling = Handling(key or [], out, yes, as_json)
    give_order(state, named, segment, OrderAction.EXCLUDE, target, reason=reason, hours=hours, handling=handling)


@app.command()
def rollback(
    segment: SegmentArgument,
    round_number: Annotated[
        int | None, typer.Option("--round", min=0, help="Back to the model of this round; 0 is the initial model.")
    ] = None,
    model: Annotated[str | None, typer.Option("--model", help="Or the model's digest, in hexadecimal.")] = None,
    reason: ReasonOption = "",
    hours: HoursOption = 24.0,
    log: StateLogOption = None,
    profile: ProfileOption = None,
    key: KeysOption = None,
    out: OutOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go back to an earlier model: the rounds after it lead nowhere any more, and an open round is ended.

    See `sfrl segment show` for the rounds that led to the newest model.
    """
    from sfrl_secure.governance.orders import OrderAction, RollbackTarget
    from sfrl_secure.operating.acts import model_to_roll_back_to

    check_one("which model", round_number is not None, model is not None, "--round N or --model DIGEST")
    state, named = read_state(log, profile)
    target = (
        model_to_roll_back_to(state, segment, round_number) if round_number is not None
        else RollbackTarget(_digest(model or "", "--model"))
    )  # fmt: skip
    handling = Handling(key or [], out, yes, as_json)
    give_order(state, named, segment, OrderAction.ROLLBACK, target, reason=reason, hours=hours, handling=handling)


@app.command(
    help="Accept a finding of `sfrl audit verify`: it is reported from then on, and makes nothing false.\n\n"
    "`sfrl audit verify` names the entry and the code of each finding, and says of an order that names none: no such "
    "finding. Findings of a void entry, a defective admission, a false refusal, an overdue round or of censorship can "
    f"be accepted, and no others.\n\nThe codes: {', '.join(ACCEPTABLE)}."
)
def accept(
    segment: SegmentArgument,
    index: Annotated[int, typer.Option("--index", min=0, help="The entry of the finding, as the verifier names it.")],
    code: Annotated[str, typer.Option("--code", help="The finding's code, as the verifier names it.")],
    reason: ReasonOption = "",
    hours: HoursOption = 24.0,
    log: StateLogOption = None,
    profile: ProfileOption = None,
    key: KeysOption = None,
    out: OutOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Accept a finding of `sfrl audit verify`."""
    from sfrl_secure.governance.orders import AcceptTarget, OrderAction

    check_acceptable(code)

    state, named = read_state(log, profile)
    target, handling = AcceptTarget(index, code), Handling(key or [], out, yes, as_json)
    give_order(state, named, segment, OrderAction.ACCEPT, target, reason=reason, hours=hours, handling=handling)


@app.command()
def override(
    segment: SegmentArgument,
    decided_class: Annotated[int, typer.Option("--class", min=0, help="The class that is right.")],
    index: Annotated[int | None, typer.Option("--index", min=0, help="The entry of the decision.")] = None,
    decision: Annotated[str | None, typer.Option("--decision", help="Or its statement digest, in hexadecimal.")] = None,
    reason: ReasonOption = "",
    hours: HoursOption = 24.0,
    log: StateLogOption = None,
    profile: ProfileOption = None,
    key: KeysOption = None,
    out: OutOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Override a decision that a participant has put on record: its class becomes another, once."""
    from sfrl_secure.governance.orders import OrderAction, OverrideTarget
    from sfrl_secure.operating.acts import decision_at

    check_one("which decision", index is not None, decision is not None, "--index N or --decision DIGEST")
    state, named = read_state(log, profile)
    digest = _digest(decision, "--decision") if decision is not None else decision_at(state, segment, index or 0)
    target, handling = OverrideTarget(digest, decided_class), Handling(key or [], out, yes, as_json)
    give_order(state, named, segment, OrderAction.OVERRIDE, target, reason=reason, hours=hours, handling=handling)


def read_state(log: Path | None, profile: Path | None) -> tuple[FederationState, OperatorProfile | None]:
    """Read what is in force, and the profile where there is one."""
    named = open_profile(profile) if profile else None
    return open_state(log, named), named


def give_order(
    state: FederationState,
    named: OperatorProfile | None,
    segment: str,
    action: OrderAction,
    target: OrderTarget,
    *,
    reason: str,
    hours: float,
    handling: Handling,
) -> None:
    """Build an order, and write, sign or publish it."""
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.operating.acts import draft_order

    now_us = SystemClock().now_us()
    request = draft_order(state, segment, action, target, reason=reason, hours=hours, now_us=now_us)
    carry_out(request, state, named, handling)


def _digest(text: str, option: str) -> Digest:
    from sfrl_secure.ids import parse_hex_digest

    try:
        return parse_hex_digest(text)
    except MalformedError:
        raise MalformedError(f"{option} takes 64 lower-case hexadecimal digits") from None
