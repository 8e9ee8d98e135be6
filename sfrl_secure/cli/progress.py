"""Progress for people: bars on a terminal, a line a step elsewhere.

Runs in: cli.
Trusts: nothing.
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress


class Progress:
    """Tells how far a long command is. Use it in a `with` statement."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._totals: dict[str, int] = {}
        self._what = ""

    def __enter__(self) -> Progress:
        if self._console.is_terminal:
            self._bars = RichProgress(
                SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
                TimeElapsedColumn(), console=self._console,
            )  # fmt: skip
            self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bars is not None:
            self._finish_step()
            self._bars.stop()

    def tell(self, what: str, done: int, total: int) -> None:
        """Say that `done` of `total` of `what` is done; a `total` of 1 stands for a step without a count."""
        if what != self._what:
            if self._bars is None:
                self._console.print(what, highlight=False)
            else:
                self._finish_step()
                if what not in self._tasks:
                    self._tasks[what] = self._bars.add_task(what, total=total)
            self._what = what
            self._totals[what] = total
        if self._bars is not None:
            self._bars.update(self._tasks[what], completed=done, total=total)

    def _finish_step(self) -> None:
        # A step without a count is done when the next begins; one with a count says so itself.
        if self._bars is not None and self._totals.get(self._what) == 1:
            self._bars.update(self._tasks[self._what], completed=1)
