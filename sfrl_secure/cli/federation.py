"""`sfrl init` and `sfrl up`: a new federation, and all its services on this machine.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer

from sfrl_secure.cli.inputs import naming, read_input
from sfrl_secure.errors import DeniedError, UnavailableError

_LOOK_SECONDS = 0.5


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new or empty folder.")],
    plan: Annotated[Path | None, typer.Option(help="The plan, in TOML; without it a small one to try things.")] = None,
) -> None:
    """Make a new federation: keys, certificates, signed documents, the log, configurations."""
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.services.federation.create import create_federation
    from sfrl_secure.services.federation.masks import open_masks, read_masks
    from sfrl_secure.services.federation.plan import PLAN_BYTES_MAX, default_plan, parse_plan
    from sfrl_secure.services.federation.plan_cautions import plan_cautions
    from sfrl_secure.services.federation.plan_checks import check_plan

    chosen, masks, opened = default_plan(), {}, {}
    if plan is not None:
        raw = read_input(plan, PLAN_BYTES_MAX, "the plan")
        with naming(plan):
            chosen = parse_plan(raw)
            check_plan(chosen)
        masks = read_masks(chosen, plan.parent)
        with naming(plan):
            opened = open_masks(chosen, masks)  # they are opened again as the federation is made
    made = create_federation(folder, chosen, SystemClock(), masks=masks)
    typer.echo(f"federation {made.federation_id.hex()}")
    typer.echo(f"log        {made.origin}, {made.log_size} entries to begin with")
    typer.echo(f"trust      {made.folder.trust_policy}  (give this file to whoever verifies)")
    for segment, words in plan_cautions(chosen, opened):
        typer.echo(f"CAUTION    segment {segment}: {words}")
    typer.echo(f"next       sfrl up {folder}")


def reissue(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A federation's folder, which is not running.")],
) -> None:
    """Give new certificates to a federation that was switched off for longer than they live.

    Stop its services first: a running federation renews its own, and needs none of this. Participants, operators and
    auditors whose folders lie in it get theirs too; whoever was revoked or removed is left out, and named.
    """
    import logging

    import structlog

    from sfrl_secure.clock import SystemClock
    from sfrl_secure.services.federation.folder import FederationFolder
    from sfrl_secure.services.federation.reissue import reissue as run

    # The log runs in this process, and tells what it does as if it ran alone.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    renewed = run(
        FederationFolder(folder), SystemClock(), lambda who, why: typer.echo(f"left out {who}: {why}", err=True)
    )
    for each in renewed:
        typer.echo(f"renewed {each}")
    typer.echo(f"next    sfrl up {folder}" if renewed else "nobody here needs a new certificate")


def up(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A federation's folder, from `sfrl init`.")],
) -> None:
    """Run all four services of a federation until SIGTERM or Ctrl-C."""
    from sfrl_secure.clock import SystemClock
    from sfrl_secure.services.federation.folder import FederationFolder
    from sfrl_secure.services.federation.reissue import expired_services
    from sfrl_secure.services.federation.supervise import Supervisor

    expired = expired_services(FederationFolder(folder), SystemClock())
    if expired:
        raise DeniedError(
            "certificate",
            f"the certificates of {len(expired)} services have expired while they were off, {expired[0]} among them: "
            f"sfrl reissue {folder}",
        )
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: ending.set())
    supervisor = Supervisor(FederationFolder(folder))
    supervisor.start()
    try:
        for service in supervisor.services:
            typer.echo(f"ready {service.role:<10} {service.name}")
        while not ending.wait(_LOOK_SECONDS):
            dead = supervisor.dead()
            if dead:
                raise UnavailableError(f"{dead[0].role} {dead[0].name} has ended: see {dead[0].log_path}")
    finally:
        supervisor.stop()
