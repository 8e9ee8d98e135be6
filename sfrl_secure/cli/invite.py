"""`sfrl invite`: a newcomer is invited under a name, once and for some hours.

The join token is made here and stands in the join file alone: the document that operators sign has its public part.

Runs in: cli.
Trusts: whoever types, and the operator's profile.
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
    StateLogOption,
    YesOption,
    check_free,
    open_profile,
    open_state,
)
from sfrl_secure.errors import DeniedError, MalformedError

if TYPE_CHECKING:
    from sfrl_secure.audit.profile import OperatorProfile
    from sfrl_secure.crypto.secret import SecretBytes
    from sfrl_secure.governance.documents import JoinDocument
    from sfrl_secure.participant.join_file import JoinFile
    from sfrl_secure.rounds.state import FederationState


def invite(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The newcomer's name, a participant's from then on.")],
    groups: Annotated[str, typer.Option("--groups", help="Groups of the record, with commas between; they grant.")],
    clearance: Annotated[int, typer.Option("--clearance", min=0, help="Clearance of the record.")] = 0,
    hours: Annotated[float, typer.Option("--hours", help="How long it can be taken up: above 0, at most 744.")] = 24.0,
    record_days: Annotated[
        float, typer.Option("--record-days", min=0.001, help="How long the record will hold, from now.")
    ] = 365.0,
    join_file: Annotated[
        Path | None, typer.Option("--join-file", help="New file for the newcomer; by default NAME.join.")
    ] = None,
    *,
    profile: Annotated[Path, typer.Option("--profile", help="The operator's profile.toml.")],
    enrol_address: Annotated[
        str | None, typer.Option("--enrol-address", help="Where newcomers enrol, host:port; by default the profile's.")
    ] = None,
    log: StateLogOption = None,
    key: KeysOption = None,
    out: OutOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Invite a newcomer: write its join file, and the document that lets it in.

    The join file holds the join token, which whoever has it can use once: hand it over in person or over a channel that
    is secret. It lets nobody in before the document is published. The newcomer runs `sfrl enrol` with it, and makes its
    keys at home. Nobody else's files change. If the file is lost, or may have been copied: invite the name again, which
    ends the invitation before.

    For example: sfrl invite rover-9 --groups rovers --profile alice/profile.toml --key alice.key --key bob.key
    """
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.operating.acts import draft_invitation
    from sfrl_secure.participant.join_file import generate_token, join_key_of, write_join_file

    named = open_profile(profile)
    path = join_file or Path(f"{name}.join")
    check_free(path, "--join-file")
    address = enrol_address or named.enrol_address
    if address is None:
        raise MalformedError("the profile has no `enrol_address`: say where newcomers enrol, with --enrol-address")
    state = open_state(log, named)
    token = generate_token()
    request = draft_invitation(
        state,
        name,
        join_key_of(token).public_key,
        clearance=clearance,
        groups=[group.strip() for group in groups.split(",") if group.strip()],
        hours=hours,
        record_days=record_days,
        now_us=SystemClock().now_us(),
    )
    invitation = _join_file(state, named, request.document, token, address)  # type: ignore[arg-type] # a join's payload
    # First the file: a published invitation whose token is nowhere would be of no use.
    write_join_file(path, invitation)
    more = {"join_file": str(path), "hand_over": f"to {name} alone, in secret: sfrl enrol {path} --dir DIR"}
    try:
        published = carry_out(request, state, named, Handling(key or [], out, yes, as_json), more=more)
    except (DeniedError, MalformedError):
        # Nothing was published: the token is of no use to anybody.
        path.unlink()
        raise
    if not published:
        typer.echo(f"note: {path} lets nobody in before the invitation is published", err=True)


def _join_file(
    state: FederationState, profile: OperatorProfile, document: JoinDocument, token: SecretBytes, enrol_address: str
) -> JoinFile:
    from sfrl_secure.audit.profile import CERTIFICATES_BYTES_MAX
    from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
    from sfrl_secure.operating.drafting import Ground
    from sfrl_secure.participant.join_file import JoinFile
    from sfrl_secure.storage.files import read_bounded

    placed = Ground(state, 0).succession(("participant", document.name))
    return JoinFile(
        name=document.name,
        trust_domain=profile.trust_domain,
        federation_id=state.federation_id,
        origin=state.origin,
        gatekeepers=profile.gatekeepers,
        enrol_address=enrol_address,
        service_ca=read_bounded(profile.service_ca, CERTIFICATES_BYTES_MAX).decode("ascii", "replace"),
        trust_policy=read_bounded(profile.trust_policy, TRUST_POLICY_BYTES_MAX).decode("utf-8", "replace"),
        token=token,
        expires_us=document.expires_us,
        clearance=document.clearance,
        groups=document.groups,
        record_expires_us=document.record_expires_us,
        record_version=placed["version"],
        record_previous=placed["previous"],
    )
