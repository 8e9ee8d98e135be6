"""`sfrl enrol` and `sfrl renew`: how somebody gets a TLS identity, and the next one.

Runs in: cli.
Trusts: whoever types, and the join file that an operator handed over.
"""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.enrol_named import (
    AddressOption,
    CaOption,
    ConfigOption,
    KeyOption,
    LikeOption,
    NamedOptions,
    PolicyOption,
    enrol_named,
)
from sfrl_secure.cli.inputs import check_file, naming
from sfrl_secure.cli.words import time_in_words
from sfrl_secure.errors import MalformedError, NotFoundError

if TYPE_CHECKING:
    from sfrl_secure.participant.join_file import JoinFile
    from sfrl_secure.participant.renewal import RenewableProfile

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(app: typer.Typer) -> None:
    """Add `enrol` and `renew` to the command line."""
    app.command("enrol")(enrol)
    app.command("renew")(renew)


def enrol(
    join_file: Annotated[
        Path | None, typer.Argument(metavar="JOINFILE", help="The join file that an operator gave you.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--dir", help="A new folder for keys, certificate and profile. Keep it to yourself.")
    ] = None,
    suite: Annotated[
        str | None,
        typer.Option("--suite", help="Of a participant's new signing key: ed25519, or ed25519+ml-dsa-44."),
    ] = None,
    who: Annotated[
        str | None,
        typer.Option("--as", help="operator/NAME, auditor/NAME or service/ROLE/NAME, as governance names you."),
    ] = None,
    key: KeyOption = None,
    like: LikeOption = None,
    config: ConfigOption = None,
    enrol_address: AddressOption = None,
    trust_policy: PolicyOption = None,
    service_ca: CaOption = None,
    as_json: JsonOption = False,
) -> None:
    """Join a federation: make your keys here, and get your first certificate; a participant is recorded in its log.

    A participant joins with JOINFILE, the join file of `sfrl invite`, and --dir. It can be taken up once, and not by
    another key after that. An operator, auditor or service needs none: its signing key stands in root or the services
    document, and --as says who it is. It gets a first certificate for one TLS key, and renews that one from then on.

    Your private keys never leave your machine. If anything interrupts it, run the same command again: it goes on with
    the same keys.

    For example: sfrl enrol rover-4.join --dir rover-4

    Or: sfrl enrol --as operator/dora --key dora.key --like alice/profile.toml --dir dora

    Or: sfrl enrol --as service/gatekeeper/g2 --config g2/config.toml --enrol-address HOST:PORT
    """
    given = NamedOptions(folder, key, like, config, enrol_address, trust_policy, service_ca)
    if (join_file is None) == (who is None):
        raise MalformedError(
            "say who joins: JOINFILE for a participant, which an operator makes with `sfrl invite`; or --as for an "
            "operator, auditor or service whom root or the services document names"
        )
    if who is not None:
        if suite is not None:
            raise MalformedError("--suite is of a key that is made; with --as the signing key is there already")
        enrol_named(who, given, as_json=as_json)
        return
    assert join_file is not None, "one of the two was given"
    if folder is None or given != NamedOptions(folder=folder):
        raise MalformedError("with JOINFILE there is --dir, and nothing of what goes with --as: the file says the rest")
    _enrol_invited(join_file, folder, suite or "ed25519", as_json=as_json)


def _enrol_invited(join_file: Path, folder: Path, suite: str, *, as_json: bool) -> None:
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.crypto.keys import PUBLIC_BYTES
    from sfrl_secure.participant import enrol as joining
    from sfrl_secure.participant.join_file import read_join_file

    if suite not in PUBLIC_BYTES:
        raise MalformedError(f"--suite is one of {', '.join(PUBLIC_BYTES)}")
    with naming(join_file):
        join = read_join_file(join_file)
    profile = _profile_of(join, folder)
    if profile is not None:
        if as_json:
            typer.echo(json.dumps({"profile": str(profile.absolute()), "spiffe_id": join.spiffe_id, "enrolled": True}))
            return
        typer.echo(f"you are enrolled already as {join.spiffe_id}, with this join file: nothing to do")
        typer.echo(f"profile    {profile}")
        return
    if not as_json:
        groups = ", ".join(sorted(join.groups)) or "no group"
        typer.echo(f"federation {join.federation_id.hex()}")
        typer.echo(f"log        {join.origin}")
        typer.echo(f"you are    {join.spiffe_id}, in {groups}, clearance {join.clearance}")
    enrolled = joining.enrol(join, folder, SystemClock(), suite=suite)
    if as_json:
        said = {
            "profile": str(enrolled.profile.absolute()),
            "spiffe_id": enrolled.spiffe_id,
            "record_index": enrolled.record_index,
            "identity_index": enrolled.identity_index,
            "not_after_us": enrolled.not_after_us,
        }
        typer.echo(json.dumps(said))
        return
    typer.echo(f"recorded   entry {enrolled.record_index} of the log is your record, under the log's signature")
    typer.echo(f"identity   entry {enrolled.identity_index}; good until {time_in_words(enrolled.not_after_us)}, and")
    typer.echo("           renewed by itself while you take part (`sfrl renew` does it by hand)")
    typer.echo(f"profile    {enrolled.profile}")
    typer.echo(f"join file  {join_file} is used up. It is yours and was left where it is: delete it.")
    typer.echo(f"next       sfrl fetch --profile {enrolled.profile} --segment NAME --out model.npz")


def _profile_of(join: JoinFile, folder: Path) -> Path | None:
    """The profile of whoever took up this very invitation into this folder; None where nobody did."""
    from sfrl_secure.crypto.envelope import parse_envelope_json
    from sfrl_secure.participant.enrol import PROFILE_NAME, RECORD_NAME
    from sfrl_secure.participant.profile import PROFILE_BYTES_MAX, read_profile
    from sfrl_secure.storage.files import read_bounded

    profile = folder / PROFILE_NAME
    try:
        record = parse_envelope_json(read_bounded(folder / RECORD_NAME, 2 * PROFILE_BYTES_MAX))
        named = read_profile(profile)
    except (NotFoundError, MalformedError):
        return None
    # The profile comes last of all files, and the record has one signature, by the token of its invitation.
    is_this = [each.key_id for each in record.signatures] == [join.join_key.public_key.key_id]
    return profile if is_this and named.spiffe_id == join.spiffe_id else None


def renew(
    profile: Annotated[
        Path, typer.Option("--profile", help="The profile.toml of a participant, an operator or an auditor.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Get your next certificate now, over the one that you have.

    Whoever takes part needs this rarely: a running participant renews when half of its certificate's life is over. An
    operator or auditor who calls once in a while runs it before the certificate expires. One that has expired cannot be
    renewed.
    """
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.participant.renewal import open_renewal_channel, renew_now

    opened = _open_profile(profile)
    with closing(open_renewal_channel(opened)) as channel:
        renewed = renew_now(opened, channel, SystemClock())
    if as_json:
        typer.echo(json.dumps({"spiffe_id": renewed.spiffe_id, "not_after_us": renewed.not_after_us}))
        return
    typer.echo(f"renewed {renewed.spiffe_id}, good until {time_in_words(renewed.not_after_us)}")


def _open_profile(path: Path) -> RenewableProfile:
    from sfrl_secure.audit.profile import read_auditor_profile, read_operator_profile, role_of_profile
    from sfrl_secure.participant.profile import read_profile

    check_file(path, "the profile")
    role = role_of_profile(path)
    if role == "participant":
        return read_profile(path)
    return read_operator_profile(path) if role == "operator" else read_auditor_profile(path)
