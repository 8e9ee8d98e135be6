"""`sfrl policy root`: the next root, under the thresholds of the one before and its own.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.inputs import read_input
from sfrl_secure.cli.operator_acts import Handling, carry_out
from sfrl_secure.cli.operator_inputs import (
    JsonOption,
    KeysOption,
    OutOption,
    ProfileOption,
    StateLogOption,
    YesOption,
    open_profile,
    open_state,
)
from sfrl_secure.errors import MalformedError

if TYPE_CHECKING:
    from sfrl_secure.crypto.keys import PublicKey

_PUBLIC_KEY_BYTES_MAX = 16 * 1024
_ROLES = ("root", "governance", "enrolment", "revocation")


def root(
    add: Annotated[
        list[str] | None,
        typer.Option("--add", help="NAME=FILE: a new operator, or another key for one; FILE is from `policy key`."),
    ] = None,
    remove: Annotated[list[str] | None, typer.Option("--remove", help="An operator who leaves. Repeatable.")] = None,
    threshold: Annotated[
        list[str] | None,
        typer.Option("--threshold", help="ROLE=N: of root, governance, enrolment or revocation. Repeatable."),
    ] = None,
    days: Annotated[float | None, typer.Option("--days", min=0.001, help="Until it expires, from now.")] = None,
    log: StateLogOption = None,
    profile: ProfileOption = None,
    key: KeysOption = None,
    out: OutOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build the next root of the federation: who its operators are, and how many it takes.

    It needs the threshold `root` of the operators before, and of the operators after. An operator who gets another key
    signs with the old and with the new one. What was signed before and is published after is judged by the new root.

    For example: sfrl policy root --add dora=dora.pub --remove carol --profile operators/alice/profile.toml
    """
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.operating.acts import draft_root

    added = dict(_public_key(each) for each in add or [])
    thresholds = dict(_threshold(each) for each in threshold or [])
    named = open_profile(profile) if profile else None
    state = open_state(log, named)
    request = draft_root(
        state, add=added, remove=remove or [], thresholds=thresholds, days=days, now_us=SystemClock().now_us()
    )
    carry_out(request, state, named, Handling(key or [], out, yes, as_json))


def _public_key(text: str) -> tuple[str, PublicKey]:
    from sfrl_secure.crypto.keys import parse_public_key
    from sfrl_secure.ids import parse_name

    name, separator, path = text.partition("=")
    if not separator:
        raise MalformedError("--add takes NAME=FILE, where FILE is what `sfrl policy key` printed")
    raw = read_input(Path(path), _PUBLIC_KEY_BYTES_MAX, "the public key")
    try:
        values = tomllib.loads(raw.decode("utf-8"))
        return parse_name(name), parse_public_key(values["suite"], bytes.fromhex(values["public_key"]))
    except (ValueError, KeyError, TypeError, MalformedError):
        raise MalformedError(f"{path} is no public key as `sfrl policy key` prints it") from None


def _threshold(text: str) -> tuple[str, int]:
    role, _, number = text.partition("=")
    if role not in _ROLES or not number.isdecimal() or len(number) > 3:
        raise MalformedError(f"--threshold takes ROLE=N, where ROLE is one of {', '.join(_ROLES)}")
    return role, int(number)
