"""`sfrl demo`: the main job on real data, on this machine.

Runs in: cli.
Trusts: whoever types.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Annotated

import typer

DATA_DIR = Path(sys.prefix) / "data"
"""Where `make demo` puts the rocks' wheel."""


def demo(
    folder: Annotated[Path, typer.Option("--dir", help="A new or empty folder; it is left to look at.")],
    data: Annotated[Path, typer.Option(help="Folder of the rock analyses' wheel.")] = DATA_DIR,
    seed: Annotated[int, typer.Option(min=1, help="Of the split, the first model and the training.")] = 1,
    rounds: Annotated[int, typer.Option(min=3, max=200, help="Rounds of learning.")] = 30,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object on standard output.")] = False,
) -> None:
    """Four services, five rovers on real rock analyses, liars among them, and the verifier at the end."""
    from rich.console import Console

    from sfrl_secure.cli.progress import Progress
    from sfrl_secure.errors import MalformedError, MissingEvidenceError

    if importlib.util.find_spec("torch") is None:
        raise MissingEvidenceError("the demo trains: pip install -c constraints.txt 'sfrl-secure[learning]'")
    if folder.exists() and any(folder.iterdir()):
        raise MalformedError("the folder is not empty: the demo makes a federation in a new one")
    from sfrl_secure.demo.run import run_demo

    with Progress(Console(stderr=True)) as progress:
        report = run_demo(folder, data, seed=seed, rounds=rounds, tell=progress.tell)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        report.print_to(Console())
    if not report.holds:
        raise typer.Exit(1)
