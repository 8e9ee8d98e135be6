"""`sfrl audit mirror`: copy a log and its objects to an auditor's own machine, proven on the way.

Runs in: cli.
Trusts: the profile. Nothing that a service says is kept before it is proven: see `audit.mirror`.
"""

from __future__ import annotations

import json
import shlex
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from sfrl_secure.audit.mirror import MirroredLog, Progress
    from sfrl_secure.audit.mirror_objects import MirroredObjects
    from sfrl_secure.audit.profile import AuditorProfile


def mirror(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the mirror; made where it is missing.")],
    profile: Annotated[Path, typer.Option("--profile", help="The auditor's profile.toml.")],
    check: Annotated[
        bool, typer.Option("--check", help="Read every object of the copy again, and fetch the damaged ones.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Copy the log and its objects, or bring a copy up to date; then `verify` DIR/log with DIR/objects, offline.

    DIR is new, empty or a mirror. Objects that the copy lost are fetched again. Those that are there are not read
    again: `--check` does it, and to have one fetched again, delete it.

    Exit code 0: the copy is the log under its newest witnessed checkpoint. Objects that the store does not have are
    counted: whether they ought to be there, `verify` says.
    Exit code 1: what the log gave does not hold, and the copy stays; if log and witnesses signed it, DIR/evidence
    has its checkpoint and the copy's. Or the copy is damaged. Or the store gave objects that are not what their names
    say: none of them is kept.
    Exit code 2: wrong use; or the log does not show or give everything that it has signed for, or signs with other keys
    than the trust policy's newest.
    Exit code 4: a service does not answer; the next run goes on from there.
    """
    from rich.console import Console

    from sfrl_secure.cli.progress import Progress

    named = open_profile(profile)
    with Progress(Console(stderr=True)) as progress:
        log, objects = copy_log(folder, named, progress.tell, check=check)
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
        policy = str(named.trust_policy.resolve())
        places = ["--log", said["log"], "--objects", said["objects"], "--trust-policy", policy]
        typer.echo(f"next: {shlex.join(['sfrl', 'audit', 'verify', *places])}")
    raise typer.Exit(1 if objects.altered else 0)


def open_profile(path: Path) -> AuditorProfile:
    """Read an auditor's profile whose files are there.

    Raises:
        NotFoundError, MalformedError: it is not there, one of its files is not, or it is no auditor's profile.
    """
    from sfrl_secure.audit.profile import read_auditor_profile
    from sfrl_secure.cli.inputs import check_file

    check_file(path, "the profile")
    named = read_auditor_profile(path)
    for each in (named.certificate, named.tls_key, named.service_ca, named.signing_key, named.trust_policy):
        check_file(each, f"a file that the profile {path} names")
    return named


def copy_log(
    folder: Path, named: AuditorProfile, tell: Progress, *, check: bool = False
) -> tuple[MirroredLog, MirroredObjects]:
    """Bring the mirror in `folder` up to date, as a profile says.

    Args:
        check: whether objects that are there are read again.

    Raises:
        MalformedError: the folder is none for a mirror, or another process works on it.
        SfrlError: as `LogMirror.update` and `ObjectMirror.update`.
    """
    from sfrl_secure.audit.mirror import LogMirror
    from sfrl_secure.audit.mirror_folder import LOG_FOLDER, check_is_mirror
    from sfrl_secure.audit.mirror_objects import ObjectMirror
    from sfrl_secure.audit.object_signing import ObjectSigning, federation_of_log
    from sfrl_secure.audit.remote_log import RemoteLog, RemoteObjects
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.errors import MalformedError, UncertainStateError
    from sfrl_secure.participant.gatekeepers import FailoverChannel
    from sfrl_secure.rpc.channel import RpcChannel
    from sfrl_secure.rpc.clients import AuditLogClient, GatekeeperClient
    from sfrl_secure.storage.files import FolderLock, make_folder

    check_is_mirror(folder)
    log_mirror, tls, key = LogMirror(folder, named.open_trust_policy()), named.open_tls(), named.open_signing_key()
    with ExitStack() as opened:
        try:
            make_folder(folder)
            opened.enter_context(FolderLock(folder))
        except UncertainStateError:
            raise MalformedError(f"the folder {folder} cannot be made, or not written to") from None

        def channel(address: str, role: str) -> RpcChannel:
            made = RpcChannel(address, role=role, trust_domain=named.trust_domain, tls=tls)
            return opened.enter_context(made)

        client = AuditLogClient(channel(named.audit_log, "audit_log"))
        log = RemoteLog(client, named.audit_log, named.public_log)
        mirrored = log_mirror.update(log, tell)
        gatekeepers = FailoverChannel([channel(address, "gatekeeper") for address in named.gatekeepers])
        federation_id = federation_of_log(folder / LOG_FOLDER, mirrored.checkpoint.size, mirrored.checkpoint.origin)
        signing = ObjectSigning(federation_id, named.spiffe_id, key, SystemClock())
        supply = RemoteObjects(GatekeeperClient(gatekeepers), named.gatekeepers, signing.sign)
        objects = ObjectMirror(folder).update(mirrored.checkpoint.size, supply, tell, reread=check)
    return mirrored, objects
