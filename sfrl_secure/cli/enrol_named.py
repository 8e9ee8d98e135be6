"""`sfrl enrol --as`: the first certificate of an operator, auditor or service whom governance names.

Runs in: cli.
Trusts: whoever types; the profile or configuration, for where the federation is and whom to trust.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfrl_secure.cli.inputs import check_file
from sfrl_secure.cli.words import time_in_words
from sfrl_secure.errors import MalformedError, NotFoundError

if TYPE_CHECKING:
    from sfrl_secure.audit.profile import OverseerProfile
    from sfrl_secure.participant.first_identity import FirstIdentity

KeyOption = Annotated[
    Path | None, typer.Option("--key", help="With --as operator or auditor: your signing key file; it stays there.")
]
LikeOption = Annotated[
    Path | None,
    typer.Option(
        "--like", metavar="PROFILE", help="With --as operator or auditor: another's profile.toml; it holds no secret."
    ),
]
ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="With --as service: its config.toml, which names all its files.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--enrol-address", help="With --as: where newcomers are taken, host:port; by default --like's."),
]
PolicyOption = Annotated[
    Path | None, typer.Option("--trust-policy", help="With --like: the trust policy, where it lies elsewhere.")
]
CaOption = Annotated[
    Path | None, typer.Option("--service-ca", help="With --like: the CA of the services, where it lies elsewhere.")
]


@dataclass(frozen=True, slots=True)
class NamedOptions:
    """What goes with --as; each is None where it was not given."""

    folder: Path | None = None
    key: Path | None = None
    like: Path | None = None
    config: Path | None = None
    enrol_address: str | None = None
    trust_policy: Path | None = None
    service_ca: Path | None = None


_OVERSEER_NEEDS = ("folder", "key", "like")
_SERVICE_NEEDS = ("config", "enrol_address")
_WORDS = {"folder": "--dir"}


def enrol_named(who: str, given: NamedOptions, *, as_json: bool) -> None:
    """Get the first certificate of `who`, and say what was written and what comes next."""
    role, _, name = who.rpartition("/")
    if role in ("operator", "auditor"):
        _check_given(given, _OVERSEER_NEEDS, (*_OVERSEER_NEEDS, "enrol_address", "trust_policy", "service_ca"), role)
        got, more = _enrol_overseer(role, name, given)
    elif role.startswith("service/"):
        _check_given(given, _SERVICE_NEEDS, _SERVICE_NEEDS, "service")
        got, more = _enrol_service(role.removeprefix("service/"), name, given)
    else:
        raise MalformedError("--as is operator/NAME, auditor/NAME or service/ROLE/NAME; a participant has a join file")
    if as_json:
        said = {"spiffe_id": got.spiffe_id, "identity_index": got.index, "not_after_us": got.not_after_us}
        typer.echo(json.dumps({**said, **more}))
        return
    typer.echo(f"you are    {got.spiffe_id}")
    typer.echo(f"identity   entry {got.index} of the log; good until {time_in_words(got.not_after_us)}")
    for word, text in more.items():
        typer.echo(f"{word:<10} {text}")


def _check_given(given: NamedOptions, needed: tuple[str, ...], known: tuple[str, ...], role: str) -> None:
    for each in fields(given):
        word = _WORDS.get(each.name, "--" + each.name.replace("_", "-"))
        is_there = getattr(given, each.name) is not None
        if each.name in needed and not is_there:
            raise MalformedError(f"--as {role}/... needs {word}")
        if is_there and each.name not in known:
            raise MalformedError(f"--as {role}/... takes no {word}")


def _enrol_overseer(role: str, name: str, given: NamedOptions) -> tuple[FirstIdentity, dict[str, str]]:
    from sfrl_secure.cli.operator_inputs import read_key
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.ids import parse_spiffe_id
    from sfrl_secure.participant.first_identity import PROFILE_NAME, OverseerAsks, enrol_overseer

    assert given.folder is not None, "checked"
    assert given.key is not None, "checked"
    assert given.like is not None, "checked"
    like, address = _read_like(given.like)
    moved = {"trust_policy": given.trust_policy, "service_ca": given.service_ca}
    like = like.model_copy(update={name: path for name, path in moved.items() if path is not None})
    for path, what in ((like.trust_policy, "--trust-policy"), (like.service_ca, "--service-ca")):
        if not path.is_file():
            raise NotFoundError(f"there is no file {path}: copy it from whose profile it is, and name it with {what}")
    address = given.enrol_address or address
    if address is None:
        raise MalformedError(f"{given.like} has no `enrol_address`: say where newcomers enrol, with --enrol-address")
    asks = OverseerAsks(
        spiffe_id=parse_spiffe_id(f"spiffe://{like.trust_domain}/{role}/{name}"),
        key=read_key(given.key),
        key_file=given.key,
        like=like,
        enrol_address=address,
    )
    got = enrol_overseer(asks, given.folder, SystemClock())
    profile = given.folder / PROFILE_NAME
    # Nobody renews for them: they call once in a while.
    renewal = f"before it expires: sfrl renew --profile {profile}"
    doing = "sfrl policy publish, sfrl order, sfrl invite" if role == "operator" else "sfrl audit mirror"
    return got, {"profile": str(profile), "renewal": renewal, "next": f"{doing}: with --profile {profile}"}


def _read_like(path: Path) -> tuple[OverseerProfile, str | None]:
    """Somebody's profile, and where newcomers are taken if it says so."""
    from sfrl_secure.audit.profile import read_auditor_profile, read_operator_profile, role_of_profile

    check_file(path, "the profile of --like")
    if role_of_profile(path) == "auditor":
        return read_auditor_profile(path), None
    profile = read_operator_profile(path)
    return profile, profile.enrol_address


def _enrol_service(role: str, name: str, given: NamedOptions) -> tuple[FirstIdentity, dict[str, str]]:
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.services.config import CONFIGS
    from sfrl_secure.services.first_identity import enrol_service

    assert given.config is not None, "checked"
    assert given.enrol_address is not None, "checked"
    if role not in CONFIGS:
        raise MalformedError(f"--as service/ROLE/NAME: a role is one of {', '.join(CONFIGS)}")
    check_file(given.config, "the configuration")
    got = enrol_service(role, name, given.config, given.enrol_address, SystemClock())
    return got, {"next": f"sfrl serve {role} --config {given.config}"}
