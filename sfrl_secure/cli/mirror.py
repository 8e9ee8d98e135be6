"""`sfrl audit mirror`: copy a log and its objects to an auditor's own machine, proven on the way.

Runs in: cli.
Trusts: the profile. Nothing that a service says is kept before it is proven: see `audit.mirror`.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sfrl_secure.audit.mirror import MirroredLog, Progress
    from sfrl_secure.audit.mirror_objects import MirroredObjects


def mirror(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the mirror; made where it is missing.")],
    profile: Annotated[Path, typer.Option("--profile", help="The auditor's profile.toml.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Copy the log and its objects, or bring a copy up to date; then `verify` DIR/log with DIR/objects, offline.

    Exit code 0: the copy is the log under its newest witnessed checkpoint. Objects that the store does not have are
    counted: whether they ought to be there, `verify` says.
    Exit code 1: what the log gave does not hold; the copy is as it was, and DIR/evidence has both checkpoints. Or the
    store gave objects that are not what their names say: none of them is kept.
    Exit code 2: the log does not show or give everything that it has signed for.
    """
    from rich.console import Console

    from sfrl_secure.cli.progress import Progress

    with Progress(Console(stderr=True)) as progress:
        log, objects = copy_log(folder, profile, progress.tell)
    said: dict[str, Any] = {
        "log_size": log.checkpoint.size,
        "root": log.checkpoint.root.hex(),
        "new_entries": log.checkpoint.size - log.held_size,
        "new_objects": objects.fetched,
        "missing_objects": len(objects.missing),
        "altered_objects": sorted(digest.hex() for digest in objects.altered),
        "log": str((folder / "log").absolute()),
        "objects": str((folder / "objects").absolute()),
    }
    if as_json:
        typer.echo(json.dumps(said))
    else:
        for key, value in said.items():
            typer.echo(f"{key}: {', '.join(value) or 'none' if isinstance(value, list) else value}")
    raise typer.Exit(1 if objects.altered else 0)


def copy_log(folder: Path, profile: Path, tell: Progress) -> tuple[MirroredLog, MirroredObjects]:
    """Bring the mirror in `folder` up to date, as a profile says.

    Raises:
        UncertainStateError: another process works on the folder.
        SfrlError: as `LogMirror.update` and `ObjectMirror.update`.
    """
    from sfrl_secure.audit.mirror import LogMirror
    from sfrl_secure.audit.mirror_objects import ObjectMirror
    from sfrl_secure.audit.profile import read_auditor_profile
    from sfrl_secure.audit.remote_log import RemoteLog, RemoteObjects
    from sfrl_secure.cli.inputs import check_file
    from sfrl_secure.participant.gatekeepers import FailoverChannel
    from sfrl_secure.rpc.channel import RpcChannel
    from sfrl_secure.rpc.clients import AuditLogClient, GatekeeperClient
    from sfrl_secure.storage.files import FolderLock, make_folder

    check_file(profile, "the profile")
    named = read_auditor_profile(profile)
    for path in (named.certificate, named.tls_key, named.service_ca, named.trust_policy):
        check_file(path, f"a file that the profile {profile} names")
    log_mirror, tls = LogMirror(folder, named.open_trust_policy()), named.open_tls()
    with ExitStack() as opened:
        make_folder(folder)
        opened.enter_context(FolderLock(folder))

        def channel(address: str, role: str) -> RpcChannel:
            made = RpcChannel(address, role=role, trust_domain=named.trust_domain, tls=tls)
            return opened.enter_context(made)

        log = RemoteLog(AuditLogClient(channel(named.audit_log, "audit_log")), named.public_log)
        mirrored = log_mirror.update(log, tell)
        gatekeepers = FailoverChannel([channel(address, "gatekeeper") for address in named.gatekeepers])
        supply = RemoteObjects(GatekeeperClient(gatekeepers))
        objects = ObjectMirror(folder).update(mirrored.checkpoint.size, supply, tell)
    return mirrored, objects
