"""How far a transfer is, for people at a terminal; everybody else reads the result.

Runs in: cli.
Trusts: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

Tell = Callable[[int, int], None]
"""Hears how many bytes are there, and how many there will be."""


@contextmanager
def showing_bytes(what: str, console: Console | None = None) -> Iterator[Tell]:
    """Show a bar on standard error for as long as the `with` statement lasts, from the first bytes on."""
    console = console or Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn(what), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
