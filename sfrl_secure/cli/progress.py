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
        self._task: TaskID | None = None
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
            self._finish_task()
            self._bars.stop()

    def tell(self, what: str, done: int, total: int) -> None:
        """Say that `done` of `total` of `what` is done."""
        if what != self._what:
            self._what = what
            if self._bars is None:
                self._console.print(what, highlight=False)
            else:
                self._finish_task()
                self._task = self._bars.add_task(what, total=total)
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def _finish_task(self) -> None:
        if self._bars is not None and self._task is not None:
            total = next(task.total for task in self._bars.tasks if task.id == self._task)
            self._bars.update(self._task, completed=total)
