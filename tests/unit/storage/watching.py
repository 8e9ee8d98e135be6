"""Watchers of system calls: what was called, and calls made to fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sfrl_secure.storage.system import calls_watched_by


class KilledError(Exception):
    """Stands for a process that ends before the call."""


def name_of(subject: Path | int) -> str:
    """The last part of the path that a call changes."""
    return subject.name if isinstance(subject, Path) else Path(os.readlink(f"/proc/self/fd/{subject}")).name


@contextmanager
def recorded() -> Iterator[list[tuple[str, str]]]:
    """Record each call and the file that it changes."""
    calls: list[tuple[str, str]] = []
    with calls_watched_by(lambda call, subject, _: calls.append((call, name_of(subject)))):
        yield calls


@contextmanager
def failing(call: str, number: int) -> Iterator[None]:
    """Make each `call` fail with an errno."""

    def fail(named: str, subject: Path | int, data: memoryview) -> None:
        if named == call:
            raise OSError(number, "made to fail")

    with calls_watched_by(fail):
        yield


class _Stop:
    """Ends the process before its call number `at`, or in the middle of what that one writes."""

    def __init__(self, at: int, *, is_half: bool) -> None:
        self.reached = ""
        self._left = at
        self._is_half = is_half

    def __call__(self, call: str, subject: Path | int, data: memoryview) -> None:
        if self.reached:
            # What tidies up after the stop does not run in a process that has ended.
            raise KilledError
        if self._left == 0:
            self.reached = call
            if self._is_half and isinstance(subject, int):
                os.write(subject, data[:len(data) // 2])
            raise KilledError
        self._left -= 1


def stops_at_each_call(action: Callable[[], None], reset: Callable[[], None]) -> Iterator[str]:
    """Run `action` once for each call that it makes, ended before that call; give the call's name each time.

    A write is ended once before it, and once in its middle.
    """
    at, is_half = 0, False
    while True:
        reset()
        stop = _Stop(at, is_half=is_half)
        with calls_watched_by(stop), suppress(KilledError):
            action()
        if not stop.reached:
            return
        yield stop.reached
        if stop.reached == "write_all" and not is_half:
            is_half = True
        else:
            at, is_half = at + 1, False
