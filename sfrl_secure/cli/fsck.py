"""`sfrl audit fsck`: whether a log's folder is whole.

Runs in: cli.
Trusts: whoever types, and the trust policy that they name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from sfrl_secure.cli.inputs import check_folder, check_published_folder, read_input


def fsck(
    log: Annotated[Path, typer.Argument(metavar="LOG_DIR", help="Folder of the log: `checkpoint` and `tile/`.")],
    trust_policy: Annotated[
        Path, typer.Option("--trust-policy", help="Which log keys, witnesses and quorum count: the root of all trust.")
    ],
    journal: Annotated[
        Path | None,
        typer.Option("--journal", help="The log's own folder, on its machine: journal, last signed note, index."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object on one line of standard output.")] = False,
) -> None:
    """Check every file of a log's folder against the checkpoint that the log signed. Changes nothing.

    Entries, tiles, root, chain and older checkpoints; with --journal also what is not published yet.
    What the entries mean is not asked: see `verify`. Of other people's logs, entries are hashed and not read.

    Exit code 0: sound.
    Exit code 1: something is damaged; the report names the first file and entry.
    Exit code 2: a file is missing, or the trust policy is not this log's, so that it can say neither.
    """
    from rich.console import Console

    from sfrl_secure.audit.fsck import check_log_folder
    from sfrl_secure.cli.progress import Progress
    from sfrl_secure.limits import TRUST_POLICY_BYTES_MAX
    from sfrl_secure.translog.policy import parse_trust_policy

    policy = parse_trust_policy(read_input(trust_policy, TRUST_POLICY_BYTES_MAX, "the trust policy"))
    check_published_folder(log)
    if journal is not None:
        check_folder(journal, "the journal")
    with Progress(Console(stderr=True)) as progress:
        report = check_log_folder(log, policy, progress.tell, journal_dir=journal)
    typer.echo(json.dumps(report.to_json()) if as_json else report.to_text().rstrip("\n"))
    raise typer.Exit(report.exit_code)
